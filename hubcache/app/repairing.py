"""A damaged repo made whole again: what can be is repaired on the spot, the rest comes from where it came before.

What is missed stands in the quarantine's records, so a repair that was cut short goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace

from hubcache.app.compose import App
from hubcache.app.converting import convert_pulled
from hubcache.app.local import source_text
from hubcache.cache.findings import Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.journal import Journal
from hubcache.cache.quarantine import forget, is_missed, read_missed, settle
from hubcache.cache.repairing import Repairer, is_right
from hubcache.cache.repairplan import Step, plan_repair
from hubcache.cache.store import Cache
from hubcache.convert import RULES
from hubcache.core.artifact import (
    Artifact,
    Conversion,
    Manifest,
    RepoId,
    RepoPath,
    Revision,
    is_commit,
    parse_path,
    parse_revision,
)
from hubcache.core.ids import parse
from hubcache.core.layout import encode_tree
from hubcache.core.plan import CopyPlan, PlannedFile
from hubcache.core.ports import Progress, Source
from hubcache.core.reference import Reference
from hubcache.errors import BadReference, HubcacheError, IntegrityError, NotFound, SourceUnavailable
from hubcache.sources.registry import schemes
from hubcache.transfer import copy

__all__ = ["Damaged", "Repaired", "Step", "plan_repair", "repair"]

DOUBT = {"unlisted", "wrong-link"}
"""Where a listing and a snapshot contradict each other, either may be wrong."""
HUBS = {"hf", "ms"}
ORDER = {"blobs": 0, "snapshots": 1, "refs": 2}
"""What links to blobs is put right when those are looked after."""


@dataclass(slots=True)
class Repaired:
    """What a repair of one repo did.

    Attributes:
        steps: what was planned.
        fetched_files, fetched_size: blobs that came again, and their bytes.
        moved: what was set aside, by its path in the repo's folder, with its bytes.
        failures: what could not be done, and why.
    """

    steps: Sequence[Step]
    fetched_files: int = 0
    fetched_size: int = 0
    moved: list[tuple[str, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A repo, what is planned for it, and a check that tells what is wrong by then."""

    folder: RepoFolder
    steps: Sequence[Step]
    check: Callable[[], Report]


def repair(app: App, damaged: Damaged, *, progress: Progress, notify: Callable[[str], None]) -> Repaired:
    """Carry out a plan; what fails is told in the result, and the rest is done all the same.

    Where a listing was put right, the rest is planned anew by it. One that a snapshot contradicts is asked for before
    anything is done by its word; it is believed where nobody answers.
    """
    folder, steps = damaged.folder, damaged.steps
    done = Repaired(steps)
    run = _Run(app, folder, done, progress, notify)
    listings = [step for step in steps if step.problem.path.startswith("trees/") and step.act != "leave"]
    run.carry_out(listings)
    corrected = [commit for commit in sorted(_doubted(steps)) if run.correct_listing(commit)]
    if listings or corrected:
        steps = [step for step in plan_repair(folder, damaged.check()) if not step.problem.path.startswith("trees/")]
    run.carry_out(sorted(steps, key=lambda step: ORDER.get(step.problem.path.partition("/")[0], len(ORDER))))
    for commit, paths in run.missed():
        with run.telling(f"{folder.repo}@{commit[:12]}"):
            run.bring(commit, paths)
    settle(folder)
    done.moved = run.repairer.moved
    _note(app, folder, done)
    return done


def _doubted(steps: Sequence[Step]) -> set[str]:
    """Name the commits whose listings may be what is wrong; bytes that are to come again are no proof against one."""
    found = set()
    for step in steps:
        is_file = step.problem.path.startswith("snapshots/") and step.problem.kind == "corrupt" and step.act == "fetch"
        if step.problem.kind in DOUBT or is_file:
            found.add(step.problem.commit)
    return found


class _Fresh(Cache):
    """The cache without its listings, so that a source tells them anew."""

    def listing(self, repo: RepoId, commit: str) -> None:
        """Know of none."""
        return None


class _Run:
    """What the parts of one repair share."""

    def __init__(
        self, app: App, folder: RepoFolder, done: Repaired, progress: Progress, notify: Callable[[str], None]
    ) -> None:
        self.repairer = Repairer(app.cache, folder)
        self._app = app
        self._folder = folder
        self._done = done
        self._progress = progress
        self._notify = notify

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """Let a failure be told, and the rest go on."""
        try:
            yield
        except HubcacheError as error:
            self._done.failures.append(f"{what}: {error.message}")

    def carry_out(self, steps: Sequence[Step]) -> None:
        """Do what steps need of the disk, and then ask for what only the source knows."""
        for step in steps:
            with self.telling(step.problem.path):
                self.repairer.apply(step)
        for step in steps:
            self._ask(step)

    def correct_listing(self, commit: str) -> bool:
        """Ask for a listing again, where that costs one request, and write it if it is another."""
        listing = self._folder.listing(commit)
        if listing is None or self._folder.conversion(commit) is not None:
            return False
        with suppress(HubcacheError):
            if self._reference(commit).scheme in HUBS and (fresh := self._fresh_listing(commit)) != listing:
                self.repairer.replace_listing(commit, encode_tree(fresh))
                return True
        return False

    def missed(self) -> list[tuple[str, list[RepoPath]]]:
        """List what is missed, by commit."""
        found: dict[str, set[RepoPath]] = {}
        for missed in read_missed(self._folder):
            for commit, path in missed.links:
                if is_missed(self._folder, (commit, path)):
                    found.setdefault(commit, set()).add(parse_path(path))
        return [(commit, sorted(paths)) for commit, paths in sorted(found.items())]

    def _ask(self, step: Step) -> None:
        """Ask where the repo came from for a listing, or for what a ref means."""
        part, _, name = step.problem.path.partition("/")
        if step.act != "fetch" or part not in {"refs", "trees"}:
            return
        with self.telling(step.problem.path):
            if part == "trees":
                commit = name.removesuffix(".json")
                with self._source(commit) as (source, reference):
                    self.repairer.replace_listing(commit, encode_tree(self._pin(source, reference, commit).manifest))
            elif not self._ask_for_ref(name):
                self.repairer.move(step.problem.path)

    def bring(self, commit: str, paths: Sequence[RepoPath]) -> None:
        """Fetch files of a commit that are missed, verified, and put them into its snapshot."""
        made = self._folder.conversion(commit)
        if made is not None:
            self._convert_again(commit, made)
            return
        listing = self._folder.listing(commit)
        here = Artifact(self._folder.repo, Revision(commit, commit), listing) if listing else None
        if here is not None and not (plan := _plan(self._app, here, paths)).missing:  # another commit's repair did it
            self._check(plan)
            self.repairer.place(here, [file.path for file in plan.files])
            return
        try:
            self._fetch_of(commit, listing, paths)
        except IntegrityError:
            if listing is None or (fresh := self._fresh_listing(commit)) == listing:
                raise
            # The listing itself was wrong: a commit's never changes.
            self.repairer.replace_listing(commit, encode_tree(fresh))
            self._fetch_of(commit, fresh, paths)

    def _fetch_of(self, commit: str, listing: Manifest | None, paths: Sequence[RepoPath]) -> None:
        with self._source(commit) as (source, reference):
            artifact = self._pin(source, reference, commit)
            self._fetch(source, artifact if listing is None else replace(artifact, manifest=listing), paths)

    def _fresh_listing(self, commit: str) -> Manifest:
        app = replace(self._app, cache=_Fresh(self._app.cache.root))
        reference = self._reference(commit)
        with closing(app.source(reference.scheme, self._progress, self._notify)) as source:
            return self._pin(source, reference, commit).manifest

    def _fetch(self, source: Source, artifact: Artifact, paths: Sequence[RepoPath]) -> None:
        plan = _plan(self._app, artifact, paths)
        self._check(plan)
        self._app.cache.require_space(plan.missing_size - self._app.cache.resumable_size(plan))
        copy(source, plan, self._app.cache, progress=self._progress)
        self._done.fetched_files += len(plan.missing)
        self._done.fetched_size += plan.missing_size
        self.repairer.place(artifact, [file.path for file in plan.files])
        forget(self._folder, artifact.revision.commit, set(paths) - set(artifact.manifest.files))

    def _check(self, plan: CopyPlan) -> None:
        """Make sure that no damaged file, which could not be set aside, is linked to or written over."""
        for file in plan.files:
            blob = self._folder.blob_path(file.blob.digest)
            if blob.exists() and not is_right(blob, file.blob.digest):
                raise IntegrityError(f"{blob} is damaged, and stands in the way")

    def _convert_again(self, commit: str, made: Conversion) -> None:
        """Make a converted commit anew from what was published; by other rules it would be another one."""
        if made.rules != RULES:
            raise SourceUnavailable("it was converted by rules of an earlier version")
        ref = next((name for name, held in sorted(self._folder.refs().items()) if held == commit), None)
        if ref is None:
            raise SourceUnavailable("it was converted here, and no ref means it any more")
        with self._source(made.original) as (source, reference):
            original = self._pin(source, reference, made.original)
            self._fetch(source, original, list(original.manifest.files))
        named = replace(original, revision=Revision(ref, made.original))
        converted = convert_pulled(self._app, named, reference, portable=made.portable, notify=self._notify)
        if converted is None:
            raise SourceUnavailable("it cannot be converted again here")

    def _ask_for_ref(self, name: str) -> bool:
        """Write a ref by its source's word; False where there is none, or its commit is not here."""
        held = next((commit for ref, commit in self._folder.refs().items() if ref == name), "")
        try:
            with self._source(held) as (source, reference):
                artifact = _meant(source, reference, name, held)
        except HubcacheError as error:
            self._done.failures.append(f"refs/{name}: {error.message}")
            return False
        commit = artifact.revision.commit
        is_here = self._folder.snapshot_path(commit).is_dir()
        if not is_here and not (commit == held and artifact.is_whole):
            self._done.failures.append(f"refs/{name}: it means {commit[:12]} now, which is not here: pull it")
            return False
        if not is_here:
            self.repairer.replace_listing(commit, encode_tree(artifact.manifest))
        self.repairer.write_ref(name, commit)
        return True

    @contextmanager
    def _source(self, commit: str) -> Iterator[tuple[Source, Reference]]:
        reference = self._reference(commit)
        with closing(self._app.source(reference.scheme, self._progress, self._notify)) as source:
            yield source, reference

    def _reference(self, commit: str) -> Reference:
        """Return what the commit was pulled as, else what another one was; without provenance, it is the Hub's."""
        repo = self._folder.repo
        known = [self._folder.provenance(each) for each in (commit, *self._folder.commits())]
        text = next((text for told in known if (text := source_text(told))), "") or f"hf:{repo.name}"
        if text.startswith("hf:"):
            return Reference("hf", text.removeprefix("hf:"), repo)
        try:
            return parse(text, kind=repo.kind, schemes=schemes()).stored_as(repo)
        except BadReference as error:
            raise SourceUnavailable(f"it came from {text}, which is no source here: {error.message}") from error

    def _pin(self, source: Source, reference: Reference, commit: str) -> Artifact:
        """Resolve a commit, by a ref that means it where there is one: that tells whether any mirror may be asked.

        Raises:
            SourceUnavailable: what its source has is something else by now.
        """
        is_hub = reference.scheme in HUBS
        names = [name for name, held in sorted(self._folder.refs().items()) if held == commit and is_hub]
        for name in names[:1]:
            with suppress(NotFound):  # the branch is gone, its commit need not be
                artifact = source.resolve(replace(reference, revision=name))
                if artifact.revision.commit == commit and artifact.is_whole:
                    return artifact
        artifact = source.resolve(replace(reference, revision=commit if is_hub else reference.revision))
        if artifact.revision.commit != commit or not artifact.is_whole:
            raise SourceUnavailable(f"{reference.address} does not give {commit[:12]}, or not its listing")
        return artifact


def _meant(source: Source, reference: Reference, name: str, held: str) -> Artifact:
    """Resolve the commit that a ref holds; where its source has no such one, the ref itself."""
    if is_commit(held):
        with suppress(NotFound):
            return source.resolve(replace(reference, revision=held))
    return source.resolve(replace(reference, revision=parse_revision(name)))


def _plan(app: App, artifact: Artifact, paths: Sequence[RepoPath]) -> CopyPlan:
    """Plan the files that are missed; those that the commit turns out not to have are left out."""
    files = artifact.manifest.files
    return CopyPlan(
        artifact,
        tuple(
            PlannedFile(path, files[path].blob, present=app.cache.has_file(artifact, path, files[path].blob))
            for path in paths
            if path in files
        ),
    )


def _note(app: App, folder: RepoFolder, done: Repaired) -> None:
    """Write down what was done."""
    state = app.settings.state
    journal = Journal(state / "history.jsonl" if state else None)
    for path, size in done.moved:
        journal.add("quarantine", root=folder.root, repo=str(folder.repo), size=size, note=path)
    note = f"{len(done.steps)} found, {done.fetched_files} fetched, {len(done.failures)} failed"
    journal.add("repair", root=folder.root, repo=str(folder.repo), size=done.fetched_size, note=note)
