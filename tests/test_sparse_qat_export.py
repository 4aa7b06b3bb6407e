"""Quantised models through both of torch's ONNX exporters, run with onnxruntime; not integer operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hubcache.train.sparse.recipe import LegacyQuantizationModifier, QuantizationModifier

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

from hubcache.train.sparse import quantization as qat  # noqa: E402
from hubcache.train.sparse.quantization.fake import quantizers  # noqa: E402

ROUNDING = 1e-6
EVERYWHERE = LegacyQuantizationModifier(start_epoch=0.0)
NARROW = LegacyQuantizationModifier(start_epoch=0.0, weight_bits=4, activation_bits=4, reduce_range=True)
CHANNEL = QuantizationModifier(
    start_epoch=0.0,
    scheme={"weights": {"num_bits": 8, "symmetric": True, "strategy": "channel"}},
    scheme_overrides={"Embedding": {"input_activations": None, "weights": {"strategy": "channel", "symmetric": True}}},
    ignore=("LayerNorm", "Tanh"),
)
NARROW_CHANNEL = QuantizationModifier(
    start_epoch=0.0,
    scheme={"weights": {"num_bits": 4, "symmetric": True, "strategy": "channel"}},
    ignore=("LayerNorm", "Tanh", "Embedding"),
)


class Net(nn.Module):  # type: ignore[misc]  # torch came through importorskip
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)
        self.fc1 = nn.Linear(8, 8)
        self.act = nn.Tanh()
        self.fc2 = nn.Linear(8, 3)

    def forward(self, ids: Any) -> Any:
        return self.fc2(self.act(self.fc1(self.norm(self.emb(ids)))))


def trained(definition: Any) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net = Net()
    qat.restore_structure(net, [definition])
    for _ in range(3):
        net.train()(ids())
    return net.eval()


def ids() -> Any:
    torch.manual_seed(2)
    return torch.randint(0, 20, (3, 5))


def exported(net: Any, path: Path, *, dynamo: bool) -> Any:
    """Export with both dimensions dynamic; return the graph."""
    how: dict[str, Any] = {"dynamic_axes": {"ids": {0: "batch", 1: "seq"}}}
    if dynamo:
        how = {"dynamic_shapes": ({0: "batch", 1: "seq"},), "verbose": False}
    torch.onnx.export(
        qat.exportable(net), (ids(),), path, input_names=["ids"], output_names=["out"], dynamo=dynamo, **how
    )
    return onnx.load(path)


def as_written(path: Path) -> Any:
    """Open a graph unoptimised: onnxruntime makes layers with rounded outputs integer ones, a step off at ties."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("definition", [EVERYWHERE, NARROW, CHANNEL, NARROW_CHANNEL])
def test_each_quantiser_is_a_pair_of_operators_and_onnxruntime_gives_pytorchs_numbers(
    definition: Any, dynamo: bool, tmp_path: Path
) -> None:
    net = trained(definition)
    graph = exported(net, tmp_path / "model.onnx", dynamo=dynamo)
    counts = Counter(node.op_type for node in graph.graph.node)
    pairs = len(quantizers(net))
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (pairs, pairs)
    session = as_written(tmp_path / "model.onnx")
    with torch.no_grad():
        for shape in (ids(), ids()[:1, :2]):
            [out] = session.run(None, {"ids": shape.numpy()})
            assert float((torch.from_numpy(out) - net(shape)).abs().max()) <= ROUNDING


@pytest.mark.parametrize("definition", [EVERYWHERE, NARROW, CHANNEL, NARROW_CHANNEL])
def test_the_exportable_copy_gives_the_models_numbers_bit_for_bit(definition: Any) -> None:
    net = trained(definition)
    with torch.no_grad():
        assert torch.equal(qat.exportable(net)(ids()), net(ids()))


def test_a_model_is_the_same_after_its_exportable_copy_was_made() -> None:
    net = trained(EVERYWHERE)
    keys, flags = list(net.state_dict()), [each.requires_grad for each in net.parameters()]
    qat.exportable(net)
    assert (list(net.state_dict()), [each.requires_grad for each in net.parameters()]) == (keys, flags)


def test_a_quantiser_that_saw_nothing_is_left_out_of_the_copy() -> None:
    torch.manual_seed(1)
    net = Net()
    qat.restore_structure(net, [EVERYWHERE])
    with torch.no_grad():
        assert torch.equal(qat.exportable(net)(ids()), net.eval()(ids()))
