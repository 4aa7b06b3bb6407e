"""A repair of several repos shown, asked for and told; what is to be done is decided elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from hubcache.app.compose import App
from hubcache.app.repairing import Damaged, Repaired, Step, repair
from hubcache.cache.folder import RepoFolder
from hubcache.errors import UsageError
from hubcache_cli.commands.verify import short_path
from hubcache_cli.output import TransferProgress, counted, note, plain, size_text


@dataclass(frozen=True, slots=True)
class Mended:
    """What was planned, and what was done of it: nothing where that was not wanted."""

    steps: Sequence[Step]
    done: Sequence[Repaired] = ()

    def facts(self) -> dict[str, Any]:
        """Describe it for JSON."""
        return {
            "steps": [_step_facts(step) for step in self.steps],
            "fetched_files": sum(each.fetched_files for each in self.done),
            "fetched_size": sum(each.fetched_size for each in self.done),
            "quarantined": [{"path": path, "size": size} for each in self.done for path, size in each.moved],
            "failures": [failure for each in self.done for failure in each.failures],
        }


def mend(app: App, found: Sequence[Damaged], *, ask: bool, act: bool, quiet: bool) -> Mended:
    """Say what would be done about what was found, ask, and do it.

    Raises:
        UsageError: there is nobody to ask.
    """
    steps = [step for each in found for step in each.steps]
    for step in () if quiet else steps:
        note(f"to repair: {_step_line(step)}")
    if not act or not steps or (ask and not _confirm(steps)):
        return Mended(steps)
    done = []
    for each in found:
        if each.steps:
            progress = TransferProgress(str(each.folder.repo), bar=not quiet and app.settings.progress_bars)
            try:
                done.append(repair(app, each, progress=progress, notify=lambda _: None if quiet else note(_)))
            finally:
                progress.close()
            _tell(each.folder, done[-1], quiet=quiet)
    return Mended(steps, done)


def _step_line(step: Step) -> str:
    size = f" ({size_text(step.size)})" if step.size else ""
    return f"{step.problem.repo}  {short_path(step.problem.path)}  {plain(step.text)}{size}"


def _confirm(steps: Sequence[Step]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody can be asked: stdin is no terminal", hint="--yes repairs without asking")
    size = sum({step.digest: step.size for step in steps if step.act == "fetch"}.values())
    return typer.confirm(f"{counted(len(steps), 'step')}, {size_text(size)} to fetch at most. Go on?", err=True)


def _tell(folder: RepoFolder, done: Repaired, *, quiet: bool) -> None:
    for failure in done.failures:
        note(f"not repaired: {folder.repo}  {plain(failure)}")
    if not quiet:
        fetched = f"{counted(done.fetched_files, 'file')} ({size_text(done.fetched_size)}) fetched again"
        note(f"{folder.repo}: {fetched}, {len(done.moved)} moved to quarantine")


def _step_facts(step: Step) -> dict[str, Any]:
    return {
        "repo": step.problem.repo.name,
        "type": step.problem.repo.kind,
        "path": step.problem.path,
        "kind": step.problem.kind,
        "act": step.act,
        "size": step.size,
        "text": step.text,
    }
