"""A plain URL fetched into a local file: resumed where an earlier process stopped, if upstream is still the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hubcache.core import wire
from hubcache.core.origins import Origin, redact
from hubcache.core.ports import Content, Progress
from hubcache.errors import HubcacheError
from hubcache.fetch import Run, fill
from hubcache.localfile import disk_error
from hubcache.net import Net, Response, retry
from hubcache.partial import PartialFile


@dataclass(frozen=True, slots=True)
class Remote:
    """What a server says of a URL: its size in bytes (None: it does not) and a validator (ETag, or date and size)."""

    url: str
    origin: str
    size: int | None
    validator: str | None


def check_status(response: Response) -> HubcacheError | None:
    """Say what an answer to a plain GET means; None for success."""
    if response.status in {200, 206}:
        return None
    return wire.error_for(
        response.status, response.headers, what=redact(response.url), origin=response.origin, authenticated=True
    )


def describe(net: Net, url: str) -> Remote:
    """Ask for a URL's size and validator with one GET of one byte; some stores refuse HEAD.

    Raises:
        NotFound, AccessDenied, SourceUnavailable: as the server answers.
    """

    def once() -> Remote:
        with net.open_range(url, 0, 1) as response:
            empty = response.status == 416
            if not empty and (error := check_status(response)) is not None:
                raise error
            size = 0 if empty else response.total
            etag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
            validator = etag or (f"{date} {size}" if date else None)
            return Remote(url, response.origin, size, validator)

    return retry(once)


def partial_at(file: Path, remote: Remote, *, algorithms: tuple[str, ...], progress: Progress) -> PartialFile:
    """Open the file to be filled, keeping an earlier process's bytes only if upstream is still the same."""
    note = file.with_name(file.name + ".validator")
    known = remote.validator or ""
    try:
        if not known or not note.exists() or note.read_bytes() != known.encode():
            for stale in (file, file.with_name(file.name + ".ranges")):
                stale.unlink(missing_ok=True)
            note.write_bytes(known.encode())
    except OSError as error:
        raise disk_error(error, note) from error
    partial = PartialFile(file, remote.size, algorithms=algorithms, journal=file.with_name(file.name + ".ranges"))
    progress.begin(1, remote.size or 0)
    progress.advance(partial.resumed, "resumed")
    return partial


def fetch_into(partial: PartialFile, net: Net, remote: Remote, run: Run) -> None:
    """Fill the partial file from the URL, until the run is stopped.

    Raises:
        SourceUnavailable: it broke off too often, or upstream changed meanwhile.
    """

    def open_range(start: int, end: int | None) -> Content:
        # If-Range: a server whose file has changed answers with all of it, which the size or the digest tells.
        strong = remote.validator if remote.validator and remote.validator.startswith('"') else None
        headers = {"If-Range": strong} if strong and (start or end) else {}
        response = net.open_range(remote.url, start, end, headers=headers)
        if (error := check_status(response)) is not None:
            response.close()
            raise error
        return response

    fill(partial, open_range, run)


def origin_of(url: str) -> str:
    """Return the URL's origin as text."""
    return str(Origin.of(url))
