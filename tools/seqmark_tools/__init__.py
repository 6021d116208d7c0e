# SPDX-License-Identifier: Apache-2.0
"""What tools/seqmark runs: commands over result files."""
