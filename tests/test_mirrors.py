"""mirrors.yaml is read, overlaid and refused as told; whom the sources ask is tested with them."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from hubcache.core.ids import parse
from hubcache.errors import BadConfig
from hubcache.mirrors.config import Mirror, MirrorsConfig, load, shipped_path
from tests.support.commandline import CommandLine, run
from tests.support.loophub import LoopHub
from tests.support.objectstore import ObjectStore

ROOT = Path(__file__).resolve().parents[1]
TEAM = "mirrors: [{name: team, url: 'https://hub.example.com/', hub: huggingface, token: TEAM}]"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mirrors.yaml"


def loaded(file: Path, text: str) -> MirrorsConfig:
    file.write_text(text, encoding="utf-8")
    return load([file])


# -- the shipped file


def test_the_shipped_file_trusts_the_hubs_themselves_and_no_mirror() -> None:
    found = load([])
    assert {mirror.url: mirror.is_fallback for mirror in found.of("huggingface")} == {
        "https://huggingface.co": False,
        "https://hf-mirror.com": True,
        "https://aliendao.cn": True,
    }
    assert [mirror.url for mirror in found.of("sparsezoo")] == ["https://api.neuralmagic.com"]


@pytest.mark.parametrize("name", sorted(load([]).catalogue))
def test_every_shipped_catalogue_entry_is_a_reference(name: str) -> None:
    assert parse(load([]).catalogue[name]).scheme in {"hf", "http", "zoo"}


def test_the_wheel_is_told_to_carry_the_file_to_where_it_is_looked_for() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    [(source, target)] = wheel["force-include"].items()
    assert (ROOT / source).samefile(shipped_path())
    assert target == "hubcache/mirrors/mirrors.yaml"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed: no wheel can be built offline")
def test_the_wheel_carries_the_file_and_the_type_marker(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    ran = run("/bin/sh", "-c", 'cd "$0" && exec "$@"', str(ROOT), *command, timeout=120)
    assert ran.code == 0, ran.err
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {"hubcache/mirrors/mirrors.yaml", "hubcache/py.typed", "hubcache_cli/main.py"} <= set(wheel.namelist())


# -- the overlay


def test_a_new_mirror_comes_before_the_shipped_ones(file: Path) -> None:
    names = [mirror.name for mirror in loaded(file, TEAM).of("huggingface")]
    assert names == ["team", "huggingface", "hf-mirror", "aliendao"]


def test_a_mirrors_url_loses_its_slash_and_keeps_its_token(file: Path) -> None:
    assert loaded(file, TEAM).mirrors[0] == Mirror("team", "https://hub.example.com", "huggingface", "TEAM")


def test_a_mirror_of_the_same_name_takes_the_others_place(file: Path) -> None:
    found = loaded(file, "mirrors: [{name: huggingface, url: 'https://hub.example.com', hub: huggingface}]")
    assert found.of("huggingface")[0].url == "https://hub.example.com"
    assert "https://huggingface.co" not in [mirror.url for mirror in found.mirrors]


def test_a_mirror_that_replaces_one_comes_with_its_file(file: Path) -> None:
    found = loaded(file, "mirrors: [{name: hf-mirror, url: 'https://hf-mirror.com', hub: huggingface}]")
    assert [mirror.name for mirror in found.of("huggingface")] == ["hf-mirror", "huggingface", "aliendao"]


def test_a_files_mirrors_keep_their_order(file: Path) -> None:
    rows = [f"{{name: {name}, url: 'https://{name}.example', hub: huggingface}}" for name in ("b", "aliendao", "a")]
    names = [mirror.name for mirror in loaded(file, f"mirrors: [{', '.join(rows)}]").of("huggingface")]
    assert names == ["b", "aliendao", "a", "huggingface", "hf-mirror"]


def test_a_catalogue_entry_replaces_the_one_of_its_name_and_leaves_the_rest(file: Path) -> None:
    found = loaded(file, "catalogue: {palm.ch.base: org/palm, mine: org/mine}")
    assert (found.catalogue["palm.ch.base"], found.catalogue["mine"]) == ("org/palm", "org/mine")
    assert set(found.catalogue) == {*load([]).catalogue, "mine"}


def test_the_last_file_has_the_last_word(tmp_path: Path) -> None:
    files = [tmp_path / "1.yaml", tmp_path / "2.yaml"]
    for number, path in enumerate(files):
        path.write_text(f"catalogue: {{x: org/x{number}}}")
    assert load(files).catalogue["x"] == "org/x1"


@pytest.mark.parametrize("text", ["", "# nothing\n", "mirrors:\ncatalogue:\n", "{}", "mirrors: []"])
def test_a_file_that_says_nothing_changes_nothing(file: Path, text: str) -> None:
    assert loaded(file, text) == load([])


def test_a_project_that_only_repeats_has_chosen_nothing(file: Path, tmp_path: Path) -> None:
    file.write_text("mirrors:\n- {name: hf-mirror, url: 'https://near.example', hub: huggingface}\n")
    project = tmp_path / "project.yaml"
    project.write_bytes(shipped_path().read_bytes())
    assert load([file], project=project) == load([file])


def test_the_users_own_entry_is_a_choice_even_if_it_only_repeats(file: Path) -> None:
    text = "mirrors: [{name: hf-mirror, url: 'https://hf-mirror.com', hub: huggingface, trust: [bytes]}]"
    [first, *_] = loaded(file, text).of("huggingface")
    assert (first.name, first.is_fallback) == ("hf-mirror", False)


# -- errors


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("mirors: []", "unknown key 'mirors'", "did you mean 'mirrors'?"),
        ("catalog: {}", "unknown key 'catalog'", "did you mean 'catalogue'?"),
        ("xyz: 1", "unknown key 'xyz'", "known: mirrors, catalogue"),
        ("mirrors: [{nmae: a}]", "unknown key 'nmae'", "did you mean 'name'?"),
        ("mirrors: [{name: a, url: 'https://a', hub: hugingface}]", "no such hub: 'hugingface'", "huggingface"),
        ("mirrors: [{name: a, hub: huggingface}]", "has no url", ""),
        ("mirrors: [{name: a, url: 7, hub: huggingface}]", "has no url", ""),
        ("mirrors: [{name: a, url: 'a.example', hub: huggingface}]", "not an http or https URL", ""),
        ("mirrors: [{name: a, url: 'https://', hub: huggingface}]", "not a host", ""),
        ("mirrors: [{name: a, url: 'https://a:x', hub: huggingface}]", "not a host", ""),
        ("mirrors: [{name: a, url: 'https://u:pw@a', hub: huggingface}]", "credentials", ""),
        ("mirrors: [{name: a, url: 'https://a', hub: huggingface, token: [T]}]", "token", ""),
        ("mirrors: [{name: a, url: 'https://a', hub: huggingface, token: hf_secret-1}]", "token", ""),
        ("mirrors: {a: b}", "mirrors is no list", ""),
        ("mirrors: [a]", "a mirror is no mapping", ""),
        ("catalogue: [a]", "catalogue is no mapping", ""),
        ("catalogue: {a: 1}", "catalogue is no mapping", ""),
        ("- a", "the file is no mapping", ""),
        ("a: [", "not YAML", ""),
        ("!!python/object/apply:os.system ['true']", "not YAML", ""),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_what_may_have_been_meant(
    file: Path, text: str, said: str, hint: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        loaded(file, text)
    assert str(file) in caught.value.message
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_token_written_where_its_variable_belongs_is_not_shown(file: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        loaded(file, "mirrors: [{name: a, url: 'https://a', hub: huggingface, token: 'hf_secret-1'}]")
    assert "hf_secret" not in caught.value.message + caught.value.hint


def test_credentials_in_a_url_are_not_shown(file: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        loaded(file, "mirrors: [{name: a, url: 'https://u:hunter2@a', hub: huggingface}]")
    assert "hunter2" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None], ids=["no text", "no file"])
def test_a_file_that_cannot_be_read_is_named(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadConfig, match=r"mirrors\.yaml"):
        load([file])


# -- through the command line


def test_hubcache_mirrors_names_the_file_that_is_read(file: Path, tmp_path: Path) -> None:
    with ObjectStore({"model.bin": b"weights"}) as store:
        file.write_text(f"catalogue: {{mine: '{store.url('model.bin')}'}}")
        assert CommandLine(tmp_path, HUBCACHE_MIRRORS=str(file))("pull", "mine").code == 0


def test_the_users_own_file_is_read_unasked(tmp_path: Path) -> None:
    hubcache = CommandLine(tmp_path)
    own = hubcache.home / ".config/hubcache/mirrors.yaml"
    own.parent.mkdir(parents=True)
    with ObjectStore({"model.bin": b"weights"}) as store:
        own.write_text(f"catalogue: {{mine: '{store.url('model.bin')}'}}")
        assert hubcache("pull", "mine").code == 0


def test_a_wrong_file_ends_the_command_with_a_usage_error(file: Path, tmp_path: Path) -> None:
    file.write_text("mirors: []")
    ran = CommandLine(tmp_path, HUBCACHE_MIRRORS=str(file))("pull", "org/name")
    assert (ran.code, str(file) in ran.err, "did you mean 'mirrors'?" in ran.err) == (2, True, True)


def test_a_name_close_to_the_catalogues_is_hinted_at(tmp_path: Path) -> None:
    with LoopHub() as hub:
        ran = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint)("pull", "palm.ch.bas")
    assert (ran.code, "did you mean the catalogue's palm.ch.base?" in ran.err) == (4, True)


def test_a_mirror_gets_the_token_that_its_entry_names(file: Path, tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.add_repo("org/closed", {"config.json": b"{}"}, token="team_secret", private=True)
        file.write_text(f"mirrors: [{{name: team, url: '{hub.endpoint}', hub: huggingface, token: TEAM}}]")
        variables = {"HF_ENDPOINT": hub.endpoint, "HUBCACHE_MIRRORS": str(file), "TEAM": "team_secret\n"}
        assert CommandLine(tmp_path, **variables)("pull", "org/closed").code == 0


def test_a_page_of_a_mirror_is_read_as_the_hubs(file: Path, tmp_path: Path) -> None:
    file.write_text(TEAM)
    with LoopHub() as hub:
        hub.add_repo("org/model", {"config.json": b"{}"})
        hubcache = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint, HUBCACHE_MIRRORS=str(file))
        assert hubcache("pull", "https://hub.example.com/org/model/tree/main", "--json").facts["repo"] == "org/model"
