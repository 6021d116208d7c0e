# SPDX-License-Identifier: Apache-2.0
"""What `tools/seqmark trial` is made of: proofs of what METHOD.md says of a number.

collect  runs the programs of a trial, for its raw files
ab       A/A and A/B: what compare calls changed, where the truth is known
times    a row's time against CUPTI's and NVBench's of the same kernels
energy   a row's energy from process to process, and against sampled power
noise    the noise of each row, within a process and between processes
copies   rows that memory limits beside a copy of the same bytes
memory   what rows count as their memory against the driver, by provider
verify   how rows were verified, by provider
groups   what tables by provider have in common
outcome  what all of them have in common: a table, a document
"""
