# SPDX-License-Identifier: BSD-3-Clause
"""What a run found, as a table, figures and a page."""

from twostream_ext.optional_packages import FLOW_PACKAGES, need_packages

need_packages("twostream_ext.report", "report", (*FLOW_PACKAGES, "jinja2"))

from twostream_ext.report.answers import (
    Row,
    Spans,
    WriteRow,
    answer_columns,
    answer_row,
    answers_file,
    check_answers,
    span_columns,
    table_line,
    window_row,
)
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
from twostream_ext.report.video import write_annotated_video, write_annotated_windows

__all__ = [
    "REPORT_FILE",
    "Row",
    "Spans",
    "WriteRow",
    "accuracy_in",
    "answer_columns",
    "answer_row",
    "answers_file",
    "check_answers",
    "format_accuracies",
    "format_accuracy",
    "format_classes",
    "format_experiment",
    "format_splits",
    "format_summary",
    "format_table",
    "is_report_current",
    "span_columns",
    "table_line",
    "useless_fusions",
    "window_row",
    "write_annotated_video",
    "write_annotated_windows",
    "write_report",
]
