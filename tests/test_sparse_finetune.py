"""Recipes in a fine-tuning run: what they change, what is kept as the best, what the result carries, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import json

import torch
from safetensors.torch import load_file

from hubcache.errors import BadConfig, HubcacheError
from hubcache.train.card import write_card
from hubcache.train.checks import check
from hubcache.train.evaluate import EvaluateRequest, evaluate
from hubcache.train.finetune import FinetuneRequest, finetune
from hubcache.train.heads import load
from hubcache.train.record import Input, RunRecord
from hubcache.train.settings import TrainSettings
from hubcache.train.sparse.matching import prunable
from hubcache.train.sparse.recipe import ConstantPruningModifier, Recipe, parse_recipe, read_recipe
from hubcache.train.sparse.tuning import Tuning, changed_until
from hubcache.train.tasks import Task, changed, load_task
from tests.support.goldens import golden
from tests.support.training import rows_of, tiny_bert

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)

PRUNED, TEACHER, QUANTISED = (
    "74df043b-f28b-5bdb-beeb-7c2f69d81334",
    "6d2c97a2-eb7d-5b5c-86c4-1514d78a7b88",
    "ef11a466-4507-55f6-99c9-e7ef96b95b56",
)
TEXTS = ("good movie", "bad film", "not bad at all", "the worst film ever") * 5
STEADY = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !ConstantPruningModifier {params: __ALL_PRUNABLE__, start_epoch: 0}
"""
GRADUAL = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !GMPruningModifier
      params: ['re:bert.encoder.*weight']
      mask_type: unstructured
      init_sparsity: 0.2
      final_sparsity: 0.8
      start_epoch: 0
      end_epoch: 2
"""


def model_at(model_id: str) -> Path:
    return golden("sparse") / "fakezoo/files" / model_id / "training"


def seed_recipe() -> Recipe:
    return read_recipe(golden("sparse") / "recipes/01_seed_short.yaml")


def sentiment() -> Task:
    return changed(load_task("sst2"), {"labels": ["negative", "positive"], "options.max_length": 16})


def request_of(output: Path, recipe: Recipe | None, model: str = PRUNED, **settings: Any) -> FinetuneRequest:
    output.mkdir(exist_ok=True)
    rows = [{"sentence": text, "label": number % 2} for number, text in enumerate(TEXTS)]
    told = {"epochs": 3.0, "batch_size": 5, "learning_rate": 1e-3, "log_steps": 1, **settings}
    return FinetuneRequest(
        model=model_at(model), task=sentiment(), splits={"train": rows, "validation": rows[:8]}, output=output,
        settings=TrainSettings(**told), recipe=recipe,
        teacher=model_at(TEACHER) if recipe is not None and "Distillation" in recipe.to_yaml() else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return json.loads((golden("sparse") / "trainer/reference_run.json").read_text())  # type: ignore[no-any-return]  # JSON


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's run, in ours: the pruned model, the teacher and the tutorial's recipe."""
    output = tmp_path_factory.mktemp("trained") / "out"
    named = Input("zoo:tag?recipe=text", "ab" * 32)
    finetune(replace(request_of(output, seed_recipe()), recipe_input=named, recipe_arguments={"num_epochs": 3.0}))
    return output


# The reference's run


def test_the_result_has_the_references_state_keys(trained: Path, reference: dict[str, Any]) -> None:
    assert set(load_file(trained / "model.safetensors")) == {row["key"] for row in reference["state_dict"]}


def test_the_result_has_the_references_shapes(trained: Path, reference: dict[str, Any]) -> None:
    shapes = {name: list(value.shape) for name, value in load_file(trained / "model.safetensors").items()}
    assert shapes == {row["key"]: row["shape"] for row in reference["state_dict"]}


def test_the_log_tells_the_rate_that_the_recipe_sets(trained: Path, reference: dict[str, Any]) -> None:
    told = [row["learning_rate"] for row in RunRecord.read(trained).history if "learning_rate" in row]
    assert told == pytest.approx([rate for _, rate in reference["lr_logged_by_modifier"]], abs=1e-12)


def test_observers_are_frozen_when_the_recipe_says(trained: Path) -> None:
    state = load_file(trained / "model.safetensors")
    assert {int(value) for name, value in state.items() if name.endswith("observer_enabled")} == {0}


def test_every_zero_of_the_pruned_model_is_kept(trained: Path) -> None:
    before, after = (prunable(load(folder, sentiment()).model) for folder in (model_at(PRUNED), trained))
    kept = [name for name in before if name.startswith("bert.encoder")]
    assert kept
    assert all(torch.equal(before[name] == 0, after[name] == 0) for name in kept)


def test_the_sparsity_is_the_references(trained: Path) -> None:
    assert RunRecord.read(trained).sparsity["total"] == pytest.approx(0.8441, abs=5e-5)


# What the result carries


def test_the_recipe_beside_the_result_is_the_one_that_trained_it(trained: Path) -> None:
    assert read_recipe(trained / "recipe.yaml").modifiers == seed_recipe().modifiers


def test_the_record_names_the_recipe_and_its_arguments(trained: Path) -> None:
    record = RunRecord.read(trained)
    assert record.recipe == Input("zoo:tag?recipe=text", "ab" * 32)
    assert record.recipe_arguments == {"num_epochs": 3.0}


def test_the_card_tells_the_sparsity_over_all_and_by_layer(trained: Path, tmp_path: Path) -> None:
    text = write_card(RunRecord.read(trained), tmp_path, "me/mood").read_text()
    assert "**84.41 %** of the weights that can be pruned are zero" in text
    assert "| `bert.encoder.layer.0.attention.self.query.weight` | 9" in text


def test_the_result_loads_without_a_parameter_at_random(trained: Path) -> None:
    loaded = load(trained, sentiment(), trained=True)
    assert not loaded.new
    assert loaded.is_quantized


def test_the_result_scores_as_it_did_when_it_was_trained(trained: Path, tmp_path: Path) -> None:
    request = request_of(tmp_path / "unused", None)
    rows = request.splits["validation"]
    made = evaluate(EvaluateRequest(trained, sentiment(), rows, "validation", tmp_path / "scores"))
    assert made.metrics["validation"] == pytest.approx(RunRecord.read(trained).metrics["validation"])


def test_a_model_with_a_recipe_of_its_own_keeps_it_before_the_new_one(tmp_path: Path) -> None:
    finetune(request_of(tmp_path / "out", parse_recipe(STEADY), QUANTISED, epochs=1.0))
    stages = read_recipe(tmp_path / "out/recipe.yaml").stages
    assert [stage.name for stage in stages] == ["stage_0", "stage_1"]


def test_a_quantised_model_stays_quantised_under_another_recipe(tmp_path: Path) -> None:
    finetune(request_of(tmp_path / "out", parse_recipe(STEADY), QUANTISED, epochs=1.0))
    loaded = load(tmp_path / "out", sentiment(), trained=True)
    assert loaded.is_quantized
    assert not loaded.new


def test_a_quantised_model_trains_without_a_recipe_and_keeps_its_own(tmp_path: Path) -> None:
    finetune(request_of(tmp_path / "out", None, QUANTISED, epochs=1.0))
    assert (
        read_recipe(tmp_path / "out/recipe.yaml").modifiers
        == read_recipe(model_at(QUANTISED) / "recipe.yaml").modifiers
    )


# Which checkpoint is the best


@pytest.mark.parametrize(("epochs", "best"), [(2.0, None), (3.0, 12)])
def test_no_checkpoint_from_before_the_last_change_is_the_best(tmp_path: Path, epochs: float, best: int | None) -> None:
    record = finetune(request_of(tmp_path / "out", parse_recipe(GRADUAL), epochs=epochs))
    assert record.best_step == best


def test_a_run_that_ends_before_the_last_change_keeps_its_last_weights(tmp_path: Path) -> None:
    record = finetune(request_of(tmp_path / "out", parse_recipe(GRADUAL), epochs=1.0))
    assert record.sparsity["total"] > 0.4


@pytest.mark.parametrize(("text", "epoch"), [(GRADUAL, 2.0), (STEADY, 0.0)])
def test_the_last_change_is_the_end_of_pruning_or_the_start_of_constant_masks(text: str, epoch: float) -> None:
    assert changed_until(parse_recipe(text)) == epoch


def test_the_last_change_of_quantisation_is_when_its_scales_stand_still() -> None:
    assert changed_until(seed_recipe()) == 2.0


def test_patience_waits_for_the_last_change(tmp_path: Path) -> None:
    recipe = parse_recipe(GRADUAL)
    record = finetune(request_of(tmp_path / "out", recipe, early_stopping=1, evaluate="steps", evaluate_steps=1))
    assert max(row["step"] for row in record.history) > 8


def test_half_precision_ends_where_quantisation_begins() -> None:
    tuning = Tuning(seed_recipe(), 4, bf16=True)
    assert [step for step in range(12) if tuning.is_half(step)] == [0, 1, 2, 3]


def test_a_recipe_that_does_not_quantise_keeps_half_precision() -> None:
    assert Tuning(parse_recipe(STEADY), 4, bf16=True).is_half(7)


@pytest.mark.parametrize("recipe", ["steady", "seed"])
def test_a_run_in_bf16_keeps_its_zeros_and_reloads(tmp_path: Path, recipe: str) -> None:
    chosen = parse_recipe(STEADY) if recipe == "steady" else seed_recipe()
    finetune(request_of(tmp_path / "out", chosen, precision="bf16"))
    assert not load(tmp_path / "out", sentiment(), trained=True).new


# Teachers


def test_a_recipe_that_distils_refuses_to_go_without_a_teacher(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no teacher"):
        finetune(replace(request_of(tmp_path / "out", seed_recipe()), teacher=None))


@pytest.mark.parametrize("word", ["self", "disable"])
def test_a_model_may_teach_itself_or_go_without(tmp_path: Path, word: str) -> None:
    finetune(replace(request_of(tmp_path / "out", seed_recipe()), teacher=None, teacher_word=word))
    assert load(tmp_path / "out", sentiment(), trained=True).is_quantized


def test_a_recipe_of_full_hardness_takes_no_notice_of_labels(tmp_path: Path) -> None:
    request = request_of(tmp_path / "out", seed_recipe(), evaluate="no", save="no")
    finetune(request)
    turned = [{**row, "label": 1 - row["label"]} for row in request.splits["train"]]
    finetune(
        replace(request_of(tmp_path / "turned", seed_recipe(), evaluate="no", save="no"), splits={"train": turned})
    )
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "turned")


# Resuming


class Killed(Exception):
    """What ends a run as a kill does: between two checkpoints."""


def killing(step: int) -> Callable[[str], None]:
    def say(line: str) -> None:
        if line.startswith(f"step {step}/"):
            raise Killed

    return say


def bytes_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


SAVING: Mapping[str, Any] = {"save": "steps", "save_steps": 1, "evaluate": "steps", "evaluate_steps": 1}


@pytest.mark.parametrize("name", ["seed", "gradual", "steady"])
@pytest.mark.parametrize("steps", [(3, 6), (4, 9), (5, 11)])
def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(
    tmp_path: Path, name: str, steps: tuple[int, ...]
) -> None:
    recipe = seed_recipe() if name == "seed" else parse_recipe({"gradual": GRADUAL, "steady": STEADY}[name])
    dropout = {"hidden_dropout_prob": 0.1}
    finetune(replace(request_of(tmp_path / "whole", recipe, **SAVING), model_config=dropout))
    request = replace(request_of(tmp_path / "out", recipe, **SAVING), model_config=dropout)
    for step in steps:
        with pytest.raises(Killed):
            finetune(replace(request, say=killing(step)))
    lines: list[str] = []
    finetune(replace(request, say=lines.append))
    assert f"resumed from checkpoint-{steps[-1] - 1}" in lines
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_another_recipe_is_another_request(tmp_path: Path) -> None:
    request = request_of(tmp_path / "out", parse_recipe(GRADUAL), **SAVING)
    with pytest.raises(Killed):
        finetune(replace(request, say=killing(6)))
    lines: list[str] = []
    finetune(replace(request, recipe=parse_recipe(STEADY), say=lines.append))
    assert "the checkpoints here are of another request: starting over" in lines


# Findings before the first step


def found(request: FinetuneRequest) -> list[str]:
    return [one.what for one in check(request)]


def test_a_recipe_that_fits_has_nothing_against_it(tmp_path: Path) -> None:
    assert not found(request_of(tmp_path, seed_recipe()))


def test_parameters_that_match_nothing_are_found_before_the_run(tmp_path: Path) -> None:
    recipe = parse_recipe(GRADUAL.replace("bert.encoder", "roberta.encoder"))
    assert any("roberta.encoder" in what for what in found(request_of(tmp_path, recipe)))


def test_submodules_that_are_not_there_are_found_before_the_run(tmp_path: Path) -> None:
    text = (golden("sparse") / "recipes/01_seed_short.yaml").read_text().replace("bert.pooler", "bert.puller")
    assert any("bert.puller" in what for what in found(request_of(tmp_path, parse_recipe(text))))


def test_a_missing_teacher_is_found_before_the_run(tmp_path: Path) -> None:
    request = replace(request_of(tmp_path, seed_recipe()), teacher=None)
    assert found(request) == ["the recipe distils, and there is no teacher"]


def test_a_run_that_is_too_short_for_its_recipe_is_found(tmp_path: Path) -> None:
    assert found(request_of(tmp_path, parse_recipe(GRADUAL), epochs=2.0)) == [
        "the recipe has 3 epochs and the run 2: it ends before pruning or quantisation is complete"
    ]


def test_a_recipe_and_an_adapter_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(HubcacheError, match="adapter"):
        finetune(request_of(tmp_path / "out", parse_recipe(STEADY), adapter="houlsby"))


def test_a_model_whose_own_recipe_cannot_be_read_is_found_before_the_run(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path / "model")
    (model / "recipe.yaml").write_text("modifiers:\n  - !Nothing {}\n")
    request = replace(request_of(tmp_path / "out", None), model=model)
    assert any("Nothing" in what for what in found(request))


def test_zeros_are_kept_from_the_first_epoch_to_the_last_on_real_text(tmp_path: Path) -> None:
    rows = rows_of("rotten_tomatoes", "train", 200)
    pruned = parse_recipe(GRADUAL.replace("bert.encoder", ".*encoder"))
    request = FinetuneRequest(
        model=tiny_bert(tmp_path / "model"), task=load_task("rotten_tomatoes"),
        splits={"train": rows, "validation": rows_of("rotten_tomatoes", "validation", 60)}, output=tmp_path / "one",
        settings=TrainSettings(epochs=3, learning_rate=1e-3), recipe=pruned,
    )  # fmt: skip
    request.output.mkdir()
    first = finetune(request)
    steady = Recipe((ConstantPruningModifier(params="__ALL_PRUNABLE__", start_epoch=0.0),))
    (tmp_path / "two").mkdir()
    second = finetune(replace(request, model=tmp_path / "one", output=tmp_path / "two", recipe=steady))
    assert first.sparsity == second.sparsity
