# SPDX-License-Identifier: Apache-2.0
"""Every night's rows by machine, their change points and what happened to the machine."""

from seqmark_tools.history.facts import Event
from seqmark_tools.history.series import ChangePoint, Series, all_series, series

__all__ = ["ChangePoint", "Event", "Series", "all_series", "series"]
