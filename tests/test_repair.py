"""The commands that a damaged repo's report names pull it from where it came before, under the name it has."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from hubcache.app.repair import pull_command, repair_command
from hubcache.cache.findings import Problem
from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import Kind, RepoId

COMMIT = "0123456789" * 4


def kept(root: Path, name: str, source: str, *, kind: Kind = "model", ref: str = "main") -> RepoFolder:
    """Make a repo's folder that knows where it came from."""
    folder = RepoFolder(root, RepoId("hf", kind, name))
    for path, content in (
        (folder.provenance_path(COMMIT), json.dumps({"source": source} if source else {})),
        (folder.ref_path(ref), COMMIT),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    folder.snapshot_path(COMMIT).mkdir(parents=True)
    return folder


def problem(folder: RepoFolder, path: str = "blobs/x", commit: str = COMMIT) -> Problem:
    return Problem(folder.repo, path, "corrupt", "", commit)


def pulled(folder: RepoFolder, *problems: Problem) -> list[str]:
    """Return what the command pulls."""
    return shlex.split(pull_command(folder, problems or [problem(folder)]))[2:]


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("org/name", "hf:org/name", ["org/name"]),
        ("org/name", "", ["org/name"]),
        ("gpt2", "hf:gpt2", ["hf:gpt2"]),
        ("mine/copy", "hf:org/name", ["org/name", "--as", "mine/copy"]),
        ("bucket/x", "http:https://bucket.example.com/a/x.tar.gz", ["https://bucket.example.com/a/x.tar.gz"]),
        ("org/x", "http:https://h.example/x.tgz", ["https://h.example/x.tgz", "--as", "org/x"]),
        ("local/mine", "file:/srv/mine", ["file:/srv/mine"]),
    ],
)
def test_it_comes_from_where_it_came_before(tmp_path: Path, name: str, source: str, expected: list[str]) -> None:
    assert pulled(kept(tmp_path, name, source)) == expected


@pytest.mark.parametrize("name", ["org/set", "squad"])
def test_a_dataset_is_pulled_as_one(tmp_path: Path, name: str) -> None:
    assert pulled(kept(tmp_path, name, f"hf:{name}", kind="dataset")) == [f"hf:datasets/{name}"]


def test_a_commit_is_pulled_by_a_ref_that_means_it(tmp_path: Path) -> None:
    assert pulled(kept(tmp_path, "org/name", "hf:org/name", ref="v1")) == ["org/name@v1"]


def test_a_commit_without_a_ref_is_pulled_by_itself(tmp_path: Path) -> None:
    folder = kept(tmp_path, "org/name", "hf:org/name")
    assert pulled(folder, problem(folder, commit="f" * 40)) == [f"org/name@{'f' * 40}"]


def test_a_damaged_ref_is_pulled_by_its_name(tmp_path: Path) -> None:
    folder = kept(tmp_path, "org/name", "hf:org/name")
    assert pulled(folder, problem(folder, "refs/refs/pr/1", "")) == ["org/name@refs/pr/1"]


def test_options_are_handed_on(tmp_path: Path) -> None:
    folder = kept(tmp_path, "org/name", "")
    assert pull_command(folder, [problem(folder)], options=["--cache-dir", "x y"]).endswith("--cache-dir 'x y'")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [("org/name", "model", "org/name"), ("gpt2", "model", "hf:gpt2"), ("org/set", "dataset", "hf:datasets/org/set")],
)
def test_one_damaged_repo_is_named(name: str, kind: Kind, expected: str) -> None:
    assert repair_command([RepoId("hf", kind, name)]) == f"hubcache verify --repair {expected}"


def test_several_damaged_repos_are_repaired_together() -> None:
    repos = [RepoId("hf", "model", "org/a"), RepoId("hf", "model", "org/b")]
    assert repair_command(repos, options=["--cache-dir", "x"]) == "hubcache verify --repair --cache-dir x"
