"""The environment means to hubcache what it means to huggingface_hub; which parts use the settings is not told here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hubcache.app.settings import HUGGINGFACE, SPARSEZOO, VARIABLES, Settings
from hubcache.errors import BadConfig

# huggingface_hub itself: its constants are read anew for each environment, as an import in a fresh process would.
ORACLE = """
import importlib, json, os, sys
from huggingface_hub import constants
from huggingface_hub.utils import _auth
names = ("HF_HUB_CACHE", "HF_TOKEN_PATH", "ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_SYMLINKS",
         "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_ETAG_TIMEOUT",
         "HF_HUB_DOWNLOAD_TIMEOUT")
for line in sys.stdin:
    os.environ.clear()
    os.environ.update(json.loads(line))
    try:
        importlib.reload(constants)
        told = {name: getattr(constants, name) for name in names} | {"token": _auth.get_token()}
    except Exception as error:
        told = {"error": type(error).__name__}
    print(json.dumps(told), flush=True)
"""
HOME = "/home/some one"
TRUE_SPELLINGS = ("1", "on", "ON", "yes", "Yes", "true", "TRUE")
FALSE_SPELLINGS = ("", "0", "off", "no", "false", "2", "y", " 1", "enabled")

Ask = Callable[[Mapping[str, str]], dict[str, Any]]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Ask]:
    quiet = {"PATH": os.environ["PATH"], "HF_HUB_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", ORACLE], env=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asking, answers = process.stdin, process.stdout
        assert asking is not None
        assert answers is not None

        def ask(environ: Mapping[str, str]) -> dict[str, Any]:
            asking.write(json.dumps(dict(environ)) + "\n")
            asking.flush()
            told: dict[str, Any] = json.loads(answers.readline())
            return told

        yield ask
        asking.close()


def agree(ask: Ask, environ: Mapping[str, str]) -> None:
    """Claim that hubcache reads this environment as huggingface_hub does."""
    theirs, ours = ask(environ), Settings.from_environ(environ)
    assert {
        "HF_HUB_CACHE": os.path.normpath(theirs["HF_HUB_CACHE"]),
        "ENDPOINT": theirs["ENDPOINT"],
        "HF_HUB_OFFLINE": theirs["HF_HUB_OFFLINE"],
        "HF_HUB_DISABLE_SYMLINKS": theirs["HF_HUB_DISABLE_SYMLINKS"],
        "HF_HUB_DISABLE_PROGRESS_BARS": bool(theirs["HF_HUB_DISABLE_PROGRESS_BARS"]),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": theirs["HF_HUB_DISABLE_IMPLICIT_TOKEN"],
        "HF_HUB_ETAG_TIMEOUT": theirs["HF_HUB_ETAG_TIMEOUT"],
        "HF_HUB_DOWNLOAD_TIMEOUT": theirs["HF_HUB_DOWNLOAD_TIMEOUT"],
        "token": theirs["token"],
    } == {
        "HF_HUB_CACHE": os.path.normpath(ours.hub_cache),
        "ENDPOINT": ours.endpoint,
        "HF_HUB_OFFLINE": ours.offline,
        "HF_HUB_DISABLE_SYMLINKS": ours.symlinks is False,
        "HF_HUB_DISABLE_PROGRESS_BARS": not ours.progress_bars,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": not ours.implicit_token,
        "HF_HUB_ETAG_TIMEOUT": ours.connect_timeout,
        "HF_HUB_DOWNLOAD_TIMEOUT": ours.read_timeout,
        "token": ours.token,
    }


CACHES = {
    "nothing is set": {},
    "HF_HOME": {"HF_HOME": "/srv/hf"},
    "HF_HOME with a tilde": {"HF_HOME": "~/hf"},
    "HF_HOME with a variable": {"HF_HOME": "$BASE/hf", "BASE": "/srv"},
    "HF_HOME with a variable in braces": {"HF_HOME": "${BASE}/x${BASE}", "BASE": "/srv"},
    "a variable inside a segment": {"HF_HOME": "/srv/a$NAME-b", "NAME": "x"},
    "a variable that is not set": {"HF_HOME": "/srv/$NOBODY/${NOBODY}"},
    "a variable whose value names another": {"HF_HOME": "$ONE", "ONE": "/srv/$TWO", "TWO": "two"},
    "a variable whose value is a tilde": {"HF_HOME": "$ONE/x", "ONE": "~"},
    "HOME names a variable": {"HOME": "/home/$USER", "USER": "u"},
    "HOME is the root": {"HOME": "/"},
    "HOME is empty": {"HOME": ""},
    "HOME ends with slashes": {"HOME": "/home/u//", "HF_HOME": "~/x"},
    "braces that do not close": {"HF_HOME": "/srv/${BASE", "BASE": "b"},
    "braces in braces": {"HF_HOME": "/srv/${{BASE}}", "BASE": "b", "{BASE": "c"},
    "no name in the braces": {"HF_HOME": "/srv/${}$"},
    "HF_HOME is empty": {"HF_HOME": ""},
    "XDG_CACHE_HOME": {"XDG_CACHE_HOME": "/var/cache"},
    "XDG_CACHE_HOME with a tilde": {"XDG_CACHE_HOME": "~/.c"},
    "XDG_CACHE_HOME is empty": {"XDG_CACHE_HOME": ""},
    "HF_HOME over XDG_CACHE_HOME": {"XDG_CACHE_HOME": "/var/cache", "HF_HOME": "/srv/hf"},
    "HF_HUB_CACHE": {"HF_HUB_CACHE": "/srv/cache", "HF_HOME": "/srv/hf"},
    "HF_HUB_CACHE with a tilde and a variable": {"HF_HUB_CACHE": "~/$TEAM/hub", "TEAM": "nlp"},
    "HF_HUB_CACHE is empty": {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "/srv/old"},
    "HUGGINGFACE_HUB_CACHE": {"HUGGINGFACE_HUB_CACHE": "/srv/old"},
    "HF_HUB_CACHE over HUGGINGFACE_HUB_CACHE": {"HUGGINGFACE_HUB_CACHE": "/srv/old", "HF_HUB_CACHE": "/srv/new"},
    "a tilde with a name": {"HF_HOME": "~root/hf"},
    "a tilde with a name that nobody has": {"HF_HOME": "~nobody-at-all/hf"},
    "a tilde in the middle": {"HF_HOME": "/srv/~/hf"},
    "no ASCII": {"HF_HOME": "/srv/модели/$ИМЯ", "ИМЯ": "x"},
}


@pytest.mark.parametrize("environ", CACHES.values(), ids=CACHES)
def test_the_cache_stands_where_huggingface_hub_looks(oracle: Ask, environ: dict[str, str]) -> None:
    agree(oracle, {"HOME": HOME} | environ)


def test_without_a_home_in_the_environment_the_cache_stands_where_huggingface_hub_looks(
    oracle: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    agree(oracle, {})


ENDPOINTS = ("https://hub.example.com", "https://hub.example.com/", "http://127.0.0.1:8080///", "https://h/prefix/")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_loses_its_slashes_at_the_end(oracle: Ask, endpoint: str) -> None:
    agree(oracle, {"HOME": HOME, "HF_ENDPOINT": endpoint})


TOKENS = {
    "plain": {"HF_TOKEN": "hf_a"},
    "with line ends": {"HF_TOKEN": "\r\n hf_\na\r\n"},
    "empty": {"HF_TOKEN": ""},
    "blank": {"HF_TOKEN": " \n"},
    "the older name": {"HUGGING_FACE_HUB_TOKEN": "hf_b\n"},
    "both names": {"HF_TOKEN": "hf_a", "HUGGING_FACE_HUB_TOKEN": "hf_b"},
    "the older name where the new one is empty": {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "hf_b"},
    "the older name where the new one is blank": {"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": "hf_b"},
}


@pytest.mark.parametrize("environ", TOKENS.values(), ids=TOKENS)
def test_a_token_in_the_environment_is_read_alike(oracle: Ask, environ: dict[str, str]) -> None:
    agree(oracle, {"HOME": HOME} | environ)


FILES = {
    "in HF_HOME": ("hf/token", {"HF_HOME": "{}/hf"}),
    "in the default home": (".cache/huggingface/token", {"HOME": "{}"}),
    "at HF_TOKEN_PATH": ("secrets/t", {"HF_TOKEN_PATH": "{}/secrets/t"}),
    "at HF_TOKEN_PATH with a tilde and a variable": ("s/t", {"HF_TOKEN_PATH": "~/$S/t", "HOME": "{}", "S": "s"}),
    "behind one in the environment": ("hf/token", {"HF_HOME": "{}/hf", "HF_TOKEN": "hf_env"}),
    "behind an empty one": ("hf/token", {"HF_HOME": "{}/hf", "HF_TOKEN": "\n"}),
    "elsewhere than HF_TOKEN_PATH": ("hf/token", {"HF_HOME": "{}/hf", "HF_TOKEN_PATH": "{}/none"}),
}


@pytest.mark.parametrize(("place", "environ"), FILES.values(), ids=FILES)
def test_a_token_in_a_file_is_read_alike(oracle: Ask, tmp_path: Path, place: str, environ: dict[str, str]) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(" hf_file\n")
    agree(oracle, {"HOME": HOME} | {name: value.format(tmp_path) for name, value in environ.items()})


def test_a_token_in_the_environment_is_told_from_one_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_file")
    found = [Settings.from_environ({"HF_HOME": str(tmp_path)} | more) for more in ({}, {"HF_TOKEN": "hf_env"})]
    assert [each.token_is_from_environment for each in found] == [False, True]


@pytest.mark.parametrize("content", [b"\xff\xfe", b""], ids=["no text", "empty"])
def test_a_token_file_without_a_token_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    assert Settings.from_environ({"HF_HOME": str(tmp_path)}).token is None


OFFLINE = [
    {name: value for name, value in zip(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), pair, strict=True) if value != "-"}
    for pair in (("1", "-"), ("-", "1"), ("0", "1"), ("1", "0"), ("", "1"), ("no", "yes"), ("-", "-"), (" ", "1"))
]


@pytest.mark.parametrize("environ", OFFLINE, ids=str)
def test_the_first_offline_switch_that_says_anything_decides(oracle: Ask, environ: dict[str, str]) -> None:
    agree(oracle, {"HOME": HOME} | environ)


@pytest.mark.parametrize("value", TRUE_SPELLINGS + FALSE_SPELLINGS)
def test_switches_are_on_in_the_same_spellings(oracle: Ask, value: str) -> None:
    names = ("OFFLINE", "DISABLE_SYMLINKS", "DISABLE_PROGRESS_BARS", "DISABLE_IMPLICIT_TOKEN")
    agree(oracle, {"HOME": HOME} | {f"HF_HUB_{name}": value for name in names})


@pytest.mark.parametrize("value", ["1", "30", " 5 ", "0", "007"])
def test_timeouts_are_read_alike(oracle: Ask, value: str) -> None:
    agree(oracle, {"HOME": HOME, "HF_HUB_ETAG_TIMEOUT": value, "HF_HUB_DOWNLOAD_TIMEOUT": f"{value}"})


@pytest.mark.parametrize("value", ["ten", "2.5", "1s", "٣٣x"])
def test_a_timeout_that_huggingface_hub_chokes_on_is_named(oracle: Ask, value: str) -> None:
    environ = {"HOME": HOME, "HF_HUB_ETAG_TIMEOUT": value}
    assert oracle(environ) == {"error": "ValueError"}
    with pytest.raises(BadConfig, match="HF_HUB_ETAG_TIMEOUT is no number of seconds"):
        Settings.from_environ(environ)


def test_a_negative_timeout_is_named() -> None:
    with pytest.raises(BadConfig, match="HF_HUB_DOWNLOAD_TIMEOUT"):
        Settings.from_environ({"HF_HUB_DOWNLOAD_TIMEOUT": "-1"})


# Surrogates and NUL cannot be in an environment; "=" cannot be in a name.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
PATH_TEXT = st.lists(
    st.sampled_from(["~", "/", "$", "{", "}", "$A", "${A}", "$B", "a", "B", "é", " ", "."]), max_size=8
)
PLACES = ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HOME", "A", "B")
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_SYMLINKS", "HF_HUB_DISABLE_IMPLICIT_TOKEN")
ENVIRONMENTS = st.builds(
    lambda *parts: {"HOME": HOME} | {name: value for part in parts for name, value in part.items()},
    st.dictionaries(st.sampled_from(PLACES), PATH_TEXT.map("".join)),
    st.dictionaries(st.sampled_from(SWITCHES), st.sampled_from(TRUE_SPELLINGS + FALSE_SPELLINGS) | TEXT),
    st.dictionaries(st.sampled_from(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")), TEXT),
)


@settings(max_examples=300, deadline=None)
@given(environ=ENVIRONMENTS)
def test_any_environment_is_read_alike(oracle: Ask, environ: dict[str, str]) -> None:
    # A folder as token file: huggingface_hub fails, and we find no token in it.
    assume("error" not in oracle(environ))
    agree(oracle, environ)


PROXIES = [
    {"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:1"},
    {"HTTPS_PROXY": "http://q:1", "no_proxy": "a,b"},
    {"https_proxy": "", "HTTPS_PROXY": "http://q:1"},
    {"HTTP_PROXY": "http://q:1", "HTTPS_PROXY": "http://q:1", "REQUEST_METHOD": "GET"},
    {"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"},
    {"all_proxy": "http://p:1", "NO_PROXY": "*"},
]


@pytest.mark.parametrize("environ", PROXIES, ids=str)
def test_proxies_are_read_as_the_standard_library_reads_them(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environ(environ).proxies == urllib.request.getproxies_environment()


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "SPARSEZOO_API_URL"])
@pytest.mark.parametrize("value", ["localhost:8080", "ftp://host", "/path", "file:///etc"])
def test_an_endpoint_that_is_no_web_address_is_named(name: str, value: str) -> None:
    with pytest.raises(BadConfig, match=f"{name} is no http or https URL"):
        Settings.from_environ({name: value})


def test_an_empty_endpoint_is_the_default() -> None:
    found = Settings.from_environ({"HF_ENDPOINT": "", "SPARSEZOO_API_URL": ""})
    assert (found.endpoint, found.zoo_api) == (HUGGINGFACE, SPARSEZOO)


def test_the_users_mirrors_file_is_found_where_it_stands_by_default(tmp_path: Path) -> None:
    file = tmp_path / ".config/hubcache/mirrors.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    assert Settings.from_environ({"HOME": str(tmp_path)}).mirrors_file == file


def test_a_mirrors_file_that_is_not_there_is_none_by_default(tmp_path: Path) -> None:
    assert Settings.from_environ({"XDG_CONFIG_HOME": str(tmp_path)}).mirrors_file is None


def test_a_mirrors_file_that_was_named_counts_even_if_it_is_not_there() -> None:
    named = Settings.from_environ({"HUBCACHE_MIRRORS": "~/none.yaml", "HOME": "/home/u"})
    assert named.mirrors_file == Path("/home/u/none.yaml")


def test_a_token_does_not_show_in_the_settings_representation() -> None:
    secrets = {"HF_TOKEN": "hf_secret", "https_proxy": "http://u:hf_secret@p:1", "OTHER": "hf_secret"}
    assert "hf_secret" not in repr(Settings.from_environ(secrets))


class Recorder(dict[str, str]):
    """An environment that notes which of its variables are asked for."""

    asked: set[str]

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.asked = set()

    def get(self, name: str, default: Any = None, /) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str, /) -> str:
        self.asked.add(name)
        return super().__getitem__(name)


def test_the_table_of_variables_lists_every_one_that_is_read_and_no_other() -> None:
    recorder = Recorder({"HOME": "/home/u"})
    Settings.from_environ(recorder)
    documented = set(re.findall(r"\w+", " ".join(VARIABLES)))
    assert recorder.asked - {"HOME"} == documented | {f"{each}_proxy" for each in ("http", "https", "all", "no")}
