"""A recipe's learning rates, weight decay and frozen parameters against what SparseML set at each step.

The rates go through the real session; two kinds go through transformers' Trainer too.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from hubcache.errors import BadConfig
from hubcache.train.sparse.recipe import (
    LearningRateFunctionModifier,
    LearningRateModifier,
    Modifier,
    Recipe,
    SetLearningRateModifier,
    SetWeightDecayModifier,
    TrainableParamsModifier,
    parse_recipe,
)
from hubcache.train.sparse.session import Session
from tests.support.goldens import golden

pytestmark = pytest.mark.train
torch.set_num_threads(1)

OVERSHOOTS = "fractional end epoch"
EXACT = 1e-15


def cases() -> list[dict[str, Any]]:
    """Return the reference's schedules; the last two have two parameter groups."""
    found: list[dict[str, Any]] = json.loads(golden("sparse/lr_schedule.json").read_text())["cases"]
    return found


NAMES = [
    "linear 1.5e-4 -> 0 over 3 epochs (seed shape)",
    "linear warm-up, upward",
    "cosine down",
    "cosine up",
    "cyclic_linear, 2-epoch cycles, 3 epochs",
    OVERSHOOTS,
    "set lr at 0 and 1.5",
    "set lr start -1",
    "ExponentialLR",
    "MultiStepLR",
    "param_groups [0] (reference treats index 0 list normally)",
    "weight decay: all groups",
]


def followed(recipe: Recipe, steps_per_epoch: int, steps: int, groups: int = 1) -> tuple[list[Any], list[Any]]:
    """Return the rates and weight decays that each optimizer step uses, a list a step where there are groups."""
    parameters = [nn.Parameter(torch.ones(2, 2)) for _ in range(groups)]
    optimizer = torch.optim.SGD([{"params": [one]} for one in parameters], lr=0.333, weight_decay=0.5)
    session = Session(nn.ParameterList(parameters), optimizer, recipe, steps_per_epoch)
    rates, decays = [], []
    for step in range(steps):
        session.before_step(step)
        rates.append([group["lr"] for group in optimizer.param_groups])
        decays.append([group["weight_decay"] for group in optimizer.param_groups])
        session.after_step(step)
    return rates, decays


def listed(values: list[Any]) -> list[list[float]]:
    return [value if isinstance(value, list) else [value] for value in values]


@pytest.mark.parametrize("name", NAMES)
def test_each_step_uses_the_references_rate_and_decay(name: str) -> None:
    [case] = [one for one in cases() if one["name"] == name]
    expected = listed(case["lr"])
    rates, decays = followed(
        parse_recipe(case["recipe"]), case["steps_per_epoch"], len(expected), groups=len(expected[0])
    )
    if name == OVERSHOOTS:
        expected = [[max(rate, 0.0) for rate in step] for step in expected]
    assert rates == [pytest.approx(step, rel=0, abs=EXACT) for step in expected]
    assert decays == listed(case["weight_decay"])


def test_no_golden_schedule_is_left_out() -> None:
    assert [case["name"] for case in cases()] == NAMES


# What no golden says


def rates_of(*modifiers: Modifier, steps: int, steps_per_epoch: int = 4) -> list[float]:
    return [rate for [rate] in followed(Recipe(modifiers), steps_per_epoch, steps)[0]]


def linear(start: float, end: float, init: float, final: float) -> Modifier:
    window = {"start_epoch": start, "end_epoch": end}
    return LearningRateFunctionModifier(**window, lr_func="linear", init_lr=init, final_lr=final)


def test_a_rate_does_not_fall_below_its_end() -> None:
    assert rates_of(linear(0, 1.3, 0.1, 0.0), steps=8)[6:] == [0.0, 0.0]


def test_the_rate_before_a_schedule_is_the_optimizers() -> None:
    assert rates_of(linear(1, 2, 0.1, 0.0), steps=5) == [0.333] * 4 + [0.1]


def test_a_warm_up_is_followed_by_a_decay() -> None:
    rates = rates_of(linear(0, 1, 0.0, 0.1), linear(1, 2, 0.1, 0.0), steps=9)
    assert rates == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.075, 0.05, 0.025, 0])


def test_a_start_that_arithmetic_missed_by_a_rounding_is_met() -> None:
    late = SetLearningRateModifier(start_epoch=0.1 * 3, learning_rate=0.1)
    assert rates_of(late, steps=4, steps_per_epoch=10)[3] == 0.1


def test_a_scheduler_of_torchs_may_step_every_two_epochs() -> None:
    step = LearningRateModifier(
        start_epoch=0.0, lr_class="StepLR", lr_kwargs={"step_size": 2, "gamma": 0.5}, init_lr=0.1
    )
    assert rates_of(step, steps=9, steps_per_epoch=2) == [0.1] * 4 + [0.05] * 4 + [0.025]


def test_milestones_are_epochs_of_the_training() -> None:
    options = {"milestones": [2, 3], "gamma": 0.5}
    late = LearningRateModifier(start_epoch=1.0, lr_class="MultiStepLR", lr_kwargs=options, init_lr=0.1)
    assert rates_of(late, steps=7, steps_per_epoch=2) == [0.333] * 2 + [0.1] * 2 + [0.05] * 2 + [0.025]


@pytest.mark.parametrize("growth", [1, 2])
def test_restarts_are_those_of_torchs_scheduler(growth: int) -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, growth, 0.01)
    expected = []
    for step in range(30):
        scheduler.step(step / 4)
        expected.append(optimizer.param_groups[0]["lr"])
    options = {"cycle_epochs": 2, "lr_min": 0.01, "T_mult": growth}
    ours = LearningRateModifier(start_epoch=0.0, lr_class="CosineAnnealingWarmRestarts", lr_kwargs=options, init_lr=0.1)
    assert rates_of(ours, steps=30) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("StepLR", {"step": 1}, "StepLR has no 'step'"),
        ("ExponentialLR", {}, "do not fit ExponentialLR"),
        ("MultiStepLR", {"milestones": [1, 9]}, "must lie within 0 to 4"),
    ],
)
def test_options_that_a_scheduler_does_not_have_are_refused(name: str, options: dict[str, Any], wrong: str) -> None:
    definition = LearningRateModifier(start_epoch=0.0, end_epoch=4.0, lr_class=name, lr_kwargs=options, init_lr=0.1)
    with pytest.raises(BadConfig, match=wrong):
        followed(Recipe((definition,)), 4, 1)


def test_a_parameter_group_that_the_optimizer_does_not_have_is_refused() -> None:
    with pytest.raises(BadConfig, match="the optimizer has 1 groups"):
        followed(Recipe((SetLearningRateModifier(learning_rate=0.1, param_groups=[1]),)), 4, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_session_goes_on_with_the_same_rates(name: str) -> None:
    [case] = [one for one in cases() if one["name"] == name]
    recipe, groups = parse_recipe(case["recipe"]), len(listed(case["lr"])[0])
    whole, _ = followed(recipe, case["steps_per_epoch"], len(case["lr"]), groups)
    for begin in range(1, len(case["lr"])):
        parameters = [nn.Parameter(torch.ones(2, 2)) for _ in range(groups)]
        optimizer = torch.optim.SGD([{"params": [one]} for one in parameters], lr=0.333)
        session = Session(nn.ParameterList(parameters), optimizer, recipe, case["steps_per_epoch"])
        session.restore(begin)
        for step in range(begin, len(case["lr"])):
            session.before_step(step)
            assert [group["lr"] for group in optimizer.param_groups] == whole[step]


# Weight decay


def decayed(*, decay: float, groups: list[int] | None = None) -> list[float]:
    """Return the decays that a matrix and a vector have after a modifier that sets 0.01."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(
        [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias], "weight_decay": 0.0}]
    )
    recipe = Recipe((SetWeightDecayModifier(weight_decay=0.01, param_groups=groups),))
    Session(layer, optimizer, recipe, 4).before_step(0)
    return [group["weight_decay"] for group in optimizer.param_groups]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_biases_and_norms_without_weight_decay_stay_without(decay: float) -> None:
    assert decayed(decay=decay) == [0.01, 0.0]


def test_a_group_that_is_named_gets_the_weight_decay() -> None:
    assert decayed(decay=0.1, groups=[1]) == [0.1, 0.01]


# Frozen parameters


def frozen_session(**changed: Any) -> tuple[nn.Module, Session, list[str]]:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    settings: dict[str, Any] = {"params": ("0.weight",), "trainable": False, "start_epoch": 1.0} | changed
    said: list[str] = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return net, Session(net, optimizer, Recipe((TrainableParamsModifier(**settings),)), 2, said.append), said


def stepped(net: nn.Module, session: Session, steps: range) -> list[bool]:
    """Return whether the first layer's weight moved at each step."""
    moved = []
    for step in steps:
        before = net[0].weight.detach().clone()
        session.training.optimizer.zero_grad()
        net(torch.ones(1, 2)).sum().backward()
        session.before_step(step)
        session.training.optimizer.step()
        session.after_step(step)
        moved.append(not torch.equal(before, net[0].weight))
    return moved


def test_a_frozen_parameter_does_not_move_from_its_start_on() -> None:
    net, session, _ = frozen_session()
    assert stepped(net, session, range(5)) == [True, True, False, False, False]


def test_a_frozen_parameter_moves_again_after_its_end() -> None:
    net, session, _ = frozen_session(end_epoch=2.0)
    assert stepped(net, session, range(6)) == [True, True, False, False, False, True]


def test_a_resumed_session_freezes_again() -> None:
    net, session, _ = frozen_session()
    session.restore(3)
    assert stepped(net, session, range(3, 5)) == [False, False]


def test_a_name_that_no_parameter_has_is_refused_where_the_recipe_is_strict() -> None:
    _, session, _ = frozen_session(params=("9.weight",), start_epoch=-1.0)
    with pytest.raises(BadConfig, match=r"no parameter is '9.weight'"):
        session.before_step(0)


def test_a_name_that_no_parameter_has_is_told_where_it_is_not() -> None:
    _, session, said = frozen_session(params=("9.weight",), start_epoch=-1.0, params_strict=False)
    session.before_step(0)
    assert "9.weight" in said[0]
