"""An ONNX file's answers beside its model's, on several lengths and batches; what differs too far is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]  # has no types
import torch
from onnxruntime.capi import (  # type: ignore[import-untyped, unused-ignore]  # has no types
    onnxruntime_pybind11_state as failures,
)

from hubcache.errors import IntegrityError
from hubcache.train.onnx.inputs import Graph, Shape

ALLOWED = 1e-3
"""How far a number may be from PyTorch's."""

ALIKE = 0.9
"""The least cosine of a quantised graph's answers to PyTorch's: below, it is no rounding but another function."""

FAILURES = (
    *(failures.Fail, failures.InvalidArgument, failures.InvalidGraph, failures.InvalidProtobuf),
    *(failures.NotImplemented, failures.RuntimeException),
)
"""What ONNX Runtime raises of a graph that it cannot run: nothing but Exception is common to them."""

SHAPES = (Shape(2, 7, 3), Shape(1, 1, 0), Shape(1, 2, 1), Shape(3, 11, 4), Shape(4, 16, 2), Shape(2, 130, 5))
"""The first is the one that was exported; a past may be empty, a text one token long."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How an ONNX file did: its largest difference from PyTorch and where, how alike the answers are (cosine), and
    which part of the labels is the same, both over random tokens.
    """

    file: str
    difference: float
    where: str
    likeness: float
    agreement: float


def session_of(path: Path, *, threads: int = 0) -> Any:
    """Open an ONNX file on the CPU, quietly. Raises: IntegrityError where ONNX Runtime does not take it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except FAILURES as error:
        raise IntegrityError(f"ONNX Runtime does not take {path.name}: {_line(error)}") from error


def check(graph: Graph, path: Path, *, exact: bool = True, shapes: Sequence[Shape] = SHAPES) -> Checked:
    """Compare a file with the graph's module; `exact` numbers, or else (quantised) the direction.

    Of a model that rounds itself numbers differ, too: sums in another order tip single ones over to the next step.

    Raises:
        IntegrityError: they differ; the message has the figures.
    """
    session = session_of(path, threads=torch.get_num_threads())
    tally = _Tally()
    for shape in (_fitting(graph, each) for each in shapes):
        tensors = graph.example(shape)
        with torch.no_grad():
            wanted = [tensor.numpy() for tensor in graph.module(*tensors)]
        found = _answers(session, graph, tensors, f"{path.name} at {shape}")
        for name, right, got in zip(graph.outputs, wanted, found, strict=True):
            tally.add(f"{name} at {shape}", right, got)
    checked = tally.told(path.name)
    if exact and not checked.difference <= ALLOWED:
        raise IntegrityError(
            f"{path.name} does not compute what the model does: {checked.where} differs by {checked.difference:.3g}"
            f" ({ALLOWED} is allowed); nothing is kept",
            hint="try another --opset, and tell us which model it is",
        )
    if not exact and not checked.likeness >= ALIKE:
        raise IntegrityError(
            f"{path.name} does not compute what the model does: its answers' cosine to PyTorch's is"
            f" {checked.likeness:.3f} ({ALIKE} is asked for), {checked.where} differs by {checked.difference:.3g};"
            " nothing is kept"
        )
    return checked


class _Tally:
    """Sums up differences, cosines and labels, output by output."""

    def __init__(self) -> None:
        self.worst, self.where = 0.0, ""
        self.same = self.labels = 0
        self.least_alike = 1.0

    def add(self, where: str, wanted: Any, found: Any) -> None:
        """Take an output, wanted and found."""
        difference = _difference(wanted, found)
        if difference > self.worst:
            self.worst, self.where = difference, where
        if wanted.shape == found.shape and wanted.size:
            self.same += int((wanted.argmax(-1) == found.argmax(-1)).sum())
            self.least_alike = min(self.least_alike, _cosine(wanted, found))
        else:
            self.least_alike = min(self.least_alike, float(wanted.shape == found.shape))
        self.labels += int(np.prod(wanted.shape[:-1]))

    def told(self, file: str) -> Checked:
        """Return the sums."""
        return Checked(file, self.worst, self.where, self.least_alike, self.same / max(1, self.labels))


def _fitting(graph: Graph, shape: Shape) -> Shape:
    # A target is never empty, a past may be.
    return shape if "decoder" not in graph.name else Shape(shape.batch, shape.length, max(1, shape.other))


def _answers(session: Any, graph: Graph, tensors: Sequence[torch.Tensor], what: str) -> list[Any]:
    taken = {value.name for value in session.get_inputs()}
    feeds = {name: tensor.numpy() for name, tensor in zip(graph.inputs, tensors, strict=True) if name in taken}
    try:
        return list(session.run(list(graph.outputs), feeds))
    except FAILURES as error:
        raise IntegrityError(f"ONNX Runtime fails on {what}: {_line(error)}") from error


def _difference(wanted: Any, found: Any) -> float:
    if wanted.shape != found.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    gap = np.abs(wanted - found)
    # A relation head may be told to answer NaN; both must.
    gap[np.isnan(wanted) & np.isnan(found)] = 0.0
    return float("inf") if np.isnan(gap).any() else float(gap.max())


def _cosine(wanted: Any, found: Any) -> float:
    one, other = np.nan_to_num(wanted.ravel()), np.nan_to_num(found.ravel())
    sizes = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / sizes if sizes else float(np.array_equal(one, other))


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
