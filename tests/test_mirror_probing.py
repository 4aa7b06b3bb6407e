"""`hubcache mirror test` measures what it says, asks whom it may, and says who would be chosen: mirrors on loopback."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubcache.app.probing import PUBLIC
from tests.support.commandline import CommandLine, Ran
from tests.support.faultproxy import Fault, FaultProxy
from tests.support.hubrepo import HubFile
from tests.support.loophub import LoopHub

REPO = PUBLIC["huggingface"]
WEIGHTS = random.Random(7).randbytes(400_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "large.bin": b"x" * 4_100_000}
TOKEN = "hf_" + "secretsecretsecret"


def hub_with(files: dict[str, bytes] = FILES) -> LoopHub:
    hub = LoopHub()
    hub.add_repo(REPO, files)
    hub.add_repo("acme/model", files)
    hub.add_repo("org/private", files, private=True, token=TOKEN)
    return hub


def lying_hub() -> LoopHub:
    """Make a hub that has the true commit, and lists another config.json in it."""
    hub = hub_with()
    repo = hub._repos["model", REPO]
    [(oid, commit)] = repo.commits.items()
    repo.commits[oid] = replace(commit, files=commit.files | {"config.json": HubFile.of("config.json", b"[]")})
    return hub


def row(name: str, url: str, more: str = ", trust: [bytes]") -> str:
    return f"- {{name: {name}, url: '{url}', hub: huggingface{more}}}\n"


def asked_for_files(hub: LoopHub) -> list[str]:
    return [request.path for request in hub.requests if request.path != "/robots.txt"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "config/hubcache/mirrors.yaml"


@pytest.fixture
def hubcache(tmp_path: Path) -> CommandLine:
    """The command where nobody has chosen any mirror."""
    homes = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    return CommandLine(tmp_path, **homes, HF_HUB_ETAG_TIMEOUT="1", HF_HUB_DOWNLOAD_TIMEOUT="1")


# -- test: each mirror with a fault of its own, measured once


class Zone:
    """Six mirrors of a hub, and what one `mirror test` said of them."""

    def __init__(self, folder: Path) -> None:
        self.hubs = {name: hub_with() for name in ("trusted", "proxied", "corrupt", "rangeless")}
        self.hubs["corrupt"].corrupt.add("model.safetensors")
        self.hubs["rangeless"].ignore_ranges = True
        self.hubs["liar"] = lying_hub()
        self.folder = folder
        self.file = folder / "mirrors.yaml"

    def run(self) -> None:
        with ExitStack() as stack:
            urls = {name: stack.enter_context(hub).endpoint for name, hub in self.hubs.items()}
            proxy = stack.enter_context(FaultProxy(int(urls["proxied"].rpartition(":")[2])))
            silent = stack.enter_context(FaultProxy(int(urls["trusted"].rpartition(":")[2])))
            proxy.fault, silent.fault = Fault(latency=0.15), Fault(stall_after=0)
            urls |= {"proxied": proxy.url, "silent": silent.url, "dead": "http://127.0.0.1:1"}
            rows = [row("trusted", urls.pop("trusted"), ""), *(row(name, url) for name, url in urls.items())]
            self.file.write_text("mirrors:\n" + "".join(rows))
            # Whatever came with hubcache is replaced by what is dead: no test asks the world.
            shipped = (row(name, "http://127.0.0.1:1") for name in ("huggingface", "hf-mirror", "aliendao"))
            self.file.write_text(self.file.read_text() + "".join(shipped))
            self.command = CommandLine(
                self.folder, HUBCACHE_MIRRORS=str(self.file), XDG_STATE_HOME=str(self.folder / "state"),
                HF_HUB_ETAG_TIMEOUT="1", HF_HUB_DOWNLOAD_TIMEOUT="1", HF_TOKEN=TOKEN,
            )  # fmt: skip
            names = ("trusted", "proxied", "corrupt", "rangeless", "liar", "silent", "dead")
            began = time.monotonic()
            self.ran = self.command("mirror", "test", *names, "--json")
            self.seconds = time.monotonic() - began
            self.listed = self.command("mirror", "ls", "--json").facts
            self.shown = self.command("mirror", "test", *names)
        self.found: dict[str, dict[str, Any]] = {each["name"]: each for each in self.ran.facts["mirrors"]}


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    zone = Zone(tmp_path_factory.mktemp("zone"))
    zone.run()
    return zone


def test_the_sample_is_the_largest_small_file_of_a_public_repo(zone: Zone) -> None:
    facts = zone.ran.facts
    assert (facts["sample"], facts["size"], facts["judge"]) == (f"{REPO}/model.safetensors", len(WEIGHTS), "trusted")


def test_who_answers_is_reachable_whatever_the_status(zone: Zone) -> None:
    assert {name: each["reachable"] for name, each in zone.found.items()} == {
        "trusted": True, "proxied": True, "corrupt": True, "rangeless": True, "liar": True,
        "silent": False, "dead": False,
    }  # fmt: skip


def test_latency_is_the_time_to_an_answer(zone: Zone) -> None:
    assert 0.15 <= zone.found["proxied"]["latency"] < 1
    assert zone.found["trusted"]["latency"] < 0.15


def test_a_mirror_that_knows_no_ranges_is_told_apart(zone: Zone) -> None:
    found = {name: zone.found[name]["ranges"] for name in ("trusted", "proxied", "rangeless", "dead")}
    assert found == {"trusted": True, "proxied": True, "rangeless": False, "dead": None}


def test_throughput_is_the_samples(zone: Zone) -> None:
    fact = zone.found["trusted"]
    assert fact["size"] == len(WEIGHTS)
    assert fact["throughput"] == pytest.approx(len(WEIGHTS) / fact["seconds"])


def test_wrong_bytes_are_found_and_the_mirror_is_named(zone: Zone) -> None:
    assert [name for name, each in zone.found.items() if each["bytes_agree"] is False] == ["corrupt"]
    assert zone.ran.code == 6
    assert "wrong bytes from corrupt" in zone.ran.err


def test_a_listing_that_is_not_the_trusted_one_is_found(zone: Zone) -> None:
    found = {name: each["listing_agrees"] for name, each in zone.found.items()}
    assert found == {
        "trusted": True, "proxied": True, "corrupt": True, "rangeless": True, "liar": False,
        "silent": None, "dead": None,
    }  # fmt: skip


def test_a_silent_mirror_holds_nobody_up_longer_than_its_time_out(zone: Zone) -> None:
    assert "timed out" in zone.found["silent"]["failure"].lower()
    assert zone.seconds < 10


def test_what_was_measured_is_remembered(zone: Zone) -> None:
    listed = {each["name"]: each for each in zone.listed if each["hub"] == "huggingface"}
    assert listed["proxied"]["latency"] == pytest.approx(zone.found["proxied"]["latency"])
    assert listed["trusted"]["throughput"] == pytest.approx(zone.found["trusted"]["throughput"])
    assert (listed["corrupt"]["is_resting"], listed["corrupt"]["failures"]) == (True, 1)
    assert "Connection refused" in listed["dead"]["reason"]


def test_the_choice_comes_with_its_reason(zone: Zone) -> None:
    chosen = zone.ran.facts["metadata"]
    assert chosen["name"] == "trusted"
    assert "answers in" in chosen["why"]
    assert zone.ran.facts["bytes"]["name"] not in {"corrupt", "silent", "dead"}


def test_no_token_is_sent(zone: Zone) -> None:
    requests = [request for hub in zone.hubs.values() for request in hub.requests]
    assert [request.path for request in requests if TOKEN in str(request.headers)] == []


def test_the_report_fits_80_columns_and_says_all_of_it(zone: Zone) -> None:
    lines = zone.shown.out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    for start in ("corrupt: sent wrong bytes", "dead: http://127.0.0.1:1", "sample: ", "commits and listings: trusted"):
        assert any(line.startswith(start) for line in lines), start


# -- test: who is asked for what


def measured(hubcache: CommandLine, own: Path, rows: str, *arguments: str, **environ: str) -> Ran:
    """Run `mirror test` where the shipped mirrors are out of the way."""
    own.parent.mkdir(parents=True, exist_ok=True)
    away = "".join(row(name, "http://127.0.0.1:1") for name in ("huggingface", "hf-mirror", "aliendao"))
    own.write_text("mirrors:\n" + rows + away)
    return hubcache("mirror", "test", *arguments, "--json", **environ)


def test_a_private_repos_file_is_asked_of_its_own_mirror_only(hubcache: CommandLine, own: Path) -> None:
    with hub_with() as team, hub_with() as other:
        rows = row("team", team.endpoint, ", token: TEAM") + row("other", other.endpoint)
        ran = measured(hubcache, own, rows, "team", "other", "--file", "org/private/model.safetensors", TEAM=TOKEN)
        found = {each["name"]: each for each in ran.facts["mirrors"]}
        assert (found["team"]["bytes_agree"], found["other"]["bytes_agree"]) == (True, None)
        assert asked_for_files(other) == []


def test_a_namespaces_file_is_asked_of_its_claimants_only(hubcache: CommandLine, own: Path) -> None:
    with hub_with() as team, hub_with() as other:
        rows = row("team", team.endpoint, ", namespaces: [acme]") + row("other", other.endpoint, "")
        ran = measured(hubcache, own, rows, "team", "other", "--file", "acme/model/config.json")
        assert (ran.facts["judge"], ran.facts["sample"]) == ("team", "acme/model/config.json")
        assert asked_for_files(other) == []


def test_a_mirror_of_some_namespaces_is_not_asked_for_the_public_sample(hubcache: CommandLine, own: Path) -> None:
    with hub_with() as team, hub_with() as other:
        rows = row("team", team.endpoint, ", namespaces: [acme]") + row("other", other.endpoint, "")
        found = {each["name"]: each for each in measured(hubcache, own, rows, "team", "other").facts["mirrors"]}
        assert (found["team"]["reachable"], found["team"]["ranges"]) == (True, None)
        assert asked_for_files(team) == []


def test_without_a_trusted_mirror_a_public_sample_is_held_against_ones_own_listing(
    hubcache: CommandLine, own: Path
) -> None:
    with hub_with() as other:
        ran = measured(hubcache, own, row("other", other.endpoint), "other")
        [found] = ran.facts["mirrors"]
    assert (ran.code, ran.facts["judge"], found["bytes_agree"]) == (0, None, True)
    assert found["remarks"] == ["held against its own listing"]


def test_without_a_trusted_mirror_a_named_file_is_told_to_nobody(hubcache: CommandLine, own: Path) -> None:
    with hub_with() as other:
        ran = measured(hubcache, own, row("other", other.endpoint), "other", "--file", "acme/model/config.json")
        assert (ran.code, asked_for_files(other)) == (0, [])


def test_a_file_that_does_not_exist_is_an_answer(hubcache: CommandLine, own: Path) -> None:
    with hub_with() as hub:
        ran = measured(hubcache, own, row("team", hub.endpoint, ""), "team", "--file", "acme/model/none.json")
    assert (ran.code, "has no file 'none.json'" in ran.err) == (4, True)


def test_a_hub_without_the_public_sample_asks_for_the_name_of_one(hubcache: CommandLine) -> None:
    with LoopHub() as hub:
        ran = hubcache("mirror", "test", "--json", HF_ENDPOINT=hub.endpoint)
    assert (ran.code, [each["name"] for each in ran.facts["mirrors"]]) == (0, ["HF_ENDPOINT"])
    assert "--file org/name/path" in ran.facts["remarks"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 2, "no mirror is called 'nobody'"),
        (["huggingfac"], 2, "did you mean huggingface?"),
        (["--hub", "nowhere"], 2, "no such hub: 'nowhere'"),
        (["modelscope", "sparsezoo"], 2, "mirrors of several hubs"),
        (["--file", "org/name"], 2, "not a repo's file"),
        (["sparsezoo", "--file", "org/name/x"], 2, "leave --file out"),
    ],
)
def test_a_wrong_question_is_refused_before_anything_is_asked(
    hubcache: CommandLine, arguments: list[str], code: int, said: str
) -> None:
    ran = hubcache("mirror", "test", *arguments, HTTPS_PROXY="http://127.0.0.1:1")
    assert (ran.code, said in ran.err) == (code, True), ran.err


def test_offline_nobody_is_asked(hubcache: CommandLine) -> None:
    ran = hubcache("mirror", "test", HF_HUB_OFFLINE="1")
    assert (ran.code, "unset HF_HUB_OFFLINE" in ran.err) == (5, True)
