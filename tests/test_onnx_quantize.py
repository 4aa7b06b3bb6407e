"""Quantised ONNX files: weights really of 8 bits, outputs near, whatever exporter made the graph."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
import torch  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification  # noqa: E402

from hubcache.errors import BadConfig, UsageError  # noqa: E402
from hubcache.train.onnx.quantize import quantize_dynamic, quantize_static  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

VOCABULARY = 2000


class Logits(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
        config = BertConfig(vocab_size=VOCABULARY, initializer_range=0.1, num_labels=3, **sizes)
        self.model = BertForSequenceClassification(config).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["dynamo", "trace"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    given = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["logits"]}
    if request.param == "dynamo":
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        torch.onnx.export(
            Logits(), given, path, dynamic_shapes=(free, free), external_data=False, verbose=False, **names
        )
    else:
        axes = {name: {0: "batch", 1: "seq"} for name in ("input_ids", "attention_mask")}
        torch.onnx.export(Logits().eval(), given, path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    return path


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    drawn = np.random.default_rng(seed)
    rows = []
    for length in drawn.integers(5, 20, count):
        ids = drawn.integers(0, VOCABULARY, (2, int(length)))
        rows.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return rows


def run(path: Path, sample: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options).run(None, sample)[0]


def quantised(how: str, source: Path, target: Path) -> Path:
    if how == "dynamic":
        quantize_dynamic(source, target)
    else:
        quantize_static(source, target, samples(20, seed=1))
    return target


both = pytest.mark.parametrize("how", ["dynamic", "static"])


@both
def test_no_matrix_is_left_in_floats(how: str, exported: Path, tmp_path: Path) -> None:
    model = onnx.load(quantised(how, exported, tmp_path / "q.onnx"))
    floats = [each.name for each in model.graph.initializer if each.data_type == 1 and np.prod(each.dims) > 2000]
    assert floats == []


@both
def test_the_file_has_less_than_0_3_of_the_bytes(how: str, exported: Path, tmp_path: Path) -> None:
    made = quantised(how, exported, tmp_path / "q.onnx")
    # A graph of so small a model is a third of its file: what counts is by which the weights shrink.
    assert made.stat().st_size - graph_bytes(made) <= 0.3 * (exported.stat().st_size - graph_bytes(exported))


def graph_bytes(path: Path) -> int:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    return model.ByteSize()


@both
def test_logits_stay_near(how: str, exported: Path, tmp_path: Path) -> None:
    made = quantised(how, exported, tmp_path / "q.onnx")
    pairs = [(run(made, each), run(exported, each)) for each in samples(20)]
    ours, theirs = (np.concatenate(each) for each in zip(*pairs, strict=True))
    assert np.abs(ours - theirs).max() < 0.15 * theirs.std()


def test_static_ranges_do_not_cut_off_logits(exported: Path, tmp_path: Path) -> None:
    made = tmp_path / "q.onnx"
    quantize_static(exported, made, samples(1, seed=1))
    far = [np.abs(run(made, each)).max() for each in samples(20)]
    assert len({round(float(each), 4) for each in far}) > 10


def test_static_leaves_attentions_own_products_in_floats(exported: Path, tmp_path: Path) -> None:
    graph = onnx.load(quantised("static", exported, tmp_path / "q.onnx")).graph
    floats = {out for node in graph.node if node.op_type != "DequantizeLinear" for out in node.output}
    assert sum({*node.input} <= floats for node in graph.node if node.op_type == "MatMul") == 4


@both
def test_the_source_stays_and_nothing_else_is_left(how: str, exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    quantised(how, exported, tmp_path / "made" / "q.onnx")
    assert exported.read_bytes() == before
    assert [each.name for each in exported.parent.iterdir()] == ["model.onnx"]
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["q.onnx"]


@both
@pytest.mark.parametrize("data", ["big.onnx_data", "big.onnx.data", "weights.bin"])
def test_weights_beside_the_graph_are_read(how: str, data: str, exported: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    onnx.save(onnx.load(exported), big, save_as_external_data=True, location=data, size_threshold=9)
    quantised(how, big, tmp_path / "q.onnx")
    quantised(how, exported, tmp_path / "whole.onnx")
    [sample] = samples(1)
    np.testing.assert_array_equal(run(tmp_path / "q.onnx", sample), run(tmp_path / "whole.onnx", sample))


@both
def test_more_than_a_file_holds_stands_beside_the_graph(
    how: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubcache.train.onnx.quantize.LARGEST", 10_000)
    made = quantised(how, exported, tmp_path / "made" / "q.onnx")
    assert sorted(each.name for each in made.parent.iterdir()) == ["q.onnx", "q.onnx_data"]
    assert run(made, samples(1)[0]).shape == (2, 3)


def test_no_samples_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="samples"):
        quantize_static(exported, tmp_path / "q.onnx", [])


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BadConfig, match="no ONNX graph"):
        quantize_dynamic(tmp_path / "model.onnx", tmp_path / "q.onnx")


def test_metadata_is_kept(exported: Path, tmp_path: Path) -> None:
    model: Any = onnx.load(exported)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"crf": "{}"})
    onnx.save(model, tmp_path / "told.onnx")
    quantize_dynamic(tmp_path / "told.onnx", tmp_path / "q.onnx")
    assert "crf" in {each.key for each in onnx.load(tmp_path / "q.onnx").metadata_props}
