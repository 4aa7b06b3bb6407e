"""One graph written as an ONNX file with named, varying axes; whether it computes the right thing, check.py says."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch

from hubcache.errors import UsageError
from hubcache.train.heads import quietly
from hubcache.train.onnx.inputs import Graph, Shape

LARGEST = 1_800_000_000
"""Bytes of weights above which they stand beside the graph: an ONNX file ends at 2 GB."""

OLDEST, OLDEST_BY_TRACE = 17, 18
"""No opset before 17 has LayerNormalization; the older exporter is asked for 18, if any."""

Say = Callable[[str], object]


def write_graph(graph: Graph, path: Path, *, opset: int | None = None, say: Say = len) -> int:
    """Write a graph to `path`, weights that are too large for one file to `path`_data; return its opset.

    torch's exporter through dynamo does it, or the older one by tracing where that fails.
    Raises:
        UsageError: neither can export it, or not in this opset.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if opset is not None and opset < OLDEST:
        raise UsageError(f"opset {opset} is older than torch's exporter writes", hint=f"--opset {OLDEST}, or leave it")
    try:
        _by_dynamo(graph, path, opset)
    except torch.onnx.errors.OnnxExporterError as error:
        say(f"{path.name}: torch's exporter cannot follow this model ({_reason(error)}); trying its older one")
        _by_trace(graph, path, opset or OLDEST_BY_TRACE)
    model = onnx.load(path)
    _name_axes(model, graph)
    _forget_sources(model)
    written = next(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    if opset is not None and written != opset:
        raise UsageError(f"{path.name} comes out in opset {written}, not {opset}", hint="leave --opset out")
    _save(model, path, external=_weights_size(graph.module) > LARGEST)
    return int(written)


def put_weights_beside(path: Path) -> None:
    """Move a graph's weights to `path`_data."""
    _save(onnx.load(path), path, external=True)


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Keep what exporters print and log off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with quietly(), warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            yield
    finally:
        logging.disable(before)


def _by_dynamo(graph: Graph, path: Path, opset: int | None) -> None:
    varying = tuple({axis: torch.export.Dim.DYNAMIC for axis in graph.axes[name]} for name in graph.inputs)
    with silently(), torch.no_grad():
        torch.onnx.export(
            graph.module,
            graph.example(Shape(2, 7, 3)),
            path,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=_as_signature(graph, varying),
            opset_version=opset,
            dynamo=True,
            external_data=_weights_size(graph.module) > LARGEST,
            verbose=False,
        )


def _as_signature(graph: Graph, varying: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nest what a module takes as *tensors, as torch.export wants it."""
    parameters = list(inspect.signature(graph.module.forward).parameters.values())
    plain = sum(each.kind is not inspect.Parameter.VAR_POSITIONAL for each in parameters)
    return (*varying[:plain], varying[plain:]) if plain < len(parameters) else varying


def _by_trace(graph: Graph, path: Path, opset: int) -> None:
    try:
        with silently(), torch.no_grad():
            torch.onnx.export(
                graph.module,
                graph.example(Shape(2, 7, 3)),
                path,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_axes=graph.axes,
                opset_version=opset,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UsageError(
            f"{path.name} cannot be exported to opset {opset}: {_reason(error)}", hint="leave --opset out"
        ) from error


def _reason(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[0][:160]}" if lines else type(root).__name__


def _weights_size(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def _name_axes(model: Any, graph: Graph) -> None:
    """Give the varying axes their names, everywhere; what an exporter calls s10 tells nobody anything."""
    known: dict[str, str] = {}
    for value in model.graph.input:
        for axis, name in graph.axes[value.name].items():
            dimension = value.type.tensor_type.shape.dim[axis]
            if dimension.dim_param:
                known.setdefault(dimension.dim_param, name)
            dimension.Clear()
            dimension.dim_param = name
    for value in (*model.graph.output, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in known:
                dimension.dim_param = known[dimension.dim_param]


def _forget_sources(model: Any) -> None:
    """Drop the notes on which line of code made what: half the file, with this machine's paths in it."""
    for each in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        each.ClearField("doc_string")
        each.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")


def _save(model: Any, path: Path, *, external: bool) -> None:
    """Write it, weights of 1 kB and more to `path`_data if so; what the exporter left beside goes."""
    data = path.with_name(f"{path.name}_data")
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    if external:
        onnx.save_model(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    else:
        onnx.save_model(model, path)
