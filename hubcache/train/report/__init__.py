"""One HTML page a run that opens without a network; no metric is computed here."""

from hubcache.train.report.page import FILE, framed, write_report

__all__ = ["FILE", "framed", "write_report"]
