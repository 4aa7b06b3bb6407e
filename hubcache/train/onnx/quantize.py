"""ONNX files with weights of 8 bits, by onnxruntime's own quantiser with the settings that were measured to pay.

No graph is traced here and nothing is trained; graphs of quantisation-aware training are integers.py's.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]  # has no types
from onnxruntime import quantization  # type: ignore[import-untyped, unused-ignore]  # has no types
from onnxruntime.quantization.shape_inference import (  # type: ignore[import-untyped, unused-ignore]  # has no types
    quant_pre_process,
)

from hubcache.errors import BadConfig, UsageError

WEIGHT_OPS = ("MatMul", "Gemm", "Gather", "Attention", "EmbedLayerNormalization")
LARGEST = 1_900_000_000
"""Bytes of weights that one file holds; protobuf ends at 2 GiB, and the rest of the graph needs room."""

Sample = Mapping[str, np.ndarray]

# Per channel: a third of the error, as fast. Signed weights by unsigned activations: 1.6x as fast as both unsigned.
_OPTIONS: dict[str, Any] = {"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT}


def quantize_dynamic(source: Path, target: Path) -> None:
    """Store the weights of linear layers and embeddings as int8; activations are measured at each run.

    Raises: BadConfig where the file is no ONNX graph.
    """
    with _prepared(source) as folder:
        made = folder / "made.onnx"
        quantization.quantize_dynamic(
            folder / "prepared.onnx",
            made,
            op_types_to_quantize=list(WEIGHT_OPS),
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            use_external_data_format=_is_large(folder / "prepared.onnx"),
            extra_options=dict(_OPTIONS),
        )
        _finish(source, made, target)


def quantize_static(source: Path, target: Path, samples: Iterable[Sample]) -> None:
    """Store weights as int8 and fix the ranges of what they multiply at what the samples show; the graph is QDQ.

    Products' sums, logits among them, and attention's own products stay floats: rounding those too took MiniLM's
    token vectors on film reviews from a cosine of 0.98 to 0.88, and logits beyond the samples' were cut off.
    A sample is what one run is given: names to arrays [batch, seq].
    Raises: BadConfig where the file is no ONNX graph; UsageError where there are no samples.
    """
    reader = _Samples(samples)
    if not reader.rows:
        raise UsageError("static quantisation needs samples, and there are none", hint="or: --quantize dynamic")
    with _prepared(source) as folder:
        made = folder / "made.onnx"
        quantization.quantize_static(
            folder / "prepared.onnx",
            made,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=_products_of_activations(folder / "prepared.onnx"),
            use_external_data_format=_is_large(folder / "prepared.onnx"),
            extra_options={**_OPTIONS, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        _finish(source, made, target)


def _products_of_activations(path: Path) -> list[str]:
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    products = (node for node in graph.node if node.op_type == "MatMul" and node.name)
    return [node.name for node in products if node.input[1] not in constants]


def save(model: Any, target: Path) -> None:
    """Write a graph, large weights as `target`_data beside it, so that half of a file is never seen."""
    target.parent.mkdir(parents=True, exist_ok=True)
    size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=target.parent) as folder:
        made, data = Path(folder) / target.name, f"{target.name}_data"
        onnx.save(model, made, save_as_external_data=size > LARGEST, location=data)
        if size > LARGEST:
            os.replace(made.with_name(data), target.with_name(data))
        os.replace(made, target)


def _finish(source: Path, made: Path, target: Path) -> None:
    """Write what was made under its name, with the source's metadata, which the quantiser drops."""
    model = onnx.load(made)
    ours = {each.key for each in model.metadata_props}
    told = onnx.load(source, load_external_data=False).metadata_props
    model.metadata_props.extend(each for each in told if each.key not in ours)
    save(model, target)


class _Samples(quantization.CalibrationDataReader):
    """The samples one after the other, as onnxruntime asks for them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.rows: Sequence[dict[str, np.ndarray]] = [dict(sample) for sample in samples]
        self._left = iter(self.rows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


@contextmanager
def _prepared(source: Path) -> Iterator[Path]:
    """Make a folder beside the source with prepared.onnx: constants folded, shapes inferred.

    Beside it and not in /tmp: the files are large, and moving one must not copy it.
    """
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=source.parent) as name, _silence():
        folder = Path(name)
        try:
            is_large = _is_large(source)
            quant_pre_process(
                str(source if is_large else _as_one_file(source, folder)),
                str(folder / "prepared.onnx"),
                skip_symbolic_shape=True,
                save_as_external_data=is_large,
                all_tensors_to_one_file=is_large,
            )
        except (DecodeError, ValueError, RuntimeError, OSError) as error:
            raise BadConfig(f"{source} is no ONNX graph that can be quantised: {error}") from error
        yield folder


def _as_one_file(source: Path, folder: Path) -> Path:
    """The quantiser's own copies of a graph lose sight of what stands beside it."""
    if len(_files(source)) == 1:
        return source
    onnx.save(onnx.load(source), folder / "whole.onnx")
    return folder / "whole.onnx"


def _is_large(path: Path) -> bool:
    return sum(each.stat().st_size for each in _files(path)) > LARGEST


def _files(path: Path) -> list[Path]:
    """A graph's file, and those that its weights stand in."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    beside = [each for each in tensors if each.data_location == onnx.TensorProto.EXTERNAL]
    names = {entry.value for each in beside for entry in each.external_data if entry.key == "location"}
    return [path, *(path.parent / name for name in sorted(names))]


@contextmanager
def _silence() -> Iterator[None]:
    """Hold back what onnxruntime's quantiser logs at the root: advice followed here already, and failures to simplify
    a graph with large weights beside it, which it then takes as it is.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
