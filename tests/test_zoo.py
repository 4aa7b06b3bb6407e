"""SparseZoo stubs pulled from a zoo on loopback, compared with what was published and with the zoo's own client."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubcache.errors import IntegrityError
from hubcache.sources.zoo import _parse_file, place_file
from tests.support.commandline import CommandLine, Ran, files_of, run
from tests.support.httpd import Origin as Server
from tests.support.loopserver import json_reply
from tests.support.loopzoo import LoopZoo, parse_query
from tests.support.objectstore import ObjectStore

GOLDENS = Path(__file__).resolve().parents[2] / "shared/goldens/sparse/fakezoo"
UPSTREAM, TEACHER, QUANTISED = (
    "zoo:nlp/masked_language_modeling/obert-base/pytorch/huggingface/wikipedia_bookcorpus/pruned90-none",
    "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/base-none",
    "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none",
)
STUBS = (UPSTREAM, TEACHER, QUANTISED)
NAMES = {
    UPSTREAM: "sparsezoo/masked_language_modeling.obert-base.wikipedia_bookcorpus.pruned90-none",
    TEACHER: "sparsezoo/sentiment_analysis.obert-base.sst2.base-none",
    QUANTISED: "sparsezoo/sentiment_analysis.obert-base.sst2.pruned90_quant-none",
}
STUB = "zoo:nlp/text_classification/tiny-base/pytorch/huggingface/mnli/base-none"
FILES = {
    "training/config.json": b'{"model_type": "bert"}',
    "training/pytorch_model.bin": bytes(range(256)) * 40,
    "model.onnx": b"onnx",
    "recipe.md": b"recipe",
    "recipe_transfer_text.md": b"transfer",
    "model.md": b"card",
}

needs_goldens = pytest.mark.skipif(not GOLDENS.exists(), reason="../shared/goldens is not here")


def published_place(name: str) -> str:
    """Where a published file belongs in the repo, written down by hand."""
    folders = {"recipe": "recipes/", "sample-": "samples/", "model.onnx": "onnx/", "deployment.tar": "deployment/"}
    start = next((start for start in folders if name.startswith(start)), None)
    return folders[start] + name if start else name.removeprefix("training/")


@dataclass(frozen=True)
class Pulled:
    """The three models of the fake zoo, pulled by one command; the zoo is stopped since."""

    hubcache: CommandLine
    ran: Ran
    facts: dict[str, dict[str, Any]]
    rows: dict[str, dict[str, Any]]

    def snapshot(self, stub: str) -> Path:
        return Path(self.facts[stub]["path"])


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    with LoopZoo(GOLDENS) as zoo:
        hubcache = CommandLine(tmp_path_factory.mktemp("zoo"), SPARSEZOO_API_URL=zoo.endpoint)
        ran = hubcache("pull", *STUBS, "--json")
        assert ran.code == 0, ran.err
        rows = {row["stub"]: row for row in zoo.rows()}
    facts = dict(zip(STUBS, map(json.loads, ran.out.splitlines()), strict=True))
    return Pulled(hubcache, ran, facts, rows)


@needs_goldens
@pytest.mark.parametrize("stub", STUBS)
def test_a_stub_becomes_a_repo_that_its_parts_can_be_read_off(pulled: Pulled, stub: str) -> None:
    assert pulled.facts[stub]["repo"] == NAMES[stub]


@needs_goldens
@pytest.mark.parametrize("stub", STUBS)
def test_every_published_file_is_there_with_the_published_digest(pulled: Pulled, stub: str) -> None:
    expected = {published_place(file["displayName"]): file["_sha256"] for file in pulled.rows[stub]["files"]}
    found = files_of(pulled.snapshot(stub))
    assert {path: hashlib.sha256(content).hexdigest() for path, content in found.items()} == expected


@needs_goldens
@pytest.mark.parametrize("stub", STUBS)
def test_training_files_stand_at_the_root_and_the_rest_in_folders(pulled: Pulled, stub: str) -> None:
    folders = {path.name for path in pulled.snapshot(stub).iterdir() if path.is_dir()}
    root = {path.name for path in pulled.snapshot(stub).iterdir() if path.is_file()}
    assert folders == {"deployment", "onnx", "recipes", "samples"}
    assert root >= {"config.json", "pytorch_model.bin", "tokenizer.json", "vocab.txt", "model.md"}


@needs_goldens
@pytest.mark.parametrize("stub", STUBS)
def test_what_was_published_is_under_both_refs(pulled: Pulled, stub: str) -> None:
    refs = {pulled.hubcache.ref(NAMES[stub], ref) for ref in ("main", "original")}
    assert refs == {pulled.facts[stub]["commit"]}


LOADER = """
import json, sys
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
expected = json.load(open(sys.argv[1]))
told = {}
for name, auto in ((sys.argv[2], AutoModelForMaskedLM), (sys.argv[3], AutoModelForSequenceClassification)):
    tokenizer = AutoTokenizer.from_pretrained(name)
    model, info = auto.from_pretrained(name, output_loading_info=True)
    batch = tokenizer(expected["texts"], padding="max_length", max_length=expected["max_length"], truncation=True)
    with torch.no_grad():
        logits = model.eval()(**{key: torch.tensor(value) for key, value in expected["encoding"].items()}).logits
    told[name] = {
        "missing": sorted(info["missing_keys"]), "dtype": str(logits.dtype), "encoding": dict(batch),
        "sums": logits.double().flatten(1).sum(1).tolist(),
        "first": logits[:, 0, :8].tolist() if logits.ndim == 3 else [],
        "logits": logits.tolist() if logits.ndim == 2 else [],
    }
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Loaded:
    """What transformers made of the models, and what it should have made of them."""

    told: dict[str, Any]
    expected: dict[str, Any]


@pytest.fixture(scope="module")
def loaded(pulled: Pulled) -> Loaded:
    logits = GOLDENS / "expected_logits.json"
    ran = pulled.hubcache.python(LOADER, logits, NAMES[UPSTREAM], NAMES[TEACHER])
    assert ran.code == 0, ran.err
    return Loaded(ran.facts, json.loads(logits.read_text()))


@needs_goldens
@pytest.mark.train
@pytest.mark.parametrize("stub", [UPSTREAM, TEACHER])
def test_a_pulled_model_loads_offline_with_every_weight(loaded: Loaded, stub: str) -> None:
    assert loaded.told[NAMES[stub]]["missing"] == []


@needs_goldens
@pytest.mark.train
@pytest.mark.parametrize("stub", [UPSTREAM, TEACHER])
def test_a_pulled_tokenizer_reads_as_the_original_did(loaded: Loaded, stub: str) -> None:
    encoding = loaded.told[NAMES[stub]]["encoding"]
    assert {key: encoding[key] for key in loaded.expected["encoding"]} == loaded.expected["encoding"]


@needs_goldens
@pytest.mark.train
def test_the_language_models_logits_are_the_originals(loaded: Loaded) -> None:
    told = loaded.told[NAMES[UPSTREAM]]
    assert told["sums"] == pytest.approx(loaded.expected["A_mlm_logits_sum_per_text"], abs=1e-3)
    for row, expected in zip(told["first"], loaded.expected["A_mlm_logits_first_token_first8"], strict=True):
        assert row == pytest.approx(expected, abs=2e-6)


@needs_goldens
@pytest.mark.train
def test_the_classifiers_logits_are_the_originals(loaded: Loaded) -> None:
    for row, expected in zip(loaded.told[NAMES[TEACHER]]["logits"], loaded.expected["B_logits"], strict=True):
        assert row == pytest.approx(expected, abs=2e-6)


# -- the protocol, on a small model


@pytest.fixture
def zoo() -> Iterator[LoopZoo]:
    with LoopZoo() as found:
        found.add_model(STUB, FILES, repo_name="tiny-base-mnli-base")
        yield found


@pytest.fixture
def hubcache(tmp_path: Path, zoo: LoopZoo) -> CommandLine:
    return CommandLine(tmp_path, SPARSEZOO_API_URL=zoo.endpoint)


def left_behind(hubcache: CommandLine) -> list[str]:
    """List the repos in the cache."""
    return sorted(path.name for path in hubcache.cache.glob("models--*"))


def test_a_warm_pull_is_one_request(hubcache: CommandLine, zoo: LoopZoo) -> None:
    hubcache("pull", STUB)
    zoo.clear()
    assert hubcache("pull", STUB).code == 0
    assert [(request.method, request.path) for request in zoo.requests] == [("POST", "/v2/graphql")]


def test_a_model_that_was_published_anew_is_a_new_commit(hubcache: CommandLine, zoo: LoopZoo) -> None:
    first = hubcache("pull", STUB, "--json").facts
    [row] = zoo.rows()
    zoo._models.remove(row)
    zoo.add_model(STUB, FILES | {"recipe.md": b"another recipe"})
    second = hubcache("pull", STUB, "--json").facts
    assert first["commit"] != second["commit"]
    assert Path(first["path"], "recipes/recipe.md").read_bytes() == b"recipe"


def test_with_the_zoo_down_a_pulled_model_is_found(hubcache: CommandLine, zoo: LoopZoo) -> None:
    first = hubcache("pull", STUB)
    zoo.stop()
    second = hubcache("pull", STUB)
    assert (second.code, second.out) == (0, first.out)


def test_bytes_that_are_not_the_listed_md5_are_refused_and_their_origin_is_named(
    hubcache: CommandLine, zoo: LoopZoo
) -> None:
    zoo.corrupt.add("training/pytorch_model.bin")
    ran = hubcache("pull", STUB)
    assert (ran.code, zoo.endpoint in ran.err, "pytorch_model.bin" in ran.err) == (6, True, True)


def test_a_listing_with_wrong_md5s_leaves_no_repo(hubcache: CommandLine, zoo: LoopZoo) -> None:
    zoo.wrong_md5 = True
    assert (hubcache("pull", STUB).code, left_behind(hubcache)) == (6, [])


def test_after_wrong_bytes_the_next_pull_is_right(hubcache: CommandLine, zoo: LoopZoo) -> None:
    zoo.corrupt.add("training/pytorch_model.bin")
    hubcache("pull", STUB)
    zoo.corrupt.clear()
    ran = hubcache("pull", STUB)
    assert files_of(Path(ran.out.strip()))["pytorch_model.bin"] == FILES["training/pytorch_model.bin"]


def test_a_file_of_another_size_than_listed_is_refused(hubcache: CommandLine, zoo: LoopZoo) -> None:
    zoo.wrong_size = True
    ran = hubcache("pull", STUB)
    assert (ran.code, zoo.endpoint in ran.err, left_behind(hubcache)) == (6, True, [])


def test_a_zoo_that_knows_no_md5_is_asked_without(hubcache: CommandLine, zoo: LoopZoo) -> None:
    zoo.reject_md5 = True
    assert hubcache("pull", STUB).code == 0
    assert ["md5" in query for query in zoo.queries[:2]] == [True, False]


def test_an_empty_file_is_pulled(hubcache: CommandLine, zoo: LoopZoo) -> None:
    zoo.add_model(STUB.replace("mnli", "qqp"), {"model.onnx": b"", "recipe.md": b"x"})
    ran = hubcache("pull", STUB.replace("mnli", "qqp"))
    assert (ran.code, files_of(Path(ran.out.strip()))["onnx/model.onnx"]) == (0, b"")


def test_a_recipe_that_is_published_can_be_asked_for(hubcache: CommandLine) -> None:
    assert hubcache("pull", f"{STUB}?recipe=transfer_text").code == 0


def test_an_unknown_recipe_is_answered_with_the_published_ones(hubcache: CommandLine) -> None:
    ran = hubcache("pull", f"{STUB}?recipe=nothing")
    assert ran.code == 4
    assert "hint: published: recipes/recipe.md, recipes/recipe_transfer_text.md" in ran.err


def test_a_recipe_that_means_several_is_answered_with_the_published_ones(hubcache: CommandLine, zoo: LoopZoo) -> None:
    stub = STUB.replace("mnli", "qqp")
    zoo.add_model(stub, {"recipe_transfer_a.md": b"a", "recipe_transfer_b.md": b"b"})
    ran = hubcache("pull", f"{stub}?recipe=transfer")
    assert (ran.code, "several recipes" in ran.err) == (4, True)


def test_an_unknown_stub_does_not_exist(hubcache: CommandLine) -> None:
    ran = hubcache("pull", STUB.replace("mnli", "qqp"))
    assert (ran.code, left_behind(hubcache)) == (4, [])


def test_a_v2_stub_is_the_same_model(hubcache: CommandLine) -> None:
    runs = [hubcache("pull", stub, "--json").facts for stub in (STUB, "zoo:tiny-base-mnli-base")]
    assert runs[0]["commit"] == runs[1]["commit"]
    assert runs[1]["repo"] == "sparsezoo/tiny-base-mnli-base"


def test_a_models_page_of_the_zoo_is_the_same_model(hubcache: CommandLine) -> None:
    page = "https://sparsezoo.neuralmagic.com/models/" + STUB.removeprefix("zoo:").replace("/", "%2F")
    assert hubcache("pull", page, "--json").facts["reference"] == STUB


def test_the_query_names_the_model_in_json_strings(hubcache: CommandLine, zoo: LoopZoo) -> None:
    hubcache("pull", STUB)
    arguments, fields = parse_query(zoo.queries[0])["models"]
    assert arguments == {
        "domain": "nlp", "task": "text_classification", "architecture": "tiny", "subArchitecture": "base",
        "framework": "pytorch", "repo": "huggingface", "sourceDataset": "mnli", "sparseTag": "base-none",
    }  # fmt: skip
    assert fields["files"][0] == {"version": 2}


@pytest.mark.parametrize("bad", ['m"nli', "m\\nli", "m{nli", "m)nli", "m\u201dnli"])
def test_nothing_that_could_end_a_string_gets_into_the_query(hubcache: CommandLine, zoo: LoopZoo, bad: str) -> None:
    assert (hubcache("pull", STUB.replace("mnli", bad)).code, zoo.requests) == (2, [])


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "training/../../evil", "a//b", "a\\..\\b", "C:/evil", "training/", "con", "x\n"]
)
def test_a_file_with_a_hostile_name_is_refused_before_anything_is_fetched(
    hubcache: CommandLine, zoo: LoopZoo, name: str
) -> None:
    stub = STUB.replace("mnli", "qqp")
    zoo.add_model(stub, {"model.onnx": b"x", name: b"evil"})
    ran = hubcache("pull", stub)
    assert (ran.code, {request.path for request in zoo.requests}) == (6, {"/v2/graphql"})
    assert [path for path in hubcache.home.parent.rglob("*evil*")] == []


def test_two_files_for_one_place_are_refused(hubcache: CommandLine, zoo: LoopZoo) -> None:
    stub = STUB.replace("mnli", "qqp")
    zoo.add_model(stub, {"training/model.md": b"one", "model.md": b"two"})
    ran = hubcache("pull", stub)
    assert (ran.code, "twice" in ran.err) == (6, True)


def test_a_download_at_another_origin_gets_no_token(tmp_path: Path, zoo: LoopZoo) -> None:
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(f"mirrors: [{{name: z, url: '{zoo.endpoint}', hub: sparsezoo, token: ZOO_TOKEN}}]")
    variables = {"SPARSEZOO_API_URL": zoo.endpoint, "HUBCACHE_MIRRORS": str(mirrors), "ZOO_TOKEN": "zoo_secret"}
    with ObjectStore({"weights": FILES["training/pytorch_model.bin"]}) as store:
        zoo.rows()[0]["files"][1]["downloadUrl"] = store.url("weights")
        assert CommandLine(tmp_path, **variables)("pull", STUB).code == 0
        assert {request.headers.get("authorization") for request in zoo.requests} == {"Bearer zoo_secret"}
        assert {request.headers.get("authorization") for request in store.requests} == {None}


def row(**changes: object) -> dict[str, object]:
    return {
        "displayName": "model.md",
        "downloadUrl": "https://zoo.example/f",
        "fileSize": 1,
        "fileType": "card",
    } | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"downloadUrl": "http://zoo.example/f"},
        {"downloadUrl": "file:///etc/passwd"},
        {"downloadUrl": "ftp://zoo.example/f"},
        {"downloadUrl": "http://[bad"},
        {"fileSize": -1},
        {"fileSize": "much"},
        {"fileSize": None},
        {"fileSize": float("inf")},
        {"fileSize": float("nan")},
        {"displayName": ""},
        {"displayName": None},
    ],
    ids=str,
)
def test_a_listed_file_that_cannot_be_had_safely_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(IntegrityError, match="lists a file that cannot be read"):
        _parse_file(row(**changes), "https://zoo.example")


@pytest.mark.parametrize("md5", [None, "", "0" * 31, "G" * 32, 5])
def test_what_is_no_md5_is_not_checked_against(md5: object) -> None:
    assert _parse_file(row(md5=md5), "https://zoo.example").md5 is None


@pytest.mark.parametrize(
    ("name", "file_type", "place"),
    [
        ("training/config.json", "training", "config.json"),
        ("training/sub/x.txt", "training", "sub/x.txt"),
        ("deployment/model.onnx", "deployment", "deployment/model.onnx"),
        ("deployment.tar.gz", "deployment", "deployment/deployment.tar.gz"),
        ("recipe_x.md", "recipe", "recipes/recipe_x.md"),
        ("sample-inputs.tar.gz", "inputs", "samples/sample-inputs.tar.gz"),
        ("sample-outputs_onnxruntime.tar.gz", "outputs", "samples/sample-outputs_onnxruntime.tar.gz"),
        ("model.onnx", "onnx", "onnx/model.onnx"),
        ("onnx/model.14.onnx", "onnx", "onnx/model.14.onnx"),
        ("benchmarks.yaml", "benchmarking", "benchmarks/benchmarks.yaml"),
        ("model.md", "card", "model.md"),
        ("logs/a.log", "", "logs/a.log"),
    ],
)
def test_a_published_file_has_its_place(name: str, file_type: str, place: str) -> None:
    assert place_file(name, file_type) == place


@contextmanager
def serving(answer: object) -> Iterator[str]:
    """Answer every request with the same JSON."""
    server = Server(lambda _: json_reply(answer))
    server.start()
    yield server.url
    server.stop()


NO_MODELS: list[object] = [
    {}, [], None, "text", {"data": None}, {"data": {}}, {"data": {"models": "abc"}},
    {"data": {"models": [{}]}}, {"data": {"models": [None]}}, {"data": {"models": [{"files": None}]}},
    {"errors": [{"message": "no"}]},
]  # fmt: skip


@pytest.mark.parametrize("answer", NO_MODELS, ids=str)
def test_an_answer_that_is_no_model_is_no_answer(tmp_path: Path, answer: object) -> None:
    with serving(answer) as url:
        ran = CommandLine(tmp_path, SPARSEZOO_API_URL=url)("pull", STUB)
    assert ran.code == 5, ran.err


def test_a_row_that_is_no_file_is_a_wrong_answer(tmp_path: Path) -> None:
    with serving({"data": {"models": [{"files": ["x", 3]}]}}) as url:
        ran = CommandLine(tmp_path, SPARSEZOO_API_URL=url)("pull", STUB)
    assert ran.code == 6, ran.err


# -- the oracle: the zoo's own client, unmodified

CLIENT = """
import sys
from sparsezoo import Model
Model(sys.argv[1], download_path=sys.argv[2]).download()
"""


@pytest.fixture(scope="module")
def sparsezoo(request: pytest.FixtureRequest) -> Path:
    """An interpreter with sparsezoo 1.8.1, installed once below pytest's cache folder."""
    folder = Path(request.config.cache.mkdir("sparsezoo-1.8.1"))
    python, ready = folder / "venv/bin/python", folder / "ready"
    if not ready.exists():
        uv = Path(sys.executable).with_name("uv")
        if not uv.exists():
            pytest.skip("no uv to install sparsezoo==1.8.1 with")
        # uv does not read pip's settings: a local wheel folder has to be handed over.
        environ = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), **os.environ}
        install = (uv, "pip", "install", "-q", "--python", python, "sparsezoo==1.8.1")
        for command in ((uv, "venv", "-q", "--clear", "--python", sys.executable, folder / "venv"), install):
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280, check=False)
            if done.returncode:
                pytest.skip(f"sparsezoo==1.8.1 cannot be installed here: {done.stderr.strip()[-300:]}")
        ready.touch()
    return python


@needs_goldens
@pytest.mark.slow
def test_the_zoos_own_client_downloads_the_same_bytes(sparsezoo: Path, pulled: Pulled, tmp_path: Path) -> None:
    with LoopZoo(GOLDENS) as zoo:
        ran = run(
            str(sparsezoo), "-c", CLIENT, UPSTREAM, str(tmp_path / "model"), timeout=120,
            PATH=os.environ["PATH"], HOME=str(tmp_path), NM_DISABLE_ANALYTICS="1", SPARSEZOO_API_URL=zoo.endpoint,
            SPARSEZOO_MODELS_PATH=str(tmp_path / "cache"),
        )  # fmt: skip
    assert ran.code == 0, ran.err
    theirs, ours = files_of(tmp_path / "model"), files_of(pulled.snapshot(UPSTREAM))
    names = {file["displayName"] for file in pulled.rows[UPSTREAM]["files"]}
    assert names <= set(theirs)
    assert {published_place(name): theirs[name] for name in names} == ours
