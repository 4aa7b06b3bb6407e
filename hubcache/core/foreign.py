"""The notes that other tools leave beside their files, read as text and bytes; nothing is opened or believed here.

Sources: huggingface_hub 2.4 (_local_folder.py), modelscope 1.40 and modelscope-hub 0.5 (hub/utils/caching.py,
_download.py), sentence-transformers 2, git's and git-lfs's object formats, Ollama's manifests.
"""

from __future__ import annotations

import json
import pickletools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hubcache.core.artifact import is_commit, parse_revision
from hubcache.core.digests import Blob, Digest
from hubcache.errors import BadReference

LONGEST_POINTER = 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,15})\n"
)
_SSH = re.compile(r"(?:ssh://)?git@([A-Za-z0-9.-]+)[:/](.+)")
_OLLAMA = {
    "model": "model.gguf", "adapter": "adapter.gguf", "projector": "projector.gguf", "license": "LICENSE",
    "template": "template", "params": "params.json", "system": "system", "messages": "messages.json",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GitRow:
    """One row of a git tree; `mode` is git's, as text."""

    mode: str
    name: str
    oid: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an Ollama manifest: the file it becomes, and its blob."""

    name: str
    blob: Blob


def read_download_note(text: str) -> tuple[str, Digest] | None:
    """Read huggingface_hub's note on a file of a local_dir: its commit and its digest; None for anything else."""
    lines = text.split("\n")
    try:
        return (lines[0], Digest.parse(lines[1])) if len(lines) >= 3 and is_commit(lines[0]) else None
    except BadReference:
        return None


def read_pointer(content: bytes) -> Blob | None:
    """Read a git-lfs pointer; None for any other content."""
    match = _POINTER.fullmatch(content) if len(content) <= LONGEST_POINTER else None
    return Blob(Digest("sha256", match[1].decode()), int(match[2])) if match else None


def read_commit_tree(body: bytes) -> str:
    """Return the tree of a git commit.

    Raises:
        BadReference: it is no commit.
    """
    tree = body[5:45].decode("ascii", "replace")
    if not body.startswith(b"tree ") or not is_commit(tree):
        raise BadReference("not a git commit")
    return tree


def read_git_tree(body: bytes) -> Iterator[GitRow]:
    """Read a git tree's rows.

    Raises:
        BadReference: it is no tree.
    """
    at = 0
    while at < len(body):
        space, end = body.find(b" ", at), body.find(b"\0", at)
        if not at < space < end or end + 21 > len(body):
            raise BadReference("not a git tree")
        name = body[space + 1 : end].decode("utf-8", "surrogateescape")
        yield GitRow(body[at:space].decode("ascii", "replace"), name, body[end + 1 : end + 21].hex())
        at = end + 21


def read_head(text: str) -> str:
    """Return the ref that .git/HEAD names, or the commit it holds.

    Raises:
        BadReference: neither.
    """
    text = text.strip()
    return text if is_commit(text) else parse_revision(text.removeprefix("ref: "))


def packed_ref(text: str, name: str) -> str | None:
    """Find a ref in .git/packed-refs."""
    for line in text.splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name and is_commit(commit):
            return commit
    return None


def remote_url(config: str) -> str | None:
    """Find where a clone came from in .git/config, as a web address: origin, else the first remote."""
    found: dict[str, str] = {}
    remote = None
    for line in map(str.strip, config.splitlines()):
        if line.startswith("["):
            named = re.fullmatch(r'\[remote "([^"]+)"\]', line)
            remote = named[1] if named else None
        elif remote and (match := re.fullmatch(r"url\s*=\s*(\S+)", line)):
            found.setdefault(remote, match[1])
    url = found.get("origin") or next(iter(found.values()), None)
    if url is None:
        return None
    ssh = _SSH.fullmatch(url)
    return (f"https://{ssh[1]}/{ssh[2]}" if ssh else url).removesuffix("/").removesuffix(".git")


def read_scope_id(pickled: bytes) -> str | None:
    """Find the repo's name in ModelScope's `.mdl`, a pickle, without unpickling it."""
    try:
        texts = [value for _, value, _ in pickletools.genops(pickled) if isinstance(value, str)]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError):
        return None
    return texts[texts.index("id") + 1] if "id" in texts[:-1] else None


def unmask(name: str) -> str:
    """Give a folder of ModelScope's its dots back."""
    return name.replace("___", ".")


def guess_sentence_name(folder: str) -> str:
    """Guess the repo of a folder of sentence-transformers' old cache: `org_name`, or `sbert.net_models_name`."""
    if folder.startswith("sbert.net_models_"):
        return "sentence-transformers/" + folder.removeprefix("sbert.net_models_")
    org, _, name = folder.partition("_")
    return f"{org}/{name}" if name else folder


def read_ollama(content: bytes) -> list[Layer]:
    """Read an Ollama manifest's layers; those of a kind nobody knows are left out.

    Raises:
        BadReference: it is no manifest, or a digest in it is none.
    """
    try:
        return list(_layers(json.loads(content)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadReference(f"not an Ollama manifest: {error}") from error


def _layers(manifest: Mapping[str, Any]) -> Iterator[Layer]:
    used: dict[str, int] = {}
    for row in manifest["layers"]:
        kind = str(row["mediaType"]).rpartition(".")[2]
        if (name := _OLLAMA.get(kind)) is None:
            continue
        digest = Digest.parse(str(row["digest"]).removeprefix("sha256:"))
        size = row["size"]
        if digest.algorithm != "sha256" or not isinstance(size, int) or size < 0:
            raise ValueError("a layer without a sha256 or a size")
        used[name] = number = used.get(name, 0) + 1
        yield Layer(name if number == 1 else _numbered(name, number), Blob(digest, size))


def _numbered(name: str, number: int) -> str:
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{number}{dot}{suffix}"


def zoo_place(name: str) -> str:
    """Choose the place in the repo of a file that SparseZoo's client keeps: as sources/zoo.py does, by name alone."""
    if name.startswith("training/"):
        return name.removeprefix("training/")
    if "/" in name:
        return name
    if name.startswith("sample-"):
        return f"samples/{name}"
    if name.startswith("recipe"):
        return f"recipes/{name}"
    if name.startswith("model.onnx"):
        return f"onnx/{name}"
    return f"benchmarks/{name}" if name.startswith("benchmark") else name
