"""LoopZoo: the SparseZoo API (one GraphQL question, then files) on loopback.

Of GraphQL it reads what clients of the zoo send: one selection with arguments, no variables, no fragments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from tests.support.httpd import Body, Reply, Request, body_hex, body_size
from tests.support.loopserver import LoopServer, json_reply

Row = dict[str, Any]
TOKEN = re.compile(r'[{}():]|"(?:[^"\\]|\\.)*"|[\w.+-]+|(?P<bad>[^\s,])')
ARGUMENTS = frozenset(
    ("domain", "task", "architecture", "subArchitecture", "framework", "repo", "sourceDataset", "sparseTag", "repoName")
)
FILE_TYPES = (
    *(("training/", "training"), ("deployment", "deployment"), ("recipe", "recipe"), ("model.onnx.tar.gz", "onnx_gz")),
    *(("model.onnx", "onnx"), ("sample-inputs", "inputs"), ("sample-outputs", "outputs"), ("model.md", "card")),
)


class Selection(dict[str, tuple[dict[str, Any], "Selection"]]):
    """What a query names: field -> (arguments, selection under it)."""


class LoopZoo(LoopServer):
    """A zoo of models, from a folder (models.json, files/<uuid>/…) or made in code. Faults name a file as displayed.

    reject_md5: a query that asks for md5 is an error. wrong_md5, wrong_size: every row lies about it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(zoo=self._zoo)
        self.reject_md5 = False
        self.wrong_md5 = False
        self.wrong_size = False
        self.queries: list[str] = []
        self._models: list[Row] = []
        self._bodies: dict[tuple[str, str], Body] = {}
        if folder is not None:
            self._load(folder)

    @property
    def endpoint(self) -> str:
        return self._origins["zoo"].url

    def add_model(self, stub: str, files: Mapping[str, Body], repo_name: str | None = None) -> str:
        """Add a model by its V1 stub (zoo:domain/…/tag) and return its model id."""
        model = str(uuid5(NAMESPACE_URL, stub))
        row: Row = {"modelId": model, "stub": stub, "repoNamespace": "neuralmagic" if repo_name else None}
        row |= stub_columns(stub) | {"repoName": repo_name, "modelOnnxSizeCompressedBytes": 0}
        row |= {"isPubliclyVisible": True, "trainingResults": [], "benchmarkResults": []}
        row["files"] = [file_row(model, name, body) for name, body in files.items()]
        self._models.append(row)
        self._bodies |= {(model, name): body for name, body in files.items()}
        return model

    def rows(self) -> list[Row]:
        """Return the models' rows as loaded or made."""
        return list(self._models)

    def _load(self, folder: Path) -> None:
        for row in json.loads((folder / "models.json").read_text())["models"]:
            self._models.append(row)
            for file in row["files"]:
                name = file["displayName"]
                self._bodies[row["modelId"], name] = folder / "files" / row["modelId"] / name

    def _zoo(self, request: Request) -> Reply:
        match request.segments:
            case ["v2", "graphql"] if request.method == "POST":
                return self._graphql(request)
            case ["v2", "models", model, "files", *path] if request.method in ("GET", "HEAD"):
                return self._file(request, model, "/".join(path))
        return Reply(404)

    def _graphql(self, request: Request) -> Reply:
        try:
            query = str(json.loads(request.body)["query"])
            self.queries.append(query)
            arguments, wanted = parse_query(query)["models"]
            if unknown := arguments.keys() - ARGUMENTS:
                raise ValueError(f'Unknown argument "{min(unknown)}" on field "Query.models".')
            found = [row for row in self._models if all(row.get(key) == value for key, value in arguments.items())]
            models = [self._select(self._model_row(row, wanted), wanted) for row in found]
        except (ValueError, KeyError, IndexError) as error:
            return json_reply({"errors": [{"message": str(error)}]})
        return json_reply({"data": {"models": models}})

    def _model_row(self, row: Row, wanted: Selection) -> Row:
        if "files" not in wanted:
            return row
        arguments, _ = wanted["files"]
        files = row["files"] if arguments.get("version") == 2 else unprefixed(row["files"])
        return row | {"files": [self._file_row(file) for file in files]}

    def _file_row(self, file: Row) -> Row:
        shown = {"downloadUrl": file["downloadUrl"].replace("{BASE}", self.endpoint)}
        if self.wrong_md5:
            shown["md5"] = "0" * 32
        if self.wrong_size:
            shown["fileSize"] = file["fileSize"] + 1
        return file | shown

    def _select(self, row: Row, wanted: Selection) -> Row:
        """Keep the fields a selection names, and those below them."""
        shown: Row = {}
        for name, (_, below) in wanted.items():
            if name not in row or name.startswith("_") or (name == "md5" and self.reject_md5):
                raise ValueError(f'Cannot query field "{name}".')
            value = row[name]
            shown[name] = [self._select(each, below) for each in value] if isinstance(value, list) else value
        return shown

    def _file(self, request: Request, model: str, path: str) -> Reply:
        """Answer a file by its displayed name; the older API's names lack the leading folder."""
        for name in (path, f"training/{path}", f"deployment/{path}"):
            if (body := self._bodies.get((model, name))) is not None:
                headers = {"ETag": f'"{body_hex(body, "md5")}"', "Content-Type": "application/octet-stream"}
                return self.file_reply(request, name, body, headers)
        return Reply(404)


def parse_query(text: str) -> Selection:
    """Parse a query's outermost selection.

    Raises:
        ValueError: it is not of the form this server reads.
    """
    tokens = []
    for found in TOKEN.finditer(text):
        if found["bad"]:
            raise ValueError(f"Syntax Error: unexpected {found['bad']}")
        tokens.append(found[0])
    tokens = tokens[tokens.index("{") :]
    wanted = _selection(tokens)
    if tokens:
        raise ValueError(f"Syntax Error: unexpected {tokens[0]}")
    return wanted


def _selection(tokens: list[str]) -> Selection:
    """Take one { … } off the front of the tokens."""
    wanted = Selection()
    tokens.pop(0)
    while (name := tokens.pop(0)) != "}":
        if not name.isidentifier():
            raise ValueError(f"Syntax Error: unexpected {name}")
        arguments = _arguments(tokens) if tokens[0] == "(" else {}
        wanted[name] = (arguments, _selection(tokens) if tokens[0] == "{" else Selection())
    return wanted


def _arguments(tokens: list[str]) -> dict[str, Any]:
    """Take one ( name: value … ) off the front of the tokens."""
    arguments = {}
    tokens.pop(0)
    while (name := tokens.pop(0)) != ")":
        if tokens.pop(0) != ":":
            raise ValueError(f"Syntax Error: {name} has no value")
        arguments[name] = json.loads(tokens.pop(0))
    return arguments


def unprefixed(files: list[Row]) -> list[Row]:
    """Name files as the older API does, without their folder; of two of one name the first stays."""
    shown: dict[str, Row] = {}
    for file in files:
        name = file["displayName"].rpartition("/")[2]
        shown.setdefault(name, file | {"displayName": name})
    return list(shown.values())


def stub_columns(stub: str) -> Row:
    """Split a V1 stub into the columns the API filters by."""
    domain, task, architecture, framework, repo, dataset, tag = stub.removeprefix("zoo:").split("/")
    name, _, sub = architecture.partition("-")
    columns = {"domain": domain, "task": task, "architecture": name, "subArchitecture": sub or None, "repo": repo}
    return columns | {"framework": framework, "sourceDataset": dataset.partition("-")[0], "sparseTag": tag}


def file_row(model: str, name: str, body: Body) -> Row:
    kind = next((kind for start, kind in FILE_TYPES if name.startswith(start)), "training")
    url = f"{{BASE}}/v2/models/{model}/files/{name}?version=2"
    row: Row = {"fileId": str(uuid5(NAMESPACE_URL, url)), "modelId": model, "displayName": name, "fileType": kind}
    return row | {"fileSize": body_size(body), "md5": body_hex(body, "md5"), "version": 2, "downloadUrl": url}
