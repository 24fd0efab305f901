"""Reports: tables in the terminal, a page, pictures, and the numbers behind them."""

from gradtail.report.report import Report

__all__ = ["Report"]
