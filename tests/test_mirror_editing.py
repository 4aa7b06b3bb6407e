"""A mirrors.yaml is changed as text: what is written loads, and nothing but the change is another than before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.errors import BadConfig
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.editing import MirrorsText, fields_of, mirror_of

FILE = Path("/home/u/mirrors.yaml")
TEXT = """\
# Mine.
mirrors:
  # The team's cache; ask Kim.
  - name: team
    url: https://hub.example.com  # behind the VPN
    hub: huggingface
    token: TEAM

  # Slow, but it has everything.
  # (2 lines)
  - name: far
    url: https://far.example.com
    trust: [bytes]   # checked
    hub: huggingface
  - {name: scope, url: 'https://scope.example.com', hub: modelscope}

# Short names.
catalogue:
  mine: org/mine  # the best
"""
NEW = {"name": "new", "url": "https://new.example.com", "hub": "huggingface"}
LINES = "  - name: new\n    url: https://new.example.com\n    hub: huggingface\n"


def text_of(text: str) -> MirrorsText:
    return MirrorsText(FILE, text)


# -- adding


def test_a_mirror_is_added_behind_the_others_and_nothing_else_changes() -> None:
    scope = "hub: modelscope}\n"
    assert text_of(TEXT).with_last(NEW).text == TEXT.replace(scope, scope + LINES)


def test_a_first_mirror_stands_above_the_comment_of_the_one_that_was_first() -> None:
    assert text_of(TEXT).with_first(NEW).text == TEXT.replace("mirrors:\n", "mirrors:\n" + LINES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "mirrors:\n" + LINES),
        ("# mine\n", "# mine\nmirrors:\n" + LINES),
        ("# mine", "# mine\nmirrors:\n" + LINES),
        ("mirrors:  # none yet\ncatalogue: {a: org/a}\n", f"mirrors:  # none yet\n{LINES}catalogue: {{a: org/a}}\n"),
        ("catalogue: {a: org/a}\n", "catalogue: {a: org/a}\nmirrors:\n" + LINES),
        ("---\n", "---\nmirrors:\n" + LINES),
    ],
    ids=["nothing", "a comment", "no line end", "an empty list", "other keys", "a document's start"],
)
def test_a_first_entry_gets_its_list(before: str, after: str) -> None:
    assert text_of(before).with_last(NEW).text == after


def test_the_indent_and_line_ends_of_the_file_are_kept() -> None:
    text = "mirrors:\r\n- name: a\r\n  url: https://a.example\r\n  hub: http\r\n"
    added = "- name: new\r\n  url: https://new.example.com\r\n  hub: huggingface\r\n"
    assert text_of(text).with_last(NEW).text == text + added


def test_a_last_line_without_an_end_gets_one() -> None:
    assert text_of(TEXT.split("\n\n# Short")[0]).with_last(NEW).names() == ["team", "far", "scope", "new"]


# -- moving


def test_a_mirror_moves_to_the_front_with_the_comment_above_it() -> None:
    far = TEXT[TEXT.index("  # Slow") : TEXT.index("  - {name: scope")]
    assert text_of(TEXT).moved_first("far").text == TEXT.replace(far, "").replace("mirrors:\n", "mirrors:\n" + far)


@pytest.mark.parametrize("name", ["team", "scope"])
def test_the_first_mirror_of_its_hub_stays_where_it_is(name: str) -> None:
    assert text_of(TEXT).moved_first(name).text == TEXT


def test_the_last_line_moves_without_its_end() -> None:
    text = text_of("mirrors:\n- {name: a, url: 'http://a', hub: http}\n- {name: b, url: 'http://b', hub: http}")
    assert text.moved_first("b").names() == ["b", "a"]


# -- trust


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("far", "trust: [bytes]   # checked", "trust: [metadata, bytes]   # checked"),
        ("team", "    hub: huggingface\n    token", "    hub: huggingface\n    trust: [bytes]\n    token"),
        ("scope", "hub: modelscope}", "hub: modelscope, trust: [bytes]}"),
    ],
)
def test_trust_is_written_where_it_stands_or_belongs(name: str, old: str, new: str) -> None:
    trust = ("metadata", "bytes") if name == "far" else ("bytes",)
    assert text_of(TEXT).with_trust(name, trust).text == TEXT.replace(old, new, 1)


def test_trust_that_is_so_already_is_not_written() -> None:
    assert text_of(TEXT).with_trust("team", ("metadata", "bytes")).text == TEXT


# -- removing


def test_a_mirror_goes_and_the_comment_above_it_stays() -> None:
    own = TEXT[TEXT.index("  - name: far") : TEXT.index("  - {name: scope")]
    assert text_of(TEXT).without("far").text == TEXT.replace(own, "")


def test_the_last_mirror_leaves_a_file_that_loads() -> None:
    text = text_of("mirrors:\n" + LINES).without("new")
    assert (text.text, text.names()) == ("mirrors:\n", [])


# -- what is not edited


@pytest.mark.parametrize(
    "text",
    [
        "mirrors: [{name: a, url: 'http://a', hub: http}, {name: b, url: 'http://b', hub: http}]",
        "{mirrors: [{name: a, url: 'http://a', hub: http}, {name: b, url: 'http://b', hub: http}]}",
        "mirrors:\n- {name: b, url: 'http://b', hub: http}\n- {name: b, url: 'http://c', hub: http}\n",
        "mirrors:\n- {name: a, url: &a 'http://a', hub: http}\n- {name: b, url: *a, hub: http}\n",
        "mirrors:\n- {name: a, url: 'http://a', hub: http}\n- {name: b, url: 'http://b', hub: http}\n...\n",
    ],
    ids=["a list in brackets", "all in braces", "a name twice", "an alias", "an end"],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.moved_first("b"),
        lambda text: text.without("b"),
        lambda text: text.with_last(NEW),
        lambda text: text.with_trust("b", ("bytes",)),
    ],
    ids=["move", "remove", "add", "trust"],
)
def test_a_change_is_exact_or_refused(text: str, change: Callable[[MirrorsText], MirrorsText]) -> None:
    before = text_of(text)
    refused, after = "", before
    try:
        after = change(before)
    except BadConfig as error:
        refused = error.hint
    kept = [mirror for mirror in after.content.mirrors if mirror.name not in {"b", "new"}]
    assert kept == [mirror for mirror in before.content.mirrors if mirror.name != "b"]
    assert refused.startswith("by hand, ") == (after == before)


@pytest.mark.parametrize("text", ["mirrors: []\n", "mirrors: ~\n", "{}\n", "  {}\n"])
def test_a_list_that_is_written_as_empty_is_left_to_the_person_with_the_lines_to_write(text: str) -> None:
    with pytest.raises(BadConfig) as caught:
        text_of(text).with_last(NEW)
    assert "name: new, url: 'https://new.example.com', hub: huggingface" in caught.value.hint


# -- entries


def test_a_mirror_written_and_read_is_the_same(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    mirror = Mirror(
        "it's #1: [x]", "https://a.example:8443/x", "huggingface", "file:/run/t", ("bytes",), 4, 2.5e6, ("*", "b-*"),
        ca, {"X-Team": "yes: no", "2": "3"},
    )  # fmt: skip
    assert mirror_of(fields_of(mirror)) == mirror


def test_what_is_so_by_itself_is_not_written() -> None:
    assert fields_of(mirror_of(NEW)) == NEW


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"hub": "hugingface"}, "no such hub"),
        ({"url": "hub.example.com"}, "not an http or https URL"),
        ({"url": "https://u:hunter2@a"}, "credentials"),
        ({"token": "hf_hunter2"}, "token is the NAME of an environment variable"),
        ({"connections": 0}, "no number from 1 to 64"),
        ({"rate": -1.0}, "no number of MB/s"),
        ({"rate": float("nan")}, "no number of MB/s"),
        ({"ca": "/nowhere/ca.pem"}, "there is no file"),
        ({"name": ""}, "name is no text"),
    ],
)
def test_a_wrong_field_is_named_and_no_line_with_it(field: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        mirror_of(NEW | field)
    assert said in caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert "line" not in caught.value.message


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20)


@given(name=names, orgs=st.lists(names, max_size=3), rate=st.floats(0.001, 1e4))
def test_whatever_is_added_loads_and_goes_again_without_a_trace(name: str, orgs: list[str], rate: float) -> None:
    fields: dict[str, Any] = {**NEW, "name": name, "rate": rate} | ({"namespaces": orgs} if orgs else {})
    if name in text_of(TEXT).names():
        return
    added = text_of(TEXT).with_last(fields)
    assert added.content.mirrors[-1] == mirror_of(fields)
    assert added.without(name).text == TEXT
    assert added.moved_first(name).without(name).text == TEXT
