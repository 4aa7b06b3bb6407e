"""The zoo's models pulled by their stubs from a zoo on loopback, then used offline: as models, teachers and recipes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import AutoModelForMaskedLM

from hubcache.app.local import LocalApp, compose_local
from hubcache.app.predicting import open_pipeline
from hubcache.app.settings import Settings
from hubcache.app.training import DataChoice, Planned, TrainRequest, check_training, plan_training
from hubcache.errors import UsageError
from hubcache.train.heads import load
from hubcache.train.record import RunRecord
from hubcache.train.sparse.recipe import read_recipe
from hubcache.train.tasks import Task, changed, load_task
from tests.support.commandline import CommandLine, Ran
from tests.support.goldens import golden
from tests.support.inprocess import InProcess
from tests.support.loopzoo import LoopZoo

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)

PRUNED, TEACHER, QUANTISED = (
    "zoo:nlp/masked_language_modeling/obert-base/pytorch/huggingface/wikipedia_bookcorpus/pruned90-none",
    "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/base-none",
    "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none",
)
TEXTS = ("good movie", "bad film", "not bad at all", "the worst film ever")


def sentiment() -> Task:
    return changed(load_task("sst2"), {"labels": ["negative", "positive"]})


@dataclass(frozen=True)
class Zoo:
    """The three models in a cache, by stub, and rows to train on; the zoo is stopped since."""

    hubcache: CommandLine
    paths: dict[str, Path]
    rows: Path

    def finetune(self, *arguments: str | Path) -> Ran:
        data = ("--task", "sst2", "--data", self.rows, "--set", "batch_size=5", "--set", "max_length=16")
        return self.hubcache("finetune", *arguments, *data, "--json", timeout=240)

    @property
    def app(self) -> LocalApp:
        """The cache, in this process."""
        settings = Settings.from_environ({})
        return compose_local(replace(settings, hub_cache=self.hubcache.cache, state=self.rows.parent / "state"))

    def plan(self, **told: Any) -> Planned:
        """Plan a run as the command does, in this process."""
        return plan_training(self.app, TrainRequest(PRUNED, "sst2", DataChoice(str(self.rows)), **told), say=len)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo")
    with LoopZoo(golden("sparse") / "fakezoo") as served:
        hubcache = InProcess(
            folder, SPARSEZOO_API_URL=served.endpoint, XDG_STATE_HOME=str(folder / "state"), OMP_NUM_THREADS="1"
        )
        pulled = hubcache("pull", PRUNED, TEACHER, QUANTISED, "--json")
        assert pulled.code == 0, pulled.err
    facts = [json.loads(line) for line in pulled.out.splitlines()]
    stubs = (PRUNED, TEACHER, QUANTISED)
    rows = folder / "rows"
    rows.mkdir()
    for split, count in (("train", 20), ("validation", 8), ("test", 8)):
        told = [
            {"sentence": TEXTS[number % 4], "label": ("positive", "negative")[number % 2]} for number in range(count)
        ]
        (rows / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return Zoo(hubcache, {stub: Path(fact["path"]) for stub, fact in zip(stubs, facts, strict=True)}, rows)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return json.loads((golden("sparse") / "fakezoo/expected_logits.json").read_text())  # type: ignore[no-any-return]  # JSON


def logits(model: Any, expected: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**{name: torch.tensor(rows) for name, rows in expected["encoding"].items()}).logits


@pytest.mark.parametrize(("stub", "name"), [(TEACHER, "B_logits"), (QUANTISED, "C_qat_logits")])
def test_a_pulled_classifier_says_what_the_reference_says(
    zoo: Zoo, expected: dict[str, Any], stub: str, name: str
) -> None:
    loaded = load(zoo.paths[stub], sentiment(), trained=True)
    assert torch.allclose(logits(loaded.model, expected), torch.tensor(expected[name]), rtol=0, atol=1e-6)


def test_the_pulled_language_model_says_what_the_reference_says(zoo: Zoo, expected: dict[str, Any]) -> None:
    model = AutoModelForMaskedLM.from_pretrained(zoo.paths[PRUNED])
    said = logits(model, expected)[:, 0, :8]
    assert torch.allclose(said, torch.tensor(expected["A_mlm_logits_first_token_first8"]), rtol=0, atol=1e-5)


def test_a_checkpoint_of_sparseml_loads_without_a_tensor_at_random(zoo: Zoo) -> None:
    loaded = load(zoo.paths[QUANTISED], sentiment())
    assert loaded.is_quantized
    assert not loaded.new


# The tutorial's path, by the real command


def test_the_whole_path_is_one_command(zoo: Zoo, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with LoopZoo(golden("sparse") / "fakezoo") as served:
        hubcache = InProcess(
            tmp_path, SPARSEZOO_API_URL=served.endpoint, XDG_STATE_HOME=str(tmp_path / "state"), OMP_NUM_THREADS="1"
        )
        ran = hubcache(
            "finetune", PRUNED, "--task", "sst2", "--recipe", QUANTISED, "--teacher", TEACHER, "--data", zoo.rows,
            "--pull", "--export", "integer", "--set", "batch_size=5", "--set", "max_length=16", "--output", "me/mood",
            "--json", timeout=280,
        )  # fmt: skip
    assert ran.code == 0, ran.err
    said = hubcache("predict", "text-classification", "me/mood-onnx", "good movie", "--backend", "onnx")
    assert (said.code, said.err) == (0, "")
    assert Path(ran.facts["exported"]["path"], "deployment/vocab.txt").is_file()
    assert json.loads(said.out)["label"] in {"positive", "negative"}


def test_integers_of_what_nothing_quantises_are_refused_before_the_training(zoo: Zoo) -> None:
    pytest.importorskip("onnxruntime")
    ran = zoo.finetune(TEACHER, "--export", "integer")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing quantises the model" in ran.err


@dataclass(frozen=True)
class Made:
    """What the path left: what the command said, and the model."""

    ran: Ran
    path: Path

    @property
    def record(self) -> RunRecord:
        return RunRecord.read(self.path)


@pytest.fixture(scope="module")
def made(zoo: Zoo) -> Made:
    recipe = ("--recipe", QUANTISED, "--recipe-arg", "init_lr=0.001")
    ran = zoo.finetune(PRUNED, *recipe, "--teacher", TEACHER, "--output", "me/mood")
    assert ran.code == 0, ran.err
    return Made(ran, Path(ran.facts["path"]))


def test_the_recipe_says_how_many_epochs_there_are(made: Made) -> None:
    assert max(row["epoch"] for row in made.record.history) == 3.0


def test_an_argument_changes_the_recipe(made: Made) -> None:
    rates = [row["learning_rate"] for row in made.record.history if "learning_rate" in row]
    assert rates[0] == pytest.approx(0.001)


def test_the_record_knows_recipe_and_arguments(made: Made) -> None:
    assert made.record.recipe is not None
    assert (made.record.recipe.name, made.record.recipe_arguments) == (QUANTISED, {"init_lr": 0.001})


def test_the_card_tells_the_sparsity(made: Made) -> None:
    assert "of the weights that can be pruned are zero" in (made.path / "README.md").read_text()


def test_the_recipe_beside_the_model_is_resolved(made: Made) -> None:
    assert "eval(" not in (made.path / "recipe.yaml").read_text()
    assert read_recipe(made.path / "recipe.yaml").max_epochs == 3


def test_the_result_is_scored_from_the_cache_as_it_was_when_trained(zoo: Zoo, made: Made) -> None:
    ran = zoo.hubcache("evaluate", "me/mood", "--task", "sst2", "--data", zoo.rows, "--json", "--split", "validation")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out.splitlines()[0])["metrics"]["validation"]
    assert told["loss"] == pytest.approx(made.record.metrics["validation"]["loss"])


@pytest.mark.parametrize("model", ["me/mood", QUANTISED, TEACHER])
def test_what_is_cached_predicts_what_its_logits_say(zoo: Zoo, made: Made, model: str) -> None:
    said = open_pipeline(zoo.app, "text-classification", model, options={"top_k": None})(["good movie"])[0]
    loaded = load(made.path if model == "me/mood" else zoo.paths[model], sentiment(), trained=True)
    with torch.no_grad():
        found = loaded.model.eval()(**loaded.tokenizer("good movie", return_tensors="pt")).logits.softmax(-1)
    assert sorted(row["score"] for row in said) == pytest.approx(sorted(found[0].tolist()), abs=1e-6)


def test_the_command_predicts_with_a_quantised_model(zoo: Zoo) -> None:
    ran = zoo.hubcache("predict", "text-classification", QUANTISED, "good movie", "--json")
    assert ran.code == 0, ran.err
    assert "score" in ran.out


# Planned alone


def test_a_recipe_is_asked_for_by_its_name(zoo: Zoo) -> None:
    planned = zoo.plan(recipe=f"{PRUNED}?recipe=transfer_text")
    assert planned.request.recipe is not None
    assert planned.request.recipe.max_epochs == 8


def test_the_recipe_decides_the_number_of_epochs(zoo: Zoo) -> None:
    assert zoo.plan(recipe=QUANTISED, teacher=TEACHER).request.settings.epochs == 3.0


def test_epochs_that_were_set_hold_and_that_is_said(zoo: Zoo) -> None:
    planned = zoo.plan(recipe=QUANTISED, teacher=TEACHER, settings=("epochs=1", "max_length=16"))
    assert planned.request.settings.epochs == 1.0
    assert any("the recipe has 3 epochs and the run 1" in line for line in check_training(planned))


def test_a_recipe_that_distils_asks_for_a_teacher_before_the_run(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match="the recipe distils, and there is no teacher"):
        check_training(zoo.plan(recipe=QUANTISED, settings=("max_length=16",)))


def test_arguments_without_a_recipe_are_refused(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match="--recipe-arg changes a recipe"):
        zoo.plan(recipe_arguments={"num_epochs": 1.0})


def test_an_argument_makes_another_run(zoo: Zoo) -> None:
    told = [zoo.plan(recipe=QUANTISED, teacher=TEACHER, recipe_arguments={"init_lr": rate}) for rate in (0.001, 0.002)]
    assert told[0].request.output != told[1].request.output


@pytest.mark.parametrize("word", ["self", "disable"])
def test_a_recipe_that_distils_takes_words_for_a_teacher(zoo: Zoo, word: str) -> None:
    assert zoo.plan(recipe=QUANTISED, teacher=word).request.teacher_word == word
