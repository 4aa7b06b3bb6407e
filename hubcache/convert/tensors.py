"""A tensor where it lies in a checkpoint: type, shape, and its bytes when they are asked for; it computes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

CHUNK = 1 << 20
"""Bytes that are in memory at a time."""

Shape = tuple[int, ...]

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
"""Every type of the safetensors format that a checkpoint may hold, and the bytes of one number."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor; `read` starts over at its first byte each time, in chunks of CHUNK bytes and a last one."""

    dtype: str
    shape: Shape
    read: Callable[[], Iterator[bytes]]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes, `size` of them."""
        left = self.size
        for chunk in self.read():
            if left <= 0:
                return
            yield chunk[:left]
            left -= len(chunk)

    def first_rows(self, count: int) -> StoredTensor:
        """Return the tensor of its first `count` rows."""
        return replace(self, shape=(count, *self.shape[1:]))

    def is_equal(self, other: StoredTensor) -> bool:
        """Tell whether both have the same type, shape and bytes."""
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        return all(mine == theirs for mine, theirs in zip(self.chunks(), other.chunks(), strict=True))
