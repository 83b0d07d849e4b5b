"""A run as one self-contained HTML page: what it achieved, in words, numbers and pictures."""

from lowerbound.report.page import write_report

__all__ = ["write_report"]
