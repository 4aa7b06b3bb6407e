"""The options that bound what a verification reads, from what was typed to values; it reads no file."""

from __future__ import annotations

import re
import time
from datetime import datetime

from hubcache.cache.index import Index
from hubcache.cache.verify import Effort
from hubcache.core.sampling import Sample
from hubcache.errors import UsageError
from hubcache.mirrors.rate import RateLimit

_SPAN = re.compile(r"(\d+)([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_RATE = re.compile(r"(\d+(?:\.\d+)?) ?(?:MB(?:/s)?)?", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)


def parse_effort(index: Index, *, rate: str | None, since: str | None, sample: str | None) -> Effort:
    """Read `--rate`, `--since` and `--sample`.

    Raises:
        UsageError: one of them does not parse.
    """
    now = time.time()
    return Effort(
        index,
        since=None if since is None else parse_since(since, now=now),
        sample=None if sample is None else Sample(parse_share(sample), int(now // 86400)),
        spend=None if rate is None else RateLimit(parse_rate(rate) * 1e6).spend,
    )


def parse_since(text: str, *, now: float) -> float:
    """Read a span before now (7d, 12h), or a date or time of day in this machine's zone, as unix seconds.

    Raises:
        UsageError: it is neither.
    """
    if (span := _SPAN.fullmatch(text)) is not None:
        return now - int(span[1]) * _SECONDS[span[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"no span and no date: {text!r}", hint="--since 7d, or --since 2026-11-01T10:00") from error


def parse_rate(text: str) -> float:
    """Read megabytes per second: 50, or 50MB/s.

    Raises:
        UsageError: it is no such number, or 0.
    """
    found = _RATE.fullmatch(text)
    if found is None or not (rate := float(found[1])):
        raise UsageError(f"no rate: {text!r}", hint="--rate 50 reads at most 50 MB/s")
    return rate


def parse_share(text: str) -> float:
    """Read a percentage over 0 and up to 100 as a share.

    Raises:
        UsageError: it is none.
    """
    found = _SHARE.fullmatch(text)
    if found is None or not 0 < (share := float(found[1]) / 100) <= 1:
        raise UsageError(f"no share of the files: {text!r}", hint="--sample 5%")
    return share
