"""The rules of `hubcache serve`: which one a repo gets, and how mirrors.yaml tells them; none is acted on here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.artifact import RepoId
from hubcache.core.rules import DEFAULT, REMEMBERED, Rule, Rules, can_name
from hubcache.errors import BadConfig
from hubcache.mirrors.config import MirrorsConfig, load, parse_text, shipped_path
from hubcache.mirrors.editing import MirrorsText

OWN = Path("/home/u/mirrors.yaml")
MIRROR = {"name": "new", "url": "https://new.example.com", "hub": "huggingface"}
SERVE = """\
# Whom we serve.
serve:
  - names: ["secret-org", "team/*"]  # ours
    upstream: never
  - {names: ["*"], fresh: 5}
"""


def repo(name: str, kind: str = "model") -> RepoId:
    return RepoId.parse(name, kind=kind)


def named(*names: str) -> Rules:
    return Rules((Rule(names, access="deny"),))


def served(text: str) -> Rules:
    return parse_text(text, OWN).serve


# -- which rule


@pytest.mark.parametrize(
    ("pattern", "name", "kind"),
    [
        ("org", "org/name", "model"),
        ("org", "org/name", "dataset"),
        ("org/name", "org/name", "space"),
        ("org/na*", "org/name", "model"),
        ("or?", "org/name", "model"),
        ("[n-p]rg", "org/name", "model"),
        ("gpt2", "gpt2", "model"),
        ("*", "gpt2", "model"),
        ("*", "org/name", "dataset"),
        ("datasets/org", "org/name", "dataset"),
        ("datasets/org/*", "org/name", "dataset"),
        ("datasets/squad", "squad", "dataset"),
        ("datasets/*", "org/name", "dataset"),
        ("models/org", "org/name", "model"),
        ("[ms]*s/org/*", "org/name", "space"),
    ],
)
def test_a_pattern_names_a_repo(pattern: str, name: str, kind: str) -> None:
    assert named(pattern).of(repo(name, kind)).access == "deny"


@pytest.mark.parametrize(
    ("pattern", "name", "kind"),
    [
        ("org", "organ/name", "model"),
        ("org", "other/org", "model"),
        ("org", "my-org/name", "model"),
        ("org/na", "org/name", "model"),
        ("org/*", "org", "model"),
        ("o.g", "org/name", "model"),
        ("datasets/org", "org/name", "model"),
        ("datasets/org/name", "org/name", "space"),
        ("models/org", "org/name", "dataset"),
    ],
)
def test_a_pattern_does_not_name_another_repo(pattern: str, name: str, kind: str) -> None:
    assert named(pattern).of(repo(name, kind)) is DEFAULT


@pytest.mark.parametrize("name", ["Secret-Org/x", "SECRET-ORG/x", "secret-org/X"])
@pytest.mark.parametrize("pattern", ["secret-org", "Secret-Org", "secret-ORG/*", "[R-T]ecret-org"])
def test_upper_and_lower_case_are_one_name(pattern: str, name: str) -> None:
    assert named(pattern).of(repo(name)).access == "deny"


def test_the_first_rule_that_names_a_repo_decides_all_about_it() -> None:
    first, second = Rule(("org/name",), upstream="never"), Rule(("org",), access="deny", grant=True)
    rules = Rules((first, second))
    assert [rules.of(repo("org/name")), rules.of(repo("org/other"))] == [first, second]


def test_a_repo_that_no_rule_names_is_stored_and_its_closed_files_are_not_given_out() -> None:
    assert Rules().of(repo("org/name")) == Rule(("*",), "allow", "store", 60.0, False)


def test_a_rule_without_names_is_about_nothing() -> None:
    assert named().of(repo("org/name")) is DEFAULT


def test_more_repos_than_are_remembered_get_their_own_rules() -> None:
    rules = named("org/name0")
    repos = [repo(f"org/name{number}") for number in range(REMEMBERED + 2)]
    denied = [each.name for each in [*repos, *repos] if rules.of(each).access == "deny"]
    assert denied == ["org/name0"] * 2


def test_rules_are_equal_by_what_they_say_and_not_by_what_was_asked() -> None:
    asked = named("org")
    asked.of(repo("org/name"))
    assert asked == named("org")


parts = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,8}[A-Za-z0-9_]", fullmatch=True).filter(
    lambda part: "--" not in part
)


@given(org=parts, name=parts, kind=st.sampled_from(["model", "dataset", "space"]), data=st.data())
def test_no_spelling_of_an_orgs_name_slips_past_its_rule(org: str, name: str, kind: str, data: st.DataObject) -> None:
    spelt = "".join(data.draw(st.sampled_from([letter.upper(), letter.lower()])) for letter in org)
    assert named(org).of(repo(f"{spelt}/{name}", kind)).access == "deny"


# -- which patterns


@pytest.mark.parametrize("pattern", ["org", "team/*", "*", "datasets/org/*", "D*/org/x", "[a-c]*", "[!x]?", "a.b_c-1"])
def test_a_pattern_may_name_a_repo(pattern: str) -> None:
    assert can_name(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["", "org/", "/org", "org//x", "a/b/c", "datasets/a/b/c", "dataset/org/x", "my org", "hf:org/x", "org@main",
     "büro", "ſecret", "org[", "[]", "[!]", "[a/b]", "~", "org\n", "datasets", "Spaces"],
)  # fmt: skip
def test_a_pattern_that_no_repo_can_have_is_known(pattern: str) -> None:
    assert not can_name(pattern)


@given(st.text(max_size=40))
def test_every_pattern_is_told_apart_without_an_error(pattern: str) -> None:
    named(pattern).of(repo("org/name"))
    assert can_name(pattern) in {True, False}


# -- mirrors.yaml


def test_a_rule_is_read_whole() -> None:
    text = 'serve:\n- {names: ["o", "team/*"], access: deny, upstream: pass, fresh: 1.5, grant: true}\n'
    assert served(text) == Rules((Rule(("o", "team/*"), "deny", "pass", 1.5, True),))


def test_rules_keep_their_order() -> None:
    assert [rule.names for rule in served(SERVE).rules] == [("secret-org", "team/*"), ("*",)]


@pytest.mark.parametrize(("said", "grant"), [("true", True), ("yes", True), ("false", False), ("No", False)])
def test_a_grant_is_a_claim_of_yamls(said: str, grant: bool) -> None:
    assert served(f"serve: [{{names: [o], grant: {said}}}]").rules[0].grant is grant


@pytest.mark.parametrize("said", ["0", "60", "'60'", "0.5", "1e3"])
def test_freshness_is_a_number_of_seconds(said: str) -> None:
    assert served(f"serve: [{{names: [o], fresh: {said}}}]").rules[0].fresh == float(said.strip("'"))


@pytest.mark.parametrize("text", ["", "serve:\n", "serve: []", "mirrors: []"])
def test_a_file_without_rules_has_none(text: str) -> None:
    assert served(text) == Rules()


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("serv: []", "line 1: the file has the unknown key 'serv'", "did you mean 'serve'?"),
        ("serve: {}", "line 1: serve is no list", ""),
        ("serve: all", "line 1: serve is no list", ""),
        ("serve:\n- org", "line 2: a rule is no mapping of names, access, upstream, fresh, grant", ""),
        ("serve:\n- access: deny", "line 2: a rule has no names", "names:"),
        ("serve:\n- names: []", "line 2: names is empty", 'names: ["*"]'),
        ("serve:\n- names: org", "line 2: names is no list", ""),
        ("serve:\n- names:\n  - org\n  - ''", "line 4: a name is no text", ""),
        ("serve:\n- names:\n  - org\n  - [x]", "line 4: a name is no text", ""),
        ("serve:\n- names:\n  - org\n  - org/", "line 4: no repo can have the name 'org/'", "shell pattern"),
        ("serve:\n- names: [o]\n  acess: deny", "line 3: a rule has the unknown key 'acess'", "did you mean 'access'?"),
        ("serve:\n- names: [o]\n  access: denied", "line 3: no such access: 'denied'", "did you mean 'deny'?"),
        ("serve:\n- names: [o]\n  access: false", "line 3: no such access: 'false'", "one of: allow, deny"),
        ("serve:\n- names: [o]\n  upstream: nevr", "line 3: no such upstream: 'nevr'", "did you mean 'never'?"),
        ("serve:\n- names: [o]\n  fresh: soon", "line 3: fresh is no number of seconds: 'soon'", ""),
        ("serve:\n- names: [o]\n  fresh: -1", "line 3: fresh is no number of seconds: '-1'", ""),
        ("serve:\n- names: [o]\n  fresh: nan", "line 3: fresh is no number of seconds: 'nan'", ""),
        ("serve:\n- names: [o]\n  fresh: 1e999", "line 3: fresh is no number of seconds: '1e999'", ""),
        ("serve:\n- names: [o]\n  fresh: [1]", "line 3: fresh is no text", ""),
        ("serve:\n- names: [o]\n  grant: maybe", "line 3: grant is neither true nor false", ""),
        ("serve:\n- names: [o]\n  grant: 'true'", "line 3: grant is neither true nor false", ""),
        ("serve:\n- names: [o]\n  grant: 1", "line 3: grant is neither true nor false", ""),
        ("serve:\n- names: [o]\n  grant:", "line 3: grant is neither true nor false", ""),
        ("serve:\n- names: [o]\n  names: [p]", "line 3: a rule has 'names' twice", ""),
        ("serve:\n- names: [*]", "not YAML", ""),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line_and_what_may_have_been_meant(text: str, said: str, hint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        served(text)
    assert caught.value.message.startswith(str(OWN))
    assert said in caught.value.message
    assert hint in caught.value.hint


# -- whose file


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mirrors.yaml"
    path.write_text(SERVE)
    return path


def test_the_users_rules_are_loaded(own: Path) -> None:
    assert load([own]).serve == served(SERVE)


def test_the_shipped_file_has_no_rules() -> None:
    assert load().serve == Rules()


def test_a_later_files_rules_are_asked_first(own: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("serve: [{names: [o]}]")
    assert [rule.names[0] for rule in load([own, later]).serve.rules] == ["o", "secret-org", "*"]


def test_a_projects_rules_are_refused_and_it_is_said_where_they_belong(own: Path) -> None:
    with pytest.raises(BadConfig) as caught:
        load(project=own)
    assert f"{own}, line 3: only your own mirrors.yaml" in caught.value.message
    assert "open your mirror" in caught.value.message
    assert caught.value.hint == "write it in your own mirrors.yaml"


def test_a_project_without_rules_leaves_the_users(own: Path, tmp_path: Path) -> None:
    project = tmp_path / "project.yaml"
    project.write_bytes(shipped_path().read_bytes())
    assert load([own], project=project).serve == served(SERVE)


def test_the_users_own_file_is_no_projects_where_it_stands_in_the_working_folder(own: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(own)
    assert load([link], project=own).serve == served(SERVE)


# -- editing


MIRRORS = """\
mirrors:
  - name: a
    url: https://a.example
    hub: huggingface
  - name: b
    url: https://b.example
    hub: huggingface
"""


@pytest.mark.parametrize("text", [SERVE, MIRRORS + SERVE, SERVE + MIRRORS], ids=["alone", "last", "first"])
@pytest.mark.parametrize("change", [MirrorsText.with_last, MirrorsText.with_first], ids=["add", "use"])
def test_a_mirror_is_added_and_removed_and_the_rules_stay(text: str, change: object) -> None:
    assert callable(change)
    added = change(MirrorsText(OWN, text), MIRROR)
    assert isinstance(added.content, MirrorsConfig)
    assert (SERVE in added.text, added.content.serve) == (True, served(SERVE))


@pytest.mark.parametrize("text", [MIRRORS + SERVE, SERVE + MIRRORS], ids=["last", "first"])
def test_mirrors_move_change_and_go_and_the_rules_stay(text: str) -> None:
    changed = MirrorsText(OWN, text).moved_first("b").with_trust("b", ("bytes",)).without("a")
    assert changed.text.replace(SERVE, "").count("name:") == 1
    assert (SERVE in changed.text, changed.content.serve) == (True, served(SERVE))
