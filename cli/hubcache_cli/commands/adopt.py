"""`hubcache adopt`: models that other tools left on the disk, taken into the cache."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from hubcache.app.adopting import Adopted, Adoption, AdoptPlan, AdoptRequest, adopt, plan_adoption
from hubcache.core.adoptable import Left, Mode
from hubcache.core.artifact import is_commit, parse_commit
from hubcache.errors import EntryNotFound, HubcacheError, PartialError, UsageError
from hubcache_cli.errors import report
from hubcache_cli.options import AsJson, CacheDir, Quiet, TypeOption, make_local_app, parse_kind
from hubcache_cli.output import TransferProgress, counted, note, plain, print_json, print_labelled, size_text

_WORDS = {
    "here": "already here", "reflink": "shared (reflink)", "hardlink": "hardlinked", "move": "moved", "copy": "copied",
}  # fmt: skip
_SHOWN = 10


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders to look through.")],
    stored_as: Annotated[str | None, typer.Option("--as", help="The name to keep it under: org/name.")] = None,
    kind: TypeOption = None,
    commit: Annotated[str | None, typer.Option(help="Which commit of --as a plain folder is.")] = None,
    link: Annotated[bool, typer.Option("--link", help="Hardlink where the disk cannot reflink.")] = False,
    move: Annotated[bool, typer.Option("--move", help="Take the files away from where they are.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy every byte, share nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before files are moved.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Take models that stand on this disk into the cache, by hash, without copying where that can be.

    Recognises plain model folders, git-lfs clones, local_dir folders of huggingface_hub, the caches of ModelScope,
    SparseZoo and sentence-transformers, Ollama's store, and other hub caches. Bytes are shared by reflink where the
    file system can, else copied. Hardlinks are made of what is kept by digest (LFS objects, Ollama's and hub caches'
    blobs), and of the rest with --link: whoever writes to such a file changes the cache's, too. Prints the
    snapshots' paths.
    """
    request = AdoptRequest(
        tuple(paths), parse_kind(kind) or "model", stored_as, parse_commit(commit) if commit else None,
        _mode(link=link, move=move, copy=copy),
    )  # fmt: skip
    if commit and not stored_as:
        raise UsageError("--commit is a commit of the repo that --as names", hint="--as org/name --commit SHA")
    app = make_local_app(cache_dir)
    progress = TransferProgress("adopt", bar=not quiet and app.settings.progress_bars)
    try:
        plan = plan_adoption(app, request, progress)
    finally:
        progress.close()
    _check(plan)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    if move and not yes:
        _ask(plan)
    done, failures = [], []
    for each in plan.adoptions:
        try:
            done.append(adopt(app, each, note))
        except HubcacheError as error:
            if len(plan.adoptions) == 1:
                raise
            failures.append((str(each.artifact.repo), error))
            report(error, as_json=as_json)
    _show_done(done, plan.left, as_json=as_json, quiet=quiet)
    if failures:
        raise PartialError(f"{len(failures)} of {len(plan.adoptions)} repos failed", failures=failures)


def _mode(*, link: bool, move: bool, copy: bool) -> Mode:
    if link + move + copy > 1:
        raise UsageError("--link, --move and --copy exclude each other")
    return "link" if link else "move" if move else "copy" if copy else "auto"


def _check(plan: AdoptPlan) -> None:
    if not plan.adoptions:
        told = "; ".join(f"{plain(left.path)}: {left.why}" for left in plan.left)
        raise EntryNotFound(f"nothing to adopt: {told}", hint="hubcache pull ./folder takes any folder of files")


def _ask(plan: AdoptPlan) -> None:
    """Ask whether the files may be taken away.

    Raises:
        UsageError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UsageError("--move takes files away, and there is no terminal to ask on", hint="--move --yes")
    for each in plan.adoptions:
        _print_adoption(each)
    if not typer.confirm("Move these files into the cache?", err=True):
        raise typer.Exit(1)


def _show_plan(plan: AdoptPlan, *, as_json: bool) -> None:
    if as_json:
        print_json({"repos": [_facts(each) for each in plan.adoptions], "left": _left_facts(plan.left),
                    "dry_run": True})  # fmt: skip
        return
    for each in plan.adoptions:
        _print_adoption(each)
    for left in plan.left:
        print_labelled("left  ", f"{left.path}: {left.why}")


def _show_done(done: list[Adopted], left: tuple[Left, ...], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        rows = [_facts(each.adoption) | {"path": str(each.path) if each.path else None, "removed": each.removed}
                for each in done]  # fmt: skip
        print_json({"repos": rows, "left": _left_facts(left), "dry_run": False})
        return
    for each in done:
        if not quiet:
            _note_adopted(each)
        if each.path:
            print(each.path)
    for one in () if quiet else left:
        note(f"left alone: {plain(one.path)}: {one.why}")


def _note_adopted(done: Adopted) -> None:
    adoption = done.adoption
    removed = f"; {counted(done.removed, 'file')} taken away" if done.removed else ""
    note(f"{_title(adoption)}: {_counts(adoption)}{removed}")
    for line in adoption.notes:
        note(f"  {line}")
    for left in adoption.left[:_SHOWN]:
        note(f"  left alone: {plain(left.path)}: {left.why}")
    if len(adoption.left) > _SHOWN:
        note(f"  and {counted(len(adoption.left) - _SHOWN, 'other')} (--json lists them)")


def _print_adoption(adoption: Adoption) -> None:
    print(plain(_title(adoption)))
    lines = [("from", f"{adoption.found.root} ({adoption.found.layout})"), ("files", _counts(adoption))]
    lines.append(("refs", ", ".join(_refs(adoption)) or "none"))
    lines += [("note", line) for line in adoption.notes]
    lines += [("left", f"{left.path}: {left.why}") for left in adoption.left[:_SHOWN]]
    for label, text in lines:
        print_labelled(f"  {label:<6}", text)
    if len(adoption.left) > _SHOWN:
        print(f"  and {counted(len(adoption.left) - _SHOWN, 'other')} (--json lists them)")


def _title(adoption: Adoption) -> str:
    guess = " (the name is a guess)" if adoption.found.is_guess else ""
    kind = "" if adoption.found.commit else ", computed"
    return f"{adoption.artifact.repo}@{adoption.artifact.revision.commit[:12]}{kind}{guess}"


def _counts(adoption: Adoption) -> str:
    blobs = {adoption.artifact.entry(take.file.path).blob for take in adoption.takes}
    ways = Counter(take.how for take in adoption.takes)
    told = ", ".join(f"{count} {_WORDS[how]}" for how, count in ways.most_common())
    size = size_text(sum(blob.size for blob in blobs))
    return f"{counted(len(adoption.takes), 'file')}, {size}" + (f": {told}" if told else "")


def _refs(adoption: Adoption) -> list[str]:
    names = (adoption.artifact.revision.asked, *adoption.artifact.refs)
    return [name for name in names if not is_commit(name)]


def _facts(adoption: Adoption) -> dict[str, Any]:
    found, artifact = adoption.found, adoption.artifact
    files = [
        {"path": take.file.path, "size": take.file.size, "digest": artifact.entry(take.file.path).blob.digest.hex,
         "from": take.file.place, "how": take.how} for take in adoption.takes
    ]  # fmt: skip
    return {
        "repo": artifact.repo.name,
        "type": artifact.repo.kind,
        "layout": found.layout,
        "root": found.root,
        "is_guess": found.is_guess,
        "source": found.source or None,
        "commit": artifact.revision.commit,
        "is_computed": found.commit is None,
        "is_whole": artifact.is_whole and len(files) == len(artifact.manifest.files),
        "refs": _refs(adoption),
        "files": files,
        "size": sum(row["size"] for row in files),
        "copied_size": adoption.copied_size,
        "left": _left_facts(adoption.left),
        "notes": list(adoption.notes),
    }


def _left_facts(left: tuple[Left, ...]) -> list[dict[str, str]]:
    return [{"path": each.path, "why": each.why} for each in left]
