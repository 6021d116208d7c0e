# SPDX-License-Identifier: Apache-2.0
"""The figures of the two papers, from our rows and beside the published values."""
