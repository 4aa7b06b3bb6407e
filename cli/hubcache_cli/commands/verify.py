"""`hubcache verify`: the cache held against its digests, with no request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hubcache.cache.findings import Problem, Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import scan_repos
from hubcache.cache.verify import verify_repo
from hubcache.errors import IntegrityError
from hubcache_cli.options import (
    AsJson,
    CacheDir,
    Quiet,
    TypeOption,
    complete_cached,
    make_local_app,
    make_settings,
    parse_kind,
)
from hubcache_cli.output import TransferProgress, counted, note, plain, print_json, size_text

_HEX = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b")


def run(
    references: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REF...]", help="Cached references; without one, all repos.", autocompletion=complete_cached
        ),
    ] = None,
    kind: TypeOption = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Hash what is cached and hold it against its digests and listings; no request is made.

    org/name means everything that is kept of the repo, org/name@revision that commit. Prints a line for each
    problem, and ends with exit code 6 if there is one. Nothing is repaired: delete what is named, and pull again.
    """
    settings = make_settings(cache_dir)
    progress = TransferProgress("verify", bar=not quiet and settings.progress_bars)
    try:
        reports = [
            (folder, verify_repo(folder, commit=commit, progress=progress))
            for folder, commit in _targets(references or [], kind, settings.hub_cache, cache_dir)
        ]
    finally:
        progress.close()
    checked = f"{counted(sum(report.checked_files for _, report in reports), 'file')}"
    checked += f", {size_text(sum(report.checked_size for _, report in reports))}"
    if as_json:
        print_json(_facts([report for _, report in reports]))
    else:
        _show([report for _, report in reports], quiet=quiet)
    damaged = [(folder, report.problems) for folder, report in reports if report.problems]
    if damaged:
        raise _error(damaged, checked, [] if cache_dir is None else ["--cache-dir", str(cache_dir)])
    if not quiet and not as_json:
        note(f"{counted(len(reports), 'repo')}, {checked}: whole")


def _targets(
    references: Sequence[str], kind: str | None, root: Path, cache_dir: Path | None
) -> list[tuple[RepoFolder, str | None]]:
    wanted = parse_kind(kind)
    if not references:
        return [(folder, None) for folder in scan_repos(root) if wanted in (None, folder.repo.kind)]
    from hubcache.app.local import locate  # the grammar and mirrors.yaml, which only references need

    app = make_local_app(cache_dir)
    return list(dict.fromkeys(locate(app, text, kind=wanted) for text in references))


def _show(reports: Sequence[Report], *, quiet: bool) -> None:
    for report in reports:
        for problem in report.problems:
            print(_line(problem))
        for remark in () if quiet else report.notes:
            note(_line(remark))


def _line(problem: Problem) -> str:
    path = _HEX.sub(r"\1…", problem.path)
    return f"{problem.repo}  {plain(path)}  {plain(problem.message)}"


def _facts(reports: Sequence[Report]) -> dict[str, Any]:
    return {
        "checked_files": sum(report.checked_files for report in reports),
        "checked_size": sum(report.checked_size for report in reports),
        "problems": [_problem_facts(problem) for report in reports for problem in report.problems],
        "notes": [_problem_facts(remark) for report in reports for remark in report.notes],
    }


def _problem_facts(problem: Problem) -> dict[str, Any]:
    return {
        "repo": problem.repo.name,
        "type": problem.repo.kind,
        "path": problem.path,
        "kind": problem.kind,
        "message": problem.message,
        "commit": problem.commit or None,
    }


def _error(
    damaged: Sequence[tuple[RepoFolder, Sequence[Problem]]], checked: str, options: Sequence[str]
) -> IntegrityError:
    from hubcache.app.repair import repair_command

    count = sum(len(problems) for _, problems in damaged)
    hint = repair_command(*damaged[0], options=options)
    if len(damaged) > 1:
        hint += f" (and so on for {counted(len(damaged) - 1, 'other repo')})"
    where = counted(len(damaged), "repo")
    return IntegrityError(f"{counted(count, 'problem')} in {where}; {checked} were checked", hint=hint)
