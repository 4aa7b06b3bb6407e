"""The header of a safetensors file, read as a list of tensors; their values are never looked at.

Source: the safetensors format: 8 bytes little-endian length, then so many bytes of JSON, then the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubcache.errors import IntegrityError

LENGTH_SIZE = 8
LONGEST = 100_000_000
"""Bytes of a header that safetensors itself still reads."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's type (F32, BF16, …), shape and size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


def header_length(start: bytes, file_size: int) -> int:
    """Read how many bytes of header follow the file's first 8.

    Raises:
        IntegrityError: the file has not so many, or nobody needs so many.
    """
    length = int.from_bytes(start[:LENGTH_SIZE], "little")
    if len(start) < LENGTH_SIZE or not 2 <= length <= min(LONGEST, file_size - LENGTH_SIZE):
        raise IntegrityError("not a safetensors file: its header is longer than the file, or none")
    return length


def parse_header(content: bytes) -> dict[str, Tensor]:
    """Read the header's JSON as tensors by name.

    Raises:
        IntegrityError: it is no such header.
    """
    try:
        rows: Mapping[str, Any] = json.loads(content)
        return {name: _tensor(row) for name, row in rows.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"not a safetensors header: {error}") from error


def _tensor(row: Mapping[str, Any]) -> Tensor:
    start, end = row["data_offsets"]
    shape = tuple(row["shape"])
    if not all(type(each) is int and each >= 0 for each in (*shape, start, end)) or end < start:
        raise ValueError(f"a tensor of no possible shape or place: {str(row)[:80]}")
    return Tensor(str(row["dtype"]), shape, end - start)
