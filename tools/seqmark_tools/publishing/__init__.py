# SPDX-License-Identifier: Apache-2.0
"""Numbers that papers published, as result files.

sources  what each file is of: figure, machine, method, known faults
rows     a table of the artifact as rows
"""
