"""Conversions as the cache makes them, into a folder that from_pretrained loads; nothing is published in a cache."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcache.cache.stage import CacheStage
from hubcache.convert.checkpoint import plan_conversion
from hubcache.convert.report import Report
from hubcache.core.artifact import RepoPath
from hubcache.sources.tarball import stage_archive

Files = Mapping[RepoPath, Path]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A converted repo: its folder, and what the conversion tells."""

    folder: Path
    report: Report


def unpacked(archive: Path, folder: Path) -> Files:
    """Unpack an archive as the source of tarballs does; return its files by their paths in the repo."""
    stage = CacheStage(folder, lambda size: None)
    with archive.open("rb") as stream:
        stage_archive(stream, ".tar.gz", stage)
    return {path: stage.file(path) for path in stage.manifest().files}


def files_of(folder: Path) -> Files:
    """Return a folder's files by their paths in it."""
    return {RepoPath(str(file.relative_to(folder))): file for file in sorted(folder.rglob("*")) if file.is_file()}


def convert_files(files: Files, folder: Path, *, name: str, portable: bool = False) -> Snapshot:
    """Convert a repo's files into a new folder."""
    checkpoint = plan_conversion(files, name=name, portable=portable)
    assert checkpoint is not None
    stage = CacheStage(folder.with_name(folder.name + ".staging"), lambda size: None)
    report = checkpoint.convert(stage.write)
    folder.mkdir(parents=True)
    new = {path: stage.file(path) for path in stage.manifest().files}
    for path, file in ({path: files[path] for path in checkpoint.kept} | new).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / path)
    return Snapshot(folder, report)
