"""`hubcache mirror` as a person runs it: real processes, mirrors on loopback, a mirrors.yaml of the test's own."""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubcache.app.compose import compose
from hubcache.app.mirroring import list_mirrors, remove, use, wire
from hubcache.app.probing import PUBLIC
from hubcache.app.settings import Settings
from hubcache.errors import UsageError
from hubcache.mirrors.chosen import decide
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.health import Choice
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
    assert zone.ran.facts["bytes"]["name"] in {"trusted", "proxied", "rangeless"}


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


# -- the choice, without any network


def mirror(name: str, *trust: str, is_shipped: bool = False) -> Mirror:
    return Mirror(name, f"http://{name}", "huggingface", trust=trust or ("metadata", "bytes"), is_shipped=is_shipped)


def names_of(mirrors: list[Mirror], order: str) -> tuple[tuple[str, str], ...]:
    """Decide among mirrors in the order of their health; a name in capitals rests."""
    choices = [Choice(f"http://{name.lower()}", name.isupper(), "why") for name in order.split()]
    return tuple((chosen.mirror.name, chosen.why) if chosen else ("", "") for chosen in decide(mirrors, choices))


@pytest.mark.parametrize(
    ("order", "metadata", "content"),
    [
        ("a b c", ("a", "why; the first in your order"), ("a", "why; the first in your order")),
        ("b a c", ("a", "why; the first in your order"), ("b", "why; more than twice as fast as a")),
        ("b c A", ("a", "why; the first in your order"), ("b", "why; a rests")),
        ("c A B", ("a", "why; the first in your order"), ("c", "why; a rests; b rests")),
        ("A B C", ("a", "why; the first in your order"), ("a", "why; the first in your order")),
    ],
)
def test_the_choice_says_what_is_against_those_before(
    order: str, metadata: tuple[str, str], content: tuple[str, str]
) -> None:
    mirrors = [mirror("a"), mirror("b", "bytes"), mirror("c", "bytes", is_shipped=True)]
    assert names_of(mirrors, order) == (metadata, content)


def test_nobody_is_chosen_for_metadata_where_nobody_is_trusted() -> None:
    assert names_of([mirror("a", "bytes")], "a") == (("", ""), ("a", "why; the first in your order"))


def test_listings_are_not_asked_of_a_first_mirror_that_is_trusted_for_bytes(own: Path, tmp_path: Path) -> None:
    own.parent.mkdir(parents=True)
    own.write_text("mirrors:\n" + row("near", "https://near.example"))
    app = compose(Settings.from_environ({"HOME": str(tmp_path), "HUBCACHE_MIRRORS": str(own)}))
    assert app.mirrors_of("huggingface")[0].name == "near"
    assert app.endpoints()["huggingface"] == "https://huggingface.co"


# -- ls


def test_every_hubs_mirrors_are_listed_with_where_they_come_from(hubcache: CommandLine, own: Path) -> None:
    own.parent.mkdir(parents=True)
    own.write_text("mirrors:\n" + row("team", "https://team.example", ", token: TEAM, namespaces: [acme]"))
    environ = {"HF_ENDPOINT": "https://huggingface.co", "TEAM": TOKEN}
    ran = hubcache("mirror", "ls", "--json", **environ)
    told = {each["name"]: each["from"] for each in ran.facts}
    assert told == {
        "huggingface": "HF_ENDPOINT", "team": "user", "hf-mirror": "shipped", "aliendao": "shipped",
        "modelscope": "shipped", "sparsezoo": "shipped", "alicemind": "shipped",
    }  # fmt: skip
    assert TOKEN not in ran.out + hubcache("mirror", "ls", **environ).out


def test_the_list_stands_in_the_order_of_health_and_fits_80_columns(hubcache: CommandLine, tmp_path: Path) -> None:
    state = tmp_path / "state/hubcache/health.json"
    state.parent.mkdir(parents=True)
    resting = {"rests_until": time.time() + 500, "failures": 3, "reason": "answered 503 " * 12}
    known = {"https://huggingface.co": resting, "https://hf-mirror.com": {"latency": 0.25, "throughput": 3e6}}
    state.write_text(json.dumps({"format_version": 1, "mirrors": known}))
    lines = hubcache("mirror", "ls").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1::2][:2]] == ["hf-mirror", "aliendao"]
    assert lines[2].strip() == "answers in 250 ms, 3.0 MB/s a connection"
    assert any("rests for" in line and "answered 503" in line for line in lines)


# -- use, add, remove


def order(hubcache: CommandLine, **environ: str) -> list[str]:
    return [
        each["name"] for each in hubcache("mirror", "ls", "--json", **environ).facts if each["hub"] == "huggingface"
    ]


def test_the_mirror_in_use_is_first_and_keeps_its_trust(hubcache: CommandLine, own: Path) -> None:
    ran = hubcache("mirror", "use", "hf-mirror")
    assert (ran.code, ran.out) == (0, f"{own}\n")
    assert "its bytes are checked against the digests of a mirror that is trusted" in ran.err
    assert order(hubcache) == ["hf-mirror", "huggingface", "aliendao"]
    assert "trust: [bytes]" in own.read_text()


def test_trust_is_given_only_where_it_is_asked_for(hubcache: CommandLine, own: Path) -> None:
    hubcache("mirror", "use", "hf-mirror", "--trust", "metadata")
    [found] = [each for each in hubcache("mirror", "ls", "--json").facts if each["name"] == "hf-mirror"]
    assert (found["trust"], found["from"]) == (["metadata", "bytes"], "user")
    assert hubcache("mirror", "use", "hf-mirror", "--trust", "bytes", "--json").facts["mirror"]["trust"] == ["bytes"]


def test_a_mirror_is_added_used_and_removed_and_the_comments_stay(hubcache: CommandLine, own: Path) -> None:
    before = "# mine\nmirrors:\n  # ask Kim\n  - name: a\n    url: https://a.example\n    hub: huggingface\n"
    own.parent.mkdir(parents=True)
    own.write_text(before)
    own.chmod(0o600)
    assert hubcache("mirror", "add", "b", "https://b.example/", "--trust", "bytes").code == 0
    assert order(hubcache) == ["a", "b", "huggingface", "hf-mirror", "aliendao"]
    assert hubcache("mirror", "use", "b", "--json").facts["first"] == "b"
    assert order(hubcache)[:2] == ["b", "a"]
    assert hubcache("mirror", "remove", "b").code == 0
    assert (own.read_text(), own.stat().st_mode & 0o777) == (before, 0o600)


def test_every_option_of_add_is_in_the_entry(hubcache: CommandLine, own: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    options = {"--hub": "modelscope", "--token": "TEAM", "--connections": "4", "--rate": "2.5", "--trust": "bytes"}
    flat = [each for pair in options.items() for each in pair]
    ran = hubcache(
        "mirror", "add", "team", "https://team.example", *flat, "--namespace", "acme", "--namespace", "b-*",
        "--ca", tmp_path / "ca.pem",
    )  # fmt: skip
    assert "the variable of its token is not set" in ran.err
    assert own.read_text().partition("\n")[2] == (
        "mirrors:\n  - name: team\n    url: https://team.example\n    hub: modelscope\n    trust: [bytes]\n"
        f"    token: TEAM\n    connections: 4\n    rate: 2.5\n    namespaces: [acme, b-*]\n    ca: {tmp_path}/ca.pem\n"
    )
    assert hubcache("mirror", "ls", "--json").facts[3]["namespaces"] == ["acme", "b-*"]


def test_a_file_that_is_named_and_not_there_is_made(hubcache: CommandLine, tmp_path: Path) -> None:
    named = {"HUBCACHE_MIRRORS": str(tmp_path / "new/mine.yaml")}
    assert hubcache("mirror", "add", "a", "https://a.example", **named).out == named["HUBCACHE_MIRRORS"] + "\n"
    assert order(hubcache, **named)[0] == "a"


def test_a_link_to_the_file_stays_one(hubcache: CommandLine, own: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles.yaml").write_text("# kept elsewhere\n")
    own.parent.mkdir(parents=True)
    own.symlink_to(tmp_path / "dotfiles.yaml")
    assert hubcache("mirror", "use", "aliendao").code == 0
    assert own.is_symlink()
    assert (tmp_path / "dotfiles.yaml").read_text().startswith("# kept elsewhere\nmirrors:\n")


def test_who_comes_first_for_all_that_is_said(hubcache: CommandLine) -> None:
    ran = hubcache("mirror", "use", "aliendao", HF_ENDPOINT="https://hub.example.com")
    assert "the first mirror of huggingface is HF_ENDPOINT (from HF_ENDPOINT)" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["use", "hf-miror"], "did you mean hf-mirror?"),
        (["remove", "hf-mirror"], "came with hubcache and cannot be removed"),
        (["remove", "nobody"], "no mirror is called 'nobody'"),
        (["add", "hf-mirror", "https://a.example"], "there is a mirror hf-mirror already"),
        (["add", "a", "https://hf-mirror.com/"], "hubcache mirror use hf-mirror"),
        (["add", "a", "a.example"], "not an http or https URL"),
        (["add", "a", f"https://u:{TOKEN}@a.example"], "credentials do not belong in a URL"),
        (["add", "a", "https://a.example", "--token", TOKEN], "token is the NAME of an environment variable"),
        (["add", "a", "https://a.example", "--hub", "hugingface"], "did you mean 'huggingface'?"),
        (["add", "a", "https://a.example", "--connections", "65"], "connections is no number from 1 to 64"),
        (["add", "a", "https://a.example", "--rate", "0"], "rate is no number of MB/s"),
        (["add", "a", "https://a.example", "--ca", "/nowhere.pem"], "there is no file /nowhere.pem"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_written(
    hubcache: CommandLine, own: Path, arguments: list[str], said: str
) -> None:
    ran = hubcache("mirror", *arguments)
    assert (ran.code, said in ran.err, own.exists()) == (2, True, False), ran.err
    assert TOKEN not in ran.err + ran.out


def test_a_file_that_is_not_edited_safely_is_left_as_it_is(hubcache: CommandLine, own: Path) -> None:
    text = "mirrors: [{name: a, url: 'https://a.example', hub: huggingface}]  # mine"
    own.parent.mkdir(parents=True)
    own.write_text(text)
    ran = hubcache("mirror", "use", "hf-mirror")
    assert (ran.code, own.read_text()) == (2, text)
    assert "hint: by hand, add, as the first, {name: hf-mirror, url: " in ran.err


def test_the_projects_mirrors_are_the_projects(tmp_path: Path, own: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "mirrors.yaml").write_text("mirrors:\n" + row("shared", "https://shared.example"))
    settings = Settings.from_environ({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(own.parents[1])})
    settings = replace(settings, project_mirrors=project / "mirrors.yaml")
    assert [each.told_by for each in list_mirrors(wire(settings))][0] == "project"
    for change in (use, remove):
        with pytest.raises(UsageError, match="project"):
            change(settings, "shared")
    assert use(settings, "hf-mirror").first_told_by == "project"
