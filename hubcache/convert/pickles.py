"""PyTorch's pickled checkpoints read without running what they say; which key means what is decided elsewhere.

Only tensors, plain values and argparse.Namespace (fairseq keeps its arguments in one) come out of a pickle. The first
reference to anything else ends the reading, before it is looked up.
"""

from __future__ import annotations

import argparse
import ctypes
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hubcache.convert.pages import drop_pages
from hubcache.convert.tensors import CHUNK, StoredTensor
from hubcache.errors import EntryNotFound, IntegrityError

_ZIP = b"PK\x03\x04"
# Under which of its keys a checkpoint keeps the tensors, where they are not at the top.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
_REFUSED = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)")
# What torch.load answers to bytes that are no checkpoint.
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, OSError, RuntimeError, ValueError, TypeError,
    LookupError, AttributeError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pickled:
    """What a checkpoint holds: tensors by key, and whatever stands beside them, by name."""

    tensors: Mapping[str, StoredTensor]
    others: Mapping[str, Any]


def read_pickle(file: Path) -> Pickled:
    """Return what a checkpoint holds; in torch's zip format, no tensor's bytes are read.

    Raises:
        EntryNotFound: it cannot be opened.
        IntegrityError: it is broken, no mapping of names to tensors, or asks for code to be run: none was.
    """
    is_mapped = _is_mappable(file)
    tensors, others = _unwrap(_load(file, mmap=is_mapped), file.name)
    most = file.stat().st_size
    return Pickled({key: _stored(key, tensor, is_mapped, most) for key, tensor in tensors.items()}, others)


def _is_mappable(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            if opened.read(len(_ZIP)) != _ZIP:
                return False
    except OSError as error:
        raise EntryNotFound(f"{file}: {error.strerror}") from error
    try:
        with zipfile.ZipFile(file) as archive:
            return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist()) and not any(
                archive.read(member) != b"little"
                for member in archive.infolist()
                if member.filename.endswith("/byteorder") and member.file_size < CHUNK
            )
    except _BROKEN as error:
        raise IntegrityError(f"{file.name} is not a whole checkpoint: {_line(error)}") from error


def _load(file: Path, *, mmap: bool) -> Any:
    import torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except _BROKEN as error:
        if wanted := _refused(str(error)) or _named_globals(file):
            raise IntegrityError(
                f"{file.name} asks for {', '.join(wanted)}, which weights have no use for; nothing of it was run",
                hint="ask the publisher for a safetensors file",
            ) from error
        raise IntegrityError(f"{file.name} is no checkpoint that can be read safely: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _refused(message: str) -> tuple[str, ...]:
    # torch leaves the module out where it is builtins.
    found = _REFUSED.search(message)
    return () if found is None else (found[1] if "." in found[1] else f"builtins.{found[1]}",)


def _named_globals(file: Path) -> tuple[str, ...]:
    """List what else than torch's own parts a pickle names, for protocols whose names torch never comes to read."""
    found: list[str] = []
    try:
        with _pickle_stream(file) as stream:
            while True:
                found += _globals_of_one(stream)
    except _BROKEN:
        pass
    allowed = {"collections.OrderedDict", "argparse.Namespace"}
    return tuple(sorted(name for name in set(found) - allowed if not name.startswith("torch.")))


def _pickle_stream(file: Path) -> IO[bytes]:
    if not zipfile.is_zipfile(file):
        return file.open("rb")
    archive = zipfile.ZipFile(file)
    return archive.open(next((name for name in archive.namelist() if name.endswith("data.pkl")), "data.pkl"))


def _globals_of_one(stream: IO[bytes]) -> Iterator[str]:
    texts: list[str] = []
    memo: dict[int, str] = {}
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in {"GLOBAL", "INST"}:
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif operation.name in {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"} and texts:
            memo[len(memo) if argument is None else int(argument)] = texts[-1]
        elif operation.name in {"GET", "BINGET", "LONG_BINGET"}:
            texts.append(memo.get(int(argument or 0), "?"))
        elif isinstance(argument, str):
            texts.append(argument)


def _unwrap(loaded: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a checkpoint into its tensors and all the rest, looking into what wraps the tensors."""
    others: dict[str, Any] = {}
    for _ in _WRAPPERS:
        inner = _wrapper(loaded)
        if inner is None:
            break
        others |= {str(key): value for key, value in loaded.items() if key != inner}
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping) or not (tensors := _tensors(loaded)):
        raise IntegrityError(f"{name} holds {_told(loaded)}, not names and tensors")
    return tensors, others | {str(key): value for key, value in loaded.items() if key not in tensors}


def _wrapper(loaded: Any) -> str | None:
    if not isinstance(loaded, Mapping) or _tensors(loaded):
        return None
    return next((key for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)


def _tensors(loaded: Mapping[Any, Any]) -> dict[str, Any]:
    import torch

    return {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def _told(loaded: Any) -> str:
    if not isinstance(loaded, Mapping):
        return f"a {type(loaded).__name__}"
    return f"a {type(loaded).__name__} of {', '.join(sorted(map(repr, loaded))[:5]) or 'nothing'}"


def _stored(key: str, tensor: Any, is_mapped: bool, most: int) -> StoredTensor:
    import torch

    names = {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
        torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    }  # fmt: skip
    plain = tensor.detach()
    if plain.dtype not in names or plain.layout is not torch.strided or plain.device.type != "cpu":
        raise IntegrityError(f"{key} is a tensor of {plain.dtype} and {plain.layout}, which no model here has")
    # A view can repeat one number for ever.
    if plain.nbytes > max(most, plain.untyped_storage().nbytes()):
        raise IntegrityError(f"{key} is a tensor of {list(plain.shape)}, larger than its file")
    return StoredTensor(names[plain.dtype], tuple(plain.shape), lambda: _chunks(plain, is_mapped))


def _chunks(tensor: Any, is_mapped: bool) -> Iterator[bytes]:
    dense = tensor.contiguous()
    address, size = dense.data_ptr(), dense.nbytes
    is_file = is_mapped and address == tensor.data_ptr()
    for at in range(0, size, CHUNK):
        count = min(CHUNK, size - at)
        yield ctypes.string_at(address + at, count)
        if is_file:
            drop_pages(address + at, count)
