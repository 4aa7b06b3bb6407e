"""Pruning at once: how many weights go, which, and which layers are left alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hubcache.errors import BadConfig, UsageError  # noqa: E402
from hubcache.train.sparse.oneshot import prune  # noqa: E402

pytestmark = pytest.mark.train


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(40, 16)
        self.inner = nn.Linear(16, 24)
        self.conv = nn.Conv1d(16, 8, 3)
        self.norm = nn.LayerNorm(24)
        self.scores = nn.Linear(16, 40)
        self.scores.weight = self.words.weight


def zeros(tensor: torch.Tensor) -> int:
    return int((tensor == 0).sum())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.333])
def test_exactly_the_rounded_share_of_each_layer_goes(sparsity: float) -> None:
    model = Small()
    prune(model, sparsity)
    for weight in (model.inner.weight, model.conv.weight):
        assert zeros(weight) == round(weight.numel() * sparsity)


def test_equal_weights_go_in_exact_number_too() -> None:
    model = nn.Linear(10, 10)
    nn.init.constant_(model.weight, 0.5)
    prune(model, 0.37)
    assert zeros(model.weight) == 37


def test_the_smallest_weights_go() -> None:
    model = Small()
    before = model.inner.weight.detach().clone().abs()
    prune(model, 0.8)
    gone = model.inner.weight == 0
    assert before[gone].max() < before[~gone].min()


def test_the_weights_that_stay_are_as_they_were() -> None:
    model = Small()
    before = model.inner.weight.detach().clone()
    prune(model, 0.8)
    kept = model.inner.weight != 0
    assert torch.equal(model.inner.weight[kept], before[kept])


@pytest.mark.parametrize(("pattern", "sparsity"), [("2:4", 0.5), ("1:4", 0.75), ("2:8", 0.75)])
def test_n_of_m_weights_stay_in_each_group_of_inputs(pattern: str, sparsity: float) -> None:
    model = Small()
    prune(model, sparsity, pattern)
    kept, group = map(int, pattern.split(":"))
    groups = (model.inner.weight != 0).view(-1, group).sum(1)
    assert groups.tolist() == [kept] * len(groups)


def test_block4_takes_four_inputs_together() -> None:
    model = Small()
    prune(model, 0.5, "block4")
    kept = (model.inner.weight != 0).view(-1, 4).sum(1)
    assert set(kept.tolist()) == {0, 4}


def test_the_sparsity_of_each_layer_is_told() -> None:
    told = prune(Small(), 0.75)
    assert told == {"inner.weight": 0.75, "conv.weight": 0.75}


def test_an_embedding_stays_whole_where_a_layer_shares_it() -> None:
    model = Small()
    prune(model, 0.5)
    assert zeros(model.words.weight) == 0


def test_names_choose_the_layers() -> None:
    model = Small()
    assert set(prune(model, 0.5, names=["re:in.*weight"])) == {"inner.weight"}
    assert zeros(model.conv.weight) == 0


@pytest.mark.parametrize("sparsity", [0.0, 1.0, 90.0, float("nan")])
def test_a_sparsity_that_is_none_is_refused(sparsity: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        prune(Small(), sparsity)


def test_a_sparsity_that_the_pattern_does_not_have_is_refused() -> None:
    with pytest.raises(BadConfig):
        prune(Small(), 0.9, "2:4")


def test_an_unknown_structure_is_refused() -> None:
    with pytest.raises(BadConfig):
        prune(Small(), 0.5, "diagonal")


def test_a_model_with_nothing_to_prune_is_refused() -> None:
    with pytest.raises(UsageError, match="no linear"):
        prune(nn.LayerNorm(4), 0.5)
