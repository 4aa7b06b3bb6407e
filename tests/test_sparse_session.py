"""A recipe on transformers' own Trainer: each kind of modifier, and checkpoints that are gone on from.

What a modifier does at each step is in test_sparse_schedules.py and test_sparse_pruning.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from hubcache.train.sparse.callback import RecipeCallback
from hubcache.train.sparse.matching import prunable
from hubcache.train.sparse.recipe import Recipe, parse_recipe
from hubcache.train.sparse.session import Session, actions_for

pytestmark = pytest.mark.train
torch.set_num_threads(1)

ROWS, BATCH = 24, 4
STEPS_PER_EPOCH = ROWS // BATCH
CONSTANT = "modifiers:\n  - !ConstantPruningModifier\n      params: __ALL_PRUNABLE__\n"
GRADUAL = """
modifiers:
  - !GMPruningModifier
      params: ['re:bert.encoder.*dense.weight']
      init_sparsity: {init}
      final_sparsity: 0.6
      start_epoch: 0.0
      end_epoch: 2.0
      update_frequency: 0.5
"""
LINEAR = """
modifiers:
  - !LearningRateFunctionModifier
      start_epoch: 0.0
      end_epoch: 3.0
      lr_func: linear
      init_lr: 0.003
      final_lr: 0
"""
ALL_KINDS = """
training_modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: 3.0
  - !LearningRateFunctionModifier
      start_epoch: 0.5
      end_epoch: 2.6
      lr_func: cosine
      init_lr: 0.003
      final_lr: 0.0001
  - !SetLearningRateModifier
      learning_rate: 0.001
  - !SetWeightDecayModifier
      start_epoch: 1.0
      weight_decay: 0.3
  - !TrainableParamsModifier
      params: ['re:bert.embeddings']
      trainable: False
      start_epoch: 1.0
      end_epoch: 2.0
pruning_modifiers:
  - !ConstantPruningModifier
      start_epoch: 0.0
      end_epoch: 2.5
      params: ['re:bert.encoder.layer.0.*query.weight']
  - !MagnitudePruningModifier
      params: ['re:bert.encoder.*dense.weight']
      init_sparsity: __FROM_PARAM__
      final_sparsity: 0.6
      start_epoch: 0.5
      end_epoch: 2.5
      mask_type: block4
  - !GlobalMagnitudePruningModifier
      params: ['re:bert.encoder.*value.weight', 'bert.pooler.dense.weight']
      init_sparsity: 0.05
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 1.5
      update_frequency: 0.25
"""


class Rows(torch.utils.data.Dataset):
    """A few rows of tokens, the same everywhere."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(5)
        self.ids = torch.randint(0, 60, (ROWS, 6), generator=draw)
        self.labels = torch.randint(0, 2, (ROWS,), generator=draw)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[row], "labels": self.labels[row]}


def tiny(sparsity: float = 0.7) -> Any:
    """Return a BERT of two layers in which a share of the prunable weights is zero."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    model = BertForSequenceClassification(config)
    for weight in prunable(model).values():
        weight.data.mul_(torch.rand_like(weight) > sparsity)
    return model


def trainer(model: Any, recipe: Recipe, folder: Path, *callbacks: TrainerCallback, **changed: Any) -> Trainer:
    settings: dict[str, Any] = {
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "num_train_epochs": 3,
        "per_device_train_batch_size": BATCH,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "warmup_steps": 4,
    }
    arguments = TrainingArguments(str(folder), **settings | changed)
    every = [RecipeCallback(recipe, STEPS_PER_EPOCH), *callbacks]
    return Trainer(model, arguments, train_dataset=Rows(), callbacks=every)


class AtEachStep(TrainerCallback):
    """Keep what a function says of the model and the optimizer after each step."""

    def __init__(self, ask: Callable[[Any, Any], Any]) -> None:
        self.ask = ask
        self.told: list[Any] = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.told.append(self.ask(kwargs["model"], kwargs["optimizer"]))


def zeros(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach() == 0 for name, weight in prunable(model).items()}


def state(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# Each kind on a Trainer


def test_constant_pruning_keeps_the_zeros_at_every_step(tmp_path: Path) -> None:
    model = tiny()
    before = zeros(model)
    watch = AtEachStep(lambda model, _: is_same(zeros(model), before))
    trainer(model, parse_recipe(CONSTANT), tmp_path, watch).train()
    assert watch.told == [True] * 18


def test_without_a_recipe_the_zeros_would_fill(tmp_path: Path) -> None:
    model = tiny()
    before = zeros(model)
    trainer(model, Recipe(()), tmp_path).train()
    assert not is_same(zeros(model), before)


def test_accumulated_batches_keep_the_zeros(tmp_path: Path) -> None:
    model = tiny()
    before = zeros(model)
    trainer(model, parse_recipe(CONSTANT), tmp_path, gradient_accumulation_steps=2).train()
    assert is_same(zeros(model), before)


def test_half_precision_keeps_the_zeros(tmp_path: Path) -> None:
    model = tiny()
    before = zeros(model)
    trainer(model, parse_recipe(CONSTANT), tmp_path, bf16=True).train()
    assert is_same(zeros(model), before)


def test_gradual_pruning_comes_to_its_share_in_each_weight(tmp_path: Path) -> None:
    model = tiny(sparsity=0.0)
    trainer(model, parse_recipe(GRADUAL.format(init=0.05)), tmp_path).train()
    weights = {name: one for name, one in prunable(model).items() if "encoder" in name and "dense" in name}
    assert len(weights) == 6
    assert all(int((one == 0).sum()) == round(one.numel() * 0.6) for one in weights.values())


def test_the_recipes_rate_wins_over_the_trainers_scheduler(tmp_path: Path) -> None:
    watch = AtEachStep(lambda _, optimizer: [group["lr"] for group in optimizer.param_groups])
    trainer(tiny(), parse_recipe(LINEAR), tmp_path, watch).train()
    assert watch.told == [pytest.approx([0.003 * (1 - step / 18)] * 2) for step in range(18)]


def test_the_log_tells_the_true_rate(tmp_path: Path) -> None:
    runner = trainer(tiny(), parse_recipe(LINEAR), tmp_path)
    runner.train()
    logged = [row["learning_rate"] for row in runner.state.log_history if "learning_rate" in row]
    assert logged == pytest.approx([0.003 * (1 - step / 18) for step in range(18)])


def test_a_recipe_without_rates_leaves_the_trainers_scheduler(tmp_path: Path) -> None:
    told = []
    for recipe in (Recipe(()), parse_recipe(CONSTANT)):
        runner = trainer(tiny(), recipe, tmp_path)
        runner.train()
        told.append([row["learning_rate"] for row in runner.state.log_history if "learning_rate" in row])
    assert told[0] == told[1]
    assert len(set(told[0])) > 10


def test_the_rate_before_a_late_schedule_is_constant(tmp_path: Path) -> None:
    late = LINEAR.replace("start_epoch: 0.0", "start_epoch: 1.0")
    watch = AtEachStep(lambda _, optimizer: optimizer.param_groups[0]["lr"])
    trainer(tiny(), parse_recipe(late), tmp_path, watch).train()
    assert watch.told[:7] == pytest.approx([1e-3] * 6 + [0.003])


def test_weight_decay_leaves_the_group_of_biases_and_norms(tmp_path: Path) -> None:
    recipe = parse_recipe("modifiers:\n  - !SetWeightDecayModifier\n      start_epoch: 1.0\n      weight_decay: 0.3\n")
    watch = AtEachStep(lambda _, optimizer: [group["weight_decay"] for group in optimizer.param_groups])
    trainer(tiny(), recipe, tmp_path, watch).train()
    assert watch.told == [[0.1, 0.0]] * 6 + [[0.3, 0.0]] * 12


def test_frozen_parameters_do_not_move(tmp_path: Path) -> None:
    freeze = "modifiers:\n  - !TrainableParamsModifier\n      params: ['re:bert']\n      trainable: False\n"
    model = tiny()
    before = state(model)
    trainer(model, parse_recipe(freeze), tmp_path).train()
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_a_training_leaves_no_hook_and_no_key(tmp_path: Path) -> None:
    model = tiny()
    keys = list(model.state_dict())
    trainer(model, parse_recipe(ALL_KINDS), tmp_path).train()
    assert list(model.state_dict()) == keys
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_a_training_that_broke_off_leaves_no_hook_to_the_next(tmp_path: Path) -> None:
    class Break(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    model = tiny()
    runner = trainer(model, parse_recipe(CONSTANT), tmp_path, Break())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    runner.remove_callback(Break)
    runner.train()
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


# Going on


@pytest.mark.parametrize("recipe", [CONSTANT, GRADUAL.format(init="__FROM_PARAM__"), LINEAR, ALL_KINDS])
@pytest.mark.parametrize("step", [1, 4, 7, 13])
def test_a_resumed_training_ends_with_the_bits_of_one_that_ran_through(tmp_path: Path, recipe: str, step: int) -> None:
    settings = {"save_strategy": "steps", "save_steps": step}
    whole = tiny()
    trainer(whole, parse_recipe(recipe), tmp_path, **settings).train()
    resumed = tiny(sparsity=0.0)
    runner = trainer(resumed, parse_recipe(recipe), tmp_path, **settings)
    runner.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert is_same(state(resumed), state(whole))


def test_a_resumed_training_logs_the_rates_of_one_that_ran_through(tmp_path: Path) -> None:
    logged = []
    for resume in (None, str(tmp_path / "checkpoint-7")):
        runner = trainer(tiny(), parse_recipe(ALL_KINDS), tmp_path, save_strategy="steps", save_steps=7)
        runner.train(resume_from_checkpoint=resume)
        logged.append([row["learning_rate"] for row in runner.state.log_history if "learning_rate" in row])
    assert logged[0] == logged[1]


# The session


def test_modifiers_of_length_and_distillation_are_no_actions() -> None:
    recipe = parse_recipe(
        "modifiers:\n  - !EpochRangeModifier\n      start_epoch: 0.0\n      end_epoch: 3.0\n"
        "  - !DistillationModifier\n      hardness: 1.0\n"
    )
    assert actions_for(recipe) == []


def test_actions_stand_in_the_recipes_order() -> None:
    recipe = parse_recipe(ALL_KINDS)
    expected = [one for one in recipe.modifiers if type(one).__name__ != "EpochRangeModifier"]
    assert [action.definition for action in actions_for(recipe)] == expected


def test_restoring_at_the_first_step_changes_nothing() -> None:
    model = tiny()
    before = state(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    session = Session(model, optimizer, parse_recipe(ALL_KINDS), STEPS_PER_EPOCH)
    session.restore(0)
    assert is_same(state(model), before)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
