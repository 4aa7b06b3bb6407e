"""Where a repo keeps its ONNX graphs, and which of them a pipeline runs; none is opened, and torch is not imported."""

from __future__ import annotations

from pathlib import Path

from hubcache.errors import UsageError
from hubcache.train.pipelines.tasks import find_task

TORCH, ONNX = "torch", "onnx"
_FOLDERS = ("onnx", ".", "deployment")
_STEMS = ("model", "model_quantized")
_TWO_HALVES = ("summarization", "translation", "text2text-generation")


def graph_file(folder: Path, task: str, backend: str = ONNX, *, called: str = "REF") -> Path:
    """Return the ONNX file in a model's folder that does a task; of an encoder-decoder, the decoder's.

    The backend is onnx, which prefers full precision, or the path of a file in the folder.
    Raises: UsageError where there is none; the hint makes one of the model `called` so.
    """
    for path in _candidates(task, backend):
        if (folder / path).is_file():
            return folder / path
    missing = f"no file {backend}" if backend != ONNX else "no ONNX file for " + task
    raise UsageError(f"{called} has {missing}", hint=f"hubcache export {called} --format onnx")


def has_graph(folder: Path, task: str, backend: str = ONNX) -> bool:
    """Tell whether graph_file() finds one."""
    return any((folder / path).is_file() for path in _candidates(task, backend))


def encoder_file(decoder: Path) -> Path:
    """Return the encoder that belongs to a decoder. Raises: UsageError where it is not beside it."""
    encoder = decoder.with_name(decoder.name.replace("_merged", "").replace("decoder_model", "encoder_model"))
    if not encoder.is_file() or encoder == decoder:
        raise UsageError(f"{decoder.name} has no encoder_model beside it", hint="hubcache export REF --format onnx")
    return encoder


def check_backend(backend: str) -> None:
    """Refuse what is no backend. Raises: UsageError."""
    if backend not in (TORCH, ONNX) and not backend.endswith(".onnx"):
        raise UsageError(f"there is no backend {backend!r}", hint="torch, onnx, or an ONNX file of the repo")


def _candidates(task: str, backend: str) -> list[str]:
    if backend != ONNX:
        return [backend]
    half = "decoder_" if find_task(task).name in _TWO_HALVES else ""
    return [f"{place}/{half}{stem}.onnx" for place in _FOLDERS for stem in _STEMS]
