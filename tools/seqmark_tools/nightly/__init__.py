# SPDX-License-Identifier: Apache-2.0
"""A night: rows are run, kept, judged and reported."""
