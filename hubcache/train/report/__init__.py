"""One HTML page a run that opens without a network; no metric is computed here."""

from hubcache.train.report.page import FILE, write_report

__all__ = ["FILE", "write_report"]
