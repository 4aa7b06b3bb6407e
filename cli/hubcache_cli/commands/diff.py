"""`hubcache diff`: two cached commits held against each other."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubcache.app.comparing import Comparison, Difference, compare
from hubcache.core.digests import Blob
from hubcache.core.tensorlist import Tensor
from hubcache_cli.options import AsJson, CacheDir, TypeOption, complete_cached, make_local_app, parse_kind
from hubcache_cli.output import counted, note, plain, print_json, print_table, shorten, size_text, terminal_width

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">"}


def run(
    before: Annotated[str, typer.Argument(metavar="A", autocompletion=complete_cached, help="A cached reference.")],
    after: Annotated[str, typer.Argument(metavar="B", autocompletion=complete_cached, help="Another one.")],
    kind: TypeOption = None,
    as_json: AsJson = False,
    cache_dir: CacheDir = None,
) -> None:
    """Show which files two revisions or repos do not share, and how their tensors differ in name, type and shape.

    `+` is only in B, `-` only in A, `~` differs, `>` has another name. Tensors are read from the headers of
    safetensors files that differ; no weights are loaded.
    """
    found = compare(make_local_app(cache_dir), before, after, kind=parse_kind(kind))
    if as_json:
        print_json(_facts(found))
        return
    _print("FILE", [(_SIGNS[each.change], _name(each), *_sizes(each)) for each in found.files])
    _print("TENSOR", [(_SIGNS[each.change], each.name, *_types(each)) for each in found.tensors])
    for path in found.unread:
        note(f"no tensors are known of {plain(path)}")
    note(
        f"{counted(len(found.files), 'file')} and {counted(len(found.tensors), 'tensor')} differ,"
        f" {counted(found.same_files, 'file')} the same"
    )


def _print(what: str, rows: list[tuple[str, str, str, str]]) -> None:
    if not rows:
        return
    header = ("", what, "A", "B")
    rest = [max(len(row[column]) for row in (header, *rows)) for column in (0, 2, 3)]
    room = max(20, terminal_width() - sum(rest) - 6)
    print_table(header, [(row[0], shorten(plain(row[1]), room), *row[2:]) for row in rows], right=(2, 3))


def _name(file: Difference[Blob]) -> str:
    return f"{file.was} > {file.name}" if file.was else file.name


def _sizes(file: Difference[Blob]) -> tuple[str, str]:
    return _size(file.before), _size(file.after)


def _size(blob: Blob | None) -> str:
    return "" if blob is None else f"{size_text(blob.size)} {blob.digest.hex[:8]}"


def _types(tensor: Difference[Tensor]) -> tuple[str, str]:
    return "" if tensor.before is None else str(tensor.before), "" if tensor.after is None else str(tensor.after)


def _facts(found: Comparison) -> dict[str, Any]:
    return {
        "a": {"repo": str(found.before.repo), "commit": found.before.revision.commit},
        "b": {"repo": str(found.after.repo), "commit": found.after.revision.commit},
        "files": [
            {"path": each.name, "change": each.change, "was": each.was or None}
            | {"a": _blob_facts(each.before), "b": _blob_facts(each.after)}
            for each in found.files
        ],
        "same_files": found.same_files,
        "tensors": [
            {"name": each.name, "change": each.change, "a": _tensor_facts(each.before), "b": _tensor_facts(each.after)}
            for each in found.tensors
        ],
        "same_tensors": found.same_tensors,
        "unread": list(found.unread),
    }


def _blob_facts(blob: Blob | None) -> dict[str, Any] | None:
    return None if blob is None else {"digest": blob.digest.hex, "size": blob.size}


def _tensor_facts(tensor: Tensor | None) -> dict[str, Any] | None:
    return None if tensor is None else {"dtype": tensor.dtype, "shape": list(tensor.shape), "size": tensor.size}
