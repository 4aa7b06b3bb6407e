"""Cached models in another form, as a commit of their own: an adapter merged into its base; the work is train/'s."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hubcache.app.local import LocalApp
from hubcache.app.publishing import publish_folder
from hubcache.app.training import ADAPTER, find_folder, require_libraries
from hubcache.core.artifact import Artifact, RepoId
from hubcache.errors import HubcacheError, UsageError


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """Which adapter is merged into its base (`base`: into this one, whatever it is), and the repo that it makes."""

    model: str
    output: str
    base: str | None = None


def find_base(app: LocalApp, folder: Path, named: str | None = None) -> Path | None:
    """Find the model that an adapter's folder names, or `named`; None where the folder holds no adapter.

    Raises:
        OfflineError: the base is not in the cache; the hint is the pull that brings it.
        UsageError: `named`, but no adapter.
    """
    if not (folder / ADAPTER).is_file():
        if named is not None:
            raise UsageError(f"{folder} is no adapter that could stand over {named}", hint="leave --base out")
        return None
    from hubcache.train.adapters.base import AdapterFile

    path, _ = find_folder(app, named or AdapterFile.read(folder).base.text)
    return path


def merge(app: LocalApp, request: MergeRequest) -> tuple[Artifact, Path]:
    """Add a LoRA's (or IA3's) weights to its base's and keep the sum as a repo; return its commit and snapshot.

    Raises:
        UsageError: it is no adapter, one that cannot be merged, or over another base.
        OfflineError: the adapter or its base is not in the cache.
    """
    require_libraries()
    repo = RepoId.parse(request.output)
    folder, _ = find_folder(app, request.model)
    base = find_base(app, folder, request.base)
    if base is None:
        raise UsageError(f"{request.model} is no adapter: there is nothing to merge", hint="hubcache info REF")
    from hubcache.train.adapters.merging import write_merged

    if app.settings.state is None:
        raise HubcacheError("there is no folder for work in progress", hint="export XDG_STATE_HOME=DIR")
    place = app.settings.state / "exports"
    place.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=place))
    try:
        write_merged(folder, base, scratch, any_base=request.base is not None)
        return publish_folder(app, scratch, repo, origin=f"hubcache export --merge {request.model}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
