"""Graphs of quantisation-aware training made small (weights stored as int8) or all-integer (MatMulInteger).

torch exports a fake quantisation as QuantizeLinear and DequantizeLinear over float weights. No range is chosen here:
scales and zero points are those of the graph, and the result is the same but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]  # has no types
from onnx import helper, numpy_helper

from hubcache.errors import BadConfig
from hubcache.train.onnx.quantize import save

_MOVING = ("Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Gather")
"""What moves numbers and computes none: it may come before a DequantizeLinear as well as after it."""


def store_int8(source: Path, target: Path) -> int:
    """Store quantised weights as the integers they are, the graph staying QDQ; return how many were.

    Raises: BadConfig where the file is no ONNX graph.
    """
    graph = _read(source)
    stored = _stored(graph)
    save(graph.finish(), target)
    return stored


def to_integers(source: Path, target: Path) -> int:
    """Compute quantised matrix products with MatMulInteger on weights stored as integers; return how many do.

    Raises: BadConfig where the file is no ONNX graph, or has no quantised product.
    """
    graph = _read(source)
    _stored(graph)
    count = graph.rewrite(_integer_product)
    if not count:
        raise BadConfig(
            f"{source} has no matrix product of quantised numbers",
            hint="only models of quantisation-aware training have them; else: --quantize dynamic",
        )
    save(graph.finish(), target)
    return count


@dataclass(frozen=True, slots=True)
class _Quantised:
    """A tensor as integers: real = (values - zero) * scale; `axis` is what the scales go along, None for one scale."""

    values: str
    scale: str
    zero: str
    axis: int | None


class _Graph:
    """An ONNX graph being changed: its nodes in order, its constants by name and who makes what."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        constants = [node for node in model.graph.node if node.op_type == "Constant"]
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in constants:
            [value] = node.attribute
            tensor = value.t if value.name == "value" else _tensor(value)
            tensor.name = node.output[0]
            self._tensors[tensor.name] = tensor
        self.makers = {output: node for node in self.nodes for output in node.output}

    def constant(self, name: str) -> np.ndarray | None:
        """Return a constant's values, None for what is computed."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add(self, near: str, array: np.ndarray) -> str:
        """Add a constant and return its name."""
        name = self.new_name(near)
        self.put(name, array)
        return name

    def put(self, name: str, array: np.ndarray) -> None:
        """Make a constant of what was computed under that name."""
        self._tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)

    def new_name(self, near: str) -> str:
        """Return a name that the graph does not have."""
        number = 0
        while (name := f"{near}_{number}") in self._tensors or name in self.makers:
            number += 1
        return name

    def readers(self, name: str) -> int:
        """Count who reads a tensor."""
        return sum(list(node.input).count(name) for node in self.nodes)

    def rewrite(self, rule: Callable[[_Graph, Any], list[Any] | None]) -> int:
        """Put what a rule returns in a node's place, for all nodes; return for how many it did."""
        count, kept = 0, []
        for node in list(self.nodes):
            made = rule(self, node)
            count += made is not None
            for each in [node] if made is None else made:
                kept.append(each)
                self.makers.update(dict.fromkeys(each.output, each))
        self.nodes = kept
        return count

    def finish(self) -> Any:
        """Drop what nothing reads any more, and return the model."""
        graph = self.model.graph
        wanted = {output.name for output in graph.output}
        kept: list[Any] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(_read_by(node))
        for field in (graph.node, graph.initializer, graph.value_info):
            del field[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(tensor for name, tensor in self._tensors.items() if name in wanted)
        return self.model


def _stored(graph: _Graph) -> int:
    count = graph.rewrite(_weight_as_integers)
    graph.rewrite(_clipped_weight)
    graph.rewrite(_transposed_weight)
    graph.rewrite(_embedding)
    return count


def _weight_as_integers(graph: _Graph, node: Any) -> list[Any] | None:
    """QuantizeLinear of a constant."""
    weight = graph.constant(node.input[0]) if node.op_type == "QuantizeLinear" else None
    scale = None if weight is None else graph.constant(node.input[1])
    if weight is None or scale is None:
        return None
    zero = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    if zero is None or zero.dtype not in (np.int8, np.uint8):
        return None
    shape = [1] * weight.ndim
    if scale.size > 1:
        shape[_axis(node)] = scale.size
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(weight / scale.reshape(shape or ())) + zero.astype(np.float32).reshape(shape)
    graph.put(node.output[0], np.clip(rounded, limits.min, limits.max).astype(zero.dtype))
    return []


def _clipped_weight(graph: _Graph, node: Any) -> list[Any] | None:
    """Clip of integers, which a range narrower than 8 bits is exported as."""
    values = graph.constant(node.input[0]) if node.op_type == "Clip" else None
    if values is None or values.dtype not in (np.int8, np.uint8):
        return None
    low, high = ([*(graph.constant(name) if name else None for name in node.input[1:]), None, None])[:2]
    graph.put(node.output[0], np.clip(values, low, high).astype(values.dtype))
    return []


def _transposed_weight(graph: _Graph, node: Any) -> list[Any] | None:
    """Transpose of a dequantised constant: onnxruntime only takes a weight as integers with nothing in between."""
    found = _dequantised(graph, node.input[0]) if node.op_type == "Transpose" else None
    values = None if found is None else graph.constant(found.values)
    if found is None or values is None:
        return None
    turned, nodes, axis = _turned(graph, found, _perm(node, values.ndim))
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return [
        *nodes,
        helper.make_node("DequantizeLinear", [turned, found.scale, found.zero], list(node.output), **attributes),
    ]


def _turned(graph: _Graph, found: _Quantised, order: Sequence[int]) -> tuple[str, list[Any], int | None]:
    """Transpose a constant: for good, or, where it is read elsewhere too, at load, since two copies double the file."""
    axis = None if found.axis is None else list(order).index(found.axis)
    if graph.readers(found.values) == 1:
        values = graph.constant(found.values)
        assert values is not None
        return graph.add(found.values, values.transpose(order)), [], axis
    name = graph.new_name(found.values)
    return name, [helper.make_node("Transpose", [found.values], [name], perm=list(order))], axis


def _embedding(graph: _Graph, node: Any) -> list[Any] | None:
    """Gather of a dequantised table: the rows are gathered first, so that no table of floats is made."""
    found = _dequantised(graph, node.input[0]) if node.op_type == "Gather" else None
    if found is None or graph.constant(found.values) is None or found.axis == 0 or _attributes(node).get("axis"):
        return None
    rows = graph.new_name(f"{node.output[0]}_rows")
    attributes: dict[str, Any] = {} if found.axis is None else {"axis": -1}
    return [
        helper.make_node("Gather", [found.values, node.input[1]], [rows]),
        helper.make_node("DequantizeLinear", [rows, found.scale, found.zero], list(node.output), **attributes),
    ]


def _integer_product(graph: _Graph, node: Any) -> list[Any] | None:
    """MatMul or Gemm of two dequantised tensors: (a - a0)(b - b0) in int32, times both scales."""
    told = _attributes(node)
    if node.op_type not in ("MatMul", "Gemm") or told.get("transA") or told.get("alpha", 1.0) != 1.0:
        return None
    if len(node.input) > 2 and told.get("beta", 1.0) != 1.0:
        return None
    before: list[Any] = []
    left = _quantised(graph, node.input[0], before)
    right = _quantised(graph, node.input[1], before)
    if left is None or right is None or left.axis is not None:
        return None
    if told.get("transB"):
        name, nodes, axis = _turned(graph, right, (1, 0))
        before.extend(nodes)
        right = _Quantised(name, right.scale, right.zero, axis)
    values = graph.constant(right.values)
    if right.axis is not None and (values is None or right.axis != values.ndim - 1):
        return None
    scale = _scale(graph, left, right)
    return None if scale is None else [*before, *_product(graph, node, (left, right), scale)]


def _product(graph: _Graph, node: Any, pair: tuple[_Quantised, _Quantised], scale: str) -> list[Any]:
    output, bias = node.output[0], node.input[2] if len(node.input) > 2 else ""
    whole, real, scaled = (graph.new_name(f"{output}_{what}") for what in ("int32", "float", "scaled"))
    last = scaled if bias else output
    nodes = [
        helper.make_node("MatMulInteger", [*(each.values for each in pair), *_zeros(graph, pair)], [whole]),
        helper.make_node("Cast", [whole], [real], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [real, scale], [last]),
    ]
    return [*nodes, helper.make_node("Add", [last, bias], [output])] if bias else nodes


def _zeros(graph: _Graph, pair: tuple[_Quantised, _Quantised]) -> list[str]:
    """A zero point of 0 is left out: it is the default, and onnxruntime is faster without."""
    names = []
    for each in pair:
        zero = graph.constant(each.zero) if each.zero else None
        names.append("" if not each.zero or (zero is not None and not zero.any()) else each.zero)
    return names


def _scale(graph: _Graph, left: _Quantised, right: _Quantised) -> str | None:
    both = [graph.constant(each.scale) for each in (left, right)]
    if both[0] is None or both[1] is None:
        return None
    return graph.add(f"{right.scale}_product", (both[0].reshape(-1)[0] * both[1]).astype(np.float32))


def _quantised(graph: _Graph, name: str, before: list[Any]) -> _Quantised | None:
    """Find the integers behind a tensor; nodes that only move numbers are repeated on integers, into `before`."""
    found = _dequantised(graph, name)
    maker = graph.makers.get(name)
    if found is not None or maker is None or maker.op_type not in _MOVING:
        return found
    base = _quantised(graph, maker.input[0], before)
    if base is None or base.axis is not None:
        return None
    moved = helper.make_node(maker.op_type, [base.values, *maker.input[1:]], [graph.new_name(f"{name}_moved")])
    moved.attribute.extend(maker.attribute)
    graph.makers[moved.output[0]] = moved
    before.append(moved)
    return _Quantised(moved.output[0], base.scale, base.zero, None)


def _dequantised(graph: _Graph, name: str) -> _Quantised | None:
    maker = graph.makers.get(name)
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    scale = graph.constant(maker.input[1])
    if scale is None or scale.ndim > 1:
        return None
    zero = maker.input[2] if len(maker.input) > 2 else ""
    return _Quantised(maker.input[0], maker.input[1], zero, _axis(maker) if scale.size > 1 else None)


def _axis(node: Any) -> int:
    return int(_attributes(node).get("axis", 1))


def _perm(node: Any, rank: int) -> list[int]:
    return list(_attributes(node).get("perm", range(rank)[::-1]))


def _attributes(node: Any) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _tensor(value: Any) -> Any:
    """The value of a Constant that is numbers and no tensor."""
    kind = np.float32 if value.name in ("value_float", "value_floats") else np.int64
    return numpy_helper.from_array(np.asarray(helper.get_attribute_value(value), dtype=kind))


def _read_by(node: Any) -> set[str]:
    """What a node reads, also in the graphs of its branches."""
    names = set(node.input)
    for each in node.attribute:
        for graph in [each.g] if each.type == onnx.AttributeProto.GRAPH else []:
            names.update(output.name for output in graph.output)
            for inner in graph.node:
                names |= _read_by(inner)
    return names


def _read(source: Path) -> _Graph:
    try:
        return _Graph(onnx.load(source))
    except (DecodeError, ValueError, OSError) as error:
        raise BadConfig(f"{source} is no ONNX graph: {error}") from error
