"""`hubcache pull`: references in, verified snapshots out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hubcache.app.compose import App
from hubcache.app.usecases import Previewed, Pulled, PullRequest, preview, pull
from hubcache.core.ids import canonical
from hubcache.core.plan import CopyPlan
from hubcache.errors import HubcacheError, PartialError
from hubcache_cli.errors import report
from hubcache_cli.options import AsJson, CacheDir, Portable, Quiet, TypeOption, complete_cached, make_app, parse_kind
from hubcache_cli.output import TransferProgress, counted, note, print_json, size_text


def run(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="org/name[@rev], zoo:…, a URL, a path.", autocompletion=complete_cached),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag, refs/pr/N or commit.")] = None,
    stored_as: Annotated[str | None, typer.Option("--as", help="The name to keep it under: org/name.")] = None,
    commit: Annotated[str | None, typer.Option(help="Which commit of --as a local folder's files are.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only files that match; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files that match; may be repeated.")] = None,
    kind: TypeOption = None,
    cache_dir: CacheDir = None,
    no_convert: Annotated[bool, typer.Option("--no-convert", help="Keep old checkpoints as published.")] = False,
    portable: Portable = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be transferred, and stop.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no bars.")] = False,
) -> None:
    """Bring models, datasets or spaces into the Hugging Face cache, every byte verified.

    Prints the snapshot's path on stdout. A pull that was cut short goes on where it stopped when it is
    run again. A bare org/name is always the Hub's; a local path begins with ./, ../, / or ~, or ends like
    an archive. Original checkpoints of StructBERT, PALM, VECO and KE-T5 are converted to what
    from_pretrained loads, where torch is installed; refs/original keeps what was published.
    """
    app = make_app(cache_dir)
    show = _Show(dry_run=dry_run, as_json=as_json, quiet=quiet, bars=app.settings.progress_bars and not no_progress)
    failures: list[tuple[str, HubcacheError]] = []
    for text in references:
        request = PullRequest(
            text, parse_kind(kind), revision, stored_as, commit, tuple(include or ()), tuple(exclude or ()),
            convert=not no_convert, portable=portable,
        )  # fmt: skip
        try:
            show.preview(app, request) if dry_run else show.pull(app, request)
        except HubcacheError as error:
            if len(references) == 1:
                raise
            failures.append((text, error))
            report(error, as_json=as_json)
    if failures:
        raise PartialError(f"{len(failures)} of {len(references)} references failed", failures=failures)


@dataclass(frozen=True, slots=True)
class _Show:
    """How the results are to be shown."""

    dry_run: bool
    as_json: bool
    quiet: bool
    bars: bool

    def note(self, text: str) -> None:
        if not self.quiet:
            note(text)

    def pull(self, app: App, request: PullRequest) -> None:
        progress = TransferProgress(request.text, bar=self.bars and not self.quiet)
        try:
            pulled = pull(app, request, progress=progress, notify=self.note)
        finally:
            progress.close()
        self.note(f"{_summary(pulled.plan)}; {progress.summary()}")
        converted = pulled.converted
        if converted is not None:
            self.note(f"{_summary(converted.plan)}, converted{'' if converted.is_new else ' before'}")
        if self.as_json:
            print_json(_facts(pulled) | {"transferred_size": progress.transferred, "dry_run": False})
        else:
            print(pulled.path if converted is None else converted.path)

    def preview(self, app: App, request: PullRequest) -> None:
        found = preview(app, request, notify=self.note)
        if isinstance(found, Pulled):
            plan = found.plan
            to_come = f"{counted(len(plan.missing), 'file')}, {size_text(plan.missing_size)}"
            self.note(f"{_summary(plan)}; {to_come} to transfer")
            rows: list[tuple[str, int | None, bool]] = [
                (file.path, file.blob.size, file.present) for file in plan.files
            ]
            facts = _facts(found)
        else:
            self.note(f"{found.reference.repo}: {size_text(found.preview.size)} to transfer")
            rows = [(path, size, False) for path, size in found.preview.files]
            facts = _preview_facts(found)
        if self.as_json:
            print_json(facts | {"transferred_size": 0, "dry_run": True})
            return
        for path, size, present in rows:
            print(f"{'-' if present else size_text(size) if size is not None else '?':>9}  {path}")


def _summary(plan: CopyPlan) -> str:
    name = f"{plan.artifact.repo}@{plan.artifact.revision.commit[:12]}"
    return f"{name}: {counted(len(plan.files), 'file')}, {size_text(plan.size)}"


def _facts(pulled: Pulled) -> dict[str, Any]:
    """Describe what the ref that was asked for means now: the conversion, where there is one."""
    converted = pulled.converted
    plan, path = (pulled.plan, pulled.path) if converted is None else (converted.plan, converted.path)
    artifact = plan.artifact
    return {
        "reference": canonical(pulled.reference),
        "repo": artifact.repo.name,
        "type": artifact.repo.kind,
        "revision": artifact.revision.asked,
        "commit": artifact.revision.commit,
        "path": str(path),
        "files": [
            {"path": file.path, "size": file.blob.size, "digest": file.blob.digest.hex, "present": file.present}
            for file in plan.files
        ],
        "size": plan.size,
        "missing_size": plan.missing_size,
        "origin": pulled.artifact.origin,
        "original_commit": None if converted is None else converted.conversion.original,
        "conversion_notes": [] if converted is None else list(converted.conversion.notes),
    }


def _preview_facts(found: Previewed) -> dict[str, Any]:
    repo = found.reference.repo
    return {
        "reference": canonical(found.reference),
        "repo": repo.name,
        "type": repo.kind,
        "revision": found.reference.revision,
        "commit": None,
        "path": None,
        "files": [{"path": path, "size": size, "digest": None, "present": False} for path, size in found.preview.files],
        "size": found.preview.size,
        "missing_size": found.preview.size,
        "origin": found.reference.address,
        "original_commit": None,
        "conversion_notes": [],
    }
