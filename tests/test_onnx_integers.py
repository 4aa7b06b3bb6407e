"""Graphs of fake quantisation made small and made integer: equal to the QDQ graph that they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from hubcache.errors import BadConfig  # noqa: E402
from hubcache.train.onnx.integers import store_int8, to_integers  # noqa: E402
from hubcache.train.sparse.quantization.export import exportable  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

WORDS, HIDDEN, INNER, LABELS = 400, 32, 48, 4


class Fake(nn.Module):
    """An embedding, a layer with a product of activations, and a classifier, quantised as training leaves them."""

    def __init__(self, per_channel: bool, signed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, HIDDEN)
        self.inner = nn.Linear(HIDDEN, INNER)
        self.scores = nn.Linear(INNER, LABELS)
        self.per_channel, self.limits, self.zero = (
            per_channel,
            (-128, 127) if signed else (0, 255),
            0 if signed else 119,
        )
        for name in ("words", "inner", "scores"):
            weight = getattr(self, name).weight.detach()
            self.register_buffer(f"{name}_scale", weight.abs().amax(1) / 127)
            self.register_buffer(f"{name}_zero", torch.zeros(len(weight), dtype=torch.int32))
        self.scale = {name: float(getattr(self, f"{name}_scale").max()) for name in ("words", "inner", "scores")}
        self.requires_grad_(False)

    def weight(self, name: str) -> Tensor:
        weight = getattr(self, name).weight
        if self.per_channel and name != "words":
            scale, zero = getattr(self, f"{name}_scale"), getattr(self, f"{name}_zero")
            return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(weight, self.scale[name], 0, -128, 127)

    def activation(self, x: Tensor, scale: float) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, scale, self.zero, *self.limits)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.activation(functional.embedding(input_ids, self.weight("words")), 0.03)
        x = functional.gelu(functional.linear(x, self.weight("inner"), self.inner.bias))
        x = self.activation(x, 0.02)
        shared = torch.matmul(x, x.transpose(1, 2)).softmax(-1)
        x = self.activation(torch.matmul(shared, x).mean(1), 0.01)
        return functional.linear(x, self.weight("scores"), self.scores.bias)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


FORMS = {
    "trace": ("trace", False, False),
    "trace-channels": ("trace", True, False),
    "trace-signed": ("trace", True, True),
    "dynamo": ("dynamo", True, False),
}


@pytest.fixture(scope="module", params=FORMS.values(), ids=FORMS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exporter, per_channel, signed = request.param
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    module, given = Fake(per_channel, signed).eval(), (torch.ones(2, 5, dtype=torch.long),)
    names: dict[str, Any] = {"input_names": ["input_ids"], "output_names": ["logits"]}
    if exporter == "dynamo":
        # Which tells torch.export the shapes of what is fake-quantised.
        exportable(nn.Identity())
        free = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(module, given, path, dynamic_shapes=free, external_data=False, verbose=False, **names)
    else:
        axes = {"input_ids": {0: "batch", 1: "seq"}}
        with torch.no_grad():
            torch.onnx.export(module, given, path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    return path


def run(path: Path, plain: bool = False) -> np.ndarray:
    """The logits of 40 texts of several lengths; `plain` is without onnxruntime's own rewriting."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    drawn = np.random.default_rng(0)
    texts = [drawn.integers(0, WORDS, (4, length)) for length in range(3, 13)]
    return np.concatenate([session.run(None, {"input_ids": text})[0] for text in texts])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def floats(path: Path) -> list[str]:
    return [each.name for each in onnx.load(path).graph.initializer if each.data_type == 1 and len(each.dims) > 1]


@pytest.mark.parametrize("change", [store_int8, to_integers])
def test_logits_are_the_qdq_graphs(graph: Path, tmp_path: Path, change: Any) -> None:
    change(graph, tmp_path / "made.onnx")
    np.testing.assert_allclose(run(tmp_path / "made.onnx", plain=True), run(graph, plain=True), rtol=0, atol=1e-3)


@pytest.mark.parametrize("change", [store_int8, to_integers])
def test_the_labels_stay_as_onnxruntime_speeds_it_up(graph: Path, tmp_path: Path, change: Any) -> None:
    change(graph, tmp_path / "made.onnx")
    assert (run(tmp_path / "made.onnx").argmax(1) == run(graph, plain=True).argmax(1)).mean() >= 0.99


@pytest.mark.parametrize("change", [store_int8, to_integers])
def test_no_matrix_is_left_in_floats(graph: Path, tmp_path: Path, change: Any) -> None:
    change(graph, tmp_path / "made.onnx")
    assert floats(graph)
    assert not floats(tmp_path / "made.onnx")


@pytest.mark.parametrize("change", [store_int8, to_integers])
def test_the_graph_is_valid(graph: Path, tmp_path: Path, change: Any) -> None:
    change(graph, tmp_path / "made.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "made.onnx"), full_check=True)


def test_quantised_products_become_integer_ones(graph: Path, tmp_path: Path) -> None:
    count = to_integers(graph, tmp_path / "made.onnx")
    made = operators(tmp_path / "made.onnx")
    # Both layers and the product of activations; the softmax's own product is not quantised.
    assert count == made["MatMulInteger"] == 3
    assert made["MatMul"] + made["Gemm"] == 1


def test_what_is_stored_counts_the_weights(graph: Path, tmp_path: Path) -> None:
    assert store_int8(graph, tmp_path / "made.onnx") == 3


def test_the_source_may_be_the_target(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "same.onnx").write_bytes(graph.read_bytes())
    store_int8(tmp_path / "same.onnx", tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").stat().st_size < graph.stat().st_size
    assert len(list(tmp_path.iterdir())) == 1


def test_a_graph_without_quantised_products_is_refused(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4)
    torch.onnx.export(layer.eval(), (torch.ones(2, 4),), tmp_path / "plain.onnx", dynamo=False)
    with pytest.raises(BadConfig, match="no matrix product of quantised numbers"):
        to_integers(tmp_path / "plain.onnx", tmp_path / "made.onnx")


def test_a_range_narrower_than_eight_bits_is_kept(tmp_path: Path) -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.linspace(-1, 1, 64).view(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.fake_quantize_per_tensor_affine(x, 0.02, 60, 0, 127)
            return functional.linear(x, torch.fake_quantize_per_tensor_affine(self.weight, 0.01, 0, -128, 127))

    path = tmp_path / "narrow.onnx"
    given = torch.linspace(-3, 3, 16).view(2, 8)
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(Narrow().eval(), (given,), path, dynamo=False, opset_version=17, **names)
    assert to_integers(path, tmp_path / "made.onnx") == 1
    said = onnxruntime.InferenceSession(tmp_path / "made.onnx").run(None, {"x": given.numpy()})[0]
    np.testing.assert_allclose(said, Narrow()(given).numpy(), atol=1e-4)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BadConfig, match="no ONNX graph"):
        store_int8(tmp_path / "model.onnx", tmp_path / "made.onnx")
