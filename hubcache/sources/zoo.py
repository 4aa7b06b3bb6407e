"""SparseZoo by its own API: one GraphQL question, then plain files; the PyPI client is only the oracle in tests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from hubcache.core.artifact import RepoPath, parse_path
from hubcache.core.origins import Origin
from hubcache.core.plan import Preview
from hubcache.core.ports import Progress, Stage
from hubcache.core.reference import Reference
from hubcache.core.stubs import parse_stub
from hubcache.crew import run_all
from hubcache.errors import BadReference, EntryNotFound, IntegrityError, RepoNotFound, SourceUnavailable
from hubcache.fetch import Run
from hubcache.net import Net
from hubcache.sources.download import Remote, check_status, fetch_into, partial_at
from hubcache.sources.registry import SourceConfig
from hubcache.sources.staged import Published, StagedSource

FILES_AT_ONCE = 8
FIELDS = ("displayName", "downloadUrl", "fileSize", "fileType", "md5")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ZooFile:
    """One published file: where it goes in the repo, where it is, its size in bytes, its md5 where one is published."""

    path: RepoPath
    url: str
    size: int
    md5: str | None


class ZooPublication:
    """A model of the SparseZoo API at `api` (SPARSEZOO_API_URL)."""

    def __init__(self, net: Net, api: str, progress: Progress) -> None:
        self._net = net
        self._api = api.rstrip("/")
        self._progress = progress

    def probe(self, reference: Reference, /) -> str | None:
        """Ask for the model's listing and return its digest."""
        return _validator(self._files(reference))

    def preview(self, reference: Reference, /) -> Preview:
        """List the model's files."""
        return Preview(tuple((file.path, file.size) for file in self._files(reference)))

    def publish(self, reference: Reference, stage: Stage, /) -> Published:
        """Fetch every file of the model, several at once, each checked against its size and md5."""
        files = self._files(reference)
        stage.require_space(sum(file.size for file in files))

        run = Run(self._progress)

        def fetching(file: ZooFile) -> Callable[[], None]:
            return lambda: self._fetch(file, stage, run)

        run_all([fetching(file) for file in files], FILES_AT_ONCE, stop=run.stop)
        for file in files:
            stage.place(file.path, stage.folder / _local_name(file))
        return Published(f"{self._api} {reference.address}", _validator(files))

    def _fetch(self, file: ZooFile, stage: Stage, run: Run) -> None:
        remote = Remote(file.url, str(Origin.of(file.url)), file.size, file.md5)
        algorithms = ("md5",) if file.md5 else ()
        partial = partial_at(stage.folder / _local_name(file), remote, algorithms=algorithms, progress=self._progress)
        try:
            fetch_into(partial, self._net, remote, run)
            if file.md5 and (computed := partial.digests()["md5"]) != file.md5:
                partial.discard()
                raise IntegrityError(
                    f"{remote.origin} sent {file.path} with the md5 {computed}, and lists {file.md5}; nothing was kept"
                )
        finally:
            partial.close()
        self._progress.finish_file(file.path)

    def _files(self, reference: Reference) -> list[ZooFile]:
        rows = self._ask(reference)
        files = [_parse_file(row, self._api) for row in rows]
        paths = {file.path for file in files}
        if len(paths) != len(files):
            raise IntegrityError(f"{self._api} lists a file of {reference.address} twice")
        _check_recipe(reference, files)
        return files

    def _ask(self, reference: Reference) -> list[Mapping[str, Any]]:
        """Ask for the model's files; a server that does not know `md5` is asked without it."""
        answer = self._post(reference, FIELDS)
        if answer.get("errors"):
            answer = self._post(reference, FIELDS[:-1])
        if answer.get("errors"):
            raise SourceUnavailable(f"{self._api} refused the question: {str(answer['errors'])[:200]}")
        try:
            models = answer["data"]["models"]
            if not models:
                raise RepoNotFound(f"{self._api} has no model {reference.address}")
            return list(models[0]["files"])
        except (KeyError, TypeError, IndexError) as error:
            raise SourceUnavailable(
                f"{self._api} answered something that is no model: is it SparseZoo's API?"
            ) from error

    def _post(self, reference: Reference, fields: tuple[str, ...]) -> dict[str, Any]:
        arguments = ", ".join(
            f"{name}: {json.dumps(value)}" for name, value in parse_stub(reference.address).graphql_arguments()
        )
        query = f"{{ models ({arguments}) {{ modelId files(version: 2) {{ {' '.join(fields)} }} }} }}"
        answer, _ = self._net.fetch_json(
            f"{self._api}/v2/graphql",
            method="POST",
            headers={"Content-Type": "application/json"},
            body=json.dumps({"query": query}).encode(),
            check=check_status,
        )
        return answer if isinstance(answer, dict) else {}


def _parse_file(row: Mapping[str, Any], api: str) -> ZooFile:
    try:
        size = int(row["fileSize"])
        url = urljoin(api + "/", str(row["downloadUrl"]))
        if (Origin.of(api).scheme, Origin.of(url).scheme) == ("https", "http"):
            raise ValueError("plain http, listed over https")
        md5 = row.get("md5")
        valid = md5 if isinstance(md5, str) and _MD5.fullmatch(md5) else None
        if size < 0:
            raise ValueError(f"size {size}")
        name = row["displayName"]
        if not isinstance(name, str):
            raise TypeError(f"name {name!r}")
        return ZooFile(place_file(name, str(row.get("fileType", ""))), url, size, valid)
    except (KeyError, TypeError, ValueError, OverflowError, BadReference, SourceUnavailable) as error:
        raise IntegrityError(f"{api} lists a file that cannot be read: {str(row)[:200]} ({error})") from error


def place_file(name: str, file_type: str) -> RepoPath:
    """Choose a published file's place in the repo: training files at the root, where from_pretrained looks.

    Recipes, samples, ONNX and benchmark files get folders of their own, deployment keeps the one it
    has; all else (the model card) stays at the root under its own name.
    """
    path = parse_path(name)
    if path.startswith("training/"):
        return parse_path(path.removeprefix("training/"))
    if "/" in path:
        return path
    if path.startswith("sample-") or file_type in {"inputs", "outputs", "labels", "originals"}:
        return parse_path(f"samples/{path}")
    folder = {"recipe": "recipes", "deployment": "deployment", "onnx": "onnx", "onnx_gz": "onnx"}.get(file_type)
    if file_type in {"benchmarking", "benchmark", "metrics"}:
        folder = "benchmarks"
    return parse_path(f"{folder}/{path}") if folder else path


def _check_recipe(reference: Reference, files: list[ZooFile]) -> None:
    """Check that `?recipe=X` means one published recipe, by the reference client's rule."""
    asked = reference.argument("recipe")
    if asked is None:
        return
    recipes = sorted(file.path for file in files if file.path.startswith("recipes/"))
    matches = [path for path in recipes if path.startswith(f"recipes/recipe_{asked}")]
    if len(matches) != 1:
        problem = "no recipe" if not matches else "several recipes"
        raise EntryNotFound(
            f"{reference.address} has {problem} {asked!r}", hint=f"published: {', '.join(recipes) or 'none'}"
        )


def _validator(files: list[ZooFile]) -> str:
    rows = sorted((file.path, file.size, file.md5 or file.url) for file in files)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _local_name(file: ZooFile) -> str:
    return "zoo-" + hashlib.sha256(file.path.encode()).hexdigest()[:16]


def make(config: SourceConfig) -> StagedSource:
    """Make the source of `zoo:` stubs."""
    publication = ZooPublication(config.net, config.endpoints["sparsezoo"], config.progress)
    return StagedSource(publication, config.memory)
