"""`hubcache mirror ls`, `use`, `add` and `remove` as a person runs them: real processes, a home of the test's own."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hubcache.app.mirroring import list_mirrors, remove, use, wire
from hubcache.app.settings import Settings
from hubcache.errors import UsageError
from tests.support.commandline import CommandLine

TOKEN = "hf_" + "secretsecretsecret"


def row(name: str, url: str, more: str = ", trust: [bytes]") -> str:
    return f"- {{name: {name}, url: '{url}', hub: huggingface{more}}}\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "config/hubcache/mirrors.yaml"


@pytest.fixture
def hubcache(tmp_path: Path) -> CommandLine:
    """The command where nobody has chosen any mirror."""
    homes = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    return CommandLine(tmp_path, **homes)


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
    assert next(each.told_by for each in list_mirrors(wire(settings))) == "project"
    for change in (use, remove):
        with pytest.raises(UsageError, match="project"):
            change(settings, "shared")
    assert use(settings, "hf-mirror").first_told_by == "project"
