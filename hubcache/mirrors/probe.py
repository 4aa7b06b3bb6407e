"""One mirror measured: does it answer, how fast, does it know ranges, does it send and list what it should.

What follows from the answers is decided elsewhere, and nothing is written down here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.digests import new_hasher
from hubcache.core.origins import Origin
from hubcache.core.ports import Source
from hubcache.core.reference import Reference
from hubcache.core.wire import retry_after
from hubcache.errors import EntryNotFound, HubcacheError, IntegrityError, RateLimited, SourceUnavailable
from hubcache.mirrors import health
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import Mirror
from hubcache.net import Net, Response

TIMES = 3
CHEAPEST = "/robots.txt"
"""What costs any web server least; which status it has does not matter."""
SMALL = 4 * 10**6
LONGEST_SAMPLE = 15.0
"""Seconds after which a sample is given up: the rate is known by then."""
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Probe:
    """What one mirror showed; None is what was not, or could not be, measured.

    Attributes:
        status: of the first answer.
        latency: seconds to an answer, the median of three.
        ranges: whether a range is answered with that range.
        size: bytes of the sample that came, in `seconds`.
        bytes_agree: whether the sample has the listed digest.
        listing_agrees: whether its own listing of that commit is the trusted one.
        failure: why it is no use now; "" where it is.
        rest: seconds for which it asked to be left in peace.
        remarks: what else is worth saying.
    """

    mirror: Mirror
    status: int | None = None
    latency: float | None = None
    ranges: bool | None = None
    size: int = 0
    seconds: float | None = None
    bytes_agree: bool | None = None
    listing_agrees: bool | None = None
    failure: str = ""
    rest: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def throughput(self) -> float | None:
        """Bytes per second of the sample; None where it was too small to tell."""
        return self.size / self.seconds if self.size >= health.SMALLEST_SAMPLE and self.seconds else None

    def failed(self, error: HubcacheError) -> Probe:
        """Say that it gave no answer."""
        rest = error.retry_after if isinstance(error, RateLimited) else None
        return replace(self, failure=error.message[:200], rest=rest)

    def remarked(self, text: str) -> Probe:
        """Add a remark."""
        return replace(self, remarks=(*self.remarks, text))


def reach(net: Net, mirror: Mirror) -> Probe:
    """Ask for next to nothing, three times; it counts from the first answer on that one came at all."""
    times: list[float] = []
    probe = Probe(mirror)
    for _ in range(TIMES):
        began = time.monotonic()
        try:
            with net.open(mirror.url + CHEAPEST) as response:
                times.append(time.monotonic() - began)
                probe = _answered(probe, response)
                response.read(_CHUNK)
        except HubcacheError as error:
            if not times:
                return probe.failed(error)
        if probe.failure:
            break
    return replace(probe, latency=median(times))


def _answered(probe: Probe, response: Response) -> Probe:
    if probe.status is None and response.origin != str(Origin.of(probe.mirror.url)):
        probe = probe.remarked(f"sends such questions on to {response.origin}")
    probe = replace(probe, status=probe.status or response.status)
    if response.status == 429 or response.status >= 500:
        failure = f"{response.origin} answered {response.status}"
        return replace(probe, failure=failure, rest=retry_after(response.headers))
    return probe


def measure(probe: Probe, source: Source, artifact: Artifact, path: RepoPath | None) -> Probe:
    """Ask a mirror for a range and for a sample of an artifact's files (`path`: these of this file alone)."""
    try:
        probe = _measure_ranges(probe, source, artifact, path or largest(artifact))
        return _measure_sample(probe, source, artifact, path or sample_of(artifact))
    except (SourceUnavailable, IntegrityError) as error:
        return probe.failed(error)
    except HubcacheError as error:
        # An answer: it does not carry this repo, or not for anybody.
        return probe.remarked(f"has no sample to send: {error.message}")


def compare_listing(probe: Probe, source: Source, reference: Reference, artifact: Artifact) -> Probe:
    """Hold a mirror's own listing of the artifact's commit against the artifact's."""
    try:
        theirs = source.resolve(replace(reference, revision=artifact.revision.commit))
    except HubcacheError as error:
        return probe.remarked(f"lists nothing: {error.message}")
    agrees = {path: entry.blob for path, entry in theirs.manifest.files.items()} == {
        path: entry.blob for path, entry in artifact.manifest.files.items()
    }
    probe = replace(probe, listing_agrees=agrees)
    return probe if agrees else probe.remarked("its listing is not the trusted one")


def record(book: HealthBook, probe: Probe) -> None:
    """Write down what a probe found, as a pull would have."""
    book.record(probe.mirror.url, _change(probe))


def _change(probe: Probe) -> Callable[[health.Health, float], health.Health]:
    def change(facts: health.Health, now: float) -> health.Health:
        if probe.failure:
            return health.failed(facts, probe.failure, now=now, retry_after=probe.rest)
        if probe.latency is not None:
            facts = health.answered(facts, probe.latency)
        return health.served(facts, probe.size, probe.seconds or 0.0)

    return change


def largest(artifact: Artifact) -> RepoPath:
    """Choose the file that needs ranges most.

    Raises:
        EntryNotFound: there are no files.
    """
    files = artifact.manifest.files
    if not files:
        raise EntryNotFound(f"{artifact.repo} has no files")
    return max(files, key=lambda path: files[path].blob.size)


def sample_of(artifact: Artifact) -> RepoPath:
    """Choose the largest file of those that are small, else the smallest of all: enough to measure a line by.

    Raises:
        EntryNotFound: there are no files.
    """
    files = artifact.manifest.files
    by_size = sorted(files, key=lambda path: files[path].blob.size)
    if not by_size:
        raise EntryNotFound(f"{artifact.repo} has no files")
    return [path for path in by_size if path == by_size[0] or files[path].blob.size <= SMALL][-1]


def _measure_ranges(probe: Probe, source: Source, artifact: Artifact, path: RepoPath) -> Probe:
    size = artifact.entry(path).blob.size
    if size < 2:
        return probe
    with source.open(artifact, path, 0, 1) as content:
        return replace(probe, ranges=(content.start, content.end) == (0, 1))


def _measure_sample(probe: Probe, source: Source, artifact: Artifact, path: RepoPath) -> Probe:
    blob = artifact.entry(path).blob
    hasher = new_hasher(blob.digest.algorithm, blob.size)
    size = 0
    with source.open(artifact, path) as content:
        began = time.monotonic()
        while size <= blob.size and (chunk := content.read(_CHUNK)):
            size += len(chunk)
            hasher.update(chunk)
            if size < blob.size and time.monotonic() - began > LONGEST_SAMPLE:
                slow = replace(probe, size=size, seconds=time.monotonic() - began)
                return slow.remarked(f"{path} took longer than {LONGEST_SAMPLE:.0f} s, so its digest is not known")
        seconds = time.monotonic() - began
    agrees = size == blob.size and hasher.hexdigest() == blob.digest.hex
    probe = replace(probe, size=size, seconds=seconds, bytes_agree=agrees)
    return probe if agrees else replace(probe, failure=f"sent wrong bytes of {path}")
