"""A study as one page that opens offline: figures, tables, configuration, how to reproduce it."""

from msnas_optuna.report.page import report_page, write_report

__all__ = ["report_page", "write_report"]
