"""`hubcache ls` and `verify` as a person or a script meets them: what they print, and how they end."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import RepoId
from hubcache.core.digests import digest_bytes
from tests.support.commandline import HUBCACHE, CommandLine, Ran, run
from tests.support.damage import DAMAGES, FILES, NAME, SHA256, Damage, commit_of, cut_a_blob_short, flip_a_bit
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into

LONG = "organisation-with-a-long-name/a-model-whose-name-is-even-longer-than-that-of-its-organisation-v2"
DATASET = "datasets/data/set"
UNEQUAL = {"pytorch_model.bin": b"x" * 2_000_000, "modeling_x.py": b"import os", "deep/" * 20 + "file.json": b"{}"}
NETWORK = {"urllib3", "requests", "huggingface_hub", "aiohttp", "torch", "ssl", "http"}


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        commit = hub.add_repo(LONG, UNEQUAL)
        hub.add_repo("data/set", {"a.csv": b"1,2\n"}, kind="dataset")
        for number in range(12):
            hub.set_ref(LONG, f"refs/tags/release-{number}", commit)
        yield hub


@pytest.fixture(scope="module")
def filled(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a short and a long repo and a dataset, that nobody touches."""
    cache = tmp_path_factory.mktemp("filled") / "hub"
    pull_into(cache, hub, NAME)
    pull_into(cache, hub, f"hf:{DATASET}")
    for number in range(12):
        pull_into(cache, hub, f"{LONG}@release-{number}")
    os.utime(cache / f"models--{LONG.replace('/', '--')}" / "blobs" / LARGE, (1_000_000_000, 1_000_000_000))
    return cache


LARGE = digest_bytes("sha256", UNEQUAL["pytorch_model.bin"]).hex


@pytest.fixture
def hubcache(filled: Path, hub: LoopHub, tmp_path: Path) -> CommandLine:
    """The command, with a copy of that cache."""
    shutil.copytree(filled, tmp_path / "hub", symlinks=True)
    return CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)


def short(hubcache: CommandLine) -> RepoFolder:
    return RepoFolder(hubcache.cache, RepoId("hf", "model", NAME))


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


# -- ls


def test_ls_lists_every_repo_by_name(hubcache: CommandLine) -> None:
    rows = hubcache("ls").out.splitlines()
    assert [row.split()[0][:12] for row in rows] == ["REPO", "datasets/dat"[:12], "org/name", "organisation"]


@pytest.mark.parametrize("options", [[], ["--revisions"]], ids=["repos", "revisions"])
def test_ls_fits_80_columns(hubcache: CommandLine, options: list[str]) -> None:
    assert widest(hubcache("ls", *options).out) <= 80


def test_ls_cuts_a_long_name_in_its_middle(hubcache: CommandLine) -> None:
    name = hubcache("ls").out.splitlines()[-1].split()[0]
    start, _, end = name.partition("…")
    assert LONG.startswith(start)
    assert LONG.endswith(end)


def test_ls_tells_the_totals_on_stderr(hubcache: CommandLine) -> None:
    assert "3 repos, 3 commits, 2.2 MB" in hubcache("ls").err


def test_ls_json_has_numbers(hubcache: CommandLine) -> None:
    facts = {row["repo"]: row for row in hubcache("ls", "--json").facts}[LONG]
    assert (facts["size"], facts["files"], facts["type"]) == (2_000_011, 3, "model")
    assert all(isinstance(facts[key], int) for key in ("last_used", "last_modified", "partial_size"))


def test_ls_json_has_refs_and_whole_names(hubcache: CommandLine) -> None:
    facts = {row["repo"]: row for row in hubcache("ls", "--json").facts}[LONG]
    assert facts["refs"] == {f"release-{number}": facts["commits"][0] for number in range(12)}


def test_ls_json_of_revisions_has_a_row_for_each_commit(hubcache: CommandLine) -> None:
    rows = hubcache("ls", "--json", "--revisions").facts
    assert {(row["repo"], row["commit"]) for row in rows} >= {(NAME, commit_of(short(hubcache)))}


def test_ls_quiet_prints_whole_names_and_nothing_else(hubcache: CommandLine) -> None:
    told = hubcache("ls", "-q")
    assert (told.out.splitlines(), told.err) == ([DATASET, NAME, LONG], "")


@pytest.mark.parametrize(
    ("order", "first"), [("name", DATASET), ("size", LONG), ("modified", DATASET), ("used", DATASET)]
)
def test_ls_sorts(hubcache: CommandLine, order: str, first: str) -> None:
    for blob in hubcache.cache.glob("datasets--*/blobs/*"):
        os.utime(blob, (4_000_000_000, 4_000_000_000))
    assert hubcache("ls", "-q", "--sort", order).out.splitlines()[0] == first


def test_ls_limits_what_it_shows_and_not_what_it_counts(hubcache: CommandLine) -> None:
    told = hubcache("ls", "--limit", "1")
    assert (len(told.out.splitlines()), "3 repos" in told.err, "1 shown" in told.err) == (2, True, True)


def test_ls_of_a_type_leaves_the_others_out(hubcache: CommandLine) -> None:
    assert hubcache("ls", "-q", "--type", "dataset").out.split() == [DATASET]


def test_ls_tells_of_damage_and_goes_on(hubcache: CommandLine) -> None:
    short(hubcache).ref_path("main").write_text("\x1b[31m")
    told = hubcache("ls")
    assert (told.code, "org/name: refs/main holds no commit" in told.err, NAME in told.out) == (0, True, True)


@pytest.mark.parametrize("options", [[], ["--revisions"]], ids=["repos", "revisions"])
def test_ls_of_an_empty_cache_prints_an_empty_array(tmp_path: Path, options: list[str]) -> None:
    told = CommandLine(tmp_path)("ls", "--json", *options)
    assert (told.code, told.facts, "nothing is cached" in told.err) == (0, [], True)


def test_ls_of_an_empty_cache_says_so(tmp_path: Path) -> None:
    told = CommandLine(tmp_path)("ls")
    assert (told.code, told.out, "nothing is cached" in told.err) == (0, "", True)


def test_ls_looks_where_cache_dir_says(hubcache: CommandLine, tmp_path: Path) -> None:
    assert hubcache("ls", "--json", "--cache-dir", tmp_path / "elsewhere").facts == []


def test_ls_of_an_unknown_order_is_wrong_usage(hubcache: CommandLine) -> None:
    assert hubcache("ls", "--sort", "colour").code == 2


# -- verify


def test_verify_of_a_sound_cache_says_whole(hubcache: CommandLine) -> None:
    told = hubcache("verify")
    assert (told.code, told.out, "3 repos, 8 files, 2.2 MB: whole" in told.err) == (0, "", True)


def test_verify_ends_with_6_at_a_problem(hubcache: CommandLine) -> None:
    flip_a_bit(short(hubcache))
    assert hubcache("verify").code == 6


def test_verify_prints_one_line_for_a_problem(hubcache: CommandLine) -> None:
    cut_a_blob_short(short(hubcache))
    message = f"model.safetensors: its sha256 is {digest_bytes('sha256', b'weights' * 14 + b'we').hex[:12]}"
    expected = f"org/name  blobs/{SHA256[:12]}…  {message}, 100 bytes where 210000 are listed\n"
    assert hubcache("verify").out == expected


def test_verify_tells_a_problem_once(hubcache: CommandLine) -> None:
    flip_a_bit(short(hubcache))
    told = hubcache("verify")
    assert "error: 1 problem in 1 repo" in told.err
    assert "sha256" not in told.err


def test_verify_json_is_one_object_with_numbers(hubcache: CommandLine) -> None:
    facts = hubcache("verify", "--json").facts
    skipped = {"known_files": 0, "known_size": 0, "undrawn_files": 0, "undrawn_size": 0}
    assert facts == {"checked_files": 8, "checked_size": 2_210_042, "problems": [], "notes": []} | skipped


def test_verify_json_has_the_whole_path(hubcache: CommandLine) -> None:
    path = flip_a_bit(short(hubcache))
    [problem] = hubcache("verify", "--json").facts["problems"]
    assert (problem["repo"], problem["path"], problem["kind"]) == (NAME, path, "corrupt")


def test_verify_json_tells_its_error_on_stderr(hubcache: CommandLine) -> None:
    flip_a_bit(short(hubcache))
    assert json.loads(hubcache("verify", "--json").err)["exit_code"] == 6


def test_verify_of_a_reference_looks_at_nothing_else(hubcache: CommandLine) -> None:
    flip_a_bit(short(hubcache))
    assert hubcache("verify", f"hf:{DATASET}", LONG + "@release-1").code == 0


def test_verify_of_a_repo_checks_its_refs(hubcache: CommandLine) -> None:
    short(hubcache).ref_path("main").write_text("0" * 40)
    assert "refs/main" in hubcache("verify", NAME).out


def test_verify_of_what_is_not_cached_ends_with_5(hubcache: CommandLine) -> None:
    assert hubcache("verify", "org/other").code == 5


def test_verify_notes_what_is_missing_and_calls_it_whole(hubcache: CommandLine) -> None:
    (short(hubcache).snapshot_path(commit_of(short(hubcache))) / "config.json").unlink()
    told = hubcache("verify", NAME)
    assert (told.code, "1 of 5 files (22 bytes) are not here" in told.err) == (0, True)


def test_verify_quiet_prints_problems_alone(hubcache: CommandLine) -> None:
    told = hubcache("verify", "-q")
    assert (told.out, told.err) == ("", "")


def test_verify_asks_nobody(hubcache: CommandLine, hub: LoopHub) -> None:
    hub.clear()
    hubcache("verify", NAME)
    hubcache("verify")
    assert hub.requests == []


def test_verify_escapes_names_that_a_terminal_would_obey(hubcache: CommandLine) -> None:
    (short(hubcache).path / "blobs" / "\x1b[31mred\udcff").write_bytes(b"")
    assert "blobs/\\x1b[31mred\\udcff  " in hubcache("verify", NAME).out


def test_verify_json_takes_names_that_are_no_unicode(hubcache: CommandLine) -> None:
    (short(hubcache).path / "blobs" / "x\udcff").write_bytes(b"")
    assert hubcache("verify", NAME, "--json").facts["problems"][0]["path"] == "blobs/x\udcff"


def cure(told: Ran, hubcache: CommandLine) -> Ran:
    """Type what an error's hint says, without a terminal to be asked on."""
    [hint] = [line.removeprefix("hint: ") for line in told.err.splitlines() if line.startswith("hint: ")]
    path = f"{HUBCACHE.parent}{os.pathsep}{os.environ['PATH']}"
    return run("sh", "-c", f"{hint} --yes", timeout=60, **(hubcache.environ | {"PATH": path}))


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES if damage.__name__ != "point_a_ref_at_nothing"])
def test_the_hint_of_verify_makes_the_repo_whole(hubcache: CommandLine, damage: Damage) -> None:
    damage(short(hubcache))
    assert cure(hubcache("verify", NAME), hubcache).code == 0
    told = hubcache("verify", NAME)
    assert (told.code, told.err.endswith(": whole\n")) == (0, True)


def test_the_hint_of_verify_brings_a_tag_again(hubcache: CommandLine) -> None:
    (hubcache.cache / f"models--{LONG.replace('/', '--')}" / "blobs" / LARGE).write_bytes(b"")
    assert "pull 'organisation" not in hubcache("verify", LONG).err
    cure(hubcache("verify", LONG), hubcache)
    assert hubcache("verify", LONG).code == 0


def test_the_hint_of_verify_finds_a_dataset_in_another_cache(hubcache: CommandLine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    shutil.move(hubcache.cache, elsewhere)
    next(elsewhere.glob("datasets--*/blobs/*")).write_bytes(b"")
    cure(hubcache("verify", "--cache-dir", elsewhere), hubcache)
    assert hubcache("verify", "--cache-dir", elsewhere).code == 0


# -- what they cost


@pytest.mark.parametrize(
    "arguments", [["ls"], ["verify"], ["verify", NAME], ["info", NAME], ["path", NAME]], ids=" ".join
)
def test_no_command_on_the_cache_loads_a_network(hubcache: CommandLine, arguments: list[str]) -> None:
    told = run(
        sys.executable, "-X", "importtime", "-m", "hubcache_cli.main", *arguments, timeout=60, **hubcache.environ
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.err.splitlines()}
    assert told.code == 0
    assert not loaded & NETWORK


@pytest.mark.parametrize("arguments", [["ls"], ["verify"]], ids=" ".join)
def test_what_needs_no_reference_reads_no_mirrors_file(hubcache: CommandLine, arguments: list[str]) -> None:
    assert hubcache(*arguments, HUBCACHE_MIRRORS="/nowhere/mirrors.yaml").code == 0
