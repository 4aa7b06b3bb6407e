"""A hub with repos of every sort, and two servers that mirror it: one in front of it, one with its cache alone.

It asserts nothing; the repos' content is here, so that a test can hold every byte that is served against it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.hubrepo import git_id
from tests.support.loophub import LoopHub
from tests.support.rawhttp import ask
from tests.support.serving import Served

SECRET = b"what stands beside the cache is nobody's business"
BIG = bytes(range(256)) * 1200
TREE: dict[str, bytes] = {
    "README.md": b"---\nlicense: mit\ntags: [tiny]\n---\n# A repo\n",
    "config.json": b'{"model_type": "bert"}',
    "empty.txt": b"",
    "model.safetensors": BIG,
    "sub/deep/n.txt": b"0123456789" * 10,
    "odd name/\u00fc+%41.txt": b"odd",
}
FILES: dict[tuple[str, str], dict[str, bytes]] = {
    ("models", "user/repo"): TREE,
    ("models", "solo"): {"config.json": b"{}"},
    ("datasets", "user/ds"): {"README.md": b"# data\n", "data/train.csv": b"a,b\n1,2\n"},
    ("spaces", "user/sp"): {"README.md": b"---\nsdk: static\n---\n", "index.html": b"<p>hello</p>"},
}
LOCAL = ("models", "home/made")
PARTIAL = ("models", "user/partial")
PRIVATE = ("models", "user/private")
GATED = ("models", "user/gated")
REFS = ("main", "v1.0", "feature/x", "refs/pr/1")
COMMIT = "c0" * 20
"""The commit of the repos that are planted in the cache by hand."""
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True, slots=True)
class Case:
    """The hub, the two servers by their mode, and a folder beside the caches."""

    hub: LoopHub
    servers: dict[str, Served]
    outside: Path


def make_hub() -> LoopHub:
    """Make a hub that also says of its repos what only a hub with Xet says."""
    hub = LoopHub()
    for (kinds, name), files in FILES.items():
        told: dict[str, Any] = {"xetEnabled": True, "xet": {"hash": "ab" * 32}, "tags": ["tiny", "en"]}
        commit = hub.add_repo(name, files, kind=KINDS[kinds], about=told)
        for ref in ("v1.0", "feature/x", "refs/pr/1"):
            hub.set_ref(name, f"refs/tags/{ref}" if ref == "v1.0" else ref, commit, kind=KINDS[kinds])
    hub.add_repo(GATED[1], {"config.json": b"gated"}, gated="auto", token="hf_gate")
    hub.add_repo(PRIVATE[1], {"config.json": b"private"}, private=True, token="hf_mine")
    return hub


def plant(
    cache: Path, repo: tuple[str, str], files: dict[str, bytes], provenance: dict[str, Any] | None = None
) -> Path:
    """Write a repo as huggingface_hub does, without a listing; return its snapshot."""
    folder = cache / f"{repo[0]}--{repo[1].replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for path, content in files.items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).write_bytes(content)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    if provenance is not None:
        (folder / "provenance").mkdir(exist_ok=True)
        (folder / "provenance" / f"{COMMIT}.json").write_text(json.dumps(provenance))
    return snapshot


@contextmanager
def mirror_case(folder: Path) -> Iterator[Case]:
    """Run the hub and both servers; the offline one has all that the other was asked for, and what is planted."""
    online, alone = folder / "online", folder / "alone"
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(SECRET)
    with make_hub() as hub:
        with Served(online, HF_ENDPOINT=hub.endpoint) as filling:
            for (kinds, name), files in FILES.items():
                start = "" if kinds == "models" else f"/{kinds}"
                for ref in REFS:
                    for path in files:
                        ask(filling.port, "GET", f"{start}/{name}/resolve/{quote(ref, safe='')}/{quote(path)}")
            ask(filling.port, "GET", f"/api/models/{GATED[1]}")
            filling.stop()
        plant(online / "hub", LOCAL, {"config.json": b"local"}, {"source": "file:made"})
        snapshot = plant(online / "hub", PARTIAL, {"config.json": b"{}", "empty.txt": b""})
        plant(online / "hub", PRIVATE, {"config.json": b"private"}, {"source": "hf:x", "about": {"private": True}})
        plant_links(snapshot, outside)
        shutil.copytree(online / "hub", alone / "hub", symlinks=True)
        with (
            Served(online, "--name", "Mirror.example", HF_ENDPOINT=hub.endpoint) as through,
            Served(alone, "--offline", "--origin", "https://app.example") as offline,
        ):
            yield Case(hub, {"pull-through": through, "offline": offline}, outside)


def plant_links(snapshot: Path, outside: Path) -> None:
    """Put links into a snapshot that lead out of the cache: to a file, to a folder, to what has a blob's name."""
    named = outside / git_id("blob", SECRET)
    named.write_bytes(SECRET)
    (snapshot / "link.txt").symlink_to(outside / "secret.txt")
    (snapshot / "folder").symlink_to(outside)
    (snapshot / "named.txt").symlink_to(named)


def listing(folder: Path) -> set[str]:
    """Name all that stands under a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
