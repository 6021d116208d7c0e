# SPDX-License-Identifier: Apache-2.0
"""Draws result files as one page: figures, findings in words and a table of every row."""
