"""An ONNX file run by onnxruntime, with torch tensors in and out; what the numbers mean is the caller's affair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]  # has no types
import torch
from onnxruntime.capi import (  # type: ignore[import-untyped, unused-ignore]  # has no types
    onnxruntime_pybind11_state as failures,
)
from torch import Tensor

from hubcache.errors import BadConfig

_TYPES = {
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(bool)": np.bool_,
    "tensor(float16)": np.float16,
}  # fmt: skip
_BROKEN = (failures.Fail, failures.InvalidGraph, failures.InvalidProtobuf, failures.InvalidArgument,
           failures.NoSuchFile, failures.NotImplemented)  # fmt: skip


class OnnxSession:
    """A graph of an ONNX file; `inputs` and `outputs` are its names.

    It computes on as many CPU threads as torch does.
    Raises: BadConfig where the file is no graph that onnxruntime runs.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _BROKEN as error:
            raise BadConfig(f"onnxruntime cannot run {path}: {error}", hint="export it again") from error
        self._types = {each.name: _TYPES[each.type] for each in self._session.get_inputs()}
        self.inputs = tuple(self._types)
        self.outputs = tuple(each.name for each in self._session.get_outputs())
        self.ranks = {each.name: len(each.shape) for each in self._session.get_outputs()}
        self._sizes = {each.name: each.shape for each in self._session.get_inputs()}

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the graph; of the tensors [batch, seq, …] it takes those it has an input for.

        A mask that is not given is ones, token types are zeros. Raises: BadConfig where it asks for anything else.
        """
        arrays: dict[str, np.ndarray] = {
            name: self._input(name, tensors).astype(kind, copy=False) for name, kind in self._types.items()
        }
        found = self._session.run(None, arrays)
        return {name: torch.from_numpy(array) for name, array in zip(self.outputs, found, strict=True)}

    def empty_past(self, batch: int) -> dict[str, Tensor]:
        """Return the keys and values [batch, heads, 0, size] of no past, where the graph takes one."""
        names = [name for name in self.inputs if name.startswith("past_key_values.")]
        return {name: torch.zeros(batch, self._sizes[name][1], 0, self._sizes[name][3]) for name in names}

    def _input(self, name: str, tensors: Mapping[str, Any]) -> np.ndarray:
        given = tensors.get(name)
        if given is not None:
            return np.asarray(given.detach().cpu().numpy())
        filler = {"attention_mask": 1, "token_type_ids": 0}.get(name)
        if filler is None or tensors.get("input_ids") is None:
            raise BadConfig(f"the ONNX graph asks for an input {name}, which this task does not have")
        return np.full(tuple(tensors["input_ids"].shape), filler, dtype=np.int64)
