"""Checking data sets: `check_data` lists what is wrong, `draw_contact_sheet` shows it."""

from leanpose.data_checks.check import check_data
from leanpose.data_checks.contact_sheet import draw_contact_sheet
from leanpose.data_checks.findings import KINDS, CheckedSet, CheckReport, Finding, Level
from leanpose.data_checks.people import swapped_pairs

__all__ = [
    "KINDS",
    "CheckReport",
    "CheckedSet",
    "Finding",
    "Level",
    "check_data",
    "draw_contact_sheet",
    "swapped_pairs",
]
