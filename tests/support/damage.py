"""One small repo, and the ways in which its folder in a cache can be damaged; whether it shows is not judged here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.core.digests import digest_bytes

NAME = "org/name"
WEIGHTS = b"weights" * 30_000  # large enough for a thread of its own
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": WEIGHTS,
    "sub/copy.safetensors": WEIGHTS,
    "sub/deep/notes.txt": b"notes",
    "empty.txt": b"",
}
BLOBS = 4
SHA256 = digest_bytes("sha256", WEIGHTS).hex
CONFIG = digest_bytes("git-sha1", FILES["config.json"]).hex


Damage = Callable[[RepoFolder], str]
"""Damages a repo and returns the path, relative to its folder, at which that should be found."""


def commit_of(folder: RepoFolder) -> str:
    [commit] = folder.commits()
    return commit


def snapshot(folder: RepoFolder) -> Path:
    return folder.snapshot_path(commit_of(folder))


def tree(folder: RepoFolder) -> Path:
    return folder.tree_path(commit_of(folder))


def flip_a_bit(folder: RepoFolder) -> str:
    blob = folder.path / "blobs" / SHA256
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    return f"blobs/{SHA256}"


def spoil_a_small_blob(folder: RepoFolder) -> str:
    (folder.path / "blobs" / CONFIG).write_bytes(b"x" * len(FILES["config.json"]))
    return f"blobs/{CONFIG}"


def cut_a_blob_short(folder: RepoFolder) -> str:
    os.truncate(folder.path / "blobs" / SHA256, 100)
    return f"blobs/{SHA256}"


def list_another_size(folder: RepoFolder) -> str:
    listing = json.loads(tree(folder).read_bytes())
    listing["files"]["config.json"]["size"] += 1
    tree(folder).write_text(json.dumps(listing))
    return f"trees/{commit_of(folder)}.json"


def spoil_the_listing(folder: RepoFolder) -> str:
    tree(folder).write_bytes(b'{"format_version": 1, "files": {"a"')
    return f"trees/{commit_of(folder)}.json"


def write_a_listing_of_another_format(folder: RepoFolder) -> str:
    tree(folder).write_bytes(b'{"format_version": 2, "files": {}}')
    return f"trees/{commit_of(folder)}.json"


def write_a_listing_of_no_commit(folder: RepoFolder) -> str:
    (folder.path / "trees" / "main.json").write_bytes(tree(folder).read_bytes())
    return "trees/main.json"


def lead_the_listing_in_a_circle(folder: RepoFolder) -> str:
    tree(folder).unlink()
    tree(folder).symlink_to(tree(folder).name)
    return f"trees/{commit_of(folder)}.json"


def lead_a_blob_in_a_circle(folder: RepoFolder) -> str:
    blob = folder.path / "blobs" / CONFIG
    blob.unlink()
    blob.symlink_to(CONFIG)
    return f"blobs/{CONFIG}"


def lose_a_blob(folder: RepoFolder) -> str:
    (folder.path / "blobs" / CONFIG).unlink()
    return f"snapshots/{commit_of(folder)}/config.json"


def lose_a_stored_blob(folder: RepoFolder) -> str:
    blob = folder.path / "blobs" / SHA256
    blob.unlink()
    blob.symlink_to(f"../../blobs/ab/{'ab' * 32}")
    return f"blobs/{SHA256}"


def link_out_of_the_snapshot(folder: RepoFolder) -> str:
    outside = folder.root.parent / "outside.json"
    outside.write_bytes(FILES["config.json"])
    link = snapshot(folder) / "config.json"
    link.unlink()
    link.symlink_to(outside)
    return f"snapshots/{commit_of(folder)}/config.json"


def link_out_of_the_blobs(folder: RepoFolder) -> str:
    outside = folder.root.parent / "outside"
    outside.write_bytes(WEIGHTS)
    blob = folder.path / "blobs" / SHA256
    blob.unlink()
    blob.symlink_to("../../../outside")
    return f"blobs/{SHA256}"


def link_to_another_repo(folder: RepoFolder) -> str:
    other = folder.root / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (other / CONFIG).write_bytes(FILES["config.json"])
    link = snapshot(folder) / "config.json"
    link.unlink()
    link.symlink_to(f"../../../models--org--other/blobs/{CONFIG}")
    return f"snapshots/{commit_of(folder)}/config.json"


def link_to_another_blob(folder: RepoFolder) -> str:
    link = snapshot(folder) / "config.json"
    link.unlink()
    link.symlink_to(f"../../blobs/{SHA256}")
    return f"snapshots/{commit_of(folder)}/config.json"


def edit_a_file(folder: RepoFolder) -> str:
    (snapshot(folder) / "config.json").unlink()
    (snapshot(folder) / "config.json").write_bytes(b'{"model_type": "gpt2"}')
    return f"snapshots/{commit_of(folder)}/config.json"


def plant_a_file(folder: RepoFolder) -> str:
    (snapshot(folder) / "sub" / "modeling.py").write_text("import os")
    return f"snapshots/{commit_of(folder)}/sub/modeling.py"


def name_a_blob_otherwise(folder: RepoFolder) -> str:
    (folder.path / "blobs" / "sha256:abc").write_bytes(b"x")
    return "blobs/sha256:abc"


def make_a_folder_among_the_blobs(folder: RepoFolder) -> str:
    (folder.path / "blobs" / ("0" * 64)).mkdir()
    return f"blobs/{'0' * 64}"


def make_a_file_among_the_snapshots(folder: RepoFolder) -> str:
    (folder.path / "snapshots" / "notes.txt").write_text("")
    return "snapshots/notes.txt"


def make_a_pipe_in_the_snapshot(folder: RepoFolder) -> str:
    (snapshot(folder) / "config.json").unlink()
    os.mkfifo(snapshot(folder) / "config.json")
    return f"snapshots/{commit_of(folder)}/config.json"


def end_a_ref_with_a_newline(folder: RepoFolder) -> str:
    folder.ref_path("main").write_text(commit_of(folder) + "\n")
    return "refs/main"


def write_no_commit_into_a_ref(folder: RepoFolder) -> str:
    folder.ref_path("main").write_text("local-1")
    return "refs/main"


def write_capitals_into_a_ref(folder: RepoFolder) -> str:
    folder.ref_path("main").write_text("ABCDEF" + commit_of(folder)[6:])
    return "refs/main"


def empty_a_ref(folder: RepoFolder) -> str:
    folder.ref_path("main").write_text("")
    return "refs/main"


def point_a_ref_at_nothing(folder: RepoFolder) -> str:
    folder.ref_path("refs/pr").mkdir(parents=True)
    folder.ref_path("refs/pr/1").write_text("0" * 40)
    return "refs/refs/pr/1"


DAMAGES: list[tuple[Damage, str]] = [
    (flip_a_bit, "corrupt"),
    (spoil_a_small_blob, "corrupt"),
    (cut_a_blob_short, "corrupt"),
    (edit_a_file, "corrupt"),
    (list_another_size, "wrong-size"),
    (spoil_the_listing, "bad-listing"),
    (write_a_listing_of_another_format, "bad-listing"),
    (write_a_listing_of_no_commit, "bad-listing"),
    (lead_the_listing_in_a_circle, "unreadable"),
    (lead_a_blob_in_a_circle, "unreadable"),
    (lose_a_blob, "dangling-link"),
    (lose_a_stored_blob, "dangling-link"),
    (link_out_of_the_snapshot, "escaping-link"),
    (link_out_of_the_blobs, "escaping-link"),
    (link_to_another_repo, "escaping-link"),
    (link_to_another_blob, "wrong-link"),
    (plant_a_file, "unlisted"),
    (name_a_blob_otherwise, "foreign-name"),
    (make_a_folder_among_the_blobs, "foreign-name"),
    (make_a_file_among_the_snapshots, "foreign-name"),
    (make_a_pipe_in_the_snapshot, "foreign-name"),
    (end_a_ref_with_a_newline, "bad-ref"),
    (write_no_commit_into_a_ref, "bad-ref"),
    (write_capitals_into_a_ref, "bad-ref"),
    (empty_a_ref, "bad-ref"),
    (point_a_ref_at_nothing, "dangling-ref"),
]
"""Every damage with the kind of problem it is."""
