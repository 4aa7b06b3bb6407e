"""Quantisation-aware training against SparseML's numbers, step by step (goldens/sparse/qat.json)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.goldens import golden

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hubcache.train.sparse import quantization as qat  # noqa: E402
from hubcache.train.sparse.actions import Training  # noqa: E402
from hubcache.train.sparse.quantization import fake, layers  # noqa: E402
from hubcache.train.sparse.recipe import parse_recipe  # noqa: E402

CASES = (
    "seed_form",
    "legacy_linear_activations_on",
    "legacy_no_exclude",
    "legacy_reduce_range_4bit_weights",
    "new_scheme_embedding_override",
    "new_scheme_channel",
)
IN_TRAINING, IN_EVALUATION = 2.2e-6, 2.4e-7
NEVER_FROZEN = ("fc2", "emb2")
"""What the reference forgets to freeze: a submodule that is a layer itself, embeddings elsewhere (facts 4.9, 5)."""


class Block(nn.Module):  # type: ignore[misc]  # torch came through importorskip
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(6, 4)
        self.fc1 = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.act = nn.Tanh()
        self.drop = nn.Dropout(0.0)

    def forward(self, ids: Any) -> Any:
        return self.drop(self.act(self.norm(self.fc1(self.emb(ids)))))


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.fc2 = nn.Linear(3, 2)
        self.outside = nn.Linear(2, 2)
        self.emb2 = nn.Embedding(3, 2)

    def forward(self, ids: Any) -> Any:
        return self.outside(self.fc2(self.block(ids)).mean(1)) + self.emb2(ids[:, 0] % 3)


@dataclass
class Run:
    """A golden's network on its way through its steps."""

    net: Net
    training: Training
    actions: list[qat.QuantizationAction]
    batches: list[Any]

    def step(self, number: int) -> tuple[Any, float]:
        """Take a step on the reference's clock; return output and loss before the update."""
        self.net.train()
        output = self.net(self.batches[number % len(self.batches)])
        loss = output.pow(2).mean()
        self.training.optimizer.zero_grad()
        loss.backward()
        for action in self.actions:
            action.update(self.training, number / self.training.steps_per_epoch)
        self.training.optimizer.step()
        return output.detach(), float(loss.detach())


def goldens() -> dict[str, Any]:
    torch.set_num_threads(1)
    told: dict[str, Any] = json.loads(golden("sparse/qat.json").read_text())
    return told


def started(told: dict[str, Any], recipe: str) -> Run:
    net = Net()
    net.load_state_dict({name: torch.tensor(value) for name, value in told["initial"].items()})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    training = Training(net, optimizer, told["steps_per_epoch"], len)
    actions = [qat.QuantizationAction(each) for each in qat.definitions(parse_recipe(recipe))]
    return Run(net, training, actions, [torch.tensor(ids) for ids in told["inputs_cycle"]])


def as_the_reference_forgets(run: Run, number: int, case: str) -> None:
    """Let what the reference never freezes learn again, after the step in which ours froze it."""
    if case == "seed_form" and number == 4:
        for name, module in run.net.named_modules():
            if name.startswith(NEVER_FROZEN) and isinstance(module, fake.FakeQuantize):
                module.observe(True)


def ranges(model: Any) -> dict[str, Any]:
    own = {name for name, _ in model.named_parameters()}
    return {name: value for name, value in model.state_dict().items() if name not in own and not name.endswith(".eps")}


def furthest(found: Any, expected: Any) -> float:
    """Return the largest difference; equal infinities differ by nothing."""
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(-1)
    given = found.double().reshape(-1)
    assert given.shape == wanted.shape
    return max((0.0 if a == b else abs(a - b) for a, b in zip(given.tolist(), wanted.tolist(), strict=True)), default=0)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    assert set(found) == set(expected)
    return {name: far for name in found if not (far := furthest(found[name], expected[name])) <= IN_TRAINING}


@pytest.mark.parametrize("case", CASES)
def test_outputs_losses_and_scales_are_the_references_at_every_step(case: str) -> None:
    told = goldens()
    run = started(told, told["recipes"][case])
    for expected in told["runs"][case]["steps"]:
        output, loss = run.step(expected["step"])
        as_the_reference_forgets(run, expected["step"], case)
        assert furthest(output, flat(expected["train_output_before_update"])) <= IN_TRAINING, expected["step"]
        assert math.isclose(loss, expected["loss"], rel_tol=0, abs_tol=IN_TRAINING), expected["step"]
        assert not differences(ranges(run.net), expected["qparams_after_step"]), expected["step"]


def trained(told: dict[str, Any], case: str) -> Run:
    run = started(told, told["recipes"][case])
    for number in range(8):
        run.step(number)
        as_the_reference_forgets(run, number, case)
    return run


@pytest.mark.parametrize("case", CASES)
def test_weights_after_all_steps_are_the_references(case: str) -> None:
    told = goldens()
    weights = dict(trained(told, case).net.named_parameters())
    final = told["runs"][case]["final_weights"]
    assert not differences(weights, {name: flat(value) for name, value in final.items()})


@pytest.mark.parametrize("case", CASES)
def test_state_keys_are_the_references(case: str) -> None:
    told = goldens()
    assert set(trained(told, case).net.state_dict()) == set(told["runs"][case]["state_dict_keys"])


@pytest.mark.parametrize("case", CASES)
def test_an_evaluation_that_observes_as_the_references_does_gives_its_outputs_and_scales(case: str) -> None:
    told = goldens()
    run = trained(told, case)
    run.net.eval()
    for quantizer in fake.quantizers(run.net):
        quantizer.train()
    with torch.no_grad():
        output = run.net(run.batches[0])
    expected = told["runs"][case]
    assert furthest(output, flat(expected["eval_output_inputs0"])) <= IN_EVALUATION
    assert not differences(ranges(run.net), expected["qparams_after_eval"])


def flat(value: Any) -> Any:
    return [each for row in value for each in row] if isinstance(value[0], list) else value


STANDS_FOR = {"QuantWrapper": layers.QuantWrapper, "QuantStub": layers.QuantStub, "LayerNorm": nn.LayerNorm}


@pytest.mark.parametrize("case", CASES)
def test_each_layer_is_the_references_with_its_quantisers_and_grids(case: str) -> None:
    told = goldens()
    modules = dict(trained(told, case).net.named_modules())
    for name, expected in told["runs"][case]["structure_after_qat"].items():
        kind = expected["type"].rpartition(".")[2]
        if kind in ("DeQuantStub", "Identity"):
            continue  # placeholders without a state
        assert isinstance(modules[name], STANDS_FOR.get(kind, getattr(nn, kind, nn.Module))), name
        for part in ("weight_fake_quant", "activation_post_process"):
            wanted = expected.get(part, {"class": "Identity"})
            found = modules[name]._modules.get(part)
            assert described(found) == described_golden(wanted), f"{name}.{part}"


def described(quantizer: Any) -> Any:
    if quantizer is None:
        return None
    grid = quantizer.grid
    return (
        grid.low,
        grid.high,
        grid.symmetric,
        grid.per_channel,
        isinstance(quantizer.activation_post_process, fake.Fixed),
    )


def described_golden(wanted: Any) -> Any:
    if wanted["class"] == "Identity":
        return None
    scheme, fixed = wanted["qscheme"], wanted["class"] == "FixedQParamsFakeQuantize"
    return wanted["quant_min"], wanted["quant_max"], "symmetric" in scheme, "channel" in scheme, fixed
