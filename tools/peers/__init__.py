# SPDX-License-Identifier: Apache-2.0
"""Times other libraries on the rows' problems; see __main__.py."""
