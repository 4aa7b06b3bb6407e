"""The Hugging Face cache layout as names and bytes: folders, link targets, refs, tree listings; no disk access.

Source: huggingface_hub 2.4 (file_download.py, _tree_cache.py, _cache_manager.py), as measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hubcache.core.artifact import KINDS, Entry, Manifest, RepoId, RepoPath, parse_path
from hubcache.core.digests import Blob, Digest
from hubcache.errors import BadReference, IntegrityError

TREE_FORMAT = 1
ORIGINAL = "original"
"""The ref of what was published, byte for byte, where main may mean what it was converted to."""

CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder holds downloaded models, datasets and spaces; backups may leave it out.\n"
    "# The tag is described at https://bford.info/cachedir/\n"
)


def repo_folder(repo: RepoId) -> str:
    """Name the repo's folder: `models--org--name`."""
    return f"{repo.kind}s--{repo.name.replace('/', '--')}"


def parse_repo_folder(name: str) -> RepoId | None:
    """Read a repo folder's name; None where it is none (`.locks`, `blobs`, `CACHEDIR.TAG`, kernels)."""
    prefix, dashes, rest = name.partition("--")
    kind = prefix.removesuffix("s")
    if not dashes or kind not in KINDS or not prefix.endswith("s"):
        return None
    try:
        return RepoId.parse(rest.replace("--", "/"), kind=kind)
    except BadReference:
        return None


def link_target(path: RepoPath, digest: Digest) -> str:
    """Write the relative target of `snapshots/<commit>/<path>`: one `../` for each level up to the repo folder."""
    return "../" * (2 + path.count("/")) + "blobs/" + digest.hex


def encode_tree(manifest: Manifest) -> bytes:
    """Write `trees/<commit>.json` as huggingface_hub does, without Xet hashes.

    With a Xet hash in the listing, its client asks every endpoint for a Xet token and does not fall back.
    """
    files = {path: _encode_entry(entry) for path, entry in manifest.files.items()}
    return json.dumps({"format_version": TREE_FORMAT, "files": files}, indent=1).encode()


def decode_tree(content: bytes) -> Manifest:
    """Read `trees/<commit>.json`, ours or huggingface_hub's.

    Raises:
        IntegrityError: it is not such a listing.
    """
    try:
        listing = json.loads(content)
        if listing["format_version"] != TREE_FORMAT:
            raise IntegrityError(f"tree listing of unknown format {listing['format_version']!r}")
        return Manifest({parse_path(path): _decode_entry(row) for path, row in listing["files"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadReference) as error:
        raise IntegrityError(f"not a tree listing: {error}") from error


def _encode_entry(entry: Entry) -> dict[str, Any]:
    blob = entry.blob
    if blob.digest.algorithm == "git-sha1":
        return {"size": blob.size, "blob_id": blob.digest.hex}
    return {
        "size": blob.size,
        "blob_id": entry.pointer or "",
        "lfs_sha256": blob.digest.hex,
        "lfs_size": blob.size,
    }


def _decode_entry(row: Mapping[str, Any]) -> Entry:
    if row.get("lfs_sha256") is None:
        return Entry(Blob(Digest.parse(row["blob_id"]), _size(row["size"])), xet=row.get("xet_hash"))
    blob = Blob(Digest.parse(row["lfs_sha256"]), _size(row.get("lfs_size") or row["size"]))
    return Entry(blob, pointer=row["blob_id"] or None, xet=row.get("xet_hash"))


def _size(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"not a size: {value!r}")
    return value
