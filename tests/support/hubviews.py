"""The JSON a hub answers about a repo: info, refs, tree entries, paths-info.

It takes no request apart beyond its query and form.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from tests.support.httpd import Request
from tests.support.hubrepo import Commit, HubFile, HubRepo, git_id

Query = dict[str, list[str]]
Row = dict[str, Any]


def flag(query: Query, name: str) -> bool:
    return query.get(name, ["false"])[0].lower() in ("1", "true")


def entries(commit: Commit, paths: list[str], expand: bool) -> list[Row]:
    """Return tree rows; paths that are neither file nor folder are left out."""
    rows = [_entry(commit, path) for path in paths if path in commit.files or path in commit.folders]
    if expand:
        for row in rows:
            row["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
    return rows


def _entry(commit: Commit, path: str) -> Row:
    if (file := commit.files.get(path)) is None:
        return {"type": "directory", "oid": commit.folders[path], "size": 0, "path": path}
    row: Row = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.sha256 is not None:
        row["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return row


def paths_info(commit: Commit, request: Request) -> list[Row]:
    """Answer the form (paths=a&paths=b&expand=false) or the same as JSON."""
    if "json" in request.headers.get("content-type", ""):
        asked = json.loads(request.body)
        return entries(commit, list(asked["paths"]), bool(asked.get("expand")))
    form = parse_qs(request.body.decode())
    return entries(commit, form.get("paths", []), flag(form, "expand"))


def repo_info(repo: HubRepo, commit: Commit, query: Query, about: Row) -> Row:
    """Return the repo's record; `expand` names the only fields wanted, `blobs` adds sizes and digests.

    `about` is laid over it, whatever it says.
    """
    siblings = [_sibling(path, file, flag(query, "blobs")) for path, file in sorted(commit.files.items())]
    info: Row = {"_id": git_id("blob", repo.name.encode())[:24], "id": repo.name}
    fields: Row = {
        "modelId": repo.name,
        "author": repo.name.partition("/")[0],
        "sha": commit.oid,
        "createdAt": commit.date,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": "auto" if repo.gated is True else repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    }
    if repo.kind != "model":
        del fields["modelId"]
    fields |= about
    wanted = query.get("expand", []) + query.get("expand[]", [])
    return info | {key: value for key, value in fields.items() if not wanted or key in wanted}


def _sibling(path: str, file: HubFile, blobs: bool) -> Row:
    row: Row = {"rfilename": path}
    if blobs:
        row |= {"size": file.size, "blobId": file.oid}
    if blobs and file.sha256 is not None:
        row["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return row


def refs(repo: HubRepo, include_prs: bool) -> Row:
    groups = {"branches": "refs/heads/", "converts": "refs/convert/", "tags": "refs/tags/"}
    if include_prs:
        groups["pullRequests"] = "refs/pr/"
    return {group: _group(repo, start) for group, start in groups.items()}


def _group(repo: HubRepo, start: str) -> list[Row]:
    named = sorted((ref, commit) for ref, commit in repo.refs.items() if ref.startswith(start))
    return [{"name": ref.removeprefix(start), "ref": ref, "targetCommit": commit} for ref, commit in named]
