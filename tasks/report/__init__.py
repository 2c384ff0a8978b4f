"""Room of the report: one self-contained HTML page per run, from what the other rooms wrote."""

from tasks.report.report import write_report

__all__ = ["write_report"]
