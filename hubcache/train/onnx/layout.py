"""The folder that an export publishes: onnx/ for transformers.js, deployment/ as the original's; it exports nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hubcache.models.t5_encoder import T5EncoderForEntityRecognitionWithCRF
from hubcache.train.heads import quietly
from hubcache.train.onnx.check import Checked
from hubcache.train.onnx.inputs import Graph

VOCABULARIES = (
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "dict.txt"),
    *("tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
)
"""A tokenizer's files that transformers 5 no longer writes, and older readers look for."""


def write_model_files(model: Any, tokenizer: Any, source: Path, folder: Path) -> None:
    """Write config.json, generation_config.json and the tokenizer's files, old ones too; a CRF's scores to crf.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    with quietly():
        model.config.save_pretrained(folder)
        if (generation := getattr(model, "generation_config", None)) is not None:
            generation.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
            _write_missing(tokenizer, folder)
    for name in VOCABULARIES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if isinstance(model, T5EncoderForEntityRecognitionWithCRF):
        scores = {name: value.numpy() for name, value in model.crf.state_dict().items()}
        np.savez(folder / "crf.npz", **scores)


def write_deployment(folder: Path) -> None:
    """Fill deployment/ with the model's files and the graphs beside them; the quantised one is its model.onnx."""
    place = folder / "deployment"
    place.mkdir()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != "README.md":
            _same(path, place / path.name)
    for path in sorted((folder / "onnx").iterdir()):
        if "_quantized" not in path.name:
            _same(path, place / path.name)
    for path in sorted((folder / "onnx").glob("*_quantized.onnx")):
        plain = path.name.replace("_quantized", "")
        for left in place.glob(f"{plain}*"):
            left.unlink()
        _same(path, place / plain)
        for data in path.parent.glob(f"{path.name}_data"):
            # The graph names it so.
            _same(data, place / data.name)


def write_card(folder: Path, *, source: str, graphs: Sequence[Graph], checked: Sequence[Checked], opset: int) -> None:
    """Write README.md: what it was made of, what goes in and out, and how far it is from PyTorch."""
    lines = ["---", "library_name: transformers.js", "tags:", "- onnx", f"base_model: {json.dumps(source)}", "---", ""]
    lines += [f"# {source.partition('@')[0].rsplit('/', 1)[-1]} as ONNX", ""]
    lines += [f"Exported from `{source}` by hubcache, opset {opset}, float32 unless the name says quantized.", ""]
    lines += ["| graph | inputs | outputs |", "|---|---|---|"]
    lines += [f"| onnx/{graph.name}.onnx | {_told(graph.inputs)} | {_told(graph.outputs)} |" for graph in graphs]
    lines += [
        "",
        "Checked with ONNX Runtime against PyTorch, on random tokens of several lengths and batches, padded:",
        "",
    ]
    lines += ["| file | largest difference | least cosine | same labels |", "|---|---|---|---|"]
    lines += [
        f"| {each.file} | {each.difference:.2g} | {each.likeness:.4f} | {each.agreement:.1%} |" for each in checked
    ]
    lines += ["", "`deployment/` holds all that a server needs, `sample-inputs/` and `sample-outputs/` what to expect."]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(names: Sequence[str]) -> str:
    plain = [f"`{name}`" for name in names if not name.startswith(("past_key_values.", "present."))]
    layers = len(names) - len(plain)
    return ", ".join(plain) + (f" and {layers} of keys and values" if layers else "")


def _write_missing(tokenizer: Any, folder: Path) -> None:
    special: Mapping[str, Any] = tokenizer.special_tokens_map
    if not (folder / "special_tokens_map.json").exists():
        text = json.dumps({name: _text(value) for name, value in special.items()}, indent=1, ensure_ascii=False)
        (folder / "special_tokens_map.json").write_text(text + "\n", encoding="utf-8")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    is_wordpiece = backend is not None and type(backend.model).__name__ == "WordPiece"
    if backend is not None and is_wordpiece and not (folder / "vocab.txt").exists():
        known = backend.get_vocab(with_added_tokens=True)
        text = "".join(f"{token}\n" for token in sorted(known, key=known.__getitem__))
        (folder / "vocab.txt").write_text(text, encoding="utf-8")


def _text(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else str(value)


def _same(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
