"""Original checkpoints in the cache turned into commits that from_pretrained loads; how, hubcache/convert says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hubcache.app.local import LocalApp, PullRequest, parse_request
from hubcache.app.progress import NoProgress
from hubcache.cache.folder import RepoFolder
from hubcache.convert import RULES
from hubcache.core.artifact import Artifact, Conversion, Manifest, RepoId, RepoPath, Revision, is_commit
from hubcache.core.gitobj import commit_of
from hubcache.core.layout import ORIGINAL
from hubcache.core.plan import CopyPlan, plan_copy
from hubcache.core.reference import Reference
from hubcache.errors import OfflineError, UsageError
from hubcache.sources.files import LocalFiles
from hubcache.transfer import copy

if TYPE_CHECKING:
    from hubcache.convert.checkpoint import Checkpoint

INSTALL = "pip install 'hubcache[train]'"


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted commit in the cache; `is_new` says that it was made just now."""

    plan: CopyPlan
    path: Path
    is_new: bool

    @property
    def artifact(self) -> Artifact:
        """The repo and the converted commit."""
        return self.plan.artifact

    @property
    def conversion(self) -> Conversion:
        """What it was made of."""
        assert self.artifact.conversion is not None
        return self.artifact.conversion


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """A cached reference as it was typed, the name to keep the result under, and whether it carries its own code."""

    text: str
    stored_as: str | None = None
    portable: bool = False


def convert(app: LocalApp, request: ConvertRequest) -> Converted:
    """Convert what is cached; refs/main of a repo that was no git repo then means the conversion.

    Raises:
        OfflineError: the reference is not in the cache.
        UsageError: nothing in it needs conversion, torch is missing, or the repo is a hub's and --as is.
        IntegrityError: the checkpoint is not what its family's are; `issues` lists each key.
    """
    reference = parse_request(app, PullRequest(request.text), notify=lambda _: None)
    original = _original(app, app.cache.resolve(reference))
    if request.stored_as is not None:
        target = RepoId.parse(request.stored_as, hub=reference.repo.hub)
    elif ORIGINAL in app.cache.folder(original.repo).refs():
        target = original.repo
    else:
        raise UsageError(
            f"the commits of {original.repo} are its hub's: a conversion needs a name of its own",
            hint=f"hubcache convert {request.text} --as {original.repo.name}-converted",
        )
    checkpoint = _checkpoint(app, original, reference, portable=request.portable)
    if checkpoint is None:
        raise _nothing(original)
    if not has_torch():
        raise UsageError("pickled weights are read with torch, which is not installed here", hint=INSTALL)
    converted = _convert(app, checkpoint, original, replace(reference, repo=target))
    if converted is None:
        raise _nothing(original)
    return converted


def convert_pulled(
    app: LocalApp, artifact: Artifact, reference: Reference, *, portable: bool, notify: Callable[[str], None]
) -> Converted | None:
    """Convert what was pulled just now, where it needs that; None where it does not, or where torch is missing.

    Raises:
        IntegrityError: as convert.
    """
    standing = standing_conversion(app, artifact, portable=portable)
    if standing is not None:
        return standing
    checkpoint = _checkpoint(app, artifact, reference, portable=portable)
    if checkpoint is None:
        return None
    if not has_torch():
        notify(f"{artifact.repo} is kept as it was published; to load it: {INSTALL} && hubcache convert REF")
        return None
    notify(f"converting {checkpoint.family} to safetensors")
    return _convert(app, checkpoint, artifact, reference)


def standing_conversion(app: LocalApp, artifact: Artifact, *, portable: bool = False) -> Converted | None:
    """Find the conversion of this very commit at the ref that is asked for: by today's rules, with all its files."""
    folder = app.cache.folder(artifact.repo)
    commit = folder.refs().get(artifact.revision.asked)
    made = folder.conversion(commit) if commit else None
    listing = folder.listing(commit) if commit else None
    if commit is None or made is None or listing is None:
        return None
    if (made.original, made.rules) != (artifact.revision.commit, RULES) or portable > made.portable:
        return None
    found = Artifact(artifact.repo, Revision(artifact.revision.asked, commit), listing, conversion=made)
    plan = _plan(app, found)
    return None if plan.missing else Converted(plan, folder.snapshot_path(commit), is_new=False)


def _nothing(original: Artifact) -> UsageError:
    return UsageError(
        f"{original.repo}@{original.revision.commit[:12]} has nothing to convert: its files are no original"
        " checkpoint of StructBERT, PALM, VECO or the KE-T5 heads",
        hint="from_pretrained may load it as it is",
    )


def has_torch() -> bool:
    """Tell whether torch is installed; it is not imported."""
    return find_spec("torch") is not None


def _original(app: LocalApp, artifact: Artifact) -> Artifact:
    """Go back to what was published, where the artifact is a conversion itself."""
    folder = app.cache.folder(artifact.repo)
    made = folder.conversion(artifact.revision.commit)
    commit = artifact.revision.commit if made is None else made.original
    listing = folder.listing(commit)
    if listing is None:
        raise OfflineError(
            f"the listing of {artifact.repo}@{commit[:12]} is not in the cache", hint="pull it again, then convert it"
        )
    told = str(folder.provenance(commit).get("origin") or f"{artifact.repo}")
    asked = "main" if is_commit(artifact.revision.asked) else artifact.revision.asked
    return Artifact(artifact.repo, Revision(asked, commit), listing, origin=told)


def _checkpoint(app: LocalApp, artifact: Artifact, reference: Reference, *, portable: bool) -> Checkpoint | None:
    """Plan the conversion; None where the files are no original checkpoint, or not all of them are here."""
    from hubcache.convert.checkpoint import plan_conversion  # 16 ms that a repo of a hub need not pay

    folder = app.cache.folder(artifact.repo)
    files = {path: _file(folder, artifact, path) for path in artifact.manifest.files}
    if not all(file.exists() for file in files.values()):
        return None
    return plan_conversion(files, name=f"{artifact.repo.name} {reference.address}", portable=portable)


def _file(folder: RepoFolder, artifact: Artifact, path: RepoPath) -> Path:
    return folder.snapshot_path(artifact.revision.commit) / path


def _convert(app: LocalApp, checkpoint: Checkpoint, original: Artifact, reference: Reference) -> Converted | None:
    """Write the converted files, hashed as they are written, and publish them; None where nothing had to change."""
    app.cache.require_space(checkpoint.size)
    with app.cache.conversion_stage(reference.repo, original.revision.commit) as stage:
        # Another process may have finished while this one waited for the stage.
        standing = standing_conversion(app, replace(original, repo=reference.repo), portable=checkpoint.portable)
        if standing is not None:
            return standing
        report = checkpoint.convert(stage.write)
        kept = {path: original.entry(path) for path in checkpoint.kept}
        new = stage.manifest().files
        manifest = Manifest({**kept, **new})
        revision = Revision(original.revision.asked, commit_of(manifest))
        if revision.commit == original.revision.commit:
            return None
        made = Conversion(original.revision.commit, RULES, checkpoint.portable, report.lines)
        artifact = Artifact(reference.repo, revision, manifest, origin=original.origin, conversion=made)
        plan = _plan(app, artifact)
        files = LocalFiles(artifact, {path: stage.file(path) for path in new}, checkpoint.files)
        copy(files, plan, app.cache, progress=NoProgress())
        path = app.cache.commit(artifact, reference)
    return Converted(plan, path, is_new=True)


def _plan(app: LocalApp, artifact: Artifact) -> CopyPlan:
    return plan_copy(
        artifact, list(artifact.manifest.files), lambda path, blob: app.cache.has_file(artifact, path, blob)
    )
