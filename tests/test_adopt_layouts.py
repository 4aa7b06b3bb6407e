"""`hubcache adopt` recognises each layout by looking, keeps what it knows, and leaves out what is not as noted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubcache.core.digests import digest_bytes
from tests.support.commandline import CommandLine, Ran, files_of
from tests.support.loophub import LoopHub
from tests.support.loopscope import LoopScope
from tests.support.otherlayouts import ATTRIBUTES, git, make_clone, make_ollama, make_scope, write_files
from tests.support.puller import bodies
from tests.support.wholeness import faults, unverified

NAME = "org/model"
WEIGHTS = bytes(range(256)) * 400
FILES = {
    ".gitattributes": ATTRIBUTES,
    "config.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "sub/notes.txt": b"notes",
}
PLAIN = {"config.json": b'{"b": 2}', "model.safetensors": WEIGHTS, "1_Pooling/config.json": b"{}"}
DOWNLOAD = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], local_dir=sys.argv[2]))"
OFFLINE = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], local_files_only=True))"


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        server.add_repo(NAME, FILES)
        yield server


@pytest.fixture
def hubcache(tmp_path: Path, hub: LoopHub) -> CommandLine:
    return CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)


def adopted(hubcache: CommandLine, *arguments: str | Path) -> list[dict[str, Any]]:
    """Adopt, and return what is told of each repo."""
    told = hubcache("adopt", *arguments, "--json")
    assert told.code == 0, told.err
    assert faults(hubcache.cache) == []
    repos: list[dict[str, Any]] = told.facts["repos"]
    return repos


def transferred(hubcache: CommandLine, hub: LoopHub, text: str = NAME) -> list[str]:
    """Pull, and return the ranges of the bodies that were asked for."""
    hub.clear()
    pulled = hubcache("pull", text)
    assert pulled.code == 0, pulled.err
    assert unverified(Path(pulled.out.strip())) == []
    return bodies(hub)


def loaded(hubcache: CommandLine, name: str) -> Ran:
    """Let huggingface_hub find the snapshot, offline."""
    return hubcache.python(OFFLINE, name)


def why(repo: dict[str, Any]) -> dict[str, str]:
    return {left["path"]: left["why"] for left in repo["left"]}


# -- plain folders


def test_a_plain_folder_gets_the_commit_that_a_pull_of_it_gets(hubcache: CommandLine, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "saved", PLAIN)
    (repo,) = adopted(hubcache, folder)
    pulled = hubcache("pull", f"{folder}", "--cache-dir", tmp_path / "other").out.strip()
    assert (repo["layout"], repo["repo"], repo["commit"]) == ("model folder", "local/saved", Path(pulled).name)


def test_what_was_adopted_is_what_huggingface_hub_finds_offline(hubcache: CommandLine, tmp_path: Path) -> None:
    adopted(hubcache, write_files(tmp_path / "saved", PLAIN), "--as", "my/model")
    assert files_of(Path(loaded(hubcache, "my/model").out.strip())) == PLAIN


def test_a_link_out_of_the_folder_is_left_alone_and_told(hubcache: CommandLine, tmp_path: Path) -> None:
    secret = write_files(tmp_path, {"secret": b"s"}) / "secret"
    folder = write_files(tmp_path / "saved", PLAIN)
    folder.joinpath("stolen.txt").symlink_to(secret)
    (repo,) = adopted(hubcache, folder)
    assert why(repo) == {"stolen.txt": "a link that leads out of the folder"}


def test_a_link_within_the_folder_is_its_file(hubcache: CommandLine, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "saved", PLAIN)
    folder.joinpath("again.json").symlink_to("config.json")
    (repo,) = adopted(hubcache, folder)
    assert files_of(Path(repo["path"]))["again.json"] == PLAIN["config.json"]


def test_a_pipe_and_a_name_that_no_repo_may_have_are_left_alone(hubcache: CommandLine, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "saved", PLAIN | {"back\\slash.txt": b"x"})
    os.mkfifo(folder / "pipe")
    (repo,) = adopted(hubcache, folder)
    assert set(why(repo)) == {"pipe", "back\\slash.txt"}


def test_every_model_below_a_folder_is_found_and_nothing_else(hubcache: CommandLine, tmp_path: Path) -> None:
    write_files(tmp_path / "all/a/one", PLAIN)
    write_files(tmp_path / "all/b/two", PLAIN | {"config.json": b"{}"})
    write_files(tmp_path / "all/texts", {"a.txt": b"a"})
    assert [repo["repo"] for repo in adopted(hubcache, tmp_path / "all")] == ["local/one", "local/two"]


def test_a_folder_that_is_nothing_known_is_an_error_that_says_so(hubcache: CommandLine, tmp_path: Path) -> None:
    told = hubcache("adopt", write_files(tmp_path / "texts", {"a.txt": b"a"}))
    assert (told.code, "no layout that is known here" in told.err) == (4, True)


def test_the_cache_itself_is_not_adopted(hubcache: CommandLine) -> None:
    hubcache("pull", NAME)
    told = hubcache("adopt", hubcache.cache)
    assert (told.code, "it is in this very cache" in told.err) == (4, True)


def test_a_claimed_commit_costs_a_later_pull_nothing(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "saved", FILES)
    commit = hub.add_commit(NAME, {"config.json": b'{"a": 1}'})
    (repo,) = adopted(hubcache, folder, "--as", NAME, "--commit", commit)
    assert (repo["commit"], repo["is_whole"], transferred(hubcache, hub)) == (commit, False, [])


def test_a_later_adoption_of_the_same_folder_moves_its_ref(hubcache: CommandLine, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "saved", PLAIN)
    adopted(hubcache, folder)
    (repo,) = adopted(hubcache, write_files(folder, {"config.json": b"new"}))
    assert hubcache.ref("local/saved") == repo["commit"]


def test_another_folder_does_not_take_a_ref_that_has_a_meaning(hubcache: CommandLine, tmp_path: Path) -> None:
    (first,) = adopted(hubcache, write_files(tmp_path / "one", PLAIN), "--as", "my/model")
    other = write_files(tmp_path / "two", PLAIN | {"config.json": b"other"})
    (second,) = adopted(hubcache, other, "--as", "my/model")
    assert (hubcache.ref("my/model"), second["refs"]) == (first["commit"], [])


# -- git clones


def test_a_clone_is_its_real_commit_and_a_later_pull_transfers_nothing(
    hubcache: CommandLine, hub: LoopHub, tmp_path: Path
) -> None:
    commit = make_clone(tmp_path / "clone", FILES, name=NAME, url=f"{hub.endpoint}/{NAME}.git")
    (repo,) = adopted(hubcache, tmp_path / "clone")
    assert (repo["layout"], repo["repo"], repo["commit"]) == ("git clone", NAME, commit)
    assert (repo["source"], repo["is_whole"], hubcache.ref(NAME)) == (f"hf:{NAME}", True, commit)
    assert transferred(hubcache, hub) == []


def test_pointers_in_the_work_tree_are_resolved_from_the_lfs_objects(
    hubcache: CommandLine, hub: LoopHub, tmp_path: Path
) -> None:
    make_clone(tmp_path / "clone", FILES, name=NAME, url=f"{hub.endpoint}/{NAME}", smudged=False)
    adopted(hubcache, tmp_path / "clone")
    assert files_of(Path(loaded(hubcache, NAME).out.strip())) == FILES


def test_what_was_changed_in_a_clone_is_left_out_and_a_pull_brings_only_that(
    hubcache: CommandLine, hub: LoopHub, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    make_clone(clone, FILES, name=NAME, url=f"{hub.endpoint}/{NAME}")
    write_files(clone, {"config.json": b'{"a": 9}', "extra.txt": b"not committed"})
    (repo,) = adopted(hubcache, clone)
    assert (list(why(repo)), repo["is_whole"]) == (["config.json"], False)
    assert len(transferred(hubcache, hub)) == 1


def test_a_clone_without_its_lfs_objects_says_that_only_the_pointer_is_here(
    hubcache: CommandLine, hub: LoopHub, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    make_clone(clone, FILES, name=NAME, url=f"{hub.endpoint}/{NAME}", smudged=False)
    shutil.rmtree(clone / ".git/lfs")
    (repo,) = adopted(hubcache, clone)
    assert why(repo) == {"model.safetensors": "only its LFS pointer is here"}


def test_an_lfs_object_with_other_bytes_is_left_out(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    make_clone(clone, FILES, name=NAME, url=f"{hub.endpoint}/{NAME}")
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    write_files(clone / ".git/lfs/objects" / sha256[:2] / sha256[2:4], {sha256: WEIGHTS[::-1]})
    (repo,) = adopted(hubcache, clone)
    assert "changed" in why(repo)["model.safetensors"]


def test_a_commit_that_was_never_pushed_gets_no_ref_of_the_hub(
    hubcache: CommandLine, hub: LoopHub, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    first = make_clone(clone, FILES, name=NAME, url=f"{hub.endpoint}/{NAME}")
    local = git(clone, "commit-tree", f"{first}^{{tree}}", "-p", first, content=b"mine\n")
    git(clone, "update-ref", "refs/heads/main", local)
    (repo,) = adopted(hubcache, clone)
    assert (repo["commit"], repo["refs"], repo["source"]) == (local, [], None)


def test_nothing_that_a_clone_configures_is_run(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> None:
    clone, ran = tmp_path / "clone", tmp_path / "ran"
    make_clone(clone, FILES, name=NAME, url=f"{hub.endpoint}/{NAME}")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {ran}\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager", "filter.lfs.smudge", "filter.lfs.process",
                "remote.origin.uploadpack", "core.hooksPath", "core.askPass"):  # fmt: skip
        git(clone, "config", key, str(trap))
    for key, value in {"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin",
                       "remote.origin.promisor": "true", "remote.origin.url": str(tmp_path)}.items():  # fmt: skip
        git(clone, "config", key, value)
    hooks = clone / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "fsmonitor-watchman", "post-index-change"):
        shutil.copy(trap, hooks / hook)
    oid = digest_bytes("git-sha1", FILES["config.json"]).hex
    (clone / ".git/objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(subprocess.CalledProcessError):
        git(clone, "cat-file", "-p", oid)
    assert ran.exists(), "git itself falls into the trap"
    ran.unlink()
    (repo,) = adopted(hubcache, clone)
    assert (repo["layout"], ran.exists()) == ("git clone", False)


def test_a_tree_that_is_not_what_its_name_says_is_not_believed(
    hubcache: CommandLine, hub: LoopHub, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    commit = make_clone(clone, FILES, name=NAME, url=f"{hub.endpoint}/{NAME}")
    tree = git(clone, "rev-parse", f"{commit}^{{tree}}")
    oid = git(clone, "hash-object", "-w", "--stdin", content=b"evil")
    forged = git(clone, "mktree", content=f"100644 blob {oid}\tconfig.json\n".encode())
    shutil.copyfile(clone / ".git/objects" / forged[:2] / forged[2:], tmp_path / "forged")
    place = clone / ".git/objects" / tree[:2] / tree[2:]
    place.chmod(0o644)
    shutil.copyfile(tmp_path / "forged", place)
    (repo,) = adopted(hubcache, clone)
    assert (repo["commit"] != commit, repo["is_computed"]) == (True, True)


def test_packed_refs_and_objects_are_read(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    commit = make_clone(clone, FILES, name=NAME, url="git@hf.co:org/model.git")
    git(clone, "pack-refs", "--all")
    git(clone, "repack", "-adq")
    (repo,) = adopted(hubcache, clone)
    assert (repo["commit"], repo["source"]) == (commit, f"hf:{NAME}")


def test_a_clone_that_git_lfs_made_is_adopted_whole(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> None:
    program = shutil.which("git-lfs")
    if program is None:
        pytest.skip("there is no git-lfs on this machine")
    clone = write_files(tmp_path / "clone", FILES)
    git(clone, "init", "-q", "-b", "main")
    git(clone, "remote", "add", "origin", f"{hub.endpoint}/{NAME}")
    git(clone, "config", "filter.lfs.clean", "git-lfs clean -- %f")
    git(clone, "config", "filter.lfs.required", "true")
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-F", "-", content=f"{NAME} 0\n".encode())
    (repo,) = adopted(hubcache, clone)
    assert (repo["commit"], transferred(hubcache, hub)) == (git(clone, "rev-parse", "HEAD"), [])


# -- huggingface_hub's local_dir


@pytest.fixture
def local_dir(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> Path:
    folder = tmp_path / "downloaded"
    done = hubcache.python(DOWNLOAD, NAME, folder, HF_HUB_OFFLINE="0")
    assert done.code == 0, done.err
    shutil.rmtree(hubcache.cache, ignore_errors=True)
    return folder


def test_a_local_dir_is_its_real_commit_and_a_later_pull_transfers_nothing(
    hubcache: CommandLine, hub: LoopHub, local_dir: Path
) -> None:
    (repo,) = adopted(hubcache, local_dir, "--as", NAME)
    assert (repo["layout"], repo["is_whole"], repo["left"]) == ("local_dir folder", True, [])
    assert transferred(hubcache, hub) == []
    assert hubcache.ref(NAME) == repo["commit"]


def test_a_local_dir_without_a_listing_costs_a_later_pull_nothing_either(
    hubcache: CommandLine, hub: LoopHub, local_dir: Path
) -> None:
    shutil.rmtree(local_dir / ".cache/huggingface/trees")
    (repo,) = adopted(hubcache, local_dir, "--as", NAME)
    assert (repo["is_whole"], transferred(hubcache, hub)) == (False, [])


def test_a_file_changed_since_its_download_is_left_out_and_told(
    hubcache: CommandLine, hub: LoopHub, local_dir: Path
) -> None:
    write_files(local_dir, {"config.json": b'{"a": 7}', "mine.txt": b"mine"})
    (repo,) = adopted(hubcache, local_dir, "--as", NAME)
    assert set(why(repo)) == {"config.json", "mine.txt"}
    assert len(transferred(hubcache, hub)) == 1


def test_a_local_dir_of_nobody_knows_which_repo_is_kept_as_a_local_one(hubcache: CommandLine, local_dir: Path) -> None:
    (repo,) = adopted(hubcache, local_dir)
    assert (repo["repo"], repo["is_guess"], repo["source"]) == ("local/downloaded", True, None)


# -- the caches of other hubs


def test_a_folder_of_modelscope_gets_its_dots_back_and_runs_no_pickle(hubcache: CommandLine, tmp_path: Path) -> None:
    top = make_scope(tmp_path / "modelscope/hub/models", "Org/Model-1.5", PLAIN)
    top.joinpath(".mdl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (repo,) = adopted(hubcache, tmp_path / "modelscope")
    assert (repo["repo"], repo["source"], repo["refs"]) == (
        "Org/Model-1.5",
        "ms:Org/Model-1.5",
        ["main", "modelscope/master"],
    )
    assert sorted(row["path"] for row in repo["files"]) == sorted(PLAIN)


def test_a_pull_of_what_was_adopted_from_modelscope_transfers_nothing(tmp_path: Path) -> None:
    make_scope(tmp_path / "modelscope/hub", "Org/Model-1.5", PLAIN)
    with LoopScope() as scope:
        scope.add_repo("Org/Model-1.5", PLAIN)
        mirrors = tmp_path / "mirrors.yaml"
        mirror = {"name": "loop", "url": scope.endpoint, "hub": "modelscope", "trust": ["metadata", "bytes"]}
        mirrors.write_text(json.dumps({"mirrors": [mirror]}))
        hubcache = CommandLine(tmp_path, HUBCACHE_MIRRORS=str(mirrors))
        adopted(hubcache, tmp_path / "modelscope")
        pulled = hubcache("pull", "ms:Org/Model-1.5", "--json")
        assert (pulled.code, pulled.facts["transferred_size"]) == (0, 0), pulled.err


def test_a_snapshot_of_modelscopes_newer_cache_keeps_a_real_commit(hubcache: CommandLine, tmp_path: Path) -> None:
    commit = "ab" * 20
    write_files(tmp_path / "modelscope/models/Org--Model/snapshots" / commit, PLAIN)
    (repo,) = adopted(hubcache, tmp_path / "modelscope")
    assert (repo["repo"], repo["commit"], repo["is_computed"]) == ("Org/Model", commit, False)


def test_a_model_of_sparsezoo_has_the_name_and_places_that_a_pull_gives_it(
    hubcache: CommandLine, tmp_path: Path
) -> None:
    files = {"training/config.json": b"{}", "training/pytorch_model.bin": WEIGHTS, "deployment/model.onnx": b"onnx",
             "recipe_original.md": b"r", "model.md": b"card"}  # fmt: skip
    write_files(tmp_path / "sparsezoo/neuralmagic/obert-base-sst2_wikipedia_bookcorpus-pruned90", files)
    (repo,) = adopted(hubcache, tmp_path / "sparsezoo")
    assert repo["source"] == "zoo:obert-base-sst2_wikipedia_bookcorpus-pruned90"
    assert repo["repo"] == "sparsezoo/obert-base-sst2_wikipedia_bookcorpus-pruned90"
    assert sorted(row["path"] for row in repo["files"]) == [
        "config.json", "deployment/model.onnx", "model.md", "pytorch_model.bin", "recipes/recipe_original.md",
    ]  # fmt: skip


def test_a_model_of_ollama_becomes_a_repo_with_its_tags_as_refs(hubcache: CommandLine, tmp_path: Path) -> None:
    store = tmp_path / "models"
    layers = {"model": WEIGHTS, "license": b"MIT", "params": b"{}", "template": b"{{ .Prompt }}"}
    make_ollama(store, "tiny", "latest", layers)
    make_ollama(store, "tiny", "q4", layers | {"model": WEIGHTS[::-1]})
    latest, q4 = adopted(hubcache, store)
    assert (latest["repo"], latest["refs"], q4["refs"]) == ("ollama/tiny", ["latest", "main"], ["q4"])
    assert files_of(Path(latest["path"])) == {
        "model.gguf": WEIGHTS, "LICENSE": b"MIT", "params.json": b"{}", "template": b"{{ .Prompt }}",
    }  # fmt: skip


def test_a_blob_of_ollama_with_other_bytes_is_left_out(hubcache: CommandLine, tmp_path: Path) -> None:
    store = make_ollama(tmp_path / "models", "tiny", "latest", {"model": WEIGHTS, "license": b"MIT"})
    write_files(store / "blobs", {f"sha256-{hashlib.sha256(WEIGHTS).hexdigest()}": WEIGHTS[::-1]})
    (repo,) = adopted(hubcache, store)
    assert [row["path"] for row in repo["files"]] == ["LICENSE"]
    assert "changed" in why(repo)["model.gguf"]


def test_a_hostile_digest_in_an_ollama_manifest_reaches_no_file(hubcache: CommandLine, tmp_path: Path) -> None:
    store = make_ollama(tmp_path / "models", "tiny", "latest", {"model": WEIGHTS})
    (manifest,) = store.rglob("latest")
    manifest.write_text(manifest.read_text().replace(hashlib.sha256(WEIGHTS).hexdigest(), "../../../etc/passwd"))
    told = hubcache("adopt", store, "--json")
    assert told.facts["repos"][0]["files"] == []


def test_the_old_folders_of_sentence_transformers_say_that_their_name_is_a_guess(
    hubcache: CommandLine, tmp_path: Path
) -> None:
    top = tmp_path / "torch/sentence_transformers/sentence-transformers_all-MiniLM-L6-v2"
    write_files(top, PLAIN | {"modules.json": b"[]"})
    (repo,) = adopted(hubcache, tmp_path / "torch")
    assert (repo["repo"], repo["is_guess"]) == ("sentence-transformers/all-MiniLM-L6-v2", True)


# -- other hub caches


@pytest.fixture
def other(hubcache: CommandLine, hub: LoopHub, tmp_path: Path) -> Path:
    """Another cache, filled by huggingface_hub."""
    script = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], cache_dir=sys.argv[2])"
    done = hubcache.python(script, NAME, tmp_path / "other", HF_HUB_OFFLINE="0")
    assert done.code == 0, done.err
    return tmp_path / "other"


def test_another_hub_cache_comes_with_its_commits_and_refs(hubcache: CommandLine, hub: LoopHub, other: Path) -> None:
    (repo,) = adopted(hubcache, other)
    assert (repo["layout"], repo["repo"], repo["refs"], repo["is_whole"]) == ("hub cache", NAME, ["main"], True)
    assert transferred(hubcache, hub) == []


def test_a_ref_of_another_cache_does_not_contradict_the_one_here(
    hubcache: CommandLine, hub: LoopHub, other: Path
) -> None:
    newer = hub.add_commit(NAME, {"config.json": b"newer"})
    hubcache("pull", NAME)
    (repo,) = adopted(hubcache, other)
    assert (repo["refs"], hubcache.ref(NAME)) == ([], newer)
    assert hubcache.snapshot(NAME, repo["commit"]).is_dir()


def test_a_blob_of_another_cache_that_has_rotted_is_left_out(hubcache: CommandLine, other: Path) -> None:
    (blob,) = (file for file in other.glob("*/blobs/*") if file.stat().st_size == len(WEIGHTS))
    blob.write_bytes(WEIGHTS[::-1])
    (repo,) = adopted(hubcache, other)
    assert "changed" in why(repo)["model.safetensors"]


def test_a_link_of_another_cache_that_leads_out_of_it_is_left_out(
    hubcache: CommandLine, other: Path, tmp_path: Path
) -> None:
    (link,) = other.rglob("sub/notes.txt")
    link.unlink()
    link.symlink_to(write_files(tmp_path, {"secret": b"notes"}) / "secret")
    (repo,) = adopted(hubcache, other)
    assert why(repo) == {"sub/notes.txt": "it leads to no blob of this cache"}
