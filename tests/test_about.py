"""What is known of a repo beyond its files: told by its hub, or read out of a card that a stranger wrote."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hubcache.cache.about import LONGEST_CARD, read_about
from hubcache.cache.folder import RepoFolder
from hubcache.cache.provenance import write_provenance
from hubcache.core.about import About
from hubcache.core.artifact import RepoId
from hubcache.core.cards import LARGEST_TOLD, parse_card, parse_date, select_told
from hubcache.core.plainyaml import DEEPEST, LARGEST, parse_yaml
from hubcache.errors import CacheError
from tests.support.faultydisk import FaultyDisk
from tests.support.loophub import LoopHub
from tests.support.puller import Puller

CARD = b"""---
license: apache-2.0
language: [ko, no]
library_name: peft
pipeline_tag: text-classification
tags:
- hubcache
datasets: [klue]
base_model: org/base
---
# A card
"""
GATED = b"---\nextra_gated_heading: Sign here\n---\n"
FILES = {"README.md": CARD, "config.json": b'{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'}
TOLD = {
    "tags": ["bert", "license:mit"],
    "pipeline_tag": "fill-mask",
    "library_name": "transformers",
    "cardData": {"license": "mit", "tags": ["x"]},
    "createdAt": "2022-03-02T23:29:04.000Z",
    "lastModified": "2023-01-01T00:00:00.000Z",
}
DOWNLOAD = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:] or None)"


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        yield server


@pytest.fixture
def puller(hub: LoopHub, tmp_path: Path) -> Puller:
    return Puller.into(tmp_path / "cache", hub.endpoint, token="t", token_is_from_environment=True)


def about_of(folder: RepoFolder, commit: str | None = None) -> About:
    commit = commit or folder.commit_of("main")
    assert commit is not None
    return read_about(folder, commit, folder.listing(commit) or folder.found(commit))


def told_of(puller: Puller, hub: LoopHub, **about: object) -> About:
    """Pull a repo of which the hub tells this, and read it back."""
    hub.add_repo("org/m", FILES, about=about)
    return about_of(puller.app.cache.folder(puller("org/m").artifact.repo))


def written_by_the_client(
    hub: LoopHub, root: Path, *patterns: str, token: str = "t", commit: str = "main"
) -> RepoFolder:
    """Let huggingface_hub itself fill the cache with org/m."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(root.parent), "HF_HUB_CACHE": str(root), "HF_TOKEN": "t"}
    environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", DOWNLOAD, "org/m", *patterns]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return RepoFolder(root, RepoId("hf", "model", "org/m"))


def found_in(root: Path, files: dict[str, bytes], name: str = "models--org--m", commit: str = "a" * 40) -> RepoFolder:
    """Lay a snapshot of real files, as a cache without links has it."""
    for path, content in files.items():
        file = root / name / "snapshots" / commit / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    ref = root / name / "refs" / "main"
    ref.parent.mkdir(exist_ok=True)
    ref.write_text(commit)
    return RepoFolder(root, RepoId("hf", "dataset" if name.startswith("datasets") else "model", "org/m"))


# -- what the hub told


def test_a_pulled_repo_keeps_what_its_hub_told(puller: Puller, hub: LoopHub) -> None:
    about = told_of(puller, hub, **TOLD)
    assert (about.tags, about.pipeline_tag, about.library) == (("bert", "license:mit"), "fill-mask", "transformers")


def test_the_hubs_word_on_the_card_comes_before_the_file(puller: Puller, hub: LoopHub) -> None:
    assert told_of(puller, hub, **TOLD).card == TOLD["cardData"]


def test_the_hubs_dates_are_read_as_unix_seconds(puller: Puller, hub: LoopHub) -> None:
    about = told_of(puller, hub, **TOLD)
    assert (about.created, about.modified) == (1646263744.0, 1672531200.0)


def test_the_scheme_of_the_pull_is_known(puller: Puller, hub: LoopHub) -> None:
    assert told_of(puller, hub).hub == "hf"


def test_config_json_is_read_whatever_the_hub_told(puller: Puller, hub: LoopHub) -> None:
    assert told_of(puller, hub, **TOLD).config == {"model_type": "bert", "architectures": ["BertForMaskedLM"]}


@pytest.mark.parametrize(("flag", "kept"), [(True, "auto"), ("auto", "auto"), ("manual", "manual"), (False, False)])
def test_a_gated_repo_stays_gated_in_the_cache(puller: Puller, hub: LoopHub, flag: bool | str, kept: object) -> None:
    hub.add_repo("org/m", FILES, gated=flag, token="t")
    assert about_of(puller.app.cache.folder(puller("org/m").artifact.repo)).gated == kept


def test_a_private_repo_stays_private_in_the_cache(puller: Puller, hub: LoopHub) -> None:
    hub.add_repo("org/m", FILES, private=True, token="t")
    assert about_of(puller.app.cache.folder(puller("org/m").artifact.repo)).private


def test_a_repo_that_the_hub_calls_open_is_open_whatever_its_card_says(puller: Puller, hub: LoopHub) -> None:
    hub.add_repo("org/m", {"README.md": GATED}, gated=False)
    assert about_of(puller.app.cache.folder(puller("org/m").artifact.repo)).gated is False


@pytest.mark.parametrize("change", [{"downloads": 7, "likes": 3}, {"trendingScore": 1}])
def test_counts_that_change_with_every_answer_rewrite_nothing(
    puller: Puller, hub: LoopHub, change: dict[str, int]
) -> None:
    told_of(puller, hub, **TOLD)
    folder = puller.app.cache.folder(RepoId("hf", "model", "org/m"))
    before = folder.provenance_path(folder.refs()["main"]).stat()
    hub.tell("org/m", **change)
    puller("org/m")
    assert folder.provenance_path(folder.refs()["main"]).stat().st_ino == before.st_ino


def test_new_tags_are_noted_with_the_next_pull(puller: Puller, hub: LoopHub) -> None:
    told_of(puller, hub, **TOLD)
    hub.tell("org/m", tags=["new"])
    assert about_of(puller.app.cache.folder(puller("org/m").artifact.repo)).tags == ("new",)


def test_a_pull_of_a_known_commit_asks_nothing_and_forgets_nothing(puller: Puller, hub: LoopHub) -> None:
    told_of(puller, hub, **TOLD)
    folder = puller.app.cache.folder(RepoId("hf", "model", "org/m"))
    puller(f"org/m@{folder.refs()['main']}")
    assert about_of(folder).tags == ("bert", "license:mit")


def test_a_commit_that_the_client_wrote_is_told_of_by_our_next_pull(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/m", FILES, about=TOLD)
    folder = written_by_the_client(hub, tmp_path / "cache")
    Puller.into(tmp_path / "cache", hub.endpoint)("org/m")
    assert about_of(folder).pipeline_tag == "fill-mask"


def test_a_repo_that_was_closed_later_closes_its_old_commits(puller: Puller, hub: LoopHub) -> None:
    old = hub.add_repo("org/m", FILES, token="t")
    puller("org/m")
    hub.add_commit("org/m", {"new.txt": b"new"})
    hub.tell("org/m", gated="manual", private=True)
    about = about_of(puller.app.cache.folder(puller("org/m").artifact.repo), old)
    assert (about.gated, about.private) == ("manual", True)


def test_a_repo_that_was_opened_later_opens_with_the_next_pull(puller: Puller, hub: LoopHub) -> None:
    hub.add_repo("org/m", FILES, gated="auto", token="t")
    puller("org/m")
    hub.tell("org/m", gated=False)
    assert about_of(puller.app.cache.folder(puller("org/m").artifact.repo)).gated is False


def noted_on_a_read_only_disk(puller: Puller, told: dict[str, object] | None, origin: str) -> None:
    pulled = puller("org/m")
    artifact = replace(pulled.artifact, told=told, origin=origin)
    # The first change is to make a folder that is there already.
    with FaultyDisk(puller.settings.hub_cache, 2, errno.EROFS) as disk:
        write_provenance(puller.app.cache.folder(artifact.repo), artifact, pulled.reference)
    assert disk.failed


def test_new_tags_that_cannot_be_written_do_not_stop_a_warm_pull(puller: Puller, hub: LoopHub) -> None:
    told_of(puller, hub, **TOLD)
    noted_on_a_read_only_disk(puller, {"tags": ["new"]}, hub.endpoint)
    assert about_of(puller.app.cache.folder(RepoId("hf", "model", "org/m"))).tags == ("bert", "license:mit")


def test_a_source_that_cannot_be_written_down_is_an_error(puller: Puller, hub: LoopHub) -> None:
    told_of(puller, hub, **TOLD)
    with pytest.raises(CacheError):
        noted_on_a_read_only_disk(puller, None, "http://elsewhere.invalid")


def test_a_new_origin_keeps_what_was_told(puller: Puller, hub: LoopHub) -> None:
    told_of(puller, hub, **TOLD)
    pulled = puller("org/m")
    folder = puller.app.cache.folder(pulled.artifact.repo)
    write_provenance(folder, replace(pulled.artifact, told=None, origin="http://elsewhere.invalid"), pulled.reference)
    assert about_of(folder).tags == ("bert", "license:mit")


# -- hostile answers


@pytest.mark.parametrize(
    "answer",
    [
        {"tags": "bert", "pipeline_tag": ["x"], "library_name": 5, "createdAt": 12, "cardData": "text", "sdk": {}},
        {"pipeline_tag": "x" * 300, "lastModified": "2023-99-99", "createdAt": "0001-01-01T00:00:00+23:59"},
        [],
        None,
        "text",
    ],
)
def test_what_has_the_wrong_type_is_not_taken(answer: object) -> None:
    assert select_told(answer) is None


@pytest.mark.parametrize("word", ["true", 1, ["auto"], {"a": 1}, True])
def test_a_gate_in_strange_words_is_a_gate(word: object) -> None:
    assert select_told({"gated": word}) == {"gated": "manual"}


def test_a_hostile_answer_does_not_stop_a_pull(puller: Puller, hub: LoopHub) -> None:
    about = told_of(puller, hub, tags=[1, None, "ok", "x" * 999], cardData={"a": [[{}]], "b": "\ud800"})
    assert (about.tags, about.card) == (("ok",), {"a": [[{}]], "b": "?"})


def test_a_card_too_large_is_not_kept() -> None:
    told = select_told({"tags": ["a"], "cardData": {"text": "x" * LARGEST_TOLD}})
    assert told == {"tags": ["a"]}


def test_tags_too_large_are_not_kept() -> None:
    told = select_told({"private": True, "tags": ["x" * 100] * LARGEST_TOLD, "cardData": {"a": 1}})
    assert told == {"private": True}


def test_numbers_that_json_cannot_hold_are_dropped() -> None:
    told = select_told({"cardData": {"a": float("nan"), "b": float("inf"), "c": 1.5}})
    assert told == {"cardData": {"a": None, "b": None, "c": 1.5}}


def test_what_is_told_reads_back_as_it_was_written() -> None:
    told = select_told({**TOLD, "gated": "auto", "private": False, "sdk": "gradio"})
    assert select_told(json.loads(json.dumps(told))) == told


# -- what the files say


def test_a_cache_that_the_client_wrote_tells_by_its_card(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/m", FILES)
    about = about_of(written_by_the_client(hub, tmp_path / "cache"))
    expected = ("peft", "text-classification", "bert", "hubcache", "ko", "no")
    expected += ("dataset:klue", "base_model:org/base", "license:apache-2.0")
    assert (about.hub, about.pipeline_tag, about.library, about.tags) == ("", "text-classification", "peft", expected)


def test_a_gated_repo_that_the_client_wrote_is_gated(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/m", {"README.md": GATED}, gated="auto", token="t")
    assert about_of(written_by_the_client(hub, tmp_path / "cache")).gated == "manual"


def test_a_commit_without_its_card_is_gated_by_an_older_ones(hub: LoopHub, tmp_path: Path) -> None:
    hub.add_repo("org/m", {"README.md": GATED, "config.json": b"{}"}, gated="auto", token="t")
    written_by_the_client(hub, tmp_path / "cache")
    hub.add_commit("org/m", {"config.json": b'{"a": 1}', "README.md": GATED + b"more"})
    assert about_of(written_by_the_client(hub, tmp_path / "cache", "config.json")).gated == "manual"


def test_an_open_card_is_no_gate(tmp_path: Path) -> None:
    assert about_of(found_in(tmp_path, FILES)).gated is False


def test_without_a_card_the_task_is_read_from_the_architecture(tmp_path: Path) -> None:
    about = about_of(found_in(tmp_path, {"config.json": FILES["config.json"], "model.safetensors": b"x"}))
    expected = ("transformers", "fill-mask", "bert", "safetensors")
    assert (about.library, about.pipeline_tag, about.tags) == ("transformers", "fill-mask", expected)


def test_a_dataset_has_the_hubs_tags_for_datasets(tmp_path: Path) -> None:
    card = b"---\nlanguage: ko\ntask_categories: [question-answering]\ntags: [qa]\n---\n"
    about = about_of(found_in(tmp_path, {"README.md": card}, "datasets--org--m"))
    assert about.tags == ("qa", "task_categories:question-answering", "language:ko")


def test_times_are_those_of_the_folder_and_the_ref(tmp_path: Path) -> None:
    folder = found_in(tmp_path, FILES)
    os.utime(folder.snapshot_path("a" * 40), (5, 1000))
    os.utime(folder.ref_path("main"), (5, 2000))
    about = about_of(folder)
    assert (about.created, about.modified) == (1000.0, 2000.0)


@pytest.mark.parametrize(
    "content",
    [b"", b"# A page", b"---\nno end", b"\xff\xfe\x00", b"---\n- a\n- b\n---\n", b"---\n---\n", b"---\na: [\n---\n"],
)
def test_a_readme_that_is_no_card_tells_nothing(tmp_path: Path, content: bytes) -> None:
    about = about_of(found_in(tmp_path, {"README.md": content}))
    assert (dict(about.card), about.tags, about.gated) == ({}, (), False)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_card_is_read_with_any_line_ends(newline: str) -> None:
    assert parse_card(newline.join(["\ufeff---", "a: 1", "--- ", "text"])).front == {"a": 1}


@pytest.mark.parametrize("block", ["extra_gated_prompt: [", "a: *b\nextra_gated_x: {}", "extra_gated_x: y\n...\nz"])
def test_a_card_that_cannot_be_read_may_still_be_gated(block: str) -> None:
    assert parse_card(f"---\n{block}\n---\n").is_gated


def test_a_card_that_goes_on_past_what_is_read_may_still_be_gated(tmp_path: Path) -> None:
    card = b"---\nextra_gated_prompt: |\n" + b"  x\n" * LONGEST_CARD + b"---\n"
    assert about_of(found_in(tmp_path, {"README.md": card})).gated == "manual"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"[]", b'{"model_type": 5, "architectures": {}}', b"\xff"])
def test_a_config_that_is_none_tells_nothing(tmp_path: Path, content: bytes) -> None:
    assert dict(about_of(found_in(tmp_path, {"config.json": content})).config) == {}


def test_a_config_too_large_is_not_read(tmp_path: Path) -> None:
    content = json.dumps({"model_type": "bert", "pad": "x" * (1 << 20)}).encode()
    assert dict(about_of(found_in(tmp_path, {"config.json": content})).config) == {}


def test_a_pipe_for_a_card_is_not_waited_for(tmp_path: Path) -> None:
    folder = found_in(tmp_path, {"config.json": FILES["config.json"]})
    manifest = folder.found("a" * 40)
    os.mkfifo(folder.snapshot_path("a" * 40) / "README.md")
    assert dict(read_about(folder, "a" * 40, manifest).card) == {}


def test_a_commit_that_is_not_here_has_an_empty_record(tmp_path: Path) -> None:
    folder = found_in(tmp_path, {"a.txt": b"a"})
    assert read_about(folder, "b" * 40, folder.found("b" * 40)) == About()


@pytest.mark.parametrize("about", [5, [], {"tags": 1, "gated": None}, "x"])
def test_a_record_that_was_damaged_tells_nothing(tmp_path: Path, about: object) -> None:
    folder = found_in(tmp_path, FILES)
    folder.provenance_path("a" * 40).parent.mkdir()
    folder.provenance_path("a" * 40).write_text(json.dumps({"source": 7, "pulled_at": "x", "about": about}))
    found = about_of(folder)
    assert (found.hub, found.library) == ("", "peft")


# -- YAML from strangers


def test_plain_yaml_is_read_as_the_hub_reads_it() -> None:
    text = "a: no\nb: [1, -2.5, true, null, ~, 1e3, 2024-01-01, 0x1f, .inf]\n1: '5'\nc: !!int '7'"
    expected = {"a": "no", "b": [1, -2.5, True, None, None, 1000.0, "2024-01-01", "0x1f", ".inf"], "1": "5", "c": "7"}
    assert parse_yaml(text) == expected


def test_an_alias_is_what_its_anchor_is() -> None:
    assert parse_yaml("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}


def test_a_python_tag_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    parse_card(f"---\na: !!python/object/apply:os.mkdir ['{target}']\n---\n")
    assert not target.exists()


BOMB = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: &a [*a]",
        "a: *nothing",
        "? [a]\n: b",
        "a: 1\n...\nb: 2",
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 10)}]",
        "{" * (DEEPEST + 2) + "}" * (DEEPEST + 2),
        "a: \x00",
        "'",
    ],
)
def test_yaml_that_would_grow_or_never_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)


@pytest.mark.parametrize(
    "unit",
    ["[", "- ", "? ", "a,", "{a: ", "'\n", "&a ", "!", "%TAG ! t:\n", "a: b\n", "- &a *a\n", "|\n", "#\n", "[a\n,"],
)
def test_a_card_of_anything_is_read_in_seconds(unit: str) -> None:
    began = time.process_time()
    parse_card("---\n" + unit * (LONGEST_CARD // len(unit)) + "\n---\n")
    assert time.process_time() - began < 5


def test_a_deep_chain_of_aliases_is_cut() -> None:
    links = "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 900))
    card = parse_card(f"---\na0: &a0 [x]\n{links}---\n")
    assert len(json.dumps(card.front)) < LARGEST


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2022-03-02T23:29:04.000Z", 1646263744.0),
        ("2022-03-02T23:29:04", 1646263744.0),
        ("2022-03-03", 1646265600.0),
        ("1969-12-31", None),
        ("9999-12-31T23:59:59-23:59", 253402387139.0),
        ("soon", None),
        (5, None),
        ("2" * 1000, None),
    ],
)
def test_a_date_is_read_as_unix_seconds(text: object, seconds: float | None) -> None:
    assert parse_date(text) == seconds


def test_a_card_that_is_a_link_out_of_the_cache_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("---\nlicense: secret\n---\n")
    folder = RepoFolder(tmp_path / "hub", RepoId.parse("org/name"))
    snapshot = folder.snapshot_path("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").symlink_to(tmp_path / "secret.md")
    assert read_about(folder, "a" * 40, folder.found("a" * 40)).card == {}
