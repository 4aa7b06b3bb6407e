"""`hubcache pull`: references in, verified snapshots out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubcache.app.usecases import Pulled, PullRequest, pull
from hubcache.core.ids import canonical
from hubcache.errors import HubcacheError, PartialError
from hubcache_cli.errors import report
from hubcache_cli.options import AsJson, CacheDir, Quiet, TypeOption, complete_cached, make_app, parse_kind
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be transferred, and stop.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no bars.")] = False,
) -> None:
    """Bring models, datasets or spaces into the Hugging Face cache, every byte verified.

    Prints the snapshot's path on stdout. A pull that was cut short goes on where it stopped when it is
    run again. A bare org/name is always the Hub's; a local path begins with ./, ../, / or ~, or ends like
    an archive.
    """
    app = make_app(cache_dir)
    failures: list[tuple[str, HubcacheError]] = []
    for text in references:
        request = PullRequest(
            text, parse_kind(kind), revision, stored_as, commit, tuple(include or ()), tuple(exclude or ())
        )
        progress = TransferProgress(text, bar=not (quiet or no_progress) and app.settings.progress_bars)
        try:
            pulled = pull(app, request, progress=progress, notify=_silent if quiet else note, dry_run=dry_run)
        except HubcacheError as error:
            if len(references) == 1:
                raise
            failures.append((text, error))
            report(error, as_json=as_json)
            continue
        finally:
            progress.close()
        _show(pulled, progress, dry_run=dry_run, as_json=as_json, quiet=quiet)
    if failures:
        raise PartialError(f"{len(failures)} of {len(references)} references failed", failures=failures)


def _silent(_: str) -> None:
    """Say nothing."""


def _show(pulled: Pulled, progress: TransferProgress, *, dry_run: bool, as_json: bool, quiet: bool) -> None:
    plan, revision = pulled.plan, pulled.artifact.revision
    if not quiet:
        done = (
            f"{pulled.artifact.repo}@{revision.commit[:12]}: {counted(len(plan.files), 'file')}, {size_text(plan.size)}"
        )
        to_come = f"{counted(len(plan.missing), 'file')}, {size_text(plan.missing_size)} to transfer"
        note(f"{done}; {to_come if dry_run else progress.summary()}")
    if as_json:
        print_json(_facts(pulled, progress, dry_run=dry_run))
    elif not dry_run:
        print(pulled.path)
    else:
        for file in plan.files:
            print(f"{'-' if file.present else size_text(file.blob.size):>9}  {file.path}")


def _facts(pulled: Pulled, progress: TransferProgress, *, dry_run: bool) -> dict[str, Any]:
    artifact, plan = pulled.artifact, pulled.plan
    return {
        "reference": canonical(pulled.reference),
        "repo": artifact.repo.name,
        "type": artifact.repo.kind,
        "revision": artifact.revision.asked,
        "commit": artifact.revision.commit,
        "path": str(pulled.path),
        "files": [
            {"path": file.path, "size": file.blob.size, "digest": file.blob.digest.hex, "present": file.present}
            for file in plan.files
        ],
        "size": plan.size,
        "missing_size": plan.missing_size,
        "transferred_size": progress.transferred,
        "origin": artifact.origin,
        "dry_run": dry_run,
    }
