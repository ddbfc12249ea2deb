"""Checking data sets: `check_data` lists what is wrong, `draw_sheet` shows it."""

from leanpose.data.checks.check import check_data
from leanpose.data.checks.findings import KINDS, CheckedSet, CheckReport, Finding, Level
from leanpose.data.checks.sheet import draw_sheet
from leanpose.data.checks.swaps import swapped_pairs

__all__ = ["KINDS", "CheckReport", "CheckedSet", "Finding", "Level", "check_data", "draw_sheet", "swapped_pairs"]
