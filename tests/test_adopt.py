"""How `hubcache adopt` brings bytes in: shared, linked, moved or copied, each hashed, on real file systems."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubcache.app.adopting import AdoptRequest, adopt, plan_adoption
from hubcache.app.progress import NoProgress
from hubcache.core.adoptable import Mode
from hubcache.core.digests import digest_bytes
from hubcache.errors import DiskFull
from tests.support.commandline import HUBCACHE, CommandLine, files_of
from tests.support.otherlayouts import make_ollama, write_files
from tests.support.puller import Puller
from tests.support.wholeness import faults

MB = 1 << 20
WEIGHTS = os.urandom(4 * MB)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
SHA256 = digest_bytes("sha256", WEIGHTS).hex


@pytest.fixture
def hubcache(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "saved", FILES)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a file system that can share extents between files."""
    folder = tmp_path_factory.mktemp("xfs")
    mounted, image = folder / "disk", folder / "image"
    mounted.mkdir()
    maker = shutil.which("mkfs.xfs", path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    if maker is None:
        pytest.skip("there is no mkfs.xfs on this machine")
    with image.open("wb") as file:
        file.truncate(320 * MB)
    for command in ([maker, "-q", "-m", "reflink=1", str(image)], ["mount", "-o", "loop", str(image), str(mounted)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no XFS can be mounted here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def ways(told: dict[str, Any]) -> dict[str, str]:
    (repo,) = told["repos"]
    return {row["path"]: row["how"] for row in repo["files"]}


def blob(hubcache: CommandLine, name: str = "local/saved") -> Path:
    return hubcache.cache / f"models--{name.replace('/', '--')}" / "blobs" / SHA256


def planned_and_changed(tmp_path: Path, folder: Path, mode: Mode, content: bytes, *, age: int = 30) -> Any:
    """Plan an adoption, change the weights, and carry the plan out; return what came of it."""
    app = Puller.into(tmp_path / "hub").app
    plan = plan_adoption(app, AdoptRequest((folder,), mode=mode), NoProgress())
    if content:
        write_files(folder, {"model.safetensors": content}, age=age)
    return adopt(app, plan.adoptions[0], print)


# -- reflinks


def test_on_a_disk_with_reflinks_no_byte_is_copied(xfs: Path) -> None:
    hubcache = CommandLine(xfs / "a")
    write_files(xfs / "a/saved", FILES)
    subprocess.run(["sync", "-f", str(xfs)], check=True)
    before = shutil.disk_usage(xfs).used
    told = hubcache("adopt", xfs / "a/saved", "--json")
    subprocess.run(["sync", "-f", str(xfs)], check=True)
    assert (told.code, set(ways(told.facts).values()), told.facts["repos"][0]["copied_size"]) == (0, {"reflink"}, 0)
    assert shutil.disk_usage(xfs).used - before < MB
    assert blob(hubcache).stat().st_ino != (xfs / "a/saved/model.safetensors").stat().st_ino


def test_the_extents_of_a_reflinked_blob_are_shared_by_filefrags_word(xfs: Path) -> None:
    program = shutil.which("filefrag", path=os.environ["PATH"] + ":/sbin:/usr/sbin")
    if program is None:
        pytest.skip("there is no filefrag on this machine")
    hubcache = CommandLine(xfs / "b")
    hubcache("adopt", write_files(xfs / "b/saved", FILES))
    told = subprocess.run([program, "-v", blob(hubcache)], capture_output=True, text=True, check=True).stdout
    rows = [line for line in told.splitlines() if re.match(r"\s*\d+:", line)]
    assert rows
    assert all("shared" in row for row in rows)


def test_a_reflinked_blob_stays_what_it_is_when_the_source_is_written_to(xfs: Path) -> None:
    hubcache = CommandLine(xfs / "c")
    folder = write_files(xfs / "c/saved", FILES)
    hubcache("adopt", folder)
    with folder.joinpath("model.safetensors").open("rb+") as file:
        file.write(b"changed")
    assert blob(hubcache).read_bytes() == WEIGHTS


def test_a_dry_run_foresees_the_reflink_and_writes_nothing(xfs: Path) -> None:
    hubcache = CommandLine(xfs / "d")
    told = hubcache("adopt", write_files(xfs / "d/saved", FILES), "--dry-run", "--json")
    assert (set(ways(told.facts).values()), hubcache.cache.exists()) == ({"reflink"}, False)


def test_a_file_written_after_it_was_hashed_is_no_blob_also_by_reflink(xfs: Path) -> None:
    done = planned_and_changed(xfs / "e", write_files(xfs / "e/saved", FILES), "auto", WEIGHTS[::-1])
    assert [left.path for left in done.adoption.left] == ["model.safetensors"]
    assert faults(xfs / "e/hub") == []


def test_copy_shares_nothing_where_it_could(xfs: Path) -> None:
    hubcache = CommandLine(xfs / "f")
    told = hubcache("adopt", write_files(xfs / "f/saved", FILES), "--copy", "--json")
    assert set(ways(told.facts).values()) == {"copy"}


# -- links and copies


def test_a_plain_file_is_copied_where_nothing_can_be_shared(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder, "--json")
    if "reflink" in ways(told.facts).values():
        pytest.skip("this disk has reflinks")
    assert set(ways(told.facts).values()) == {"copy"}
    assert blob(hubcache).stat().st_nlink == 1


def test_with_link_a_plain_file_and_the_blob_are_one(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder, "--link", "--json")
    if "reflink" in ways(told.facts).values():
        pytest.skip("this disk has reflinks")
    assert set(ways(told.facts).values()) == {"hardlink"}
    assert os.path.samefile(blob(hubcache), folder / "model.safetensors")


def test_what_its_owner_keeps_by_digest_is_hardlinked_unasked(hubcache: CommandLine, tmp_path: Path) -> None:
    store = make_ollama(tmp_path / "models", "tiny", "latest", {"model": WEIGHTS})
    told = hubcache("adopt", store, "--json")
    if "reflink" in ways(told.facts).values():
        pytest.skip("this disk has reflinks")
    assert os.path.samefile(blob(hubcache, "ollama/tiny"), store / "blobs" / f"sha256-{SHA256}")


def test_a_file_that_everybody_may_write_to_is_not_linked(hubcache: CommandLine, folder: Path) -> None:
    folder.joinpath("model.safetensors").chmod(0o666)
    told = hubcache("adopt", folder, "--link", "--json")
    assert ways(told.facts)["model.safetensors"] in {"copy", "reflink"}


def test_a_source_on_another_disk_is_copied(xfs: Path, hubcache: CommandLine) -> None:
    told = hubcache("adopt", write_files(xfs / "g/saved", FILES), "--link", "--json")
    assert set(ways(told.facts).values()) == {"copy"}


def test_two_paths_of_the_same_bytes_become_one_blob(hubcache: CommandLine, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "saved", {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS})
    told = hubcache("adopt", folder, "--json")
    assert (len(hubcache.blobs("local/saved")), told.facts["repos"][0]["left"]) == (1, [])


def test_a_cache_without_links_gets_real_files(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder, HF_HUB_DISABLE_SYMLINKS="1")
    snapshot = Path(told.out.strip())
    assert files_of(snapshot) == FILES
    assert not snapshot.joinpath("model.safetensors").is_symlink()


def test_adopting_the_same_again_brings_nothing(hubcache: CommandLine, folder: Path) -> None:
    hubcache("adopt", folder)
    assert set(ways(hubcache("adopt", folder, "--json").facts).values()) == {"here"}


def test_a_disk_too_small_for_the_copy_is_told_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubcache.cache import store

    app = Puller.into(tmp_path / "hub").app
    plan = plan_adoption(app, AdoptRequest((folder,), mode="copy"), NoProgress())
    monkeypatch.setattr(store, "free_space", lambda _: MB)
    with pytest.raises(DiskFull):
        adopt(app, plan.adoptions[0], print)
    assert not (tmp_path / "hub").exists()


# -- files that change meanwhile


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_a_file_written_after_it_was_hashed_is_left_where_it_is(folder: Path, tmp_path: Path, mode: Mode) -> None:
    done = planned_and_changed(tmp_path, folder, mode, WEIGHTS[::-1])
    assert [left.path for left in done.adoption.left] == ["model.safetensors"]
    assert folder.joinpath("model.safetensors").read_bytes() == WEIGHTS[::-1]
    assert (faults(tmp_path / "hub"), files_of(done.path)) == ([], {"config.json": b"{}"})


@pytest.mark.parametrize("mode", ["link", "move"])
def test_a_file_written_again_within_the_clocks_tick_is_noticed(folder: Path, tmp_path: Path, mode: Mode) -> None:
    file = folder / "model.safetensors"
    now = time.time_ns()
    os.utime(file, ns=(now, now))
    app = Puller.into(tmp_path / "hub").app
    plan = plan_adoption(app, AdoptRequest((folder,), mode=mode), NoProgress())
    with file.open("rb+") as opened:
        opened.write(WEIGHTS[::-1])
    os.utime(file, ns=(now, now))
    done = adopt(app, plan.adoptions[0], print)
    assert [left.path for left in done.adoption.left] == ["model.safetensors"]
    assert file.exists()


def test_a_file_that_became_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    app = Puller.into(tmp_path / "hub").app
    plan = plan_adoption(app, AdoptRequest((folder,)), NoProgress())
    file = folder / "model.safetensors"
    os.rename(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    done = adopt(app, plan.adoptions[0], print)
    assert [left.path for left in done.adoption.left] == ["model.safetensors"]


def test_the_commit_of_a_folder_of_which_a_file_was_left_is_that_of_the_rest(folder: Path, tmp_path: Path) -> None:
    done = planned_and_changed(tmp_path, folder, "copy", WEIGHTS[::-1])
    rest = write_files(tmp_path / "rest", {"config.json": b"{}"})
    other = CommandLine(tmp_path / "other")("adopt", rest, "--json").facts["repos"][0]
    assert done.path.name == other["commit"]


# -- moving


def test_a_move_leaves_nothing_behind(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder, "--move", "--yes", "--json")
    assert (told.code, told.facts["repos"][0]["removed"], folder.exists()) == (0, 2, False)
    assert files_of(Path(told.facts["repos"][0]["path"])) == FILES


def test_a_move_to_another_disk_copies_and_then_removes(xfs: Path, hubcache: CommandLine) -> None:
    folder = write_files(xfs / "h/saved", FILES)
    told = hubcache("adopt", folder, "--move", "--yes", "--json")
    assert (set(ways(told.facts).values()), folder.exists()) == ({"copy"}, False)
    assert files_of(Path(told.facts["repos"][0]["path"])) == FILES


def test_a_move_of_what_is_here_removes_the_source(hubcache: CommandLine, folder: Path) -> None:
    hubcache("adopt", folder)
    hubcache("adopt", folder, "--move", "--yes")
    assert (folder.exists(), blob(hubcache).read_bytes()) == (False, WEIGHTS)


def test_a_source_is_not_removed_for_a_blob_that_has_rotted(hubcache: CommandLine, folder: Path) -> None:
    hubcache("adopt", folder)
    blob(hubcache).write_bytes(WEIGHTS[::-1])
    hubcache("adopt", folder, "--move", "--yes")
    assert folder.joinpath("model.safetensors").read_bytes() == WEIGHTS


def test_a_file_with_another_name_elsewhere_is_moved_without_sharing_it(
    hubcache: CommandLine, folder: Path, tmp_path: Path
) -> None:
    os.link(folder / "model.safetensors", tmp_path / "second")
    hubcache("adopt", folder, "--move", "--yes")
    with (tmp_path / "second").open("rb+") as file:
        file.write(b"changed")
    assert blob(hubcache).read_bytes() == WEIGHTS


def test_nothing_is_moved_out_of_a_store_that_needs_its_files(hubcache: CommandLine, tmp_path: Path) -> None:
    store = make_ollama(tmp_path / "models", "tiny", "latest", {"model": WEIGHTS})
    before = files_of(store)
    told = hubcache("adopt", store, "--move", "--yes", "--json")
    assert (told.code, files_of(store)) == (0, before)
    assert "nothing is moved" in told.facts["repos"][0]["notes"][0]


def test_a_move_without_a_terminal_needs_yes(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder, "--move")
    assert (told.code, "hint: --move --yes" in told.err, files_of(folder)) == (2, True, FILES)


def test_a_move_on_a_terminal_is_asked_for(hubcache: CommandLine, folder: Path) -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [HUBCACHE, "adopt", folder, "--move"], env=hubcache.environ, stdin=end, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    os.write(terminal, b"n\n")
    process.communicate(timeout=60)
    os.close(terminal)
    os.close(end)
    assert (process.returncode, files_of(folder), hubcache.cache.exists()) == (1, FILES, False)


# -- the command


def test_the_snapshots_path_is_all_there_is_on_stdout(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder)
    assert files_of(Path(told.out.strip())) == FILES


def test_a_plan_says_what_was_recognised_and_what_it_becomes_in_80_columns(hubcache: CommandLine, folder: Path) -> None:
    told = hubcache("adopt", folder, "--dry-run", "--as", "my/model")
    assert [part in told.out for part in ("my/model@", "(model folder)", "2 files, 4.2 MB", "main, original")] == [
        True
    ] * 4
    assert max(map(len, told.out.replace(str(folder), "/saved").splitlines())) <= 80


def test_a_name_for_several_repos_is_refused(hubcache: CommandLine, tmp_path: Path) -> None:
    write_files(tmp_path / "all/one", FILES)
    write_files(tmp_path / "all/two", FILES)
    told = hubcache("adopt", tmp_path / "all", "--as", "my/model")
    assert (told.code, "--as names one repo" in told.err) == (2, True)


def test_ways_that_exclude_each_other_are_refused(hubcache: CommandLine, folder: Path) -> None:
    assert hubcache("adopt", folder, "--move", "--copy").code == 2


def test_a_dry_runs_hashes_are_recalled(hubcache: CommandLine, folder: Path) -> None:
    hubcache("adopt", folder, "--dry-run")
    then = folder.joinpath("model.safetensors").stat()
    folder.joinpath("model.safetensors").write_bytes(WEIGHTS[::-1])
    os.utime(folder / "model.safetensors", ns=(then.st_mtime_ns, then.st_mtime_ns))
    told = hubcache("adopt", folder, "--dry-run", "--json")
    assert {row["digest"] for row in told.facts["repos"][0]["files"]} >= {SHA256}


def test_what_was_adopted_is_in_the_history(hubcache: CommandLine, folder: Path) -> None:
    hubcache("adopt", folder)
    event = json.loads((hubcache.home / ".local/state/hubcache/history.jsonl").read_text())
    assert (event["what"], event["repo"], event["size"]) == ("adopt", "local/saved", len(WEIGHTS) + 2)


@pytest.mark.train
def test_transformers_loads_an_adopted_model_offline(hubcache: CommandLine, tmp_path: Path) -> None:
    script = """
import sys
from transformers import AutoModel, BertConfig, BertModel
if sys.argv[1] == "save":
    BertModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                         intermediate_size=8)).save_pretrained(sys.argv[2])
else:
    print(type(AutoModel.from_pretrained(sys.argv[2])).__name__)
"""
    assert hubcache.python(script, "save", tmp_path / "saved").code == 0
    assert hubcache("adopt", tmp_path / "saved", "--as", "my/bert", "--move", "--yes").code == 0
    assert hubcache.python(script, "load", "my/bert").out.strip() == "BertModel"
