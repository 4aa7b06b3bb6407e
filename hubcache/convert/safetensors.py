"""The safetensors format read and written with bounded memory; what the tensors mean is decided elsewhere.

Written here because the library wants all tensors in memory at once, and 1.3 GB of them are to pass through 1 MiB.
The bytes are the library's (safetensors.torch.save_file), whatever its version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.convert.tensors import CHUNK, ITEM_BYTES, StoredTensor
from hubcache.errors import EntryNotFound, IntegrityError

_LENGTH_BYTES = 8
# The library's own limit.
_HEADER_LIMIT = 100_000_000
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class Serialized:
    """A safetensors file that is yet to be written: its size, and its bytes as often as they are asked for."""

    tensors: Mapping[str, StoredTensor]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._head()) + sum(tensor.size for tensor in self.tensors.values())

    def __iter__(self) -> Iterator[bytes]:
        yield self._head()
        for name in self._order():
            yield from self.tensors[name].chunks()

    def _order(self) -> list[str]:
        # Wide types first keeps all aligned; by name, the same tensors give the same file whatever they come from.
        return sorted(self.tensors, key=lambda name: (-ITEM_BYTES[self.tensors[name].dtype], name))

    def _head(self) -> bytes:
        header: dict[str, Any] = {_METADATA: {"format": "pt"}}
        at = 0
        for name in self._order():
            tensor = self.tensors[name]
            header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + tensor.size]}
            at += tensor.size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_safetensors(file: Path) -> dict[str, StoredTensor]:
    """Return a file's tensors by name; none of their bytes is read.

    Raises:
        EntryNotFound: it cannot be opened.
        IntegrityError: it is no safetensors file, or its tensors are not what its header says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
            text = opened.read(min(length, _HEADER_LIMIT))
    except OSError as error:
        raise EntryNotFound(f"{file}: {error.strerror}") from error
    start = _LENGTH_BYTES + length
    try:
        if len(text) != length:
            raise ValueError(length)
        header = json.loads(text)
        rows = {name: row for name, row in header.items() if name != _METADATA}
        return {name: _tensor(file, row, start, size) for name, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{file.name} is no safetensors file, or only a part of one") from error


def _tensor(file: Path, row: Mapping[str, Any], start: int, file_size: int) -> StoredTensor:
    begin, end = row["data_offsets"]
    shape = tuple(row["shape"])
    if row["dtype"] not in ITEM_BYTES or any(type(n) is not int or n < 0 for n in (begin, end, *shape)):
        raise ValueError(row)
    tensor = StoredTensor(row["dtype"], shape, lambda: _read(file, start + begin, end - begin))
    if tensor.size != end - begin or start + end > file_size:
        raise ValueError(row)
    return tensor


def _read(file: Path, at: int, size: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(at)
        left = size
        while left > 0 and (chunk := opened.read(min(CHUNK, left))):
            yield chunk
            left -= len(chunk)
