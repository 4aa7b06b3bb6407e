"""A gc on real disks: it takes what its plan says, huggingface_hub reads the rest, and undo puts all back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from huggingface_hub.utils._shared_blobs import unreferenced_shared_blobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubcache.app.collecting import plan_collection
from hubcache.app.progress import NoProgress
from hubcache.cache.collect import Removed, put_back, remove
from hubcache.cache.inventory import take_inventory
from hubcache.cache.pinned import pin
from hubcache.cache.quarantine import set_aside
from hubcache.cache.trash import bins
from hubcache.cache.verify import verify_repo
from hubcache.core.digests import digest_bytes
from hubcache.core.gc import Budget
from hubcache.errors import CacheError, CacheLocked, NotFound
from tests.bench.cache_ls import make_repo
from tests.support.collecting import DAY, MadeCache, age, paths, standing
from tests.support.commandline import CommandLine
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into
from tests.support.waiting import until
from tests.support.wholeness import faults, unverified

A, B = "a" * 40, "b" * 40
WEIGHTS, OTHER = b"weights" * 1000, b"other" * 1000


@pytest.fixture
def made(tmp_path: Path) -> MadeCache:
    """Two commits of a repo that share a blob, of which main means the second, and another repo."""
    made = MadeCache(tmp_path / "hub")
    made.commit("org/m", "a", {"w.bin": WEIGHTS, "sub/deep/old.txt": b"old"})
    made.commit("org/m", "b", {"w.bin": WEIGHTS, "new.txt": b"new"}, refs=("main", "refs/pr/1"))
    made.commit("org/n", "c", {"w.bin": OTHER}, refs=("main",))
    return made


def collect(made: MadeCache, *, days: float = 0, **budget: object) -> Removed:
    """Collect as if it were so many days later."""
    plan = plan_collection(made.root, Budget(**budget), now=time.time() + days * DAY)  # type: ignore[arg-type]
    removed = remove(made.root, plan)
    assert faults(made.root) == []
    return removed


def commits(made: MadeCache) -> set[str]:
    return {revision.commit_hash for repo in scan_cache_dir(made.root).repos for revision in repo.revisions}


def test_an_orphan_goes_and_all_else_stays(made: MadeCache) -> None:
    before = standing(made.root)
    orphan = made.orphan("org/m", b"orphan")
    assert collect(made).paths == 1
    assert not orphan.exists()
    assert paths(standing(made.root)) == paths(before)


def test_a_detached_commit_goes_with_all_that_is_its_own(made: MadeCache) -> None:
    folder = made.folder("org/m")
    (folder.path / ".no_exist" / A).mkdir(parents=True)
    (folder.path / ".no_exist" / A / "x.json").touch()
    folder.provenance_path(A).parent.mkdir()
    folder.provenance_path(A).write_text("{}")
    collect(made, days=31)
    assert not [path for path in standing(made.root) if A in path]
    assert {path.name for path in folder.path.iterdir()} == {"blobs", "refs", "snapshots", "trees"}


def test_what_a_kept_commit_needs_is_untouched(made: MadeCache) -> None:
    collect(made, days=31)
    assert unverified(made.folder("org/m").snapshot_path(B)) == []


def test_undo_puts_back_the_very_tree(made: MadeCache) -> None:
    age(made.root, 3 * DAY)
    before = standing(made.root)
    collect(made, days=31, unused_for=10.0 * DAY)
    assert commits(made) == set()
    put_back(made.root)
    assert standing(made.root) == before
    assert faults(made.root) == []


def test_collecting_twice_changes_nothing_more(made: MadeCache) -> None:
    made.orphan("org/m", b"orphan")
    collect(made, days=31)
    before = standing(made.root)
    assert collect(made, days=31).paths == 0
    assert standing(made.root) == before


def test_a_gc_that_finds_nothing_writes_nothing(made: MadeCache) -> None:
    collect(made)
    assert not (made.root / ".locks").exists()


def test_the_least_recently_used_repo_goes_for_a_budget(made: MadeCache) -> None:
    age(made.folder("org/m").path, 9 * DAY)
    collect(made, max_size=len(OTHER) + 100)
    assert commits(made) == {"c" * 40}


def test_a_budget_frees_its_room_at_once(made: MadeCache) -> None:
    assert collect(made, days=1, max_size=0).bin == ""
    assert take_inventory(made.root).used == 0


def test_the_last_access_counts_as_use(made: MadeCache) -> None:
    age(made.root, 40 * DAY)
    for blob in (made.folder("org/n").path / "blobs").iterdir():
        os.utime(blob, (time.time(), blob.stat().st_mtime))
    collect(made, unused_for=30.0 * DAY)
    assert commits(made) == {"c" * 40}


def test_a_pinned_repo_survives_any_budget(made: MadeCache) -> None:
    pin(made.folder("org/m"), "main", why="in production")
    collect(made, days=1, max_size=0)
    assert commits(made) == {B}


def test_pins_outlive_what_goes_beside_them(made: MadeCache) -> None:
    pin(made.folder("org/m"), "main")
    collect(made, days=31)
    assert (made.folder("org/m").path / "pins.json").exists()


def test_a_commit_that_may_be_about_to_get_its_ref_stays(made: MadeCache) -> None:
    collect(made, max_size=0)
    assert commits(made) == {A}


def test_a_pin_that_cannot_be_read_keeps_all(made: MadeCache) -> None:
    (made.folder("org/m").path / "pins.json").write_text("{")
    collect(made, max_size=0)
    assert commits(made) == {A, B}


HOLDING = {
    "open": "import sys; held = open(sys.argv[1], 'rb'); print('ready', flush=True); sys.stdin.read()",
    "mapped": """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
held = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
os.close(fd)
print('ready', flush=True); sys.stdin.read()
""",
    "locked": """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1]); lock.acquire()
print('ready', flush=True); sys.stdin.read()
""",
}


@pytest.fixture
def holding() -> Iterator[Callable[[str, Path], int]]:
    """Hold a file in a process of its own, in one of three ways; return its id."""
    processes = []

    def hold(how: str, path: Path) -> int:
        command = [sys.executable, "-c", HOLDING[how], str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    yield hold
    for process in processes:
        process.communicate()


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_what_a_process_has_open_stays_and_the_plan_names_it(
    made: MadeCache, holding: Callable[[str, Path], int], how: str
) -> None:
    pid = holding(how, made.folder("org/n").snapshot_path("c" * 40) / "w.bin")
    plan = plan_collection(made.root, Budget(max_size=0), now=time.time() + DAY)
    assert f"in use by process {pid}" in [line.why for line in plan.lines]
    remove(made.root, plan)
    assert commits(made) == {"c" * 40}


def test_a_file_of_the_shared_store_that_is_open_stays(made: MadeCache, holding: Callable[[str, Path], int]) -> None:
    payload = made.share("ab", OTHER, "org/n")
    holding("open", payload)
    collect(made, days=1, max_size=0)
    assert (commits(made), payload.exists()) == ({"c" * 40}, True)


def test_a_repo_with_a_held_lock_stays_whole(made: MadeCache, holding: Callable[[str, Path], int]) -> None:
    made.orphan("org/m", b"orphan")
    lock = made.root / ".locks" / "models--org--m" / f"{'0' * 64}.lock"
    lock.parent.mkdir(parents=True)
    before = standing(made.folder("org/m").path)
    holding("locked", lock)
    collect(made, days=31, max_size=0)
    assert standing(made.folder("org/m").path) == before


def test_a_repo_with_a_fresh_partial_file_stays_whole(made: MadeCache) -> None:
    made.orphan("org/m", b"orphan")
    (made.folder("org/m").path / "blobs" / f"{'0' * 64}.01234567.incomplete").write_bytes(b"x")
    before = standing(made.folder("org/m").path)
    collect(made, max_size=0)
    assert standing(made.folder("org/m").path) == before


def leave(made: MadeCache) -> list[Path]:
    """Leave what crashes, huggingface_hub's too, and gone commits leave."""
    folder, locks = made.folder("org/m").path, made.root / ".locks"
    left = [
        folder / "blobs" / f"{'0' * 64}.01234567.incomplete",
        folder / "blobs" / f"{'0' * 64}.01234567.ranges.incomplete",
        folder / "blobs" / f".{'0' * 64}.01234567.shared",
        folder / "refs" / "main.01234567.tmp",
        folder / "trees" / "tmpabcdef12.tmp",
        folder / ".config.json.01234567.tmp",
        folder / ".staging" / "key" / "archive.tar.gz",
        folder / ".no_exist" / ("d" * 40) / "x.json",
        folder / "trees" / f"{'d' * 40}.json",
        folder / "provenance" / f"{'d' * 40}.json",
        locks / "models--org--m" / f"{'1' * 64}.lock",
        locks / "models--org--gone" / "x.lock",
        locks / ".CACHEDIR.TAG.01234567.tmp",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}" if path.suffix == ".json" else b"")
        age(path, 2 * DAY)
    age(folder / ".staging", 2 * DAY)
    age(folder / ".no_exist", 2 * DAY)
    return left


def test_leftovers_of_days_ago_go(made: MadeCache) -> None:
    before, left = standing(made.root), leave(made)
    plan = plan_collection(made.root, Budget(), now=time.time())
    remove(made.root, plan)
    assert [path for path in left if path.exists()] == []
    assert (paths(standing(made.root)), faults(made.root)) == (paths(before), [])


def test_leftovers_come_back_too(made: MadeCache) -> None:
    left = leave(made)
    remove(made.root, plan_collection(made.root, Budget(), now=time.time()))
    put_back(made.root)
    assert all(path.exists() for path in left)


def lose(made: MadeCache) -> Path:
    """Have a file of the kept commit damaged and set aside, and return its place in quarantine."""
    folder = made.folder("org/m")
    link = folder.snapshot_path(B) / "new.txt"
    place = set_aside(folder, link.resolve(), digest=digest_bytes("sha256", b"new"), links=[(B, "new.txt")])
    age(place, 31 * DAY)
    age(place.with_name(place.name + ".json"), 31 * DAY)
    return place


def test_an_unresolved_loss_stays_known_when_the_damaged_bytes_go(made: MadeCache) -> None:
    place = lose(made)
    collect(made)
    told = [problem.kind for problem in verify_repo(made.folder("org/m"), progress=NoProgress()).problems]
    assert (place.exists(), told) == (False, ["quarantined"])


def test_the_record_of_a_loss_that_was_made_good_goes(made: MadeCache) -> None:
    place, folder = lose(made), made.folder("org/m")
    (folder.snapshot_path(B) / "new.txt").write_bytes(b"new")
    collect(made)
    assert not place.with_name(place.name + ".json").exists()


def test_fresh_leftovers_stay(made: MadeCache) -> None:
    for path in (left := leave(made)):
        age(path, 3 * 3600)
    remove(made.root, plan_collection(made.root, Budget(), now=time.time()))
    assert all(path.exists() for path in left)


def test_a_stale_lock_that_is_taken_between_plan_and_removal_stays(
    made: MadeCache, holding: Callable[[str, Path], int]
) -> None:
    [lock] = [path for path in leave(made) if path.parent.name == "models--org--gone"]
    plan = plan_collection(made.root, Budget(), now=time.time())
    holding("locked", lock)
    remove(made.root, plan)
    assert lock.exists()


def test_real_files_of_a_cache_without_links_go_with_their_commit(tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "w.bin": WEIGHTS})
        folder = pull_into(tmp_path / "hub", hub, "org/name", links=False)
    made = MadeCache(folder.root)
    assert take_inventory(made.root).used == len(WEIGHTS) + 2
    collect(made, days=31, unused_for=30.0 * DAY)
    assert not folder.path.exists()


def test_a_kept_commit_in_a_cache_without_links_stays_whole(tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "w.bin": WEIGHTS})
        folder = pull_into(tmp_path / "hub", hub, "org/name", links=False)
    collect(MadeCache(folder.root), days=31)
    assert unverified(folder.snapshot_path(folder.commits()[0])) == []


class TestSharedStore:
    """huggingface_hub's store that all repos share: its references stay right."""

    @pytest.fixture
    def payload(self, made: MadeCache) -> Path:
        made.commit("org/m", "b", {"shared.bin": OTHER})
        return made.share("ab", OTHER, "org/m", "org/n")

    def test_a_payload_counts_once(self, made: MadeCache, payload: Path) -> None:
        assert take_inventory(made.root).used == scan_cache_dir(made.root).size_on_disk

    def test_a_payload_that_another_repo_uses_stays_and_loses_a_reference(self, made: MadeCache, payload: Path) -> None:
        age(made.folder("org/n").path, 9 * DAY)
        pin(made.folder("org/m"), "*")
        age(payload, 9 * DAY)
        collect(made, unused_for=5.0 * DAY)
        [user] = payload.with_name(f"{payload.name}.refs").read_text().splitlines()
        assert (payload.exists(), user.split("/")[0]) == (True, "models--org--m")

    def test_the_last_user_takes_the_payload_along(self, made: MadeCache, payload: Path) -> None:
        collect(made, days=9, unused_for=5.0 * DAY)
        assert [path.name for path in payload.parent.iterdir()] == [f"{payload.name}.lock"]

    def test_undo_restores_the_reference(self, made: MadeCache, payload: Path) -> None:
        age(made.folder("org/n").path, 9 * DAY)
        pin(made.folder("org/m"), "*")
        age(payload, 9 * DAY)
        collect(made, unused_for=5.0 * DAY)
        put_back(made.root)
        users = payload.with_name(f"{payload.name}.refs").read_text().splitlines()
        assert sorted(user.split("/")[0] for user in users) == ["models--org--m", "models--org--n"]
        assert (faults(made.root), unreferenced_shared_blobs(made.root)) == ([], {})

    def test_undo_restores_the_payload(self, made: MadeCache, payload: Path) -> None:
        before = standing(made.root)
        collect(made, days=9, unused_for=5.0 * DAY)
        put_back(made.root)
        assert paths(standing(made.root)) == paths(before)
        assert (faults(made.root), unreferenced_shared_blobs(made.root)) == ([], {})

    def test_a_payload_that_a_kernel_uses_stays(self, made: MadeCache, payload: Path) -> None:
        kernel = made.root / "kernels--org--k"
        (kernel / "blobs").mkdir(parents=True)
        (kernel / "snapshots").mkdir()
        (kernel / "blobs" / "x").symlink_to(os.path.relpath(payload, kernel / "blobs"))
        plan = plan_collection(made.root, Budget(unused_for=5.0 * DAY), now=time.time() + 9 * DAY)
        remove(made.root, plan)
        assert (kernel / "blobs" / "x").exists()

    def test_a_payload_without_a_user_goes(self, made: MadeCache, payload: Path) -> None:
        for name in ("org/m", "org/n"):
            remove(made.root, plan_collection(made.root, Budget(), now=time.time()))
            [link] = [blob for blob in (made.folder(name).path / "blobs").iterdir() if blob.is_symlink()]
            for file in made.folder(name).path.rglob("*.bin"):
                if file.resolve() == payload:
                    file.unlink()
            link.unlink()
        collect(made, days=2)
        assert not payload.exists()

    def test_a_folder_of_that_name_without_the_mark_is_left_alone(self, made: MadeCache, payload: Path) -> None:
        (made.root / "blobs" / ".huggingface-shared-blobs").unlink()
        plan = plan_collection(made.root, Budget(max_size=0), now=time.time() + 9 * DAY)
        remove(made.root, plan)
        assert payload.exists()


def test_what_came_between_plan_and_removal_is_left_alone(tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "w.bin": WEIGHTS})
        folder = pull_into(tmp_path / "hub", hub, "org/name")
        plan = plan_collection(folder.root, Budget(unused_for=1.0), now=time.time() + DAY)
        hub.add_commit("org/name", {"config.json": b"{ }"})
        pull_into(tmp_path / "hub", hub, "org/name")
    removed = remove(folder.root, plan)
    assert (removed.paths, faults(folder.root)) == (0, [])
    assert unverified(folder.snapshot_path(folder.refs()["main"])) == []


def test_a_repo_that_is_pinned_between_plan_and_removal_is_left_alone(made: MadeCache) -> None:
    plan = plan_collection(made.root, Budget(max_size=0), now=time.time())
    pin(made.folder("org/m"), "main")
    remove(made.root, plan)
    assert commits(made) == {A, B}


def test_a_blob_that_is_linked_between_plan_and_removal_is_left_alone(made: MadeCache) -> None:
    orphan = made.orphan("org/m", b"orphan")
    plan = plan_collection(made.root, Budget(), now=time.time())
    made.commit("org/m", "b", {"again.txt": b"orphan"})
    remove(made.root, plan)
    assert (orphan.exists(), faults(made.root)) == (True, [])


class TestUndo:
    """The last removal put back, or refused where that would take something new away."""

    @pytest.fixture
    def removed(self, made: MadeCache) -> Removed:
        return collect(made, days=9, unused_for=5.0 * DAY)

    def test_there_is_nothing_to_undo_at_first(self, made: MadeCache) -> None:
        with pytest.raises(NotFound):
            put_back(made.root)

    def test_it_can_be_undone_once(self, made: MadeCache, removed: Removed) -> None:
        put_back(made.root)
        with pytest.raises(NotFound):
            put_back(made.root)

    def test_something_new_is_not_taken_away(self, made: MadeCache, removed: Removed) -> None:
        made.commit("org/m", "d", {"w.bin": b"d"}, refs=("main",))
        before = standing(made.root)
        with pytest.raises(CacheError, match="something new stands at models--org--m"):
            put_back(made.root)
        assert standing(made.root) == before

    def test_what_came_again_is_no_obstacle(self, made: MadeCache, removed: Removed) -> None:
        made.commit("org/n", "c", {"w.bin": OTHER}, refs=("main",))
        put_back(made.root)
        assert (commits(made), faults(made.root)) == ({A, B, "c" * 40}, [])

    def test_the_last_removal_comes_first(self, made: MadeCache) -> None:
        before = standing(made.root)
        made.orphan("org/m", b"one")
        collect(made)
        made.orphan("org/m", b"two")
        collect(made)
        put_back(made.root)
        put_back(made.root)
        assert len(paths(standing(made.root))) == len(paths(before)) + 2

    def test_a_link_to_nothing_is_not_put_back(self, made: MadeCache) -> None:
        collect(made, days=31)
        for blob in (made.folder("org/m").path / "blobs").iterdir():
            blob.unlink()
        with pytest.raises(CacheError, match="is gone, and what was removed needs it"):
            put_back(made.root)

    def test_the_trash_is_kept_for_a_day(self, made: MadeCache, removed: Removed) -> None:
        collect(made, days=0.9)
        assert [each.name for each in bins(made.root)] == [removed.bin]

    def test_the_next_gc_after_a_day_empties_it(self, made: MadeCache, removed: Removed) -> None:
        collect(made, days=1.1)
        assert bins(made.root) == []

    def test_without_undo_it_is_emptied_at_once(self, made: MadeCache, removed: Removed) -> None:
        assert collect(made, undo=False).emptied > 0
        assert bins(made.root) == []

    def test_it_is_emptied_first_of_all_when_room_is_needed(self, made: MadeCache, removed: Removed) -> None:
        made.commit("org/n", "c", {"w.bin": OTHER}, refs=("main",))
        collect(made, max_size=len(OTHER) + 100)
        assert (bins(made.root), commits(made)) == ([], {"c" * 40})

    def test_a_bin_that_cannot_be_read_is_emptied_like_any_other(self, made: MadeCache, removed: Removed) -> None:
        (bins(made.root)[0].path / "manifest.json").write_text("{")
        with pytest.raises(NotFound):
            put_back(made.root)
        collect(made, days=2)
        assert bins(made.root) == []

    @pytest.mark.parametrize("unit", ["../../outside", "/etc/passwd", "models--a/../x", ""])
    def test_a_manifest_that_leads_out_of_the_cache_is_not_followed(
        self, made: MadeCache, removed: Removed, unit: str
    ) -> None:
        manifest = bins(made.root)[0].path / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"units": [unit]}))
        with pytest.raises(NotFound):
            put_back(made.root)


def test_two_removals_at_once_are_kept_apart(made: MadeCache, holding: Callable[[str, Path], int]) -> None:
    made.orphan("org/m", b"orphan")
    (made.root / ".locks").mkdir()
    holding("locked", made.root / ".locks" / "hubcache-gc.lock")
    with pytest.raises(CacheLocked):
        remove(made.root, plan_collection(made.root, Budget(), now=time.time()))


contents = st.sampled_from([b"one", b"two", b"three", b"four"])
made_commits = st.dictionaries(
    st.tuples(st.sampled_from(["org/m", "org/n"]), st.sampled_from("abc")),
    st.tuples(
        st.dictionaries(st.sampled_from(["x", "sub/y", "sub/deep/z"]), contents),
        st.sampled_from([(), ("main",), ("refs/pr/1", "v1")]),
        st.integers(0, 60),
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made_commits,
    st.sets(contents),
    st.builds(
        Budget,
        max_size=st.none() | st.integers(0, 30),
        unused_for=st.none() | st.integers(0, 60).map(lambda days: days * float(DAY)),
    ),
    st.booleans(),
)
def test_any_gc_leaves_a_whole_cache_twice_is_once_and_undo_is_exact(
    tmp_path_factory: pytest.TempPathFactory,
    found: dict[tuple[str, str], tuple[dict[str, bytes], tuple[str, ...], int]],
    orphans: set[bytes],
    budget: Budget,
    is_shared: bool,
) -> None:
    made = MadeCache(tmp_path_factory.mktemp("cache") / "hub")
    made.root.mkdir()
    for (name, commit), (files, refs, days) in found.items():
        folder = made.commit(name, commit, files, refs=refs)
        age(folder.path, days * DAY)
    for content in orphans:
        made.orphan("org/m", content)
    made.root.joinpath("models--org--m/snapshots").mkdir(parents=True, exist_ok=True)
    if is_shared and (made.folder("org/m").path / "blobs").is_dir():
        made.share("ab", b"one", "org/m")
    before = standing(made.root)
    assert faults(made.root) == []
    plan = plan_collection(made.root, budget, now=time.time() + 1)
    removed = remove(made.root, plan)
    after = standing(made.root)
    assert (faults(made.root), removed.skipped) == ([], ())
    again = plan_collection(made.root, Budget(unused_for=budget.unused_for), now=time.time() + 1)
    remove(made.root, again)
    assert paths(standing(made.root)) == paths(after)
    if removed.bin:
        put_back(made.root)
        assert standing(made.root) == before
        assert faults(made.root) == []


class TestCommand:
    """`hubcache gc` in a process of its own."""

    @pytest.fixture
    def hubcache(self, tmp_path: Path, made: MadeCache) -> CommandLine:
        made.orphan("org/m", b"x" * 5_000_000)
        return CommandLine(tmp_path)

    def test_it_explains_every_line_in_80_columns(self, hubcache: CommandLine) -> None:
        ran = hubcache("gc", "--dry-run")
        assert "goes    5.0 MB  org/m blob" in ran.out
        assert "orphan, no snapshot links to it" in ran.out
        assert ran.out.count("stays ") == 3
        assert max(map(len, ran.out.splitlines())) <= 80

    def test_a_dry_run_removes_nothing(self, hubcache: CommandLine) -> None:
        before = standing(hubcache.cache)
        assert hubcache("gc", "--dry-run", "--max-size", "0").code == 0
        assert standing(hubcache.cache) == before

    def test_without_a_terminal_it_does_not_remove_unasked(self, hubcache: CommandLine) -> None:
        before = standing(hubcache.cache)
        ran = hubcache("gc")
        assert (ran.code, "--yes" in ran.err) == (2, True)
        assert standing(hubcache.cache) == before

    @pytest.mark.parametrize(("answer", "remains"), [(b"n\n", True), (b"y\n", False)])
    def test_on_a_terminal_it_asks(self, hubcache: CommandLine, answer: bytes, remains: bool) -> None:
        terminal, other = os.openpty()
        command = [sys.executable, "-m", "hubcache_cli.main", "gc"]
        process = subprocess.Popen(
            command, stdin=other, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hubcache.environ
        )
        os.write(terminal, answer)
        _, err = process.communicate(timeout=60)
        os.close(terminal)
        os.close(other)
        assert b"It can be undone for a day." in err
        assert any(blob.stat().st_size == 5_000_000 for blob in hubcache.blobs("org/m")) is remains

    def test_undo_puts_back_and_says_so(self, hubcache: CommandLine) -> None:
        before = standing(hubcache.cache)
        assert "--undo puts it back" in hubcache("gc", "--yes").err
        ran = hubcache("gc", "--undo")
        assert (ran.code, "1 path, 5.0 MB put back" in ran.err) == (0, True)
        assert standing(hubcache.cache) == before

    def test_json_has_numbers(self, hubcache: CommandLine) -> None:
        facts = hubcache("gc", "--yes", "--json").facts
        assert (facts["freed"], facts["done"]["size"], facts["done"]["paths"]) == (5_000_000, 5_000_000, 1)

    def test_the_trash_is_told_as_used(self, hubcache: CommandLine) -> None:
        hubcache("gc", "--yes")
        assert "5.0 MB of it in the trash" in hubcache("gc", "--dry-run").err

    def test_what_it_did_is_in_the_history(self, hubcache: CommandLine) -> None:
        hubcache("gc", "--yes")
        hubcache("gc", "--undo")
        history = (hubcache.home / ".local/state/hubcache/history.jsonl").read_text().splitlines()
        assert [(json.loads(line)["what"], json.loads(line)["size"]) for line in history] == [
            ("gc", 5_000_000), ("undo", 5_000_000)
        ]  # fmt: skip

    def test_what_cannot_be_met_is_said(self, hubcache: CommandLine) -> None:
        hubcache("pin", "org/m")
        assert "too much all the same" in hubcache("gc", "--yes", "--max-size", "1kB").err

    @pytest.mark.parametrize("arguments", [("--max-size", "much"), ("--unused-for", "30"), ("--undo", "--no-undo")])
    def test_wrong_usage_is_told(self, hubcache: CommandLine, arguments: tuple[str, ...]) -> None:
        assert hubcache("gc", *arguments).code == 2

    def test_hf_lists_what_is_left_without_a_warning(self, hubcache: CommandLine) -> None:
        hubcache("gc", "--yes", "--unused-for", "0s")
        ran = subprocess.run(
            [str(Path(sys.executable).with_name("hf")), "cache", "ls", "--show-warnings"],
            env=hubcache.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (ran.returncode, "arning" in ran.stdout + ran.stderr) == (0, False), ran


COLLECTING = """
import sys, time
from pathlib import Path
from hubcache.app.collecting import plan_collection
from hubcache.app.progress import NoProgress
from hubcache.cache.collect import remove
from hubcache.core.gc import Budget
root = Path(sys.argv[1])
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    remove(root, plan_collection(root, Budget(unused_for=0.0), now=time.time()))
"""


def test_a_gc_beside_pulls_never_breaks_them(tmp_path: Path) -> None:
    cache, stop = tmp_path / "hub", tmp_path / "stop"
    with LoopHub() as hub:
        hub.add_repo("org/name", {f"{number}.bin": os.urandom(2000) for number in range(20)})
        folder = pull_into(cache, hub, "org/name")
        pin(folder, "main")
        process = subprocess.Popen([sys.executable, "-c", COLLECTING, cache, stop], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for number in range(10):
                before = folder.snapshot_path(folder.refs()["main"])
                hub.add_commit("org/name", {f"{number}.bin": os.urandom(2000)})
                pull_into(cache, hub, "org/name")
                age(before, DAY)
                assert unverified(folder.snapshot_path(folder.refs()["main"])) == []
            until(lambda: len(folder.commits()) == 1, "the old commits to go")
        finally:
            stop.touch()
            assert process.wait(30) == 0
    assert faults(cache) == []


def test_what_was_served_lately_counts_as_used(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    make_repo(command.cache, 0, 2)
    folder = next(path for path in command.cache.iterdir() if path.name.startswith("models--"))
    plan = plan_collection(command.cache, Budget(unused_for=30.0 * DAY), now=time.time() + 40 * DAY)
    assert plan.going
    served = {folder.name: time.time() + 39 * DAY}
    plan = plan_collection(command.cache, Budget(unused_for=30.0 * DAY), now=time.time() + 40 * DAY, served=served)
    assert not plan.going
