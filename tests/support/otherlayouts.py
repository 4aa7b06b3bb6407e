"""What other tools leave on a disk, made as they make it: clones, local_dirs, caches of other hubs, Ollama's store.

It asserts nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.hubrepo import FIRST_COMMIT, HubFile, lfs_pointer

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def write_files(folder: Path, files: Mapping[str, bytes], *, age: int = 60) -> Path:
    """Write files below a folder, as if that had been so many seconds ago."""
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        then = file.stat().st_mtime - age
        os.utime(file, (then, then))
    return folder


def git(folder: Path, *arguments: str, content: bytes | None = None, **environ: str) -> str:
    """Run git with nobody's configuration; return what it printed."""
    variables = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "LoopHub",
        "GIT_AUTHOR_EMAIL": "loop@hub.invalid", "GIT_COMMITTER_NAME": "LoopHub",
        "GIT_COMMITTER_EMAIL": "loop@hub.invalid", "GIT_AUTHOR_DATE": f"{FIRST_COMMIT} +0000",
        "GIT_COMMITTER_DATE": f"{FIRST_COMMIT} +0000",
    }  # fmt: skip
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=variables | environ, input=content, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def make_clone(folder: Path, files: Mapping[str, bytes], *, name: str, url: str, smudged: bool = True) -> str:
    """Make a clone of LoopHub's first commit of a repo, LFS objects included; return the commit, which is LoopHub's.

    Where it is not `smudged`, the work tree has the pointers, as with GIT_LFS_SKIP_SMUDGE.
    """
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "origin", url)
    checked_out = {}
    for path, content in files.items():
        sha256 = HubFile.of(path, content).sha256
        stored = content if sha256 is None else lfs_pointer(sha256, len(content))
        oid = git(folder, "hash-object", "-w", "--stdin", content=stored)
        git(folder, "update-index", "--add", "--cacheinfo", f"100644,{oid},{path}")
        checked_out[path] = content if smudged else stored
        if sha256 is not None:
            write_files(folder / ".git/lfs/objects" / sha256[:2] / sha256[2:4], {sha256: content})
    write_files(folder, checked_out)
    commit = git(folder, "commit-tree", git(folder, "write-tree"), content=f"{name} 0\n".encode())
    git(folder, "update-ref", "refs/heads/main", commit)
    git(folder, "update-ref", "refs/remotes/origin/main", commit)
    return commit


def make_scope(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Make a model of ModelScope's older cache: dots masked, notes beside the files."""
    org, _, model = name.partition("/")
    top = write_files(folder / org / model.replace(".", "___"), files)
    rows = [{"Path": path, "Revision": hashlib.sha1(content).hexdigest()} for path, content in files.items()]
    top.joinpath(".msc").write_bytes(pickle.dumps(rows))
    top.joinpath(".mdl").write_bytes(pickle.dumps({"id": name}))
    top.joinpath(".mv").write_text("Revision:master,CreatedAt:1720000000")
    return top


def make_ollama(folder: Path, name: str, tag: str, layers: Mapping[str, bytes]) -> Path:
    """Make, or add to, Ollama's store a model of its library; `layers` are by the last part of their media type."""
    rows = []
    for kind, content in layers.items():
        digest = hashlib.sha256(content).hexdigest()
        write_files(folder / "blobs", {f"sha256-{digest}": content})
        rows.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}",
                     "size": len(content)})  # fmt: skip
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": {"digest": "sha256:" + "0" * 64, "size": 2}, "layers": rows}  # fmt: skip
    place = f"manifests/registry.ollama.ai/library/{name}/{tag}"
    write_files(folder, {place: json.dumps(manifest).encode()})
    return folder
