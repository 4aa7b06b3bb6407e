"""`hubcache ls`: what the cache holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from hubcache.app.records import open_index
from hubcache.cache.scan import CommitSummary, RepoSummary, scan_commits
from hubcache.cache.summaries import scan_indexed
from hubcache.core.filters import chosen, parse_filter, parse_sort
from hubcache_cli.options import AsJson, CacheDir, make_settings, parse_kind
from hubcache_cli.output import (
    age_text,
    counted,
    note,
    plain,
    print_json,
    print_table,
    shorten,
    size_text,
    terminal_width,
)


def run(
    revisions: Annotated[bool, typer.Option("--revisions", help="A line for each commit.")] = False,
    kind: Annotated[str | None, typer.Option("--type", help="Only models, datasets or spaces.")] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", "-f", metavar="EXPR", help="size>1GB, accessed>30d, refs=main, …")
    ] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="name, size, accessed or modified; :asc or :desc.")] = "name",
    limit: Annotated[int | None, typer.Option(min=0, help="Only the first so many.")] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the references alone, whole.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """List the repos in the cache: their size, files, last use and refs.

    Sizes are what stands on the disk, each blob once. Filters are those of `hf cache ls`, and all must hold: size,
    accessed and modified (a span of time ago) with > < >= <=, type and refs with =. Long names are cut in the table.
    """
    settings = make_settings(cache_dir)
    root = settings.hub_cache
    wanted, conditions, order = parse_kind(kind), [parse_filter(text) for text in filters or ()], parse_sort(sort)
    everything = [one for one in scan_indexed(root, open_index(settings)) if wanted in (None, one.repo.kind)]
    for summary in [] if as_json or quiet else everything:
        if summary.problem:
            note(f"{summary.repo}: {plain(summary.problem)}")
    if revisions:
        commits = [commit for summary in everything for commit in scan_commits(summary)]
        found = chosen(commits, conditions, order, time.time())
        _list_commits(found[:limit], as_json=as_json, quiet=quiet)
        shown = len(found[:limit])
    else:
        repos = chosen(everything, conditions, order, time.time())
        _list_repos(repos[:limit], as_json=as_json, quiet=quiet)
        shown = len(repos[:limit])
    if not as_json and not quiet:
        note(_totals(everything, shown, f"{root}", is_of_repos=not revisions))
    elif not everything:
        note(f"nothing is cached in {root}")


def _list_repos(summaries: Sequence[RepoSummary], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json([_repo_facts(summary) for summary in summaries])
    elif quiet:
        _print_lines(str(summary.repo) for summary in summaries)
    elif summaries:
        now = time.time()
        rows = [
            (str(one.repo), size_text(one.size), str(one.files), age_text(now - one.last_used), _refs(one))
            for one in summaries
        ]
        _print_fitting(("REPO", "SIZE", "FILES", "USED", "REFS"), rows, right=(1, 2))


def _refs(summary: RepoSummary) -> str:
    return ", ".join(("pinned", *summary.refs) if summary.is_pinned else summary.refs)


def _list_commits(commits: Sequence[CommitSummary], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json([_commit_facts(commit) for commit in commits])
    elif quiet:
        _print_lines(f"{commit.repo}@{commit.commit}" for commit in commits)
    elif commits:
        rows = [
            (str(one.repo), one.commit[:12], size_text(one.size), str(one.files), ", ".join(one.refs))
            for one in commits
        ]
        _print_fitting(("REPO", "COMMIT", "SIZE", "FILES", "REFS"), rows, right=(2, 3))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _print_fitting(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> None:
    """Print a table, its first and last column cut to what the terminal has left beside the others."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    room = terminal_width() - sum(widths[1:-1]) - 2 * (len(header) - 1)
    refs = min(widths[-1], max(room - widths[0], room // 4, len(header[-1])))
    cut = [[shorten(row[0], room - refs), *row[1:-1], shorten(row[-1], refs)] for row in rows]
    print_table(header, cut, right=right)


def _repo_facts(summary: RepoSummary) -> dict[str, Any]:
    return {
        "repo": summary.repo.name,
        "type": summary.repo.kind,
        "path": str(summary.path),
        "size": summary.size,
        "files": summary.files,
        "commits": list(summary.commits),
        "refs": dict(summary.refs),
        "last_used": summary.last_used,
        "hits": summary.hits,
        "pinned": summary.is_pinned,
        "risks": list(summary.risks),
        "last_modified": summary.last_modified,
        "partial_files": summary.partial_files,
        "partial_size": summary.partial_size,
        "orphan_size": summary.orphan_size,
        "problem": summary.problem,
    }


def _commit_facts(commit: CommitSummary) -> dict[str, Any]:
    return {
        "repo": commit.repo.name,
        "type": commit.repo.kind,
        "commit": commit.commit,
        "path": str(commit.path),
        "size": commit.size,
        "files": commit.files,
        "refs": list(commit.refs),
        "last_modified": commit.last_modified,
    }


def _totals(found: Sequence[RepoSummary], shown: int, root: str, *, is_of_repos: bool) -> str:
    if not found:
        return f"nothing is cached in {root}"
    count = sum(len(one.commits) for one in found)
    text = f"{counted(len(found), 'repo')}, {counted(count, 'commit')}, {size_text(sum(one.size for one in found))}"
    text += f" in {root}"
    if partial := sum(one.partial_size for one in found):
        text += f"; {size_text(partial)} of unfinished files"
    if orphans := sum(one.orphan_size for one in found):
        text += f"; {size_text(orphans)} that no snapshot links to"
    return text if shown == (len(found) if is_of_repos else count) else f"{text}; {shown} shown"
