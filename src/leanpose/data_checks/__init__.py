"""Checking data sets: `check_data` lists what is wrong, `draw_contact_sheet` shows it."""

from leanpose.data_checks.check import check_data
from leanpose.data_checks.contact_sheet import draw_contact_sheet
from leanpose.data_checks.findings import KINDS, CheckReport
from leanpose.data_checks.summary import report_dict

__all__ = ["KINDS", "CheckReport", "check_data", "draw_contact_sheet", "report_dict"]
