"""`hubcache export`: a cached model in another form, as a repo of the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubcache.app.exporting import ExportRequest, MergeRequest, export_onnx, export_pruned, merge
from hubcache.core.artifact import Artifact
from hubcache.errors import UsageError
from hubcache.train.onnx.form import OnnxForm
from hubcache_cli.options import AsJson, CacheDir, CachedReference, Quiet, make_local_app
from hubcache_cli.output import note, print_json


def run(
    reference: CachedReference,
    form: Annotated[str | None, typer.Option("--format", help="onnx: a graph for ONNX Runtime.")] = None,
    is_merged: Annotated[bool, typer.Option("--merge", help="Add an adapter's weights to its base's.")] = False,
    prune: Annotated[float | None, typer.Option("--prune", help="Zero this part of the weights: 0.9.")] = None,
    structure: Annotated[str | None, typer.Option("--structure", help="Where --prune prunes: 2:4.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="The head: a pipeline's name, or qa, glue, mlm.")] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX's operators, 17 and later.")] = None,
    external_data: Annotated[bool, typer.Option("--external-data", help="Weights beside the graph.")] = False,
    integer: Annotated[bool, typer.Option("--integer", help="Integers for a trained quantisation.")] = False,
    quantize: Annotated[str | None, typer.Option("--quantize", help="To int8: dynamic, or static.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Texts that static is fitted to, a line each.")] = None,
    output: Annotated[str | None, typer.Option("--output", help="The repo to make: org/name.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Merge into this model, whatever it is.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Make another form of a cached model, offline, and keep it as a repo. Prints the snapshot's path.

    An ONNX graph is checked against PyTorch before it is kept. Of adapters, LoRA and IA3 can be merged; a bottleneck
    adapter cannot, since no weight of the base can take it up.
    """
    app = make_local_app(cache_dir)
    wanted = OnnxForm(task, opset, external_data, integer, prune, structure, quantize)
    request = ExportRequest(reference, output, base, wanted, data)
    say = (lambda _: None) if quiet else note
    if form not in {None, "onnx"}:
        raise UsageError(f"--format is onnx, not {form}")
    if is_merged and (form or prune is not None):
        raise UsageError("an adapter is merged anyway where its model is exported or pruned", hint="leave --merge out")
    if is_merged and output is not None:
        made = merge(app, MergeRequest(reference, output, base))
    elif form == "onnx":
        made = export_onnx(app, request, say)
    elif prune is not None and not (opset or external_data or integer or quantize):
        made = export_pruned(app, request, say)
    else:
        raise UsageError(
            "say what to make",
            hint=f"hubcache export {reference} --format onnx, --prune 0.9, or --merge --output org/name",
        )
    _tell(*made, as_json=as_json, quiet=quiet)


def _tell(artifact: Artifact, path: Path, *, as_json: bool, quiet: bool) -> None:
    if not quiet:
        note(f"kept as {artifact.repo}@{artifact.revision.asked}")
    if as_json:
        revision = artifact.revision
        told = {"repo": artifact.repo.name, "revision": revision.asked, "commit": revision.commit, "path": str(path)}
        print_json(told)
    else:
        print(path)
