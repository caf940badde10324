# SPDX-License-Identifier: BSD-3-Clause
"""What a run found, as a table, figures and a page."""

from twostream_ext.report.experiment import format_experiment
from twostream_ext.report.page import REPORT_FILE, is_report_current, write_report
from twostream_ext.report.table import (
    accuracy_in,
    format_accuracies,
    format_accuracy,
    format_classes,
    format_splits,
    format_summary,
    format_table,
    useless_fusions,
)
from twostream_ext.report.video import write_annotated_video

__all__ = [
    "REPORT_FILE",
    "accuracy_in",
    "format_accuracies",
    "format_accuracy",
    "format_classes",
    "format_experiment",
    "format_splits",
    "format_summary",
    "format_table",
    "is_report_current",
    "useless_fusions",
    "write_annotated_video",
    "write_report",
]
