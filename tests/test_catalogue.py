"""Which repos a list finds, asked by huggingface_hub itself; pages that are followed to their end."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.about import About
from hubcache.core.artifact import Artifact, Entry, Kind, Manifest, RepoId, RepoPath, Revision
from hubcache.core.catalogue import Listed, Search, list_rows, matches, parse_search
from hubcache.core.digests import Blob, digest_bytes
from hubcache.core.paging import link, page, parse_limit
from hubcache.core.routes import parse_route
from hubcache.core.wire import next_page
from hubcache.errors import BadReference
from tests.support.httpd import Origin, Reply, Request

COMMIT = "3adcfc60" * 5
FILES = Manifest({RepoPath("config.json"): Entry(Blob(digest_bytes("git-sha1", b"{}"), 2))})


def listed(name: str, kind: Kind = "model", **known: Any) -> Listed:
    return Listed(Artifact(RepoId("hf", kind, name), Revision("main", COMMIT), FILES), About(**known))


MODELS = [
    listed(
        "google/bert-base",
        tags=("transformers", "bert", "en", "license:mit", "dataset:wiki"),
        pipeline_tag="fill-mask",
        library="transformers",
        created=30,
        modified=10,
        likes=1,
        downloads=7,
        card={"license": "mit"},
        config={"model_type": "bert"},
    ),
    listed("me/BERT-tiny", tags=("bert", "ko"), pipeline_tag="text-classification", created=20, modified=30, likes=2),
    listed("me/t5", tags=("t5", "en"), library="keras", gated=True, created=10, modified=20, likes=3),
    listed("gpt2", tags=("gpt2",)),
]
DATASETS = [
    listed("org/rows", "dataset", tags=("language:en", "task_categories:translation", "size_categories:n<1K")),
    listed("org/bare", "dataset"),
]
SPACES = [listed("org/demo", "space", sdk="gradio", card={"models": ["me/t5"], "datasets": "org/rows"})]
REPOS = [*MODELS, *DATASETS, *SPACES]


@pytest.fixture(scope="module")
def api() -> Iterator[HfApi]:
    """A hub that lists, two repos a page unless asked."""

    def answer(request: Request) -> Reply:
        route = parse_route(request.method, request.target)
        assert route.kind is not None
        search = parse_search(route.kind, route.query)
        rows, cursor = list_rows(REPOS, replace(search, limit=2))
        headers = {"Content-Type": "application/json"}
        if cursor is not None:
            headers["Link"] = link(origin.url + request.path, route.query, cursor)
        return Reply(200, headers, json.dumps(rows).encode())

    origin = Origin(answer)
    origin.start()
    yield HfApi(endpoint=origin.url, token=False)
    origin.stop()


def found(kind: Kind = "model", **query: str | Sequence[str]) -> list[str]:
    told = {name: [value] if isinstance(value, str) else value for name, value in query.items()}
    return [row["id"] for row in list_rows(REPOS, parse_search(kind, told))[0]]


# What the clients ask


def test_the_client_lists_every_model_over_all_pages(api: HfApi) -> None:
    assert [each.id for each in api.list_models()] == ["google/bert-base", "gpt2", "me/BERT-tiny", "me/t5"]


def test_the_client_lists_datasets(api: HfApi) -> None:
    assert [each.id for each in api.list_datasets()] == ["org/bare", "org/rows"]


def test_the_client_lists_spaces(api: HfApi) -> None:
    assert [(each.id, each.sdk) for each in api.list_spaces()] == [("org/demo", "gradio")]


def test_a_search_is_part_of_the_name_in_any_case(api: HfApi) -> None:
    assert [each.id for each in api.list_models(search="Bert")] == ["google/bert-base", "me/BERT-tiny"]


def test_an_author_is_the_whole_namespace(api: HfApi) -> None:
    assert [each.id for each in api.list_models(author="me")] == ["me/BERT-tiny", "me/t5"]
    assert list(api.list_models(author="m")) == []


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("bert", ["google/bert-base", "me/BERT-tiny"]),
        ("keras", ["me/t5"]),
        ("fill-mask", ["google/bert-base"]),
        ("license:mit", ["google/bert-base"]),
        ("language:en", ["google/bert-base", "me/t5"]),
        ("en", ["google/bert-base", "me/t5"]),
        ("dataset:wiki", ["google/bert-base"]),
        (["bert", "en"], ["google/bert-base"]),
        ("nothing", []),
        ("", ["google/bert-base", "gpt2", "me/BERT-tiny", "me/t5"]),
    ],
)
def test_every_filter_must_hold(api: HfApi, asked: str | list[str], names: list[str]) -> None:
    assert [each.id for each in api.list_models(filter=asked)] == names


def test_a_task_is_the_pipeline_tag(api: HfApi) -> None:
    assert [each.id for each in api.list_models(pipeline_tag="fill-mask")] == ["google/bert-base"]


def test_a_trained_dataset_is_a_tag(api: HfApi) -> None:
    assert [each.id for each in api.list_models(trained_dataset="wiki")] == ["google/bert-base"]


@pytest.mark.parametrize("gated", [True, False])
def test_gated_models_are_told_apart(api: HfApi, gated: bool) -> None:
    assert ("me/t5" in [each.id for each in api.list_models(gated=gated)]) == gated


def test_a_dataset_is_found_by_what_its_card_says(api: HfApi) -> None:
    asked = {"language": "en", "task_categories": ["translation"], "size_categories": "n<1K"}
    assert [each.id for each in api.list_datasets(**asked)] == ["org/rows"]


def test_a_dataset_is_found_by_its_name_and_a_search_at_once(api: HfApi) -> None:
    assert [each.id for each in api.list_datasets(dataset_name="rows", search="org")] == ["org/rows"]
    assert list(api.list_datasets(dataset_name="rows", search="bare")) == []


def test_a_space_is_found_by_the_models_that_its_card_lists(api: HfApi) -> None:
    assert [each.id for each in api.list_spaces(models="me/t5")] == ["org/demo"]
    assert list(api.list_spaces(models="me/t")) == []


def test_a_card_that_lists_none_names_none(api: HfApi) -> None:
    assert list(api.list_spaces(datasets="org/rows")) == []


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("created_at", ["google/bert-base", "me/BERT-tiny", "me/t5", "gpt2"]),
        ("last_modified", ["me/BERT-tiny", "me/t5", "google/bert-base", "gpt2"]),
        ("likes", ["me/t5", "me/BERT-tiny", "google/bert-base", "gpt2"]),
        ("downloads", ["google/bert-base", "gpt2", "me/BERT-tiny", "me/t5"]),
        ("trending_score", ["google/bert-base", "gpt2", "me/BERT-tiny", "me/t5"]),
    ],
)
def test_the_most_comes_first_and_names_decide_ties(api: HfApi, sort: Any, names: list[str]) -> None:
    assert [each.id for each in api.list_models(sort=sort)] == names


def test_the_client_stops_at_its_limit(api: HfApi) -> None:
    assert [each.id for each in api.list_models(limit=3)] == ["google/bert-base", "gpt2", "me/BERT-tiny"]


def test_a_list_has_files_and_commit_where_all_is_asked(api: HfApi) -> None:
    [brief], [full] = api.list_models(author="google"), api.list_models(author="google", full=True)
    assert (brief.sha, brief.siblings) == (None, None)
    assert (full.sha, [each.rfilename for each in full.siblings or ()]) == (COMMIT, ["config.json"])


def test_a_list_has_card_and_config_where_they_are_asked(api: HfApi) -> None:
    [each] = api.list_models(author="google", cardData=True, fetch_config=True)
    assert each.card_data is not None
    assert (each.card_data.license, each.config) == ("mit", {"model_type": "bert"})


def test_a_list_has_the_expanded_fields_alone(api: HfApi) -> None:
    [each] = api.list_models(author="google", expand=["sha", "likes"])
    assert (each.sha, each.likes, each.downloads) == (COMMIT, 1, None)


def test_a_datasets_card_comes_with_all_of_it() -> None:
    rows, _ = list_rows(
        [listed("org/rows", "dataset", card={"license": "mit"})], parse_search("dataset", {"full": ["1"]})
    )
    assert rows[0]["cardData"] == {"license": "mit"}


# What others ask


def test_javascript_finds_its_fields_of_every_model() -> None:
    query = {"limit": ["500"], "expand": ["pipeline_tag", "private", "gated", "downloads", "likes", "lastModified"]}
    rows, _ = list_rows(REPOS, parse_search("model", query))
    assert all(row.keys() >= {"_id", "id", "private", "gated", "downloads", "likes", "lastModified"} for row in rows)


def test_commas_join_filters() -> None:
    assert found(filter="bert,en") == ["google/bert-base"]


def test_other_names_of_a_filter_are_understood() -> None:
    assert found(library="keras") == ["me/t5"]
    assert found(language="ko") == ["me/BERT-tiny"]
    assert found(license="mit") == found(license="license:mit") == ["google/bert-base"]


def test_several_words_must_all_be_in_the_name() -> None:
    assert found(search="bert google") == ["google/bert-base"]


def test_a_datasets_task_needs_no_beginning() -> None:
    assert found("dataset", filter="translation") == ["org/rows"]


@pytest.mark.parametrize("name", ["apps", "inference", "inference_provider", "num_parameters"])
def test_what_is_known_of_no_repo_finds_none(name: str) -> None:
    assert found(**{name: "x"}) == []


def test_the_least_comes_first_where_asked() -> None:
    assert found(sort="likes", direction="1") == ["gpt2", "google/bert-base", "me/BERT-tiny", "me/t5"]
    assert found(sort="likes", direction="-1") == ["me/t5", "me/BERT-tiny", "google/bert-base", "gpt2"]


def test_names_are_sorted_from_a_to_z() -> None:
    assert found(sort="id") == sorted(found())
    assert found(sort="id", direction="-1") == sorted(found(), reverse=True)


@pytest.mark.parametrize("sort", ["likes30d", "num_parameters", "mainSize", "lastModified", "trendingScore"])
def test_every_order_of_the_javascript_client_is_one(sort: str) -> None:
    assert len(found(sort=sort)) == len(MODELS)


@pytest.mark.parametrize("query", [{"sort": ["colour"]}, {"limit": ["-1"]}, {"limit": ["9" * 5000]}, {"limit": ["²"]}])
def test_an_order_or_limit_that_is_none_is_refused(query: dict[str, list[str]]) -> None:
    with pytest.raises(BadReference):
        parse_search("model", query)


NAMES = ["filter", "search", "sort", "author", "gated", "expand", "full", "limit", "cursor", "direction", "models"]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.text(max_size=9), max_size=3)))
def test_any_query_is_answered_or_refused(query: dict[str, list[str]]) -> None:
    try:
        rows, _ = list_rows(REPOS, parse_search("model", query))
    except BadReference:
        return
    assert {row["id"] for row in rows} <= {each.artifact.repo.name for each in MODELS}


def test_a_card_of_strange_values_matches_nothing() -> None:
    strange = listed("org/odd", "space", card={"models": 3, "datasets": [None, {"a": 1}]})
    assert not matches(strange, Search("space", (), linked=(("models", "3"),)))


# Pages

ROWS = [{"path": f"{number}.txt"} for number in range(7)]


def test_all_rows_are_one_page_unless_asked() -> None:
    assert page(ROWS) == (ROWS, None)


@pytest.mark.parametrize("limit", range(1, 9))
def test_pages_hold_every_row_once(limit: int) -> None:
    rows, cursor = page(ROWS, limit=limit)
    while cursor is not None:
        more, cursor = page(ROWS, limit=limit, cursor=cursor)
        assert 0 < len(more) <= limit
        rows += more
    assert rows == ROWS


def test_a_page_goes_on_behind_its_row_where_others_came_before() -> None:
    _, cursor = page(ROWS, limit=3)
    assert page([{"path": "new"}, *ROWS], cursor=cursor)[0] == ROWS[3:]


def test_a_page_goes_on_by_number_where_its_row_is_gone() -> None:
    _, cursor = page(ROWS, limit=3)
    assert page(ROWS[:2] + ROWS[3:], cursor=cursor)[0] == ROWS[4:]


def test_a_cursor_made_as_the_hub_makes_it_is_understood() -> None:
    cursor = b64encode(b64encode(b'{"file_name":"6.txt"}') + b":50").decode()
    assert page(ROWS, cursor=cursor) == ([], None)


def test_no_rows_are_the_last_page() -> None:
    assert page(ROWS, limit=0) == ([], None)


def test_a_cursor_is_base64url() -> None:
    _, cursor = page([{"path": "가>?~/" * 50}, *ROWS], limit=1)
    assert cursor is not None
    assert not set(cursor) & set("+/ &?#")


def test_the_longest_path_a_disk_holds_has_a_cursor_that_a_request_line_holds() -> None:
    rows = [{"path": "\U0001f917" * 1024}, *ROWS]
    _, cursor = page(rows, limit=1)
    assert cursor is not None
    assert len(cursor) < 8000
    assert page(rows, cursor=cursor)[0] == ROWS


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "가",
        "a" * 100_000,
        urlsafe_b64encode(b"[]:1").decode(),
        urlsafe_b64encode(b64encode(b"[]") + b":1").decode(),
        urlsafe_b64encode(b64encode(b'{"file_name": 3}') + b":1").decode(),
        urlsafe_b64encode(b64encode(b'{"file_name": "a"}') + b":-1").decode(),
        urlsafe_b64encode(b64encode(b'{"file_name": "a"}') + b":" + b"9" * 5000).decode(),
        urlsafe_b64encode(b64encode(b"[" * 5000) + b":1").decode(),
    ],
)
def test_a_hostile_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadReference):
        page(ROWS, cursor=cursor)


@given(st.text(max_size=60))
def test_any_cursor_gives_a_page_or_is_refused(cursor: str) -> None:
    try:
        rows, _ = page(ROWS, cursor=cursor)
    except BadReference:
        return
    assert rows == ROWS[len(ROWS) - len(rows) :]


def test_a_link_keeps_the_query_and_replaces_the_cursor() -> None:
    text = link("http://127.0.0.1:8090/api/models", {"filter": ["a", "b c"], "cursor": ["old"]}, "new==")
    assert text == '<http://127.0.0.1:8090/api/models?filter=a&filter=b+c&cursor=new%3D%3D>; rel="next"'


def test_a_link_holds_no_text_that_ends_it() -> None:
    text = link('http://h/api/models/a>"\r\nX: 1', {'b>"\r\n': ['>"\r\n']}, "c")
    assert text.endswith('>; rel="next"')
    assert next_page(text) == text[1 : -len('>; rel="next"')]
    assert "\r" not in text


@pytest.mark.parametrize(("text", "limit"), [(None, None), ("0", 0), ("500", 500)])
def test_a_limit_is_a_count(text: str | None, limit: int | None) -> None:
    assert parse_limit(text) == limit
