"""SparseZoo stubs: our reading against the real client's recorded answers; no server is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.artifact import RepoId
from hubcache.core.stubs import PARAMETERS, Stub, parse_stub
from hubcache.errors import BadReference

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "goldens" / "sparse" / "stubs.json"
V1 = "nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none"
GROUPS = (
    "domain",
    "sub_domain",
    "architecture",
    "sub_architecture",
    "framework",
    "repo",
    "dataset",
    "training_scheme",
    "sparse_tag",
)

# What the real client takes for a stub and we refuse, and why.
REFUSED = {
    "./models/a/b/c/d/e/f": "a path: its first part is a dot, and there are eight",
    "zoo:nlp/x/y/z/r/d/t/extra/path": "the real client ignores what follows the tag, so a typo goes unseen",
    "zoo:nlp/x/y/z/r/d/t?recipe=a?b=c": "two question marks; the real client fails later, with a ValueError",
    "zoo:nlp/x/y/z/r/d/t?recipe": "no value; the real client fails later, with a ValueError",
    "zoo:nlp/x/y/z/r/d/t?recipe=a=b": "two values; the real client fails later, with a ValueError",
    "zoo:obert-base-sst2-base junk": "the real client's expression has no end, and sends the junk along",
}


@pytest.fixture(scope="module")
def golden() -> list[dict[str, Any]]:
    if not GOLDEN.exists():
        pytest.skip("the shared folder with the real client's answers is not here")
    cases: list[dict[str, Any]] = json.loads(GOLDEN.read_text("utf-8"))["cases"]
    return cases


def refused(text: str) -> bool:
    try:
        parse_stub(text)
    except BadReference:
        return True
    return False


def graphql_text(stub: Stub) -> str:
    return "(" + "".join(f'{name}: "{value}",' for name, value in stub.graphql_arguments()) + ")"


def test_there_are_the_49_recorded_cases(golden: list[dict[str, Any]]) -> None:
    assert len(golden) == 49


def test_a_stub_is_what_the_real_client_takes_for_one_but_for_the_listed_refusals(
    golden: list[dict[str, Any]],
) -> None:
    for case in golden:
        expected = not case["is_stub"] or case["input"] in REFUSED
        assert refused(case["input"]) == expected, case["input"]


def test_every_listed_refusal_is_a_stub_to_the_real_client(golden: list[dict[str, Any]]) -> None:
    stubs = {case["input"] for case in golden if case["is_stub"]}
    assert set(REFUSED) <= stubs


def test_v1_parts_are_the_real_clients_groups(golden: list[dict[str, Any]]) -> None:
    cases = [case for case in golden if case["v1_groups"] and case["input"] not in REFUSED]
    assert len(cases) == 23
    for case in cases:
        stub = parse_stub(case["input"])
        assert {name: getattr(stub, name) for name in GROUPS} == case["v1_groups"], case["input"]


def test_a_v2_stub_has_no_parts(golden: list[dict[str, Any]]) -> None:
    cases = [case for case in golden if case["v2_groups"] and case["input"] not in REFUSED]
    assert len(cases) == 12
    for case in cases:
        stub = parse_stub(case["input"])
        assert not any(getattr(stub, name) for name in GROUPS), case["input"]


def test_base_and_arguments_are_the_real_clients(golden: list[dict[str, Any]]) -> None:
    for case in golden:
        if not refused(case["input"]):
            stub = parse_stub(case["input"])
            assert (stub.base, dict(stub.arguments)) == (case["base"], case["params"]), case["input"]


def test_the_api_is_asked_what_the_real_client_asks(golden: list[dict[str, Any]]) -> None:
    for case in golden:
        if not refused(case["input"]):
            assert graphql_text(parse_stub(case["input"])) == case["graphql_argument_string"], case["input"]


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (V1, "sparsezoo/sentiment_analysis.obert-base.sst2.pruned90_quant-none"),
        (
            "cv/classification/resnet_v1-50/pytorch/sparseml/imagenet-augmented/base-none",
            "sparsezoo/cv.classification.resnet_v1-50.pytorch.sparseml.imagenet-augmented.base-none",
        ),
        ("opt-1.3b-opt_pretrain-base", "sparsezoo/opt-1.3b-opt_pretrain-base"),
        (
            "nlp/masked_language_modeling/bert-base/pytorch/huggingface/wikipedia_bookcorpus"
            "/12layer_pruned80_quant_more_than_fits-none-vnni",
            "sparsezoo/masked_language_modeling.bert-base.wikipedia_bookcorpus.12layer_pruned80_quant_more_tha-3d5ff74e",
        ),
        # What a repo name cannot hold is not lost: the hash keeps the two apart.
        ("a..b-c-d", "sparsezoo/a.b-c-d-4d99c2f8"),
        ("a.b-c-d", "sparsezoo/a.b-c-d"),
        ("a-b-c.git", "sparsezoo/a-b-c-0d25758a"),
    ],
)
def test_a_stub_becomes_a_readable_repo_name(base: str, name: str) -> None:
    assert parse_stub(base).repo_name() == name


def test_recipe_and_deployment_do_not_change_the_repo() -> None:
    assert parse_stub(f"zoo:{V1}?recipe=transfer&deployment=default").repo_name() == parse_stub(V1).repo_name()


def test_arguments_keep_their_order() -> None:
    pairs = (("recipe", "a"), ("checkpoint", "preqat"), ("deployment", "default"), ("recipe_type", "b-c"))
    assert parse_stub(f"{V1}?" + "&".join("=".join(pair) for pair in pairs)).arguments == pairs


@pytest.mark.parametrize(
    ("text", "phrase", "hint"),
    [
        ("zoo:", "3 to 5 parts between hyphens, not 0", "zoo:bert-base-wikipedia_bookcorpus-pruned90"),
        ("zoo:bert-base", "3 to 5 parts between hyphens, not 2", "zoo:bert-base-wikipedia_bookcorpus-pruned90"),
        ("zoo:a-b-c-d-e-f", "3 to 5 parts between hyphens, not 6", "zoo:a-b-c-d-e_f"),
        ("zoo:a-b-c!", "not the parts of a V2 stub", "zoo:a-b-c_"),
        ("zoo:[a]-b-c", "not the parts of a V2 stub", "zoo:_a_-b-c"),
        ("zoo:a/b/c", "7 parts between slashes, not 3", "zoo:a/b/c/pytorch/huggingface/sst2/base-none"),
        ("zoo:nlp/x/y-z-w/p/r/d/t", "not the parts of a V1 stub", "zoo:nlp/x/y-z_w/p/r/d/t"),
        (f"zoo:{V1}/transfer_learn", "ends with its 7th part", f"zoo:{V1}?recipe_type=transfer_learn"),
        (f"zoo:{V1}/", "7 parts between slashes, not 8", f"zoo:{V1}"),
        (f"zoo:{V1}?", "key=value", f"zoo:{V1}"),
        (f"zoo:{V1}?recipe=", "key=value", f"zoo:{V1}"),
        (f"zoo:{V1}?recipe=a&recipe=b", "'recipe' is given twice", f"zoo:{V1}?recipe=a"),
        (f"zoo:{V1}?recipie=a", "recipe, recipe_type, checkpoint, deployment", f"zoo:{V1}?recipe=a"),
        (f"zoo:{V1}?chekpoint=pre", "recipe, recipe_type, checkpoint", f"zoo:{V1}?checkpoint=preqat"),
        (f"zoo:{V1}?checkpoint=qat", "prepruning, postpruning, preqat, postqat", f"zoo:{V1}?checkpoint=preqat"),
        (f"zoo:{V1}?deployment=latest", "default", f"zoo:{V1}?deployment=default"),
    ],
)
def test_a_wrong_stub_says_what_is_wrong_and_the_nearest_right_one(text: str, phrase: str, hint: str) -> None:
    with pytest.raises(BadReference) as caught:
        parse_stub(text)
    assert phrase in caught.value.message
    assert caught.value.hint == hint


PIECE = st.text("abcXYZ019_.-", min_size=1, max_size=12)


@given(st.one_of(st.text(), st.lists(PIECE, max_size=9).map("/".join), st.lists(PIECE, max_size=9).map("-".join)))
def test_any_text_is_a_stub_with_a_valid_repo_name_or_a_bad_reference_whose_hint_parses(text: str) -> None:
    try:
        stub = parse_stub(text)
    except BadReference as error:
        stub = parse_stub(error.hint)
    assert RepoId.parse(stub.repo_name()).name == stub.repo_name()


@given(st.dictionaries(st.sampled_from([*PARAMETERS, "other"]), st.sampled_from(["a", "preqat", "default", "", "b=c"])))
def test_arguments_read_back_or_the_hint_parses(pairs: dict[str, str]) -> None:
    query = "&".join(f"{key}={value}" for key, value in pairs.items())
    try:
        stub = parse_stub(f"zoo:{V1}?{query}")
    except BadReference as error:
        stub, pairs = parse_stub(error.hint), {}
    assert stub.base == V1
    assert set(pairs.items()) <= set(stub.arguments)
