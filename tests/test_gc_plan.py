"""What a gc takes and leaves, decided from values alone; nothing here touches a disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.amounts import DAY, parse_size, parse_span, span_text
from hubcache.core.gc import Budget, plan_gc
from hubcache.core.inventory import HeldBlob, HeldCommit, HeldRepo, Inventory, Leftover, Payload, TrashBin
from hubcache.core.picking import Target, plan_removal
from hubcache.core.removal import Line, Plan
from hubcache.errors import CacheLocked, NotFound, UsageError

NOW = 1_000 * DAY
NOTHING = Budget()


def commit(name: str, *blobs: str, refs: tuple[str, ...] = ("main",), idle: float = 0.0, **more: object) -> HeldCommit:
    links = {f"{blob}.bin": blob for blob in blobs}
    return HeldCommit(name, refs, links, used=NOW - idle, **more)  # type: ignore[arg-type]


def repo(*commits: HeldCommit, blobs: str = "", folder: str = "models--org--m", **more: object) -> HeldRepo:
    """Make a repo; each letter of `blobs` is a blob of 100 bytes, written long ago."""
    held = tuple(HeldBlob(name, 100) for name in blobs)
    return HeldRepo(folder, "org/m", commits, held, **more)  # type: ignore[arg-type]


def planned(*repos: HeldRepo, budget: Budget = NOTHING, **more: object) -> Plan:
    return plan_gc(Inventory(repos, **more), budget, now=NOW)  # type: ignore[arg-type]


def names(plan: Plan) -> set[str]:
    return {line.name for line in plan.going}


def line(plan: Plan, name: str) -> Line:
    [found] = [each for each in plan.lines if each.name == name]
    return found


def test_an_orphan_goes() -> None:
    plan = planned(repo(commit("c", "a"), blobs="ao"))
    assert (names(plan), line(plan, "o").why) == ({"o"}, "orphan, no snapshot links to it")


def test_an_orphan_that_was_just_written_stays() -> None:
    held = repo(commit("c", "a"), blobs="a")
    fresh = replace(held, blobs=(*held.blobs, HeldBlob("o", 5, since=NOW - 60)))
    assert names(planned(fresh)) == set()


@pytest.mark.parametrize("more", [{"busy": "in use by process 7"}, {"is_known": False}])
def test_an_orphan_that_is_open_or_no_blob_stays(more: dict[str, object]) -> None:
    held = repo(commit("c", "a"), blobs="a")
    odd = replace(held, blobs=(*held.blobs, HeldBlob("o", 5, **more)))  # type: ignore[arg-type]
    assert names(planned(odd)) == set()


def test_a_detached_commit_goes_after_a_month_without_use() -> None:
    plan = planned(repo(commit("c", "a"), commit("old", "b", refs=(), idle=31 * DAY), blobs="ab"))
    assert (names(plan), plan.size) == ({"old"}, 100)


def test_a_detached_commit_in_use_stays() -> None:
    assert names(planned(repo(commit("old", "b", refs=(), idle=29 * DAY), blobs="b"))) == set()


def test_a_detached_commit_stays_where_the_disk_notes_no_use() -> None:
    held = repo(commit("c", "a"), commit("old", "b", refs=(), idle=99 * DAY), blobs="ab")
    assert names(planned(held, notes_use=False)) == set()


def test_a_blob_that_a_kept_commit_links_to_stays() -> None:
    plan = planned(repo(commit("c", "a"), commit("old", "a", "b", refs=(), idle=31 * DAY), blobs="ab"))
    assert plan.units()[-1] == "models--org--m/blobs/b"
    assert "models--org--m/blobs/a" not in plan.units()


def test_what_was_not_used_goes_with_its_refs() -> None:
    plan = planned(
        repo(commit("c", "a", refs=("main", "v1"), idle=31 * DAY), commit("d", "b", refs=("dev",)), blobs="ab"),
        budget=Budget(unused_for=30 * DAY),
    )
    assert plan.units() == [f"models--org--m/{path}" for path in ("refs/main", "refs/v1", "snapshots/c", "blobs/a")]


def test_a_repo_of_which_nothing_stays_goes_in_one_piece() -> None:
    plan = planned(repo(commit("c", "a", idle=31 * DAY), blobs="a"), budget=Budget(unused_for=30 * DAY))
    assert (plan.units(), plan.size) == (["models--org--m"], 100)


@pytest.mark.parametrize("pin", ["*", "main", "c"])
def test_a_pin_outweighs_any_budget(pin: str) -> None:
    held = repo(commit("c", "a", idle=99 * DAY), blobs="a", pins={pin: "pinned since ever"})
    plan = planned(held, budget=Budget(max_size=0, unused_for=DAY))
    assert (names(plan), line(plan, "c").why, plan.short) == (set(), "pinned since ever", 100)


def test_what_a_process_has_open_outweighs_any_budget() -> None:
    held = repo(commit("c", "a", idle=99 * DAY, busy="in use by process 7"), blobs="a")
    plan = planned(held, budget=Budget(max_size=0))
    assert line(plan, "c").why == "in use by process 7"


def test_a_repo_that_is_being_pulled_stays_whole() -> None:
    held = repo(commit("c", "a", idle=99 * DAY), blobs="ao", pulling="being pulled")
    assert names(planned(held, budget=Budget(max_size=0))) == set()


def test_the_least_recently_used_goes_first_and_no_more_than_it_takes() -> None:
    commits = [commit(name, name, refs=(name,), idle=idle * DAY) for name, idle in (("a", 1), ("b", 3), ("c", 2))]
    assert names(planned(repo(*commits, blobs="abc"), budget=Budget(max_size=250))) == {"b"}
    assert names(planned(repo(*commits, blobs="abc"), budget=Budget(max_size=150))) == {"b", "c"}


def test_free_space_is_made_as_well() -> None:
    commits = [commit(name, name, refs=(name,), idle=idle * DAY) for name, idle in (("a", 1), ("b", 3))]
    assert names(planned(repo(*commits, blobs="ab"), budget=Budget(min_free=1_050), free=1_000)) == {"b"}


def test_a_commit_whose_going_frees_nothing_stays() -> None:
    old, new = commit("old", "a", refs=("v1",), idle=9 * DAY), commit("new", "a", idle=8 * DAY, busy="open")
    other = repo(commit("x", "x", idle=DAY), blobs="x", folder="models--org--x")
    plan = planned(repo(old, new, blobs="a"), other, budget=Budget(max_size=100))
    assert names(plan) == {"x", ""}


def test_an_original_goes_before_what_it_was_converted_to() -> None:
    original = commit("0", "a", refs=("original",), idle=DAY)
    converted = commit("1", "b", idle=9 * DAY, original="0")
    plan = planned(repo(original, converted, blobs="ab"), budget=Budget(max_size=100))
    assert names(plan) == {"0"}


def test_the_trash_is_emptied_before_any_commit_goes() -> None:
    bins = (TrashBin("t", 100, NOW - 60),)
    plan = planned(repo(commit("c", "a"), blobs="a"), budget=Budget(max_size=100), bins=bins)
    assert (plan.bins, plan.going, plan.is_final) == (("t",), (), False)


def test_what_goes_for_its_room_goes_for_good() -> None:
    plan = planned(repo(commit("c", "a"), blobs="a"), budget=Budget(max_size=0))
    assert plan.is_final


def test_what_goes_without_need_can_be_undone() -> None:
    assert not planned(repo(commit("c", "a"), blobs="ao"), budget=Budget(max_size=500)).is_final


def test_trash_goes_after_a_day() -> None:
    bins = (TrashBin("old", 1, NOW - DAY), TrashBin("new", 1, NOW - DAY + 1))
    assert planned(bins=bins).bins == ("old",)


def test_without_undo_all_trash_goes() -> None:
    assert planned(bins=(TrashBin("new", 1, NOW),), budget=Budget(undo=False)).bins == ("new",)


@pytest.mark.parametrize(("idle", "goes"), [(DAY, True), (DAY - 1, False)])
def test_a_leftover_goes_after_a_day(idle: float, goes: bool) -> None:
    left = Leftover("partial", ("models--org--m/blobs/x.incomplete",), 7, NOW - idle)
    plan = planned(repo(commit("c", "a"), blobs="a", leftovers=(left,)))
    assert bool(plan.going) is goes


def test_quarantine_is_kept_until_its_room_is_needed() -> None:
    left = Leftover("quarantine", ("models--org--m/quarantine/x",), 50, NOW - 2 * DAY)
    held = repo(commit("c", "a"), blobs="a", leftovers=(left,))
    assert not planned(held).going
    assert [each.kind for each in planned(held, budget=Budget(max_size=100)).going] == ["quarantine"]


def test_a_record_of_what_a_kept_commit_misses_stays_whatever_the_budget() -> None:
    left = Leftover("quarantine", ("models--org--m/quarantine/x.json",), 50, NOW - 99 * DAY, frozenset(("c",)))
    held = repo(commit("c", "a"), blobs="a", leftovers=(left,), pins={"c": "pinned"})
    for budget in (Budget(), Budget(max_size=1), Budget(undo=False)):
        assert not planned(held, budget=budget).going


def test_a_record_of_what_a_commit_misses_goes_with_the_commit() -> None:
    left = Leftover("quarantine", ("models--org--m/quarantine/x.json",), 50, NOW - 31 * DAY, frozenset(("old",)))
    held = repo(commit("c", "a"), commit("old", refs=(), idle=31 * DAY), blobs="a", leftovers=(left,))
    assert names(planned(held)) == {"old", "quarantine/x.json"}


def test_a_payload_goes_with_its_last_user() -> None:
    shared = repo(commit("c", "a", idle=9 * DAY), commit("k", "k", refs=("k",)), blobs="k")
    shared = replace(shared, blobs=(*shared.blobs, HeldBlob("a", 0, stored="p")))
    payload = Payload("p", 1_000, frozenset(("models--org--m/blobs/a",)))
    assert planned(shared, payloads=(payload,), budget=Budget(unused_for=DAY)).size == 1_000


def test_a_payload_stays_while_another_repo_uses_it() -> None:
    shared = repo(commit("c", "a", idle=9 * DAY), commit("k", "k", refs=("k",)), blobs="k")
    shared = replace(shared, blobs=(*shared.blobs, HeldBlob("a", 0, stored="p")))
    payload = Payload("p", 1_000, frozenset(("models--org--m/blobs/a", "models--org--n/blobs/a")))
    assert planned(shared, payloads=(payload,), budget=Budget(unused_for=DAY)).size == 0


def test_a_payload_without_a_user_goes() -> None:
    assert planned(payloads=(Payload("ab12", 9),)).units() == ["blobs/ab/ab12"]


def test_an_empty_repo_goes_after_a_day() -> None:
    assert planned(repo(since=NOW - DAY)).units() == ["models--org--m"]
    assert planned(repo(since=NOW)).units() == []


def test_a_repo_with_strange_files_is_never_taken_whole() -> None:
    plan = planned(repo(commit("c", "a", idle=9 * DAY), blobs="a", is_foreign=True), budget=Budget(unused_for=DAY))
    assert "models--org--m" not in plan.units()


def test_every_line_says_why() -> None:
    plan = planned(repo(commit("c", "a"), commit("d", "b", refs=()), blobs="abo"), bins=(TrashBin("t", 1, NOW),))
    assert len(plan.lines) == 4
    assert all(each.why for each in plan.lines)


BLOBS = "abcdefgh"


@st.composite
def repos(draw: st.DrawFn) -> HeldRepo:
    """A repo of up to five commits over eight blobs, some pinned, open, or without a ref."""
    commits = []
    for number in range(draw(st.integers(0, 5))):
        commits.append(
            commit(
                f"{number}",
                *draw(st.sets(st.sampled_from(BLOBS))),
                refs=draw(st.sampled_from([(), (f"r{number}",)])),
                idle=draw(st.integers(0, 60)) * DAY,
                busy=draw(st.sampled_from(["", "", "open"])),
            )
        )
    pins = {name: "pinned" for name in draw(st.sets(st.sampled_from(["*", "0", "r1", "r2"]), max_size=2))}
    held = repo(*commits, pins=pins, pulling=draw(st.sampled_from(["", "", "", "pulled"])))
    stored = draw(st.sets(st.sampled_from(BLOBS), max_size=2))
    return replace(
        held,
        blobs=tuple(
            HeldBlob(name, 0 if name in stored else 100, stored="p" if name in stored else "") for name in BLOBS
        ),
    )


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    found = [
        replace(each, folder=f"models--o--{number}") for number, each in enumerate(draw(st.lists(repos(), max_size=3)))
    ]
    users = frozenset(each.path("blobs", blob.name) for each in found for blob in each.blobs if blob.stored)
    return Inventory(tuple(found), (Payload("p", 1_000, users),) if users else (), free=1_000)


budgets = st.builds(
    Budget,
    max_size=st.none() | st.integers(0, 3_000),
    min_free=st.none() | st.integers(0, 5_000),
    unused_for=st.none() | st.integers(0, 60).map(lambda days: days * DAY),
)


def kept_commits(held: HeldRepo, units: set[str]) -> list[HeldCommit]:
    if held.folder in units:
        return []
    return [each for each in held.commits if held.path("snapshots", each.name) not in units]


@given(inventories(), budgets)
def test_no_blob_goes_that_a_kept_commit_links_to(found: Inventory, budget: Budget) -> None:
    units = set(plan_gc(found, budget, now=NOW).units())
    for held in found.repos:
        needed = {held.path("blobs", blob) for each in kept_commits(held, units) for blob in each.blobs}
        assert not needed & units


@given(inventories(), budgets)
def test_no_ref_is_left_without_its_commit(found: Inventory, budget: Budget) -> None:
    units = set(plan_gc(found, budget, now=NOW).units())
    for held in found.repos:
        kept = kept_commits(held, units)
        gone = [each for each in held.commits if each not in kept and held.folder not in units]
        assert all(held.path("refs", ref) in units for each in gone for ref in each.refs)
        assert not any(held.path("refs", ref) in units for each in kept for ref in each.refs)


@given(inventories(), budgets)
def test_nothing_pinned_open_or_being_pulled_goes(found: Inventory, budget: Budget) -> None:
    units = set(plan_gc(found, budget, now=NOW).units())
    for held in found.repos:
        for each in held.commits:
            pinned = not {"*", each.name, *each.refs}.isdisjoint(held.pins)
            if pinned or each.busy or held.pulling:
                assert each in kept_commits(held, units)


@given(inventories(), budgets)
def test_what_is_left_fits_the_budget_or_the_plan_says_by_how_much_not(found: Inventory, budget: Budget) -> None:
    plan = plan_gc(found, budget, now=NOW)
    over = budget.shortage(plan.used - plan.size, plan.free + plan.size)
    assert plan.short == max(0, over)


@given(inventories(), budgets)
def test_refs_go_first_and_blobs_last(found: Inventory, budget: Budget) -> None:
    kinds = [unit.split("/")[1] for unit in plan_gc(found, budget, now=NOW).units() if "/" in unit]
    order = ["refs", "snapshots", "blobs"]
    assert kinds == sorted(kinds, key=order.index)


def removal(held: HeldRepo, *targets: Target) -> Plan:
    return plan_removal(Inventory((held,)), targets)


def test_a_named_commit_goes_with_its_refs_and_its_own_blobs() -> None:
    held = repo(commit("c", "a", "b"), commit("d", "b", refs=("dev",)), blobs="ab")
    assert removal(held, Target(held.folder, "c")).units() == [
        held.path("refs", "main"), held.path("snapshots", "c"), held.path("blobs", "a")
    ]  # fmt: skip


def test_a_ref_whose_commit_has_another_goes_alone() -> None:
    held = repo(commit("c", "a", refs=("main", "v1")), blobs="a")
    assert removal(held, Target(held.folder, ref="v1")).units() == [held.path("refs", "v1")]


def test_the_last_ref_takes_its_commit() -> None:
    held = repo(commit("c", "a", refs=("v1",)), commit("d", "b"), blobs="ab")
    assert held.path("snapshots", "c") in removal(held, Target(held.folder, ref="v1")).units()


def test_the_last_commit_takes_the_repo() -> None:
    held = repo(commit("c", "a"), blobs="a")
    assert removal(held, Target(held.folder, ref="main")).units() == [held.folder]


def test_a_file_takes_a_blob_that_nothing_else_links_to() -> None:
    held = repo(commit("c", "a", "b"), commit("d", "b", refs=("dev",)), blobs="ab")
    assert held.path("blobs", "a") in removal(held, Target(held.folder, "c", path="a.bin")).units()
    assert removal(held, Target(held.folder, "c", path="b.bin")).units() == [held.path("snapshots", "c", "b.bin")]


def test_a_file_that_is_not_there_is_an_answer() -> None:
    with pytest.raises(NotFound):
        removal(repo(commit("c", "a"), blobs="a"), Target("models--org--m", "c", path="x"))


@pytest.mark.parametrize(
    "target", [Target("models--org--m"), Target("models--org--m", "c"), Target("models--org--m", ref="main")]
)
@pytest.mark.parametrize("pin", ["*", "main", "c"])
def test_what_is_pinned_is_refused(target: Target, pin: str) -> None:
    held = repo(commit("c", "a"), commit("d", "b", refs=("dev",)), blobs="ab", pins={pin: "pinned since ever"})
    with pytest.raises(UsageError) as refused:
        removal(held, target)
    assert refused.value.hint.startswith("hubcache unpin org/m")


def test_what_is_open_is_refused() -> None:
    with pytest.raises(CacheLocked):
        removal(repo(commit("c", "a", busy="in use by process 7"), blobs="a"), Target("models--org--m"))


@pytest.mark.parametrize(
    ("text", "size"),
    [("500GB", 500 * 10**9), ("1.5kb", 1500), ("2GiB", 2 << 30), ("7", 7), ("7B", 7), ("1 TB", 10**12)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1iB", "1XB", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY), ("12h", 12 * 3600), ("2w", 14 * DAY), ("90s", 90)])
def test_spans_are_read(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "1x", "-1d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


def test_spans_are_told_in_their_largest_unit() -> None:
    assert [span_text(each) for each in (5, 60, 7200, DAY, 45 * DAY)] == [
        "less than a minute", "1 minute", "2 hours", "1 day", "45 days"
    ]  # fmt: skip
