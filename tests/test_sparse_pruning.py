"""Masks against the weights that SparseML left after each step, and against what no golden says.

Everything goes through the real session; Trainer runs and resuming are in test_sparse_session.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from hubcache.errors import BadConfig
from hubcache.train.sparse.masks import keep_masks, structure_of
from hubcache.train.sparse.matching import matching
from hubcache.train.sparse.pruning import MagnitudePruning
from hubcache.train.sparse.recipe import (
    ConstantPruningModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    Recipe,
    parse_recipe,
)
from hubcache.train.sparse.session import Session
from tests.support.goldens import golden

pytestmark = pytest.mark.train
torch.set_num_threads(1)

WEIGHTS = 2.4e-7
"""What lies between torch 1.13, which computed the goldens, and 2.13."""


# The goldens: constant pruning


class Net(nn.Module):
    """The goldens' net: an embedding and two linear layers, averaged over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 4)
        self.fc1 = nn.Linear(4, 3)
        self.fc2 = nn.Linear(3, 2)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.fc2(torch.relu(self.fc1(self.emb(ids)))).mean(1)
        return logits


def constant() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(golden("sparse/constant_pruning.json").read_text())
    return found


def net_of(told: Mapping[str, Any]) -> Net:
    net = Net()
    net.load_state_dict({name: torch.tensor(value) for name, value in told["initial"].items()})
    return net


def optimizer_of(name: str, net: nn.Module) -> torch.optim.Optimizer:
    if name == "sgd_momentum":
        return torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    return torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)


RUNS = [
    (optimizer, recipe)
    for optimizer in ("sgd_momentum", "adamw")
    for recipe in ("all_prunable", "regex_fc1", "all_token", "start_1_end_2", "none")
]


@pytest.mark.parametrize(("optimizer_name", "recipe_name"), RUNS)
def test_constant_pruning_leaves_the_references_weights_after_each_step(optimizer_name: str, recipe_name: str) -> None:
    told = constant()
    [run] = [one for one in told["runs"] if (one["optimizer"], one["recipe"]) == (optimizer_name, recipe_name)]
    net = net_of(told)
    optimizer = optimizer_of(optimizer_name, net)
    text = told["recipes"][recipe_name]
    session = Session(net, optimizer, parse_recipe(text) if text else Recipe(()), told["steps_per_epoch"])
    for step, expected in enumerate(run["after_step"]):
        optimizer.zero_grad()
        loss = cross_entropy(net(torch.tensor(told["input_ids"])), torch.tensor(told["labels"]))
        loss.backward()
        session.before_step(step)
        optimizer.step()
        session.after_step(step)
        assert loss.item() == pytest.approx(run["loss"][step], abs=WEIGHTS)
        for name, parameter in net.state_dict().items():
            torch.testing.assert_close(parameter, torch.tensor(expected[name]), rtol=0, atol=WEIGHTS)
    zeros = {name: int((parameter == 0).sum()) for name, parameter in net.state_dict().items()}
    assert zeros == run["zeros_final"]


def test_no_golden_run_of_constant_pruning_is_left_out() -> None:
    assert {(run["optimizer"], run["recipe"]) for run in constant()["runs"]} == set(RUNS)


# The goldens: gradual pruning

GRADUAL = ["cubic 0.05->0.9, ep1..3, freq 0.5", "linear 0->0.8 every step", "inverse_cubic", "leave_enabled false"]


def gradual() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(golden("sparse/gradual_pruning.json").read_text())
    return found


def test_no_golden_run_of_gradual_pruning_is_left_out() -> None:
    assert [case["name"] for case in gradual()["cases"]] == GRADUAL


@pytest.mark.parametrize("name", GRADUAL)
def test_gradual_pruning_has_the_references_zeros_after_each_step(name: str) -> None:
    [case] = [one for one in gradual()["cases"] if one["name"] == name]
    net = nn.Module()
    net.lin = nn.Linear(5, 2)
    net.lin.weight.data = torch.tensor(gradual()["weight"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    session = Session(net, optimizer, parse_recipe(case["recipe"]), steps_per_epoch=4)
    [action] = session.actions
    assert isinstance(action, MagnitudePruning)
    for row in case["rows"]:
        session.before_step(row["step"])
        optimizer.step()
        session.after_step(row["step"])
        assert int((net.lin.weight == 0).sum()) == row["zeros"]
        assert bool(action.masked) == row["enabled"]
    assert net.lin.weight.tolist() == torch.tensor(case["final_weight"]).tolist()


@pytest.mark.parametrize("name", GRADUAL)
def test_gradual_pruning_aims_at_the_references_sparsity(name: str) -> None:
    [case] = [one for one in gradual()["cases"] if one["name"] == name]
    net = nn.Module()
    net.lin = nn.Linear(5, 2)
    session = Session(net, torch.optim.SGD(net.parameters(), lr=0.0), parse_recipe(case["recipe"]), steps_per_epoch=4)
    [action] = session.actions
    assert isinstance(action, MagnitudePruning)
    for row in case["rows"]:
        session.before_step(row["step"])
        if row["applied_sparsity"] is not None:
            assert action.applied["lin.weight"] == pytest.approx(row["applied_sparsity"], abs=1e-15)


# Zeros stay


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, session: Session, steps: range) -> None:
    """Train on noise, which a seed a step decides."""
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        net(torch.randn(8, 12)).square().mean().backward()
        session.before_step(step)
        optimizer.step()
        session.after_step(step)


def layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


def pruned_layers() -> nn.Sequential:
    net = layers()
    for layer in (net[0], net[2]):
        layer.weight.data.mul_(torch.rand_like(layer.weight) > 0.7)
    return net


def constant_recipe(params: str | tuple[str, ...] = "__ALL_PRUNABLE__", **epochs: float) -> Recipe:
    return Recipe((ConstantPruningModifier(params=params, **epochs),))


def gradual_recipe(kind: type[GMPruningModifier] = GMPruningModifier, **changed: Any) -> Recipe:
    settings: dict[str, Any] = {"params": "__ALL_PRUNABLE__", "init_sparsity": 0.1, "final_sparsity": 0.8} | changed
    return Recipe((kind(start_epoch=0.0, end_epoch=2.0, **settings),))


def test_zeros_outlast_momentum_and_weight_decay() -> None:
    net = pruned_layers()
    zeros = {name: one == 0 for name, one in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    trained(net, optimizer, Session(net, optimizer, constant_recipe(), 4), range(30))
    for name in ("0.weight", "2.weight"):
        assert torch.equal(net.state_dict()[name] == 0, zeros[name])


def test_what_is_not_pruned_trains() -> None:
    net = pruned_layers()
    before = net[0].weight.detach().clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    trained(net, optimizer, Session(net, optimizer, constant_recipe(), 4), range(3))
    assert bool((net[0].weight != before)[before != 0].all())


def test_clipping_sees_the_masked_gradient() -> None:
    net = pruned_layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    session = Session(net, optimizer, constant_recipe(), 4)
    trained(net, optimizer, session, range(1))
    optimizer.zero_grad()
    net(torch.randn(8, 12)).square().mean().backward()
    assert net[0].weight.grad is not None
    assert not bool(net[0].weight.grad[net[0].weight == 0].any())


def test_no_state_key_changes() -> None:
    net = pruned_layers()
    keys = list(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    session = Session(net, optimizer, constant_recipe(), 4)
    trained(net, optimizer, session, range(2))
    assert list(net.state_dict()) == keys


def test_a_closed_session_leaves_no_hook() -> None:
    net = pruned_layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    session = Session(net, optimizer, constant_recipe(), 4)
    trained(net, optimizer, session, range(2))
    session.close()
    net(torch.randn(8, 12)).square().mean().backward()
    assert net[0].weight.grad is not None
    assert bool(net[0].weight.grad[net[0].weight == 0].any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_masks_have_the_dtype_of_their_weights(dtype: torch.dtype) -> None:
    net = pruned_layers().to(dtype)
    zeros = net[0].weight == 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    session = Session(net, optimizer, constant_recipe(), 4)
    for step in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 12, dtype=dtype)).square().mean().backward()
        session.before_step(step)
        optimizer.step()
        session.after_step(step)
    assert torch.equal(net[0].weight == 0, zeros)


# Resuming


@pytest.mark.parametrize(
    "recipe",
    [
        constant_recipe(),
        constant_recipe(start_epoch=1.0, end_epoch=2.0),
        gradual_recipe(),
        gradual_recipe(update_frequency=0.5, mask_type="block4"),
        gradual_recipe(final_sparsity=0.5, mask_type="2:4"),
        gradual_recipe(kind=GlobalMagnitudePruningModifier),
        gradual_recipe(init_sparsity="__FROM_PARAM__"),
        gradual_recipe(leave_enabled=False),
    ],
    ids=["constant", "window", "gradual", "block4", "2:4", "global", "from_param", "let go"],
)
@pytest.mark.parametrize("killed_before", [1, 3, 4, 5, 8, 9, 11])
def test_a_resumed_session_ends_with_the_bits_of_one_that_ran_through(recipe: Recipe, killed_before: int) -> None:
    whole, halves = pruned_layers(), pruned_layers()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.05, weight_decay=0.1)
    trained(whole, optimizer, Session(whole, optimizer, recipe, 4), range(13))
    first = torch.optim.AdamW(halves.parameters(), lr=0.05, weight_decay=0.1)
    before = Session(halves, first, recipe, 4)
    trained(halves, first, before, range(killed_before))
    resumed = layers(seed=1)
    second = torch.optim.AdamW(resumed.parameters(), lr=0.05, weight_decay=0.1)
    after = Session(resumed, second, recipe, 4)
    after.remember(json.loads(json.dumps(before.memory())))
    after.restore(killed_before)
    resumed.load_state_dict(halves.state_dict())
    second.load_state_dict(first.state_dict())
    trained(resumed, second, after, range(killed_before, 13))
    assert all(torch.equal(one, resumed.state_dict()[name]) for name, one in whole.state_dict().items())


# What a recipe asks for


def zero_shares(recipe: Recipe, steps: int, net: nn.Module) -> list[dict[str, float]]:
    """Return each weight's share of zeros after each of these steps, 4 an epoch, none of which moves a weight."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    session = Session(net, optimizer, recipe, 4)
    found = []
    for step in range(steps):
        session.before_step(step)
        optimizer.step()
        session.after_step(step)
        weights = {name: one for name, one in net.named_parameters() if one.dim() > 1}
        found.append({name: float((one == 0).float().mean()) for name, one in weights.items()})
    return found


def test_a_mapping_brings_each_parameter_to_its_own_share() -> None:
    recipe = gradual_recipe(params=(), init_sparsity=0.0, final_sparsity={0.25: ("0.weight",), 0.75: ("re:2.*weight",)})
    assert zero_shares(recipe, 9, layers())[-1] == {"0.weight": 0.25, "2.weight": 0.75}


def test_a_start_of_minus_one_is_the_first_step() -> None:
    settings: dict[str, Any] = {
        "params": "__ALL_PRUNABLE__",
        "init_sparsity": 0,
        "final_sparsity": 0.75,
        "end_epoch": 2,
    }
    early, zero = (Recipe((GMPruningModifier(start_epoch=at, **settings),)) for at in (-1.0, 0.0))
    assert zero_shares(early, 10, layers()) == zero_shares(zero, 10, layers())


def test_between_updates_a_mask_stays_and_at_the_end_there_is_a_last_one() -> None:
    settings: dict[str, Any] = {
        "init_sparsity": 0,
        "final_sparsity": 0.75,
        "update_frequency": 1,
        "inter_func": "linear",
    }
    modifier = GMPruningModifier(params="2.weight", start_epoch=0.0, end_epoch=1.5, **settings)
    shares = [share["2.weight"] for share in zero_shares(Recipe((modifier,)), 8, layers())]
    assert shares == [0, 0, 0, 0, 0.5, 0.5, 0.75, 0.75]


def test_what_is_let_go_at_the_end_has_gradients_again() -> None:
    net = layers()
    zero_shares(gradual_recipe(leave_enabled=False), 9, net)
    net(torch.randn(8, 12)).square().mean().backward()
    assert net[2].weight.grad is not None
    assert bool(net[2].weight.grad[net[2].weight == 0].any())


def test_constant_masks_that_start_late_keep_what_is_zero_by_then() -> None:
    net = pruned_layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    session = Session(net, optimizer, constant_recipe("2.weight", start_epoch=0.5), 4)
    trained(net, optimizer, session, range(2))
    net[2].weight.data[0] = 0
    zeros = net[2].weight == 0
    trained(net, optimizer, session, range(2, 6))
    assert torch.equal(net[2].weight == 0, zeros)


# Names


def test_all_prunable_is_linear_and_convolution_weights_alone() -> None:
    net = nn.ModuleDict({"e": nn.Embedding(3, 4), "l": nn.Linear(4, 4), "c": nn.Conv2d(1, 2, 3), "n": nn.LayerNorm(4)})
    net["h"] = Conv1D(4, 4)
    assert sorted(matching(net, "__ALL_PRUNABLE__")) == ["c.weight", "h.weight", "l.weight"]


def test_all_is_every_parameter() -> None:
    assert list(matching(Net(), ("__ALL__",))) == [name for name, _ in Net().named_parameters()]


def test_a_pattern_matches_from_the_start() -> None:
    assert list(matching(Net(), ("re:fc..weight", "re:weight|emb"))) == ["emb.weight", "fc1.weight", "fc2.weight"]


def test_a_quantised_layers_weight_keeps_its_name() -> None:
    net = Net()
    wrapper = nn.Module()
    wrapper.module = net.fc1
    net.fc1 = wrapper
    assert list(matching(net, ("fc1.weight",))) == ["fc1.weight"]


def test_a_tied_parameter_is_found_by_either_name_and_once() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    assert list(matching(net, ("b.weight",))) == ["b.weight"]
    assert list(matching(net, ("a.weight", "b.weight"))) == ["a.weight"]


@pytest.mark.parametrize("name", ["fc9.weight", "re:fc3.*"])
def test_a_name_without_a_parameter_is_refused(name: str) -> None:
    with pytest.raises(BadConfig, match="no parameter is"):
        matching(Net(), (name,))


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(BadConfig) as caught:
        matching(Net(), ("fc1.wieght",))
    assert "fc1.weight" in caught.value.hint


# Which weights go


def zeros_of(weight: Tensor, sparsity: float, mask_type: Any = "unstructured") -> Tensor:
    [mask] = keep_masks([weight], [sparsity], structure_of(mask_type))
    return mask == 0


@pytest.mark.parametrize("sparsity", [0.0, 0.05, 0.15, 0.25, 0.5, 0.731, 1.0])
def test_the_share_is_rounded_as_python_rounds(sparsity: float) -> None:
    assert int(zeros_of(torch.randn(2, 5), sparsity).sum()) == round(10 * sparsity)


@pytest.mark.parametrize("zeros", [0.0, 0.4, 0.95])
@pytest.mark.parametrize("sparsity", [0.001, 0.3, 0.401, 0.5, 0.95, 0.999])
def test_in_a_large_weight_the_smallest_go(zeros: float, sparsity: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(300, 500) * (torch.rand(300, 500) >= zeros)
    order = weight.abs().flatten().argsort(stable=True)
    expected = torch.zeros(150000, dtype=torch.bool)
    expected[order[: round(150000 * sparsity)]] = True
    assert torch.equal(zeros_of(weight, sparsity).flatten(), expected)


def test_of_equal_weights_the_first_go() -> None:
    assert zeros_of(torch.tensor([[1.0, -1, 2, 1], [1, 0, 3, 1]]), 0.5).int().tolist() == [[1, 1, 0, 1], [0, 1, 0, 0]]


def test_a_sign_does_not_count() -> None:
    assert zeros_of(torch.tensor([[-3.0, 1, -2, 4]]), 0.5).int().tolist() == [[0, 1, 1, 0]]


def test_four_neighbours_go_together() -> None:
    blocks = zeros_of(torch.randn(6, 16), 0.5, "block4").view(24, 4)
    assert torch.equal(blocks.any(1), blocks.all(1))
    assert int(blocks.all(1).sum()) == 12


def test_blocks_of_four_may_be_cut_at_the_edge() -> None:
    weight = torch.tensor([[9.0, 9, 9, 9, 1, 1]])
    assert zeros_of(weight, 0.5, "block4").int().tolist() == [[0, 0, 0, 0, 1, 1]]


def test_blocks_of_four_run_along_the_input_channels() -> None:
    weight = torch.ones(2, 4, 3, 3)
    weight[1, :, 2, 0] = 0.1
    mask = zeros_of(weight, 1 / 18, "block4")
    assert mask.nonzero().tolist() == [[1, channel, 2, 0] for channel in range(4)]


def test_blocks_have_the_recipes_rows_and_columns() -> None:
    weight = torch.ones(4, 6)
    weight[2:, 3:] = 0.1
    assert bool(zeros_of(weight, 0.25, (2, 3))[2:, 3:].all())


def test_a_block_of_minus_one_is_the_whole_side() -> None:
    weight = torch.ones(4, 6)
    weight[1] = 0.1
    assert zeros_of(weight, 0.25, (1, -1)).all(1).tolist() == [False, True, False, False]


def test_blocks_that_do_not_divide_a_weight_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"\[3, 2\] does not divide a weight of 4 x 6"):
        zeros_of(torch.ones(4, 6), 0.5, (3, 2))


@pytest.mark.parametrize("mask_type", ["2:4", "tensorrt"])
def test_two_of_four_stay(mask_type: str) -> None:
    weight = torch.randn(8, 16)
    zeros = zeros_of(weight, 0.5, mask_type)
    assert bool((zeros.view(-1, 4).sum(1) == 2).all())
    kept = weight.abs().view(-1, 4).masked_fill(zeros.view(-1, 4), float("inf")).amin(1)
    gone = weight.abs().view(-1, 4).masked_fill(~zeros.view(-1, 4), 0).amax(1)
    assert bool((kept >= gone).all())


def test_on_the_way_no_group_loses_more_than_its_pattern_lets_it() -> None:
    zeros = zeros_of(torch.randn(8, 16), 0.3, "2:4")
    assert int(zeros.sum()) == round(128 * 0.3)
    assert int(zeros.view(-1, 4).sum(1).max()) <= 2


def test_a_pattern_has_one_sparsity() -> None:
    with pytest.raises(BadConfig, match=r"2:4 has a sparsity of 0\.5, not 0\.9"):
        structure_of("2:4").settled(0.9)


def test_all_weights_together_have_the_global_share() -> None:
    large, small = torch.randn(10, 10) * 5, torch.randn(10, 10) / 5
    masks = keep_masks([large, small], [0.5, 0.5], structure_of("unstructured"), together=True)
    assert sum(int((mask == 0).sum()) for mask in masks) == 100
    assert int((masks[1] == 0).sum()) > 80


def test_an_unknown_mask_type_is_refused() -> None:
    with pytest.raises(BadConfig, match="no mask_type 'blok4'") as caught:
        structure_of("blok4")
    assert "block4" in caught.value.hint


def test_each_parameter_may_have_its_own_sparsity() -> None:
    net = layers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    final = {0.5: ["0.weight"], 0.25: ["2.weight"]}
    session = Session(net, optimizer, gradual_recipe(params=(), final_sparsity=final), 4)
    trained(net, optimizer, session, range(10))
    assert [int((net[at].weight == 0).sum()) for at in (0, 2)] == [96, 16]


def test_pruning_may_begin_with_what_is_pruned() -> None:
    net = pruned_layers()
    found = int((net[0].weight == 0).sum()) / net[0].weight.numel()
    session = Session(net, torch.optim.SGD(net.parameters(), lr=0.0), gradual_recipe(init_sparsity="__FROM_PARAM__"), 4)
    session.before_step(0)
    [action] = session.actions
    assert isinstance(action, MagnitudePruning)
    assert action.applied["0.weight"] == found


def test_two_modifiers_prune_one_model() -> None:
    net = pruned_layers()
    zeros = net[0].weight == 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    both = Recipe(constant_recipe(("0.weight",)).modifiers + gradual_recipe(params=("2.weight",)).modifiers)
    trained(net, optimizer, Session(net, optimizer, both, 4), range(12))
    assert torch.equal(net[0].weight == 0, zeros)
    assert int((net[2].weight == 0).sum()) == round(64 * 0.8)
