"""Random faults over caches as hubcache and huggingface_hub write them: all are told, and all are repaired rightly."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from hubcache.app.progress import NoProgress
from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import scan_repos
from hubcache.cache.verify import verify_repo
from hubcache.core.artifact import RepoId
from tests.support.collecting import standing
from tests.support.commandline import CommandLine
from tests.support.loophub import LoopHub
from tests.support.mending import mend
from tests.support.pulling import pull_into
from tests.support.randomfaults import wreck_cache
from tests.support.wreck import Told, Wreck

WEIGHTS = random.Random(1).randbytes(70_000)  # large enough for a thread of its own
FIRST = {
    "config.json": b'{"model_type": "bert"}',
    "vocab.txt": b"a\nb\nc\n" * 9,
    "model.safetensors": WEIGHTS,
    "sub/copy.safetensors": WEIGHTS,
    "sub/deep/notes.txt": b"notes",
    "empty.txt": b"",
}
SECOND = {"config.json": b'{"model_type": "gpt2"}', "sub/head.safetensors": WEIGHTS[:3000]}
THIRD = {"README.md": b"# Tiny\n", "vocab.txt": None}
ROWS = {"data/train.parquet": WEIGHTS[5000:9000], "data/test.parquet": WEIGHTS[9000:9900], "README.md": b"# Rows\n"}
REPOS = {("org/tiny", "model"): ("main", "v1", "refs/pr/1"), ("org/rows", "dataset"): ("main", "v1")}
TWIN = "org/twin"
LAYOUTS = ("hubcache", "huggingface_hub", "files", "huggingface_hub_files", "store")
PULL = """
import sys
from huggingface_hub import snapshot_download
for kind, name, revision in (text.split(" ") for text in sys.argv[1:]):
    snapshot_download(name, repo_type=kind, revision=revision)
"""


@dataclass(frozen=True, slots=True)
class World:
    """A hub, what each commit of it holds, and a sound cache of each layout; `work` is where they are damaged."""

    hub: LoopHub
    truth: dict[tuple[str, str], dict[str, bytes]]  # by the repo's folder and commit
    caches: dict[str, Path]
    work: Path

    @classmethod
    def make(cls, hub: LoopHub, place: Path) -> World:
        hub.add_repo("org/tiny", FIRST)
        hub.set_ref("org/tiny", "refs/tags/v1", hub.add_commit("org/tiny", {}))
        hub.add_commit("org/tiny", SECOND)
        hub.set_ref("org/tiny", "refs/pr/1", hub.add_commit("org/tiny", THIRD, revision="dev"))
        hub.add_repo("org/rows", ROWS, kind="dataset")
        hub.set_ref("org/rows", "refs/tags/v1", hub.add_commit("org/rows", {}, kind="dataset"), kind="dataset")
        hub.add_commit("org/rows", {"README.md": b"# Rows, more\n"}, kind="dataset")
        hub.add_repo(TWIN, {"model.safetensors": WEIGHTS, "config.json": b"{}"})
        caches = {layout: place / layout / "hub" for layout in LAYOUTS}
        for layout, cache in caches.items():
            fill(layout, cache, hub)
        return cls(hub, read_truth(caches), caches, place)


def read_truth(caches: dict[str, Path]) -> dict[tuple[str, str], dict[str, bytes]]:
    """Read what each commit holds in the caches, which must agree."""
    truth: dict[tuple[str, str], dict[str, bytes]] = {}
    for cache in caches.values():
        for folder in scan_repos(cache):
            for commit in folder.commits():
                files = contents(folder.snapshot_path(commit))
                assert truth.setdefault((folder.path.name, commit), files) == files
    return truth


def fill(layout: str, cache: Path, hub: LoopHub) -> None:
    """Pull all that the hub has as this layout is written."""
    wanted = [(kind, name, revision) for (name, kind), revisions in REPOS.items() for revision in revisions]
    wanted += [("model", TWIN, "main")] if layout == "store" else []
    if layout.startswith("huggingface_hub"):
        environ = {"HF_HUB_DISABLE_SYMLINKS": "1"} if layout.endswith("_files") else {}
        line = CommandLine(cache.parent, HF_ENDPOINT=hub.endpoint, **environ)
        told = line.python(PULL, *(" ".join(each) for each in wanted), HF_HUB_OFFLINE="0")
        assert told.code == 0, told.err
        return
    for kind, name, revision in wanted:
        prefix = "" if kind == "model" else f"{kind}s/"
        pull_into(cache, hub, f"{prefix}{name}@{revision}", links=layout != "files")
    if layout == "store":
        share(cache)


def share(cache: Path) -> None:
    """Move every blob of more than 2,000 bytes into the store that repos share, as what came by Xet stands there."""
    cache.joinpath("blobs").mkdir()
    cache.joinpath("blobs", ".huggingface-shared-blobs").write_text("1\n")
    for folder in scan_repos(cache):
        for blob in sorted(folder.path.glob("blobs/*")):
            if blob.stat().st_size > 2000:
                name = blob.name[::-1]
                payload = cache / "blobs" / name[:2] / name
                payload.parent.mkdir(exist_ok=True)
                os.replace(blob, payload)
                blob.symlink_to(f"../../blobs/{name[:2]}/{name}")
                with payload.with_name(f"{name}.refs").open("a") as refs:
                    refs.write(f"{folder.path.name}/blobs/{blob.name}\n")


def contents(folder: Path) -> dict[str, bytes]:
    """Read what a client finds in a snapshot."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with LoopHub() as hub:
        yield World.make(hub, tmp_path_factory.mktemp("campaign"))


@dataclass(frozen=True, slots=True)
class Round:
    """A damaged copy of one of the caches; the seed makes it again."""

    world: World
    layout: str
    seed: int
    wreck: Wreck

    @property
    def root(self) -> Path:
        """The damaged cache."""
        return self.wreck.root

    def untold(self) -> list[str]:
        """List the faults that a check does not tell."""
        found: set[tuple[str, str, str]] = {
            (folder.path.name, one.path, one.kind)
            for folder in scan_repos(self.root)
            for report in [verify_repo(folder, progress=NoProgress())]
            for one in (*report.notes, *report.problems)
        }
        return [f"{self}: {told} not told" for told in self.wreck.told if not _is_told(told, found)]

    def command(self) -> CommandLine:
        """Return the real command over the damaged cache."""
        environ = {"HF_HUB_DISABLE_SYMLINKS": "1"} if self.layout.endswith("files") else {}
        return CommandLine(self.root.parent, HF_ENDPOINT=self.world.hub.endpoint, **environ)

    def mend(self) -> None:
        """Repair every repo from the hub, as the command does."""
        for folder in scan_repos(self.root):
            mend(folder, self.world.hub.endpoint, links=not self.layout.endswith("files"))

    def wrongs(self, before: dict[str, object]) -> list[str]:
        """List what is wrong after the repair; `before` is what was sound before it."""
        found = [
            f"{problem.path} is {problem.kind}"
            for folder in scan_repos(self.root)
            for problem in verify_repo(folder, progress=NoProgress()).problems
        ]
        after = content_of(self.root)
        found += [f"{path} was sound and is changed" for path, told in before.items() if after.get(path) != told]
        scanned = scan_cache_dir(self.root)
        found += [f"huggingface_hub warns: {warning}" for warning in scanned.warnings]
        for folder in scan_repos(self.world.caches[self.layout]):
            found += self._misread(RepoFolder(self.root, folder.repo), folder.refs())
        return [f"{self}: {wrong}" for wrong in found]

    def _misread(self, folder: RepoFolder, refs: dict[str, str]) -> Iterator[str]:
        for revision, commit in (refs | {commit: commit for commit in refs.values()}).items():
            try:
                place = snapshot_download(
                    folder.repo.name,
                    repo_type=folder.repo.kind,
                    revision=revision,
                    cache_dir=self.root,
                    local_files_only=True,
                )
            except LocalEntryNotFoundError as error:
                if (folder.path.name, commit) not in self.wreck.gone:
                    yield f"{folder.repo}@{revision}: {error}"
                continue
            truth = self.world.truth[folder.path.name, commit]
            if (held := contents(Path(place))) != truth:
                odd = sorted(path for path in truth | held if truth.get(path) != held.get(path))
                yield f"{folder.repo}@{revision} has other bytes in {odd}"

    def __str__(self) -> str:
        return f"{self.layout} seed {self.seed} ({', '.join(self.wreck.names)})"


def _is_told(told: Told, found: set[tuple[str, str, str]]) -> bool:
    return any((told.repo, told.path, kind) in found for kind in told.kinds)


def content_of(root: Path) -> dict[str, object]:
    """Tell what stands in a cache, quarantine excepted: bytes and links; who uses the store's payloads may change."""
    return {
        path: (held[0], _bytes_behind(root / path))
        for path, held in standing(root, times=False).items()
        if held[0] != "folder" and "/quarantine/" not in path and not path.endswith(".refs")
    }


def _bytes_behind(file: Path) -> bytes | None:
    """Read what a link leads to: one to damaged bytes is not sound."""
    return file.read_bytes() if file.is_symlink() and file.is_file() else None


def begin(world: World, seed: int) -> Round:
    """Damage a copy of one of the caches in one to four ways."""
    rng = random.Random(seed)
    layout = LAYOUTS[seed % len(LAYOUTS)]
    home = world.work / f"round-{seed}"
    shutil.copytree(world.caches[layout], home / "hub", symlinks=True)
    return Round(world, layout, seed, wreck_cache(home / "hub", rng, rng.randint(1, 4)))


def campaign(world: World, first: int, faults: int) -> tuple[list[str], int]:
    """Run rounds from a seed on until there were so many faults; return what went wrong, and how many there were."""
    wrong: list[str] = []
    seed, count = first, 0
    while count < faults:
        one = begin(world, seed)
        wrong += one.untold()
        sound, damaged = content_of(world.caches[one.layout]), content_of(one.root)
        one.mend()
        wrong += one.wrongs({path: held for path, held in sound.items() if damaged.get(path) == held})
        shutil.rmtree(one.root.parent)
        seed, count = seed + 1, count + len(one.wreck.names)
    return wrong, count


def untold_by_the_command(one: Round) -> list[str]:
    """List the faults that `hubcache verify` does not tell."""
    facts = one.command()("verify", "--json").facts
    found = {
        (RepoFolder(one.root, RepoId("hf", row["type"], row["repo"])).path.name, row["path"], row["kind"])
        for row in (*facts["problems"], *facts["notes"])
    }
    return [f"{one}: {told} not told" for told in one.wreck.told if not _is_told(told, found)]


def test_forty_random_faults_are_told_and_repaired_rightly(world: World) -> None:
    assert campaign(world, 0, 40)[0] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_command_tells_random_faults_and_repairs_them_rightly(world: World, seed: int) -> None:
    one = begin(world, seed)
    wrong = untold_by_the_command(one)
    sound, damaged = content_of(world.caches[one.layout]), content_of(one.root)
    told = one.command()("verify", "--repair", "--yes", "--quiet")
    wrong += one.wrongs({path: held for path, held in sound.items() if damaged.get(path) == held})
    assert (wrong, told.code) == ([], 0), told.err


@pytest.mark.slow
def test_a_thousand_random_faults_are_told_and_repaired_rightly(world: World) -> None:
    assert campaign(world, 1000, 1000)[0] == []
