"""A model's folder made the folder of an ONNX repo, every graph checked before it is told done; no cache is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.onnx import export, layout, quantize, samples
from hubcache.train.onnx.check import Checked, check
from hubcache.train.onnx.form import PLAIN, OnnxForm
from hubcache.train.onnx.inputs import Graph, graphs_of
from hubcache.train.onnx.integers import store_int8, to_integers
from hubcache.train.onnx.loading import load, load_over, tokenizer_if_any
from hubcache.train.sparse.oneshot import prune
from hubcache.train.sparse.quantization import exportable, is_quantized
from hubcache.train.sparse.quantization.export import PlainFakeQuantize


@dataclass(frozen=True, slots=True)
class OnnxRequest:
    """What to export and how; `source` names it in the card, `texts` are what a static quantisation is fitted to.

    `base` is given where the folder holds an adapter that stands over it.
    """

    folder: Path
    output: Path
    source: str
    form: OnnxForm = PLAIN
    base: Path | None = None
    texts: Sequence[str] = ()
    say: Callable[[str], object] = len


def write_onnx(request: OnnxRequest) -> tuple[Checked, ...]:
    """Write config, tokenizer, onnx/, deployment/, samples and card into the output folder.

    Raises:
        UsageError: the head is not trained, the family cannot be exported, or the options do not go together.
        IntegrityError: a graph does not compute what PyTorch does; it has the figures.
    """
    model, tokenizer = _read(request)
    if request.form.quantize and is_quantized(model):
        raise UsageError("the model is quantised already, by its training", hint="--integer instead of --quantize")
    if request.form.prune is not None:
        _prune(model, request)
    graphs = graphs_of(_exportable(model, request), tokenizer)
    layout.write_model_files(model, tokenizer, request.folder, request.output)
    checked, opset = _write_graphs(graphs, request)
    if request.form.quantize is not None:
        checked += [_quantized(graph, tokenizer, request) for graph in graphs if graph.name != "decoder_model"]
    if request.form.external_data:
        # Last: a quantiser reads whole files.
        for path in sorted((request.output / "onnx").glob("*.onnx")):
            export.put_weights_beside(path)
    _write_samples(graphs, tokenizer, request)
    layout.write_deployment(request.output)
    layout.write_card(request.output, source=request.source, graphs=graphs, checked=checked, opset=opset)
    return tuple(checked)


def write_pruned(request: OnnxRequest) -> dict[str, float]:
    """Write the pruned model itself, with its tokenizer, into the output folder; return each layer's sparsity.

    Raises:
        UsageError: the head is not trained, or the sparsity cannot be had.
    """
    model, tokenizer = load(request.folder, request.form.task), tokenizer_if_any(request.folder)
    sparsity = _prune(model, request)
    layout.write_model_files(model, tokenizer, request.folder, request.output)
    with export.silently():
        model.save_pretrained(request.output)
    rows = [f"| {name} | {value:.2%} |" for name, value in sparsity.items()]
    head = [
        "---",
        "tags:",
        "- pruned",
        "---",
        "",
        f"# Pruned from {request.source}",
        "",
        "| layer | zeros |",
        "|---|---|",
    ]
    (request.output / "README.md").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
    return sparsity


def _read(request: OnnxRequest) -> tuple[Any, Any]:
    tokenizer = tokenizer_if_any(request.folder)
    if request.base is None:
        return load(request.folder, request.form.task), tokenizer
    return load_over(request.folder, request.base, request.form.task), tokenizer or tokenizer_if_any(request.base)


def _prune(model: Any, request: OnnxRequest) -> dict[str, float]:
    assert request.form.prune is not None
    found = prune(model, request.form.prune, request.form.structure or "unstructured")
    mean = sum(found.values()) / max(1, len(found))
    request.say(f"pruned {len(found)} layers, {mean:.1%} zeros on average")
    return found


def _exportable(model: Any, request: OnnxRequest) -> Any:
    """Return the model in a form whose fake quantisation an exporter can follow; a plain one as it is."""
    if is_quantized(model):
        return exportable(model)
    if request.form.integer:
        raise UsageError(
            "the model was not trained with quantisation: there is nothing to turn into integers",
            hint="hubcache export MODEL --format onnx --quantize dynamic",
        )
    return model


def _write_graphs(graphs: Sequence[Graph], request: OnnxRequest) -> tuple[list[Checked], int]:
    checked: list[Checked] = []
    opset = 0
    for graph in graphs:
        path = request.output / "onnx" / f"{graph.name}.onnx"
        request.say(f"exporting {path.name}")
        opset = export.write_graph(graph, path, opset=request.form.opset, say=request.say)
        if _is_rounding(graph):
            store_int8(path, path)
            checked.append(_told(check(graph, path, exact=False), request))
        else:
            checked.append(check(graph, path))
            request.say(f"{path.name} is PyTorch's within {checked[-1].difference:.2g}, opset {opset}")
        if request.form.integer:
            checked.append(_integer(graph, path, request))
    return checked, opset


def _is_rounding(graph: Graph) -> bool:
    return any(isinstance(module, PlainFakeQuantize) for module in graph.module.modules())


def _integer(graph: Graph, path: Path, request: OnnxRequest) -> Checked:
    target = path.with_name(f"{path.stem}_quantized.onnx")
    with export.silently():
        to_integers(path, target)
    return _told(check(graph, target, exact=False), request)


def _quantized(graph: Graph, tokenizer: Any, request: OnnxRequest) -> Checked:
    source = request.output / "onnx" / f"{graph.name}.onnx"
    target = source.with_name(f"{source.stem}_quantized.onnx")
    with export.silently():
        if request.form.quantize == "static":
            quantize.quantize_static(source, target, samples.feeds_of(graph, tokenizer, request.texts))
        else:
            quantize.quantize_dynamic(source, target)
    return _told(check(graph, target, exact=False), request)


def _told(checked: Checked, request: OnnxRequest) -> Checked:
    request.say(f"{checked.file}: the answers' cosine to PyTorch's is {checked.likeness:.3f} at least")
    return checked


def _write_samples(graphs: Sequence[Graph], tokenizer: Any, request: OnnxRequest) -> None:
    # Of two halves, the second's samples tell of both: it is given what the first answers.
    graph = next(each for each in graphs if each.name in {"model", "decoder_model"})
    samples.write_samples(graph, tokenizer, request.output)
