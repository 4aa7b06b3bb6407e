"""A hub's mirrors measured at the same time, remembered, and which of them would be chosen then, and why.

Only public names are told to mirrors that need not know others: the sample is a public repo's unless the person names
one, and what is said of that repo by the mirror whose word counts decides who else is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from hubcache.app.compose import MIRRORED, App
from hubcache.app.usecases import NoProgress
from hubcache.core.artifact import Artifact, Manifest, RepoId, RepoPath
from hubcache.core.ids import parse
from hubcache.core.ports import Recalled, Source, Stage
from hubcache.core.reference import Reference
from hubcache.errors import (
    AccessDenied,
    CacheError,
    HubcacheError,
    NotFound,
    OfflineError,
    SourceUnavailable,
    UsageError,
)
from hubcache.mirrors.chosen import Chosen, decide
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.permitted import permitted
from hubcache.mirrors.probe import Probe, compare_listing, measure, reach, record, sample_of
from hubcache.sources.registry import SourceConfig, make_source

PUBLIC = {"huggingface": "hf-internal-testing/tiny-random-bert", "modelscope": "Qwen/Qwen2.5-0.5B-Instruct"}
"""A small public repo of each hub, for the sample: its largest file of at most 4 MB is fetched."""
PATIENCE = 45.0
"""Seconds that the mirrors that answer have for their samples."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test showed.

    Attributes:
        sample: the file that was fetched, with its repo; "" where none was.
        size: its bytes.
        judge: the mirror whose listing the samples were held against; None where no trusted one answered.
        probes: by mirror, in the order in which they would be asked now.
        metadata: who would be asked for commits and listings, None for nobody.
        content: who would be asked for bytes.
    """

    hub: str
    probes: tuple[Probe, ...]
    sample: str = ""
    size: int = 0
    judge: Mirror | None = None
    metadata: Chosen | None = None
    content: Chosen | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Question:
    """What the mirrors are asked for, and what the judge said of it; None where nobody could be asked."""

    reference: Reference
    judge: Mirror | None = None
    artifact: Artifact | None = None
    remarks: tuple[str, ...] = ()

    @property
    def path(self) -> RepoPath | None:
        return RepoPath(self.reference.path) if self.reference.path else None


def probe_mirrors(app: App, mirrors: Sequence[Mirror], file: str | None = None) -> Tested:
    """Measure mirrors of one hub; `file` (org/name/path) is the sample instead of a public repo's.

    Raises:
        OfflineError: the network is off.
        UsageError: `file` names no file.
        NotFound, AccessDenied: what the trusted mirror says of `file`.
    """
    if app.settings.offline:
        raise OfflineError("offline: no mirror is asked", hint="unset HF_HUB_OFFLINE")
    hub = mirrors[0].hub
    reference = _sample_reference(hub, file)
    everybody = app.mirrors_of(hub)
    judges = [] if reference is None else _judges(app, everybody, reference.repo)
    probes = _reach_all(app, list({mirror.name: mirror for mirror in [*mirrors, *judges]}.values()))
    question = None
    if reference is not None:
        answering = [mirror for mirror in judges if not probes[mirror.name].failure]
        question = _ask_judges(app, answering, reference, is_named=file is not None)
        probes = _measure_all(app, everybody, question, {m.name: probes[m.name] for m in mirrors})
    found = [probes[mirror.name] for mirror in mirrors]
    for probe in found:
        record(app.book, probe)
    app.book.save()
    return _concluded(app, hub, everybody, found, question)


def _sample_reference(hub: str, file: str | None) -> Reference | None:
    scheme = next((scheme for scheme, each in MIRRORED.items() if each == hub), None)
    if file is None:
        return parse(f"{scheme}:{PUBLIC[hub]}") if scheme else None
    if scheme is None:
        raise UsageError(f"{hub} has no mirrors that carry the same files", hint="leave --file out")
    reference = parse(f"{scheme}://{file}")
    if not reference.path or reference.path.endswith("/"):
        raise UsageError(f"not a repo's file: {file!r}", hint="--file org/name/path/in/it")
    return reference


def _judges(app: App, mirrors: Sequence[Mirror], repo: RepoId) -> list[Mirror]:
    """List the mirrors whose word on this repo counts, in the order in which they would be asked."""
    trusted = {mirror.url: mirror for mirror in permitted(mirrors, repo) if "metadata" in mirror.trust}
    return [trusted[choice.name] for choice in app.book.order(list(trusted))]


def _reach_all(app: App, mirrors: Sequence[Mirror]) -> dict[str, Probe]:
    patience = app.settings.connect_timeout + app.settings.read_timeout
    found = at_once({mirror.name: _reaching(app, mirror) for mirror in mirrors}, patience)
    late = SourceUnavailable(f"no answer within {patience:.0f} seconds")
    return {mirror.name: found.get(mirror.name) or Probe(mirror).failed(late) for mirror in mirrors}


def _reaching(app: App, mirror: Mirror) -> Callable[[], Probe]:
    return lambda: reach(app.net, mirror)


def _ask_judges(app: App, judges: Sequence[Mirror], reference: Reference, *, is_named: bool) -> _Question:
    """Pin the sample's repo at the first judge that answers; "no" is an answer, too.

    Raises:
        NotFound, AccessDenied: the answer about what the person has named.
    """
    remarks: list[str] = []
    for judge in judges:
        answer = at_once({judge.name: _resolving(app, judge, reference)}, PATIENCE).get(judge.name)
        if isinstance(answer, Artifact):
            if is_named:
                answer.entry(RepoPath(reference.path or ""))
            return _Question(reference, judge, answer, tuple(remarks))
        if isinstance(answer, NotFound | AccessDenied):
            if is_named:
                raise answer
            return _Question(reference, judge, None, (f"{answer.message}; name a sample with --file org/name/path",))
        remarks.append(f"{judge.name}: {answer.message if answer else 'no answer'}")
    return _Question(reference, None, None, (*remarks, "no mirror that is trusted for metadata answered"))


def _resolving(app: App, judge: Mirror, reference: Reference) -> Callable[[], Artifact | HubcacheError]:
    def resolve() -> Artifact | HubcacheError:
        try:
            return _source(app, judge, reference.scheme).resolve(reference)
        except HubcacheError as error:
            return error

    return resolve


def _measure_all(
    app: App, everybody: Sequence[Mirror], question: _Question, probes: Mapping[str, Probe]
) -> dict[str, Probe]:
    """Measure the mirrors that answer and may hear of the sample, at the same time."""
    artifact, judge = question.artifact, question.judge
    if judge is not None and artifact is None:
        return dict(probes)
    # With nobody to say that it is public, a repo that the person has named is told to nobody.
    is_public = artifact.is_public if artifact else question.path is None
    origin = judge.url if judge else ""
    may_hear = permitted(everybody, question.reference.repo, is_public=is_public, origin=origin)
    tasks, rest = {}, {}
    for name, probe in probes.items():
        if probe.failure:
            rest[name] = probe
        elif probe.mirror not in may_hear:
            rest[name] = probe.remarked(f"not asked for {question.reference.repo}, which is none of its business")
        else:
            tasks[name] = _measuring(app, probe, question)
    found = at_once(tasks, PATIENCE)
    late = SourceUnavailable(f"no sample within {PATIENCE:.0f} seconds")
    return rest | {name: found.get(name) or probes[name].failed(late) for name in tasks}


def _measuring(app: App, probe: Probe, question: _Question) -> Callable[[], Probe]:
    def run() -> Probe:
        source = _source(app, probe.mirror, question.reference.scheme)
        artifact = question.artifact
        if artifact is None:
            try:
                artifact = source.resolve(question.reference)
            except HubcacheError as error:
                return probe.remarked(f"lists nothing: {error.message}")
        measured = measure(probe, source, artifact, question.path)
        if question.judge is None:
            return measured.remarked("held against its own listing")
        if probe.mirror == question.judge:
            return replace(measured, listing_agrees=True)
        return compare_listing(measured, source, question.reference, artifact)

    return run


def _concluded(
    app: App, hub: str, everybody: Sequence[Mirror], probes: Sequence[Probe], question: _Question | None
) -> Tested:
    repo = question.reference.repo if question else None
    fit = [m for m in everybody if not m.namespaces] if repo is None else list(permitted(everybody, repo))
    metadata, content = decide(fit, app.book.order(list(dict.fromkeys(mirror.url for mirror in fit))))
    urls = [choice.name for choice in app.book.order(list(dict.fromkeys(probe.mirror.url for probe in probes)))]
    ordered = tuple(sorted(probes, key=lambda probe: urls.index(probe.mirror.url)))
    tested = Tested(hub, ordered, metadata=metadata, content=content, remarks=question.remarks if question else ())
    if question is None or question.artifact is None:
        return tested
    artifact = question.artifact
    path = question.path or sample_of(artifact)
    size = artifact.entry(path).blob.size
    return replace(tested, sample=f"{artifact.repo}/{path}", size=size, judge=question.judge)


def _source(app: App, mirror: Mirror, scheme: str) -> Source:
    """Make a mirror's source that knows nothing yet, so that it really asks."""
    endpoints = {**app.endpoints(), mirror.hub: mirror.url}
    return make_source(scheme, SourceConfig(app.net, endpoints, _Forgetful(), NoProgress(), lambda _: None))


class _Forgetful:
    """A Memory with nothing in it."""

    def listing(self, repo: RepoId, commit: str) -> Manifest | None:
        return None

    def recall(self, reference: Reference) -> Recalled | None:
        return None

    def origin_of(self, repo: RepoId, ref: str) -> str | None:
        return None

    def stage(self, reference: Reference) -> AbstractContextManager[Stage]:
        raise CacheError(f"{reference.address}: nothing is staged here")


def at_once(tasks: Mapping[str, Callable[[], _T]], patience: float) -> dict[str, _T]:
    """Run tasks in threads of their own; what is not done after `patience` seconds is left out."""
    found: dict[str, _T] = {}

    def run(name: str) -> None:
        found[name] = tasks[name]()

    # Looking up a name keeps no time limit of ours; a daemon thread does not keep the process alive.
    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in tasks]
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)
