"""`hubcache verify`: the cache held against its digests, with no request, and what is wrong repaired where asked."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubcache.app.settings import Settings
from hubcache.cache.findings import Problem, Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.index import Index
from hubcache.cache.journal import Journal
from hubcache.cache.scan import scan_repos
from hubcache.cache.verify import Effort, verify_repo
from hubcache.errors import IntegrityError, UsageError
from hubcache_cli.options import (
    AsJson,
    CacheDir,
    Quiet,
    TypeOption,
    complete_cached,
    make_app,
    make_local_app,
    make_settings,
    parse_kind,
)
from hubcache_cli.output import TransferProgress, counted, note, plain, print_json, size_text
from hubcache_cli.verifyoptions import parse_effort

if TYPE_CHECKING:
    from hubcache_cli.repairviews import Mended

_HEX = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b")

Target = tuple[RepoFolder, str | None]
"""A repo's folder, and the one commit of it that is meant, or None."""


def run(
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REF...]", help="Cached references; without one, all repos.", autocompletion=complete_cached
        ),
    ] = None,
    kind: TypeOption = None,
    rate: Annotated[str | None, typer.Option(metavar="MB/S", help="Read at most so many megabytes a second.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="7d|DATE", help="Do not read again what was since, and is unchanged.")
    ] = None,
    sample: Annotated[
        str | None, typer.Option(metavar="5%", help="Read this share of the files, each day the next.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what is wrong, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Repair without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what --repair would do, and stop.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Hash what is cached and hold it against its digests and listings; no request is made.

    org/name means everything that is kept of the repo, org/name@revision that commit. Prints a line for each
    problem, and ends with exit code 6 if there is one. Every hash is remembered at once: a check that was cut
    short goes on with --since. --repair moves what is damaged to quarantine, fetches it again from where it came,
    and puts links, refs and listings right; what cannot be had stays in quarantine, and is told.
    """
    if (yes or dry_run) and not repair:
        raise UsageError("--yes and --dry-run belong to --repair", hint="hubcache verify --repair --dry-run")
    settings = make_settings(cache_dir)
    targets = _targets(references or [], kind, settings.hub_cache, cache_dir)
    progress = TransferProgress("verify", bar=not quiet and settings.progress_bars)
    began = int(time.time())
    with closing(Index(settings.state / "index.sqlite3" if settings.state else None)) as index:
        effort = parse_effort(index, rate=rate, since=since, sample=sample)
        found = _verify(targets, effort, progress)
        _journal(settings, targets, found)
        if not as_json:
            _show(found, effort, quiet=quiet)
        left, mended = found, None
        if repair:
            from hubcache.app.repairing import Damaged, plan_repair  # the network, which a check does without
            from hubcache_cli.repairviews import mend

            again = replace(effort, since=began if effort.since is None else min(effort.since, began))
            plans = [
                Damaged(target[0], plan_repair(target[0], report), partial(_verify_one, target, again))
                for target, report in zip(targets, found, strict=True)
            ]
            mended = mend(make_app(cache_dir), plans, ask=not yes, act=not dry_run, quiet=quiet)
            if mended.done:
                left = _verify(targets, again, progress)
    if as_json:
        print_json(_facts(found) | ({} if mended is None else {"repair": _repair_facts(mended, left)}))
    elif left is not found:
        _show_left(left)
    _end(targets, left, cache_dir, quiet=quiet or as_json, is_repaired=left is not found)


def _verify(targets: Sequence[Target], effort: Effort, progress: TransferProgress) -> list[Report]:
    began = datetime.now()
    try:
        return [verify_repo(folder, commit=commit, progress=progress, effort=effort) for folder, commit in targets]
    except KeyboardInterrupt:
        progress.close()
        note(f"to go on where it stopped, add: --since {began:%Y-%m-%dT%H:%M:%S}")
        raise
    finally:
        progress.close()


def _verify_one(target: Target, effort: Effort) -> Report:
    return _verify([target], effort, TransferProgress("verify", bar=False))[0]


def _targets(references: Sequence[str], kind: str | None, root: Path, cache_dir: Path | None) -> list[Target]:
    wanted = parse_kind(kind)
    if not references:
        return [(folder, None) for folder in scan_repos(root) if wanted in (None, folder.repo.kind)]
    from hubcache.app.local import locate  # the grammar and mirrors.yaml, which only references need

    app = make_local_app(cache_dir)
    return list(dict.fromkeys(locate(app, text, kind=wanted) for text in references))


def _journal(settings: Settings, targets: Sequence[Target], reports: Sequence[Report]) -> None:
    """Note what was checked: one line, however many repos."""
    count = sum(len(report.problems) for report in reports)
    repo = str(targets[0][0].repo) if len(targets) == 1 else ""
    journal = Journal(settings.state / "history.jsonl" if settings.state else None)
    size = sum(report.checked_size for report in reports)
    told = f"{counted(len(reports), 'repo')}, {counted(count, 'problem')}"
    journal.add("verify", root=settings.hub_cache, repo=repo, size=size, note=told)


def _show(reports: Sequence[Report], effort: Effort, *, quiet: bool) -> None:
    for report in reports:
        for problem in report.problems:
            print(_line(problem))
        for remark in () if quiet else report.notes:
            note(_line(remark))
    if quiet:
        return
    known, undrawn = sum(each.known_files for each in reports), sum(each.undrawn_files for each in reports)
    if known:
        size = size_text(sum(each.known_size for each in reports))
        note(f"{counted(known, 'file')}, {size}: read since {_when(effort)}, unchanged, not read again")
    if undrawn:
        size = size_text(sum(each.undrawn_size for each in reports))
        note(f"{counted(undrawn, 'file')}, {size}: not read, for another day's sample has them")


def _when(effort: Effort) -> str:
    return f"{datetime.fromtimestamp(effort.since or 0):%Y-%m-%d %H:%M}"


def _show_left(reports: Sequence[Report]) -> None:
    for report in reports:
        for problem in report.problems:
            note(f"still wrong: {_line(problem)}")


def _line(problem: Problem) -> str:
    return f"{problem.repo}  {short_path(problem.path)}  {plain(problem.message)}"


def short_path(path: str) -> str:
    """Write a path for people, its digests shortened."""
    return plain(_HEX.sub(r"\1…", path))


def _facts(reports: Sequence[Report]) -> dict[str, Any]:
    return {
        "checked_files": sum(report.checked_files for report in reports),
        "checked_size": sum(report.checked_size for report in reports),
        "known_files": sum(report.known_files for report in reports),
        "known_size": sum(report.known_size for report in reports),
        "undrawn_files": sum(report.undrawn_files for report in reports),
        "undrawn_size": sum(report.undrawn_size for report in reports),
        "problems": [_problem_facts(problem) for report in reports for problem in report.problems],
        "notes": [_problem_facts(remark) for report in reports for remark in report.notes],
    }


def _repair_facts(mended: Mended, left: Sequence[Report]) -> dict[str, Any]:
    return mended.facts() | {"left": [_problem_facts(problem) for report in left for problem in report.problems]}


def _problem_facts(problem: Problem) -> dict[str, Any]:
    return {
        "repo": problem.repo.name,
        "type": problem.repo.kind,
        "path": problem.path,
        "kind": problem.kind,
        "message": problem.message,
        "commit": problem.commit or None,
    }


def _end(
    targets: Sequence[Target], reports: Sequence[Report], cache_dir: Path | None, *, quiet: bool, is_repaired: bool
) -> None:
    """Say that all is whole, or raise what is not."""
    checked = f"{counted(sum(report.checked_files for report in reports), 'file')}"
    checked += f", {size_text(sum(report.checked_size for report in reports))}"
    folders = [folder for folder, _ in targets]
    damaged = [(each, report.problems) for each, report in zip(folders, reports, strict=True) if report.problems]
    if not damaged:
        is_all = not any(report.undrawn_files for report in reports)
        if not quiet:
            note(
                f"{counted(len(reports), 'repo')}, {checked}: {'whole' if is_all else 'nothing wrong in what was read'}"
            )
        return
    from hubcache.app.repair import pull_command, repair_command

    options = [] if cache_dir is None else ["--cache-dir", str(cache_dir)]
    count = counted(sum(len(problems) for _, problems in damaged), "problem")
    again = pull_command(*damaged[0], options=options)
    raise IntegrityError(
        f"{count} in {counted(len(damaged), 'repo')}; {checked} were checked",
        hint=again if is_repaired else repair_command([folder.repo for folder, _ in damaged], options=options),
    )
