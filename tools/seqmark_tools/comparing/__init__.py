# SPDX-License-Identifier: Apache-2.0
"""What `tools/seqmark compare` is made of.

metrics   what can be compared, and which direction is better
evidence  how sure a difference is: p-values and intervals
sides     what is set against what: files, providers, devices
lines     both together: every row compared, with a verdict
tables    the outcome for people; document: for programs
processes  runs a program once
interleave  runs two binaries by turns until the difference is decided
"""
