"""Folders of real files: save_pretrained's, huggingface_hub's local_dir, ModelScope's, SparseZoo's, the old
sentence-transformers'. Stores that share files between repos are in stores.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hubcache.app.layouts.seeing import LITTER, Listing, Seeing, folder_repo, is_folder, list_files, read_note
from hubcache.core.adoptable import Found, FoundFile, Layout, Left
from hubcache.core.artifact import Kind, Manifest, RepoId, RepoPath, is_commit, parse_path
from hubcache.core.digests import Digest
from hubcache.core.foreign import guess_sentence_name, read_download_note, read_scope_id, unmask, zoo_place
from hubcache.core.layout import ORIGINAL, decode_tree
from hubcache.core.scopenames import branch_ref
from hubcache.core.stubs import parse_stub
from hubcache.errors import BadReference, IntegrityError

_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".tflite")
_SCOPE_NOTES = (".mdl", ".msc", ".mv")
_SCOPE_LITTER = LITTER | set(_SCOPE_NOTES) | {"._____temp"}
_NOTE = ".metadata"
_SENTENCE = ("sentence-transformers_", "sbert.net_models_")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find_folder(top: Path, seeing: Seeing) -> list[Found] | None:
    """Recognise a plain model folder: a configuration or weights stand in it."""
    if not is_folder(top) or not _is_model(top):
        return None
    listing = list_files(top)
    return [_found("model folder", top, folder_repo(top, seeing.kind), listing, refs=(ORIGINAL,))]


def _is_model(top: Path) -> bool:
    with suppress(OSError):
        names = os.listdir(top)
        return "config.json" in names or any(name.endswith(_WEIGHTS) for name in names)
    return False


def _found(layout: Layout, top: Path, repo: RepoId, listing: Listing, *, source: str = "",
           refs: tuple[str, ...] = (), is_guess: bool = False) -> Found:  # fmt: skip
    return Found(
        layout, str(top), repo, tuple(listing.files.values()), source, refs=refs, is_guess=is_guess,
        left=tuple(listing.left),
    )  # fmt: skip


# -- huggingface_hub's local_dir


def find_local_dir(top: Path, seeing: Seeing) -> list[Found] | None:
    """Recognise a local_dir of huggingface_hub: it notes each file's commit and digest.

    Files of several commits become a part of each; what has no note, and no listing that names it, is left.
    """
    notes_top = top / ".cache/huggingface/download"
    if not is_folder(top / ".cache") or not is_folder(notes_top):
        return None
    listing = list_files(top)
    noted = dict(_download_notes(notes_top))
    commits = sorted({commit for commit, _ in noted.values()})
    return [_one_commit(top, commit, noted, listing, seeing) for commit in commits] or None


def _download_notes(top: Path) -> Iterator[tuple[str, tuple[str, Digest]]]:
    for path, file in list_files(top, ()).files.items():
        if path.endswith(_NOTE):
            note = read_download_note(read_note(Path(file.place), 4096).decode("utf-8", "replace"))
            if note is not None:
                yield path.removesuffix(_NOTE), note


def _one_commit(
    top: Path, commit: str, noted: Mapping[str, tuple[str, Digest]], listing: Listing, seeing: Seeing
) -> Found:
    tree = _tree(top / ".cache/huggingface/trees" / f"{commit}.json")
    files, left = [], list(listing.left)
    for path, file in listing.files.items():
        listed = tree.files.get(path) if tree else None
        noted_commit, digest = noted.get(path, ("", None))
        if tree is not None and noted_commit == commit and (listed is None or listed.blob.digest != digest):
            left.append(Left(path, "its note and the commit's listing differ"))
        elif listed is not None:
            files.append(replace(file, expected=listed.blob.digest))
        elif noted_commit == commit:
            files.append(replace(file, expected=digest))
        elif not noted_commit:
            left.append(Left(path, "no file of the download"))
    left += [Left(path, "noted, and not here") for path, (of, _) in noted.items()
             if of == commit and path not in listing.files]  # fmt: skip
    note = "of which repo it is stands nowhere: --as org/name says it"
    return Found(
        "local_dir folder", str(top), folder_repo(top, seeing.kind), tuple(files), commit=commit, listing=tree,
        is_guess=True, left=tuple(left), notes=(note,),
    )  # fmt: skip


def _tree(place: Path) -> Manifest | None:
    try:
        return decode_tree(read_note(place, 256 << 20))
    except IntegrityError:
        return None


# -- ModelScope


def find_scope_folder(top: Path, seeing: Seeing) -> list[Found] | None:
    """Recognise a folder of ModelScope's older caches: …/org/name, dots as ___, with its notes .mdl or .msc."""
    if not any(top.joinpath(name).is_file() for name in _SCOPE_NOTES[:2]):
        return None
    kind: Kind = "dataset" if top.parent.parent.name == "datasets" else seeing.kind
    told = read_scope_id(read_note(top / ".mdl", 65536)) or ""
    for name in (unmask(told), f"{top.parent.name}/{unmask(top.name)}"):
        with suppress(BadReference):
            if "/" in name:
                repo = RepoId.parse(name, hub="ms", kind=kind)
                return [_of_scope(top, repo, list_files(top, _SCOPE_LITTER))]
    return [_found("ModelScope cache", top, folder_repo(top, kind), list_files(top, _SCOPE_LITTER), is_guess=True)]


def find_scope_snapshots(top: Path, _seeing: Seeing) -> list[Found] | None:
    """Recognise a folder of ModelScope's newer cache: models/org--name/snapshots/<revision>, real files."""
    if top.parent.name not in {"models", "datasets"} or "--" not in top.name or not is_folder(top / "snapshots"):
        return None
    kind: Kind = "dataset" if top.parent.name == "datasets" else "model"
    try:
        repo = RepoId.parse(unmask(top.name.replace("--", "/", 1)), hub="ms", kind=kind)
    except BadReference:
        return None
    revisions = [entry for entry in sorted((top / "snapshots").iterdir()) if is_folder(entry)]
    return [_of_scope(each, repo, list_files(each, _SCOPE_LITTER), each.name) for each in revisions]


def _of_scope(top: Path, repo: RepoId, listing: Listing, revision: str = "master") -> Found:
    """Name it as ModelScope's own listings would: every file by its sha256."""
    refs = () if is_commit(revision) else (branch_ref(revision),)
    found = _found("ModelScope cache", top, repo, listing, source=f"ms:{repo.name}", refs=refs)
    asked = "main" if revision == "master" else revision
    return replace(found, algorithm="sha256", revision=asked, commit=revision if is_commit(revision) else None)


# -- SparseZoo


def find_zoo_folder(top: Path, seeing: Seeing) -> list[Found] | None:
    """Recognise a model of SparseZoo's client: …/neuralmagic/<stub>, or a folder with training/ and deployment/."""
    is_named = top.parent.name == "neuralmagic" and top.name != "chunks"
    is_model = top.joinpath("training/config.json").is_file() and is_folder(top / "deployment")
    if not is_folder(top) or not (is_model or (is_named and any(top.iterdir()))):
        return None
    listing = list_files(top)
    placed: dict[RepoPath, FoundFile] = {}
    for path, file in listing.files.items():
        place = parse_path(zoo_place(path))
        if place in placed:
            listing.left.append(Left(path, f"another file has its place, {place}"))
        else:
            placed[place] = replace(file, path=place)
    listing.files = placed
    try:
        if _UUID.fullmatch(top.name):
            raise BadReference("the zoo's number for a model that has no name")
        stub = parse_stub(top.name)
        repo = RepoId.parse(stub.repo_name(), hub="zoo")
    except BadReference:
        repo = folder_repo(top, seeing.kind)
        return [_found("SparseZoo cache", top, repo, listing, refs=(ORIGINAL,), is_guess=True)]
    return [_found("SparseZoo cache", top, repo, listing, source=f"zoo:{stub.base}", refs=(ORIGINAL,))]


# -- sentence-transformers


def find_sentence_folder(top: Path, seeing: Seeing) -> list[Found] | None:
    """Recognise a model of sentence-transformers' old cache: org_name with modules.json; the name is a guess."""
    is_named = top.parent.name == "sentence_transformers" or top.name.startswith(_SENTENCE)
    if "_" not in top.name or not is_named or not top.joinpath("modules.json").is_file():
        return None
    try:
        repo = RepoId.parse(guess_sentence_name(top.name), kind=seeing.kind)
    except BadReference:
        return None
    return [_found("sentence-transformers folder", top, repo, list_files(top), is_guess=True)]
