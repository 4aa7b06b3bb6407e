"""`hubcache verify --repair`: all damage is put right or set aside, and huggingface_hub reads what is left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from hubcache.cache.folder import RepoFolder
from hubcache.core.artifact import RepoId
from tests.support.archives import pack
from tests.support.commandline import CommandLine
from tests.support.damage import (
    CONFIG,
    DAMAGES,
    FILES,
    NAME,
    SHA256,
    WEIGHTS,
    Damage,
    commit_of,
    cut_a_blob_short,
    edit_a_file,
    end_a_ref_with_a_newline,
    flip_a_bit,
    link_out_of_the_blobs,
    link_out_of_the_snapshot,
    link_to_another_blob,
    list_another_size,
    lose_a_blob,
    name_a_blob_otherwise,
    plant_a_file,
    point_a_ref_at_nothing,
    snapshot,
    spoil_the_listing,
    tree,
    write_no_commit_into_a_ref,
)
from tests.support.goldens import golden
from tests.support.loophub import LoopHub
from tests.support.mending import mend, problems, reachable
from tests.support.objectstore import ObjectStore
from tests.support.puller import bodies
from tests.support.pulling import pull_into
from tests.support.wholeness import faults, unverified

LOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("org/name"))
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo(NAME, FILES)
        yield hub


@pytest.fixture
def hub(server: LoopHub) -> Iterator[LoopHub]:
    """The hub, its log empty and its faults gone afterwards."""
    server.clear()
    yield server
    server.down, server.corrupt = False, set()


@pytest.fixture(scope="module")
def sound(server: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("sound") / "hub"
    pull_into(cache, server, NAME)
    return cache


@pytest.fixture
def hubcache(sound: Path, hub: LoopHub, tmp_path: Path) -> CommandLine:
    """The command, with a copy of a sound cache."""
    shutil.copytree(sound, tmp_path / "hub", symlinks=True)
    return CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)


@pytest.fixture
def folder(hubcache: CommandLine) -> RepoFolder:
    return RepoFolder(hubcache.cache, RepoId("hf", "model", NAME))


def quarantined(folder: RepoFolder) -> list[Path]:
    return sorted(file for file in folder.path.glob("quarantine/*") if file.suffix != ".json")


def aside(folder: RepoFolder, content: bytes) -> bool:
    """Tell whether these very bytes stand in quarantine."""
    return any(file.is_file() and file.read_bytes() == content for file in quarantined(folder))


# -- every kind of damage


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES])
def test_every_damage_is_repaired_where_the_hub_answers(folder: RepoFolder, hub: LoopHub, damage: Damage) -> None:
    commit = commit_of(folder)
    damage(folder)
    drop_the_other_repo(folder)
    mend(folder, hub.endpoint)
    assert (problems(folder), faults(folder.root), unverified(folder.snapshot_path(commit))) == ([], [], [])


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES])
def test_every_damage_leaves_a_cache_that_huggingface_hub_reads_where_nobody_answers(
    folder: RepoFolder, damage: Damage
) -> None:
    damage(folder)
    drop_the_other_repo(folder)
    mend(folder, offline=True)
    [repo] = scan_cache_dir(folder.root).repos
    assert [str(warning) for warning in scan_cache_dir(folder.root).warnings] == []
    start = f"{commit_of(folder)}/"
    files = {file.file_path for revision in repo.revisions for file in revision.files}
    assert all(file.read_bytes() == FILES[str(file).partition(start)[2]] for file in files)


def drop_the_other_repo(folder: RepoFolder) -> None:
    """Take away what one damage makes beside the repo, which is no repo by itself."""
    shutil.rmtree(folder.root / "models--org--other", ignore_errors=True)


def test_huggingface_hub_loads_offline_what_was_repaired(hubcache: CommandLine, folder: RepoFolder) -> None:
    flip_a_bit(folder)
    hubcache("verify", "--repair", "--yes")
    told = hubcache.python(LOAD)
    assert (told.code, told.out.strip()) == (0, str(snapshot(folder)))


def test_several_damages_are_repaired_at_once(hubcache: CommandLine, folder: RepoFolder) -> None:
    for damage in (flip_a_bit, edit_a_file, plant_a_file, name_a_blob_otherwise, end_a_ref_with_a_newline):
        damage(folder)
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, faults(hubcache.cache)) == (0, []), told.err


def test_what_a_sound_listing_shows_is_repaired_in_the_same_run(folder: RepoFolder, hub: LoopHub) -> None:
    spoil_the_listing(folder)
    edit_a_file(folder)
    mend(folder, hub.endpoint)
    assert (problems(folder), unverified(snapshot(folder))) == ([], [])


def test_a_listing_with_a_wrong_size_of_a_lost_blob_is_fetched_again(folder: RepoFolder, hub: LoopHub) -> None:
    list_another_size(folder)
    lose_a_blob(folder)
    mend(folder, hub.endpoint)
    assert (problems(folder), unverified(snapshot(folder))) == ([], [])


# -- what is fetched, and what is not


def test_only_what_is_bad_is_fetched(hubcache: CommandLine, folder: RepoFolder, hub: LoopHub) -> None:
    flip_a_bit(folder)
    told = hubcache("verify", "--repair", "--yes", "--json")
    assert len(bodies(hub)) == 1
    assert told.facts["repair"]["fetched_size"] == len(WEIGHTS)


def test_of_a_blob_that_was_cut_short_only_the_rest_is_fetched(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub
) -> None:
    cut_a_blob_short(folder)
    assert hubcache("verify", "--repair", "--yes").code == 0
    assert bodies(hub) == [f"bytes=100-{len(WEIGHTS) - 1}"]


def test_a_short_blob_with_a_wrong_beginning_is_fetched_from_zero(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub
) -> None:
    (folder.path / "blobs" / SHA256).write_bytes(b"x" * 100)
    assert hubcache("verify", "--repair", "--yes").code == 0
    assert unverified(snapshot(folder)) == []


@pytest.mark.parametrize(
    "damage",
    [
        end_a_ref_with_a_newline,
        link_out_of_the_snapshot,
        list_another_size,
        name_a_blob_otherwise,
        edit_a_file,
    ],
)
def test_what_the_disk_tells_for_certain_costs_no_request(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub, damage: Damage
) -> None:
    damage(folder)
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, hub.requests, faults(hubcache.cache)) == (0, [], []), told.err


@pytest.mark.parametrize("damage", [link_to_another_blob, plant_a_file])
def test_a_listing_that_a_snapshot_contradicts_is_asked_for_before_it_is_believed(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub, damage: Damage
) -> None:
    damage(folder)
    told = hubcache("verify", "--repair", "--yes")
    asked = [request.path for request in hub.requests if "/tree/" in request.path]
    assert (told.code, len(asked), bodies(hub), faults(hubcache.cache)) == (0, 1, [], []), told.err


@pytest.mark.parametrize("damage", [link_to_another_blob, plant_a_file])
def test_a_listing_that_nobody_can_be_asked_for_is_believed(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub, damage: Damage
) -> None:
    damage(folder)
    hub.down = True
    told = hubcache("verify", "--repair", "--yes", "--quiet")
    assert (told.code, unverified(snapshot(folder)), problems(folder)) == (0, [], []), told.err


def test_a_listing_that_lost_a_row_takes_no_sound_file_away(hubcache: CommandLine, folder: RepoFolder) -> None:
    whole = tree(folder).read_bytes()
    listing = json.loads(whole)
    del listing["files"]["config.json"]
    tree(folder).write_text(json.dumps(listing))
    hubcache("verify", "--repair", "--yes")
    assert (tree(folder).read_bytes(), (snapshot(folder) / "config.json").read_bytes()) == (whole, FILES["config.json"])


def test_a_lost_snapshot_is_linked_again(hubcache: CommandLine, folder: RepoFolder, hub: LoopHub) -> None:
    lost = snapshot(folder)
    shutil.rmtree(lost)
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, unverified(lost), hub.requests) == (0, [], []), told.err


def test_a_ref_to_a_commit_that_never_was_means_what_its_source_says(hubcache: CommandLine, folder: RepoFolder) -> None:
    folder.ref_path("main").write_text("0" * 40)
    hubcache("verify", "--repair", "--yes")
    assert hubcache.ref(NAME) == commit_of(folder)


def test_missing_links_are_made_from_the_listing(hubcache: CommandLine, folder: RepoFolder, hub: LoopHub) -> None:
    (snapshot(folder) / "config.json").unlink()
    hubcache("verify", "--repair", "--yes")
    assert (hub.requests, unverified(snapshot(folder))) == ([], [])


def test_a_file_that_was_never_pulled_is_not_fetched(hub: LoopHub, tmp_path: Path) -> None:
    folder = pull_into(tmp_path / "hub", hub, NAME, include=("*.json",))
    hub.clear()
    hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)
    hubcache("verify", "--repair", "--yes")
    assert (hub.requests, sorted(os.listdir(snapshot(folder)))) == ([], ["config.json"])


def test_what_is_sound_is_not_touched(hubcache: CommandLine, folder: RepoFolder) -> None:
    def states() -> dict[str, tuple[int, int]]:
        files = [file for file in folder.path.rglob("*") if SHA256 not in file.name and "quarantine" not in str(file)]
        return {str(file): (file.lstat().st_ino, file.lstat().st_mtime_ns) for file in files if not file.is_dir()
                and not file.name.endswith(".safetensors")}  # fmt: skip

    before = states()
    flip_a_bit(folder)
    hubcache("verify", "--repair", "--yes")
    assert states() == before


# -- quarantine


def test_the_damaged_bytes_are_kept(hubcache: CommandLine, folder: RepoFolder) -> None:
    flip_a_bit(folder)
    damaged = (folder.path / "blobs" / SHA256).read_bytes()
    hubcache("verify", "--repair", "--yes")
    assert aside(folder, damaged)


def test_a_planted_file_is_kept_in_quarantine(hubcache: CommandLine, folder: RepoFolder) -> None:
    plant_a_file(folder)
    hubcache("verify", "--repair", "--yes")
    assert aside(folder, b"import os")


def test_without_an_answer_the_damaged_blob_is_set_aside_and_told(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub
) -> None:
    flip_a_bit(folder)
    hub.down = True
    told = hubcache("verify", "--repair", "--yes", HF_HUB_OFFLINE="1")
    assert (told.code, "has not come again" in told.err, len(quarantined(folder))) == (6, True, 1)
    assert not os.path.lexists(snapshot(folder) / "model.safetensors")


def test_what_could_not_be_had_comes_with_the_next_repair(hubcache: CommandLine, folder: RepoFolder) -> None:
    flip_a_bit(folder)
    hubcache("verify", "--repair", "--yes", HF_HUB_OFFLINE="1")
    assert hubcache("verify").code == 6
    assert hubcache("verify", "--repair", "--yes").code == 0
    assert unverified(snapshot(folder)) == []


def test_a_mirror_that_sends_wrong_bytes_publishes_nothing(
    hubcache: CommandLine, folder: RepoFolder, hub: LoopHub
) -> None:
    flip_a_bit(folder)
    hub.corrupt = {"model.safetensors", "sub/copy.safetensors"}
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, "sent bytes whose sha256" in told.err, faults(hubcache.cache)) == (6, True, []), told.err


def test_a_listing_that_cannot_be_had_stays_and_is_told(hubcache: CommandLine, folder: RepoFolder) -> None:
    spoil_the_listing(folder)
    spoiled = tree(folder).read_bytes()
    told = hubcache("verify", "--repair", "--yes", HF_HUB_OFFLINE="1")
    assert (told.code, tree(folder).read_bytes()) == (6, spoiled)


def test_a_ref_of_which_nobody_knows_is_set_aside(hubcache: CommandLine, folder: RepoFolder) -> None:
    point_a_ref_at_nothing(folder)
    assert hubcache("verify", "--repair", "--yes").code == 0
    assert not folder.ref_path("refs/pr/1").exists()


def test_a_ref_that_holds_no_commit_is_written_by_its_sources_word(hubcache: CommandLine, folder: RepoFolder) -> None:
    write_no_commit_into_a_ref(folder)
    hubcache("verify", "--repair", "--yes")
    assert folder.ref_path("main").read_text() == commit_of(folder)


def test_what_lies_outside_of_the_cache_is_left_alone(hubcache: CommandLine, folder: RepoFolder) -> None:
    link_out_of_the_blobs(folder)
    hubcache("verify", "--repair", "--yes")
    assert (folder.root.parent / "outside").read_bytes() == WEIGHTS


def test_a_blob_of_a_strange_name_that_a_snapshot_needs_is_left(hubcache: CommandLine, folder: RepoFolder) -> None:
    tree(folder).unlink()
    os.rename(folder.path / "blobs" / CONFIG, folder.path / "blobs" / "md5-etag")
    link = snapshot(folder) / "config.json"
    link.unlink()
    link.symlink_to("../../blobs/md5-etag")
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, link.read_bytes()) == (6, FILES["config.json"])


# -- leftovers


@pytest.mark.parametrize(("age", "is_left"), [(2 * 86400, False), (3600, True)])
def test_a_leftover_goes_when_it_is_a_day_old(
    hubcache: CommandLine, folder: RepoFolder, age: int, is_left: bool
) -> None:
    partial = folder.path / "blobs" / f"{'0' * 64}.01234567.incomplete"
    partial.write_bytes(b"half")
    then = partial.stat().st_mtime - age
    os.utime(partial, (then, then))
    hubcache("verify", "--repair", "--yes")
    assert partial.exists() is is_left


# -- other sources, and mirrors


def test_what_came_from_an_archive_comes_from_there_again(tmp_path: Path) -> None:
    with ObjectStore() as store:
        store.put("model.tar.gz", pack({"model/config.json": b"{}", "model/weights.bin": WEIGHTS}, ".tar.gz"))
        hubcache = CommandLine(tmp_path)
        assert hubcache("pull", store.url("model.tar.gz")).code == 0
        [blob] = [file for file in hubcache.cache.glob("models--*/blobs/*") if file.stat().st_size == len(WEIGHTS)]
        blob.write_bytes(b"x" * len(WEIGHTS))
        told = hubcache("verify", "--repair", "--yes")
        assert (told.code, blob.read_bytes() == WEIGHTS, faults(hubcache.cache)) == (0, True, []), told.err


@pytest.mark.slow
@pytest.mark.train
def test_a_damaged_file_of_a_conversion_is_converted_again(tmp_path: Path) -> None:
    with ObjectStore() as store:
        store.put("palm.tar.gz", golden("sofa/tarballs") / "chinese-palm-base.tar.gz")
        hubcache = CommandLine(tmp_path)
        snapshot = Path(hubcache("pull", store.url("palm.tar.gz"), "--as", "org/palm").out.strip())
        weights = snapshot / "model.safetensors"
        sound = weights.read_bytes()
        weights.resolve().write_bytes(b"x" * len(sound))
        told = hubcache("verify", "--repair", "--yes")
        assert (told.code, weights.read_bytes() == sound, faults(hubcache.cache)) == (0, True, []), told.err


def test_an_archive_that_is_another_by_now_repairs_nothing_wrongly(tmp_path: Path) -> None:
    with ObjectStore() as store:
        store.put("model.tar.gz", pack({"model/config.json": b"{}"}, ".tar.gz"))
        hubcache = CommandLine(tmp_path)
        hubcache("pull", store.url("model.tar.gz"))
        store.put("model.tar.gz", pack({"model/config.json": b"[]"}, ".tar.gz"))
        [blob] = hubcache.cache.glob("models--*/blobs/*")
        blob.write_bytes(b"xx")
        told = hubcache("verify", "--repair", "--yes")
        assert (told.code, "not repaired" in told.err, faults(hubcache.cache)) == (6, True, []), told.err


def test_the_bytes_may_come_from_another_mirror(hubcache: CommandLine, folder: RepoFolder, hub: LoopHub) -> None:
    flip_a_bit(folder)
    hub.corrupt = {"model.safetensors", "sub/copy.safetensors"}
    with LoopHub() as other:
        other.add_repo(NAME, FILES)
        mirrors = folder.root.parent / "mirrors.yaml"
        rows = [
            f"  - {{name: m{at}, url: '{each.endpoint}', hub: huggingface}}" for at, each in enumerate((hub, other))
        ]
        mirrors.write_text("\n".join(["mirrors:", *rows, ""]))
        told = hubcache("verify", "--repair", "--yes", HUBCACHE_MIRRORS=str(mirrors))
    assert (told.code, unverified(snapshot(folder))) == (0, []), told.err


# -- other layouts


def test_real_files_are_repaired_where_there_are_no_links(hub: LoopHub, tmp_path: Path) -> None:
    folder = pull_into(tmp_path / "hub", hub, NAME, links=False)
    hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_SYMLINKS="1")
    (snapshot(folder) / "model.safetensors").write_bytes(b"x" * len(WEIGHTS))
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, unverified(snapshot(folder)), aside(folder, b"x" * len(WEIGHTS))) == (0, [], True), told.err


def share(folder: RepoFolder) -> Path:
    """Move the weights into the shared store, as huggingface_hub keeps what came by Xet."""
    blob = folder.path / "blobs" / SHA256
    stored = folder.root / "blobs" / "ab" / ("ab" * 32)
    stored.parent.mkdir(parents=True)
    folder.root.joinpath("blobs", ".huggingface-shared-blobs").write_text("1\n")
    os.replace(blob, stored)
    blob.symlink_to(f"../../blobs/ab/{stored.name}")
    stored.with_name(f"{stored.name}.refs").write_text(f"{folder.path.name}/blobs/{SHA256}\n")
    return stored


def test_a_damaged_payload_that_nobody_else_uses_leaves_the_shared_store(
    hubcache: CommandLine, folder: RepoFolder
) -> None:
    stored = share(folder)
    stored.write_bytes(b"x" * len(WEIGHTS))
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, stored.exists(), aside(folder, b"x" * len(WEIGHTS))) == (0, False, True), told.err


def test_a_damaged_payload_that_another_repo_uses_gets_the_sound_bytes(
    hubcache: CommandLine, folder: RepoFolder
) -> None:
    stored = share(folder)
    other = hubcache.cache / "models--org--other"
    shutil.copytree(folder.path, other, symlinks=True)
    refs = stored.with_name(f"{stored.name}.refs")
    refs.write_text(refs.read_text() + f"{other.name}/blobs/{SHA256}\n")
    stored.write_bytes(b"x" * len(WEIGHTS))
    told = hubcache("verify", NAME, "--repair", "--yes")
    assert told.code == 0, told.err
    assert (stored.read_bytes(), (folder.path / "blobs" / SHA256).is_symlink()) == (WEIGHTS, True)
    assert aside(folder, b"x" * len(WEIGHTS))


def test_a_single_file_of_huggingface_hub_is_repaired_without_a_listing(hub: LoopHub, tmp_path: Path) -> None:
    hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)
    script = "from huggingface_hub import hf_hub_download; hf_hub_download('org/name', 'model.safetensors')"
    assert hubcache.python(script, HF_HUB_OFFLINE="0").code == 0
    folder = RepoFolder(hubcache.cache, RepoId("hf", "model", NAME))
    flip_a_bit(folder)
    told = hubcache("verify", "--repair", "--yes")
    assert (told.code, (snapshot(folder) / "model.safetensors").read_bytes() == WEIGHTS) == (0, True), told.err


def test_listings_that_huggingface_hub_keeps_to_its_user_are_shared(hubcache: CommandLine, folder: RepoFolder) -> None:
    tree(folder).chmod(0o600)
    with reachable(folder.root):
        hubcache("verify", "--repair", "--yes")
    assert tree(folder).stat().st_mode & 0o777 == 0o644


# -- asking


def test_repair_asks_first(hubcache: CommandLine, folder: RepoFolder) -> None:
    path = flip_a_bit(folder)
    damaged = (folder.path / path).read_bytes()
    told = hubcache("verify", "--repair")
    assert (told.code, "--yes" in told.err, (folder.path / path).read_bytes() == damaged) == (2, True, True)


def test_a_dry_run_tells_each_step_and_changes_nothing(hubcache: CommandLine, folder: RepoFolder) -> None:
    lose_a_blob(folder)
    told = hubcache("verify", "--repair", "--dry-run")
    assert (told.code, "to repair: org/name  snapshots/" in told.err, quarantined(folder)) == (6, True, [])


def test_of_a_sound_cache_nothing_is_asked(hubcache: CommandLine, hub: LoopHub) -> None:
    told = hubcache("verify", "--repair")
    assert (told.code, hub.requests) == (0, [])


def test_json_tells_steps_and_figures_as_numbers(hubcache: CommandLine, folder: RepoFolder) -> None:
    path = flip_a_bit(folder)
    facts = hubcache("verify", "--repair", "--yes", "--json").facts["repair"]
    [step] = facts["steps"]
    assert (step["path"], step["act"], step["size"]) == (path, "fetch", len(WEIGHTS))
    assert (facts["fetched_files"], facts["quarantined"][0]["size"], facts["failures"], facts["left"]) == (
        1,
        len(WEIGHTS),
        [],
        [],
    )


def test_the_journal_tells_what_was_done(hubcache: CommandLine, folder: RepoFolder) -> None:
    flip_a_bit(folder)
    hubcache("verify", "--repair", "--yes")
    journal = hubcache.home / ".local/state/hubcache/history.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["verify", "quarantine", "repair"]
