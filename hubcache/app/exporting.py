"""Cached models in another form, as a commit of their own: merged, pruned or ONNX; the work is train/'s."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hubcache.app.local import LocalApp
from hubcache.app.publishing import publish_folder
from hubcache.app.training import ADAPTER, Planned, find_folder, require_libraries
from hubcache.core.artifact import Artifact, RepoId
from hubcache.errors import BadConfig, HubcacheError, UsageError
from hubcache.train.onnx.form import PLAIN, OnnxForm

if TYPE_CHECKING:
    from hubcache.train.onnx.whole import OnnxRequest

INSTALL_ONNX = "pip install 'hubcache[train,onnx]'"
QUANTIZERS = ("dynamic", "static")

MOST_TEXTS = 256
"""How many texts a static quantisation is fitted to, at most."""


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """Which adapter is merged into its base (`base`: into this one, whatever it is), and the repo that it makes."""

    model: str
    output: str
    base: str | None = None


def find_base(app: LocalApp, folder: Path, named: str | None = None) -> Path | None:
    """Find the model that an adapter's folder names, or `named`; None where the folder holds no adapter.

    Raises:
        OfflineError: the base is not in the cache; the hint is the pull that brings it.
        UsageError: `named`, but no adapter.
    """
    if not (folder / ADAPTER).is_file():
        if named is not None:
            raise UsageError(f"{folder} is no adapter that could stand over {named}", hint="leave --base out")
        return None
    from hubcache.train.adapters.base import AdapterFile

    path, _ = find_folder(app, named or AdapterFile.read(folder).base.text)
    return path


def merge(app: LocalApp, request: MergeRequest) -> tuple[Artifact, Path]:
    """Add a LoRA's (or IA3's) weights to its base's and keep the sum as a repo; return its commit and snapshot.

    Raises:
        UsageError: it is no adapter, one that cannot be merged, or over another base.
        OfflineError: the adapter or its base is not in the cache.
    """
    require_libraries()
    repo = RepoId.parse(request.output)
    folder, _ = find_folder(app, request.model)
    base = find_base(app, folder, request.base)
    if base is None:
        raise UsageError(f"{request.model} is no adapter: there is nothing to merge", hint="hubcache info REF")
    from hubcache.train.adapters.merging import write_merged

    with _scratch(app) as scratch:
        write_merged(folder, base, scratch, any_base=request.base is not None)
        return publish_folder(app, scratch, repo, origin=f"hubcache export --merge {request.model}")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is exported in which form, as it was typed; `data` is a file of texts that `static` is fitted to."""

    model: str
    output: str | None = None
    base: str | None = None
    form: OnnxForm = PLAIN
    data: Path | None = None


def check_export(planned: Planned, *, integer: bool) -> None:
    """Refuse an export that could only fail when the training is done.

    Raises: UsageError, where a library is missing, or integers are wanted of what nothing quantises.
    """
    from hubcache.train.sparse.loading import is_quantized_folder
    from hubcache.train.sparse.quantization import definitions

    require_onnx()
    recipe = planned.request.recipe
    quantises = (recipe is not None and definitions(recipe)) or is_quantized_folder(planned.request.model)
    if integer and not quantises:
        raise UsageError("nothing quantises the model: there is nothing to turn into integers", hint="--export onnx")


def export_onnx(app: LocalApp, request: ExportRequest, say: Callable[[str], object]) -> tuple[Artifact, Path]:
    """Make an ONNX repo of a cached model, each graph checked against PyTorch; return its commit and snapshot.

    Raises:
        UsageError: the options do not go together, a library is missing, or the model cannot be exported.
        OfflineError: the model is not in the cache.
        IntegrityError: a graph does not compute what the model does; nothing is kept.
    """
    _check(request)
    require_onnx()
    from hubcache.train.onnx.whole import write_onnx

    with _scratch(app) as scratch:
        output = scratch / "made"
        write_onnx(_made(app, request, scratch, say))
        return publish_folder(
            app, output, _repo(request, "onnx"), origin=f"hubcache export --format onnx {request.model}"
        )


def export_pruned(app: LocalApp, request: ExportRequest, say: Callable[[str], object]) -> tuple[Artifact, Path]:
    """Make a repo of a cached model's weights, the smallest of them 0; return its commit and snapshot.

    Raises:
        UsageError: the options do not go together, or the sparsity cannot be had.
        OfflineError: the model is not in the cache.
    """
    _check(request)
    require_libraries()
    from hubcache.train.onnx.whole import write_pruned

    with _scratch(app) as scratch:
        write_pruned(_made(app, request, scratch, say))
        origin = f"hubcache export --prune {request.form.prune} {request.model}"
        return publish_folder(app, scratch / "made", _repo(request, "pruned"), origin=origin)


def require_onnx() -> None:
    """Check that what exports is installed.

    Raises:
        UsageError: names what is missing.
    """
    require_libraries()
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(f"an ONNX export needs {', '.join(missing)}, not installed here", hint=INSTALL_ONNX)


def _check_structure(form: OnnxForm) -> None:
    """Refuse a sparsity that a structure of N of each M weights does not have."""
    kept, colon, group = (form.structure or "").partition(":")
    if form.prune is None or not (colon and kept.isdecimal() and group.isdecimal() and int(group)):
        return
    zeros = 1 - int(kept) / int(group)
    if abs(form.prune - zeros) > 0.01:
        raise UsageError(
            f"{form.structure} zeros {zeros:.0%} of the weights, not {form.prune:.0%}",
            hint=f"--prune {zeros:g} --structure {form.structure}",
        )


def _check(request: ExportRequest) -> None:
    if request.form.quantize not in {None, *QUANTIZERS}:
        raise UsageError(f"--quantize is {' or '.join(QUANTIZERS)}, not {request.form.quantize}")
    if request.form.structure is not None and request.form.prune is None:
        raise UsageError(
            "--structure says where --prune prunes", hint=f"--prune 0.5 --structure {request.form.structure}"
        )
    if request.form.prune is not None and not 0 < request.form.prune < 1:
        raise UsageError(f"--prune is the part of the weights that goes, between 0 and 1, not {request.form.prune}")
    _check_structure(request.form)
    if (request.form.quantize == "static") != (request.data is not None):
        raise UsageError(
            "--quantize static is fitted to the texts of --data",
            hint="--quantize static --data texts.txt, or --quantize dynamic",
        )
    if request.form.integer and request.form.quantize:
        raise UsageError("--integer is for models whose training quantised them, --quantize for the others")


def _made(app: LocalApp, request: ExportRequest, scratch: Path, say: Callable[[str], object]) -> OnnxRequest:
    """Turn what was typed into what train/ works on: folders, and the texts read."""
    from hubcache.train.onnx.whole import OnnxRequest

    folder, found = find_folder(app, request.model)
    base = find_base(app, folder, request.base)
    if base is not None and (request.form.prune is not None or _can_merge(folder)):
        from hubcache.train.adapters.merging import write_merged

        say("merging the adapter into its base")
        write_merged(folder, base, scratch / "merged", any_base=request.base is not None)
        folder, base = scratch / "merged", None
    elif base is not None and request.base is None:
        from hubcache.train.adapters.base import AdapterFile, base_of_folder, check_base

        check_base(AdapterFile.read(folder).base, base_of_folder(base))
    return OnnxRequest(
        folder=folder, base=base, output=scratch / "made", source=found.name, form=request.form,
        texts=tuple(islice(read_texts(request.data), MOST_TEXTS)) if request.data else (), say=say,
    )  # fmt: skip


def _can_merge(folder: Path) -> bool:
    """Tell whether an adapter is peft's: what cannot be merged of those, the merging refuses."""
    from hubcache.train.adapters.base import AdapterFile

    return AdapterFile.read(folder).is_peft


def read_texts(path: Path) -> Iterator[str]:
    """Read a file's texts: a line each, or of a .jsonl the rows' `text`, or else their first text.

    Raises:
        BadConfig: it cannot be read, or a row holds no text.
    """
    try:
        lines = [line for line in path.expanduser().read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        yield line if path.suffix != ".jsonl" else _text_of(line, f"{path}:{number}")


def _text_of(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadConfig(f"{where} is no JSON: {error}") from error
    texts = [value for value in row.values() if isinstance(value, str)] if isinstance(row, dict) else []
    if not texts:
        raise BadConfig(f"{where} holds no text")
    return str(row["text"]) if isinstance(row.get("text"), str) else texts[0]


def _repo(request: ExportRequest, kind: str) -> RepoId:
    name = request.model.partition("@")[0].rstrip("/").split("/")[-1]
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip("-.")[:80] or "model"
    return RepoId.parse(request.output or f"local/{kept}-{kind}")


@contextmanager
def _scratch(app: LocalApp) -> Iterator[Path]:
    """Make a folder for work in progress, gone with the block."""
    if app.settings.state is None:
        raise HubcacheError("there is no folder for work in progress", hint="export XDG_STATE_HOME=DIR")
    place = app.settings.state / "exports"
    place.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=place))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
