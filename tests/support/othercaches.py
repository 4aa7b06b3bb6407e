"""Caches as others leave them: filled by huggingface_hub in its modes, laid out by hand, damaged on the disk.

Nothing of the library under test is used.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.commandline import CommandLine
from tests.support.wholeness import digest

REAL_FILES = """
import sys
from huggingface_hub import hf_hub_download
for path in sys.argv[2:]:
    hf_hub_download(sys.argv[1], path)
"""


def real_files(folder: Path, endpoint: str, name: str, *paths: str) -> None:
    """Let huggingface_hub fill `folder`/hub without links, file by file.

    Raises:
        AssertionError: it failed; the message has its stderr.
    """
    hubcache = CommandLine(folder, HF_ENDPOINT=endpoint)
    ran = hubcache.python(REAL_FILES, name, *paths, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_SYMLINKS="1")
    if ran.code != 0:
        raise AssertionError(ran.err)


def shared_blob(cache: Path, name: str, commit: str, path: str, content: bytes) -> None:
    """Lay out one LFS file as huggingface_hub does with its shared store: snapshot -> repo's blob -> hub/blobs."""
    repo = cache / f"models--{name.replace('/', '--')}"
    payload = cache / "blobs" / "ab" / ("ab" * 32)
    blob, file = repo / "blobs" / digest(content, 64), repo / "snapshots" / commit / path
    for each in (payload, blob, file, repo / "refs/main"):
        each.parent.mkdir(parents=True, exist_ok=True)
    (cache / "blobs/.huggingface-shared-blobs").write_text("1\n")
    payload.write_bytes(content)
    blob.symlink_to(os.path.relpath(payload, blob.parent))
    file.symlink_to(os.path.relpath(blob, file.parent))
    (repo / "refs/main").write_text(commit)


def damage(file: Path) -> bytes:
    """Flip a byte in a file's middle, through its links, and return what it holds now; its size stays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    return bytes(content)
