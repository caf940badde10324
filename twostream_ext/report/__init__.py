# SPDX-License-Identifier: BSD-3-Clause
"""What a run found, as a table, figures and a page."""

from twostream_ext.report.page import REPORT_FILE, is_report_current, write_report
from twostream_ext.report.table import format_classes, format_table, format_top1
from twostream_ext.report.video import write_annotated_video

__all__ = [
    "REPORT_FILE",
    "format_classes",
    "format_table",
    "format_top1",
    "is_report_current",
    "write_annotated_video",
    "write_report",
]
