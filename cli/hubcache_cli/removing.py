"""How a removal is shown, asked for and reported, for `gc` and `rm`; it decides nothing."""

from __future__ import annotations

import sys
from typing import Any

import typer

from hubcache.app.collecting import carry_out, undo_last
from hubcache.app.settings import Settings
from hubcache.cache.collect import Removed
from hubcache.cache.undo import Restored
from hubcache.core.removal import Line, Plan
from hubcache.errors import UsageError
from hubcache_cli.output import counted, note, plain, print_json, print_labelled, size_text

_WORDS = {"stored": "shared blob", "stage": "staged files", "blob": "blob"}


def settle(settings: Settings, plan: Plan, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Show the plan, ask unless `yes`, carry it out, and report.

    Raises:
        UsageError: it has to be asked for, and nobody is there to answer.
    """
    if not as_json:
        show_plan(plan)
    wants = bool(plan.going or plan.bins) and not dry_run
    if wants and not yes and not _agreed(plan, as_json=as_json):
        raise typer.Exit(1)
    removed = carry_out(settings, plan) if wants else None
    if as_json:
        print_json(_facts(settings, plan, removed))
    elif removed is not None:
        _report(plan, removed)


def run_undo(settings: Settings, *, as_json: bool) -> None:
    """Put the last removal back, and report."""
    restored = undo_last(settings)
    if as_json:
        print_json({"restored": restored.name, "paths": restored.paths, "size": restored.size})
    else:
        note(_restored(restored))


def show_plan(plan: Plan) -> None:
    """Print a line for each thing, with the reason."""
    for line in plan.lines:
        label = f"{'goes' if line.goes else 'stays':<6}{size_text(line.size):>8}  "
        print_labelled(label, f"{_what(line)}: {line.why}")
    for text in plan.notes:
        note(text)
    note(_summary(plan))


def _what(line: Line) -> str:
    name = line.name[:12] if line.kind in {"commit", "blob", "stored"} else line.name
    what = f"{_WORDS.get(line.kind, line.kind)} {name}" if line.kind not in {"repo", "commit"} else name
    return plain(f"{line.repo} {what}".strip())


def _summary(plan: Plan) -> str:
    trash = sum(line.size for line in plan.lines if line.kind == "trash")
    text = f"{size_text(plan.used)} in use"
    text += f", {size_text(trash)} of it in the trash" if trash else ""
    if not plan.going and not plan.bins:
        text += "; nothing is to go"
    else:
        text += f"; {size_text(plan.size)} would go" + (", for good" if plan.is_final else "")
    if plan.short:
        text += f"; {size_text(plan.short)} too much all the same: what stays is pinned or in use"
    return text


def _agreed(plan: Plan, *, as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        raise UsageError("nobody is here to be asked whether that may go", hint="--yes, or --dry-run to see it only")
    question = f"Remove {counted(len(plan.going), 'thing')}, {size_text(plan.size)}"
    question += ", for good?" if plan.is_final or not plan.going else "? It can be undone for a day."
    return typer.confirm(question, err=True)


def _report(plan: Plan, removed: Removed) -> None:
    for path, reason in removed.skipped:
        note(f"left alone: {plain(path)}: {reason}")
    if removed.emptied:
        note(f"{size_text(removed.emptied)} of trash gone for good")
    text = f"{size_text(removed.size)} in {counted(removed.paths, 'path')} removed"
    if removed.bin:
        text += f"; it takes its room until it is a day old: hubcache {_command(plan)} --undo puts it back"
    elif removed.paths:
        text += ", for good"
    note(text)


def _command(plan: Plan) -> str:
    return "gc" if plan.what == "gc" else "rm"


def _restored(restored: Restored) -> str:
    return f"{counted(restored.paths, 'path')}, {size_text(restored.size)} put back"


def _facts(settings: Settings, plan: Plan, removed: Removed | None) -> dict[str, Any]:
    return {
        "root": str(settings.hub_cache),
        "used": plan.used,
        "free": plan.free,
        "freed": plan.size,
        "short": plan.short,
        "final": plan.is_final,
        "notes": list(plan.notes),
        "lines": [_line_facts(line) for line in plan.lines],
        "done": None if removed is None else _removed_facts(removed),
    }


def _line_facts(line: Line) -> dict[str, Any]:
    return {
        "goes": line.goes,
        "kind": line.kind,
        "repo": line.repo or None,
        "name": line.name,
        "size": line.size,
        "why": line.why,
    }


def _removed_facts(removed: Removed) -> dict[str, Any]:
    return {
        "size": removed.size,
        "paths": removed.paths,
        "undo": removed.bin or None,
        "emptied": removed.emptied,
        "left_alone": [{"path": path, "why": why} for path, why in removed.skipped],
    }
