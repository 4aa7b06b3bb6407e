"""`hubcache doctor` finds what is wrong with a set-up, says what to do about it, and shows no token."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hubcache.app.machine import check_python
from tests.support.commandline import CommandLine
from tests.support.loophub import LoopHub
from tests.support.pulling import pull_into

TOKEN = "hf_" + "secretsecretsecret"
NAMES = [
    "python", "versions", "cache folder", "symlinks", "locks", "disk space", "repos", "unfinished files",
    "mirrors file", "HF_ENDPOINT", "offline mode", "token", "proxies", "Hub", "SparseZoo",
]  # fmt: skip


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}"})
        yield hub


@pytest.fixture
def hubcache(hub: LoopHub, tmp_path: Path) -> CommandLine:
    """The command on a machine where all is well."""
    return CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint, SPARSEZOO_API_URL=hub.endpoint)


def diagnose(hubcache: CommandLine, **environ: str) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in hubcache("doctor", "--json", **environ).facts}


def test_a_sound_set_up_passes_every_check(hubcache: CommandLine) -> None:
    found = diagnose(hubcache)
    assert list(found) == NAMES
    assert {name: check["message"] for name, check in found.items() if check["status"] != "ok"} == {}


def test_a_sound_set_up_ends_with_0(hubcache: CommandLine) -> None:
    told = hubcache("doctor")
    assert (told.code, told.err) == (0, "0 problems, 0 warnings\n")


def test_the_report_fits_80_columns(hubcache: CommandLine) -> None:
    ill = {"HF_HUB_CACHE": "/dev/null/hub", "HUBCACHE_MIRRORS": "/nowhere/mirrors.yaml", "HF_TOKEN": TOKEN}
    told = hubcache("doctor", HTTP_PROXY="http://proxy.example:3128", HF_ENDPOINT="http://127.0.0.1:9/", **ill)
    assert max(map(len, told.out.splitlines())) <= 80


def test_nothing_is_left_behind(hubcache: CommandLine) -> None:
    hubcache("doctor")
    assert not hubcache.cache.exists()


def test_the_cache_is_left_as_it_is(hub: LoopHub, hubcache: CommandLine) -> None:
    pull_into(hubcache.cache, hub, "org/name")
    before = sorted(hubcache.cache.rglob("*"))
    hubcache("doctor")
    assert sorted(hubcache.cache.rglob("*")) == before


def test_a_cache_that_cannot_be_written_is_a_problem(hubcache: CommandLine) -> None:
    hubcache.cache.write_text("")
    told = hubcache("doctor")
    assert (told.code, "problem  cache folder" in told.out) == (1, True)


def test_an_old_python_is_a_problem() -> None:
    assert check_python((3, 10)).status == "problem"


def test_damage_is_a_warning_whose_cure_is_verify(hub: LoopHub, hubcache: CommandLine) -> None:
    pull_into(hubcache.cache, hub, "org/name").ref_path("main").write_text("")
    check = diagnose(hubcache)["repos"]
    assert (check["status"], check["cure"]) == ("warning", "hubcache verify")


def test_unfinished_files_are_a_warning_with_their_size(hub: LoopHub, hubcache: CommandLine) -> None:
    folder = pull_into(hubcache.cache, hub, "org/name")
    (folder.path / "blobs" / f"{'0' * 64}.01234567.incomplete").write_bytes(os.urandom(2_000_000))
    check = diagnose(hubcache)["unfinished files"]
    assert (check["status"], check["cure"]) == ("warning", "hubcache pull org/name")
    assert check["message"].startswith("1, 2.0 MB,")


def test_a_mirrors_file_that_is_none_is_a_problem(hubcache: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mirrors.yaml").write_text("miror: []")
    found = diagnose(hubcache, HUBCACHE_MIRRORS=str(tmp_path / "mirrors.yaml"))
    assert (found["mirrors file"]["status"], found["Hub"]["status"]) == ("problem", "ok")


def test_a_slash_after_the_endpoint_is_a_warning(hub: LoopHub, hubcache: CommandLine) -> None:
    check = diagnose(hubcache, HF_ENDPOINT=hub.endpoint + "/")["HF_ENDPOINT"]
    assert (check["status"], check["cure"]) == ("warning", f"export HF_ENDPOINT={hub.endpoint}")


def test_links_switched_off_are_a_warning(hubcache: CommandLine) -> None:
    assert diagnose(hubcache, HF_HUB_DISABLE_SYMLINKS="1")["symlinks"]["status"] == "warning"


def test_offline_is_a_warning(hubcache: CommandLine) -> None:
    assert diagnose(hubcache, HF_HUB_OFFLINE="1")["offline mode"]["status"] == "warning"


def test_offline_nobody_is_asked(hub: LoopHub, hubcache: CommandLine) -> None:
    hub.clear()
    assert "not asked" in diagnose(hubcache, HF_HUB_OFFLINE="1")["Hub"]["message"]
    assert hub.requests == []


def test_online_each_server_is_asked_once(hub: LoopHub, hubcache: CommandLine) -> None:
    hub.clear()
    hubcache("doctor")
    assert sorted(request.path for request in hub.requests) == ["/", "/api/whoami-v2"]


def test_a_hub_that_does_not_answer_is_a_problem(hubcache: CommandLine) -> None:
    told = hubcache("doctor", "--json", HF_ENDPOINT="http://127.0.0.1:9")
    [check] = [check for check in told.facts if check["name"] == "Hub"]
    assert (told.code, check["status"], bool(check["cure"])) == (1, "problem", True)


def test_a_zoo_that_does_not_answer_is_a_warning(hubcache: CommandLine) -> None:
    assert diagnose(hubcache, SPARSEZOO_API_URL="http://127.0.0.1:9")["SparseZoo"]["status"] == "warning"


def test_a_hub_that_is_down_is_a_warning(tmp_path: Path) -> None:
    with LoopHub() as broken:
        broken.down = True
        hubcache = CommandLine(tmp_path, HF_ENDPOINT=broken.endpoint, SPARSEZOO_API_URL=broken.endpoint)
        assert diagnose(hubcache)["Hub"]["status"] == "warning"


def test_a_hub_that_never_answers_is_given_up_within_seconds(tmp_path: Path) -> None:
    with LoopHub() as slow:
        slow.delay = 60
        hubcache = CommandLine(tmp_path, HF_ENDPOINT=slow.endpoint, SPARSEZOO_API_URL=slow.endpoint)
        assert hubcache("doctor", timeout=12).code == 1


def test_a_token_that_the_hub_does_not_take_is_a_warning(tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.revoked.add(TOKEN)
        hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint, SPARSEZOO_API_URL=hub.endpoint, HF_TOKEN=TOKEN)
        assert "does not take your token" in diagnose(hubcache)["Hub"]["message"]


def test_the_token_is_told_by_its_origins(hub: LoopHub, hubcache: CommandLine) -> None:
    message = diagnose(hubcache, HF_TOKEN=TOKEN)["token"]["message"]
    assert message == f"from HF_TOKEN, sent to {hub.endpoint}, https://huggingface.co"


def test_a_mirror_that_gets_no_token_is_named(hubcache: CommandLine) -> None:
    environ = {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "https://mirror.example"}
    assert "https://mirror.example gets none" in diagnose(hubcache, **environ)["token"]["message"]


def test_a_token_from_the_file_is_told_so(hubcache: CommandLine) -> None:
    folder = hubcache.home / ".cache" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "token").write_text(TOKEN)
    assert diagnose(hubcache)["token"]["message"].startswith("from the token file")


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_a_token_is_never_shown(hubcache: CommandLine, options: list[str]) -> None:
    told = hubcache("doctor", *options, HF_TOKEN=TOKEN)
    assert "secret" not in told.out + told.err


@pytest.mark.parametrize("proxy", ["http://user:secret@proxy.example:3128", "user:secret@proxy.example:3128"])
def test_a_proxys_password_is_never_shown(hubcache: CommandLine, proxy: str) -> None:
    told = hubcache("doctor", HTTPS_PROXY=proxy, HF_HUB_OFFLINE="1")
    assert "proxy.example:3128" in told.out
    assert "secret" not in told.out + told.err


def test_a_proxy_before_a_mirror_on_this_machine_is_a_warning(hubcache: CommandLine) -> None:
    check = diagnose(hubcache, HTTP_PROXY="http://127.0.0.1:9")["proxies"]
    assert (check["status"], check["cure"]) == ("warning", "export NO_PROXY=127.0.0.1")


def test_a_proxy_that_spares_this_machine_is_none(hubcache: CommandLine) -> None:
    environ = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    assert diagnose(hubcache, **environ)["proxies"]["status"] == "ok"


def test_the_json_is_one_line(hubcache: CommandLine) -> None:
    assert isinstance(json.loads(hubcache("doctor", "--json").out.strip("\n")), list)
