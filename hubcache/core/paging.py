"""A long answer cut into pages: the cursor that says where the next one begins, and its Link; no row is made here.

Source: the Hub's own tree cursor, which text-generation-webui builds by itself: base64 of `<base64 of
{"file_name": …}>:<number>`. Here the number is how many rows came before, for when that row is gone.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from hubcache.errors import BadReference

Row = dict[str, Any]

LONGEST = 16_384
"""Characters of a cursor; a path of 4096 bytes comes to about 7,300."""

_URL_SAFE = "-._~:/?#[]@!$&'()*+,;=%"
_LIMIT = re.compile(r"[0-9]{1,9}", re.ASCII)


def parse_limit(text: str | None) -> int | None:
    """Read a query's `limit`; None where there is none.

    Raises:
        BadReference: it is no count.
    """
    if text is None:
        return None
    if not _LIMIT.fullmatch(text):
        raise BadReference(f"not a limit: {text[:80]!r}")
    return int(text)


def page(
    rows: Sequence[Row], *, limit: int | None = None, cursor: str | None = None, key: str = "path"
) -> tuple[list[Row], str | None]:
    """Return the rows that follow the cursor, and the next page's cursor; all rows where neither is given.

    `key` is the field that tells rows apart.

    Raises:
        BadReference: a cursor that nobody was given.
    """
    start = 0 if cursor is None else _start(rows, cursor, key)
    end = len(rows) if limit is None else start + limit
    found = list(rows[start:end])
    return found, _encode(found[-1][key], end) if found and end < len(rows) else None


def link(url: str, query: Mapping[str, Sequence[str]], cursor: str) -> str:
    """Write the Link header that leads to the next page of an absolute URL, which has no query of its own."""
    values = {**query, "cursor": [cursor]}
    return f'<{quote(url, safe=_URL_SAFE)}?{urlencode(values, doseq=True)}>; rel="next"'


def _start(rows: Sequence[Row], cursor: str, key: str) -> int:
    name, before = _decode(cursor)
    return next((at for at, row in enumerate(rows, 1) if row[key] == name), min(before, len(rows)))


def _encode(name: str, before: int) -> str:
    inner = b64encode(json.dumps({"file_name": name}, ensure_ascii=False).encode())
    return urlsafe_b64encode(b"%b:%d" % (inner, before)).decode()


def _decode(cursor: str) -> tuple[str, int]:
    try:
        if len(cursor) > LONGEST:
            raise ValueError("too long")
        inner, _, before = _from_base64(cursor).decode("ascii").partition(":")
        name = json.loads(_from_base64(inner))["file_name"]
        if not isinstance(name, str) or not _LIMIT.fullmatch(before):
            raise ValueError("not a name and a number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadReference(f"not a cursor: {cursor[:80]!r}", hint="ask for the first page again") from error
    return name, int(before)


def _from_base64(text: str) -> bytes:
    return b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
