"""Every family as an ONNX graph computes what PyTorch does, at lengths and batches it was not traced with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from hubcache.errors import IntegrityError, UsageError  # noqa: E402
from hubcache.train.onnx.check import check  # noqa: E402
from hubcache.train.onnx.export import put_weights_beside, write_graph  # noqa: E402
from hubcache.train.onnx.form import OnnxForm  # noqa: E402
from hubcache.train.onnx.inputs import Graph, graphs_of  # noqa: E402
from hubcache.train.onnx.loading import task_named  # noqa: E402
from hubcache.train.onnx.sessions import OnnxSession  # noqa: E402
from hubcache.train.onnx.whole import OnnxRequest, write_onnx  # noqa: E402
from hubcache.train.sparse.loading import is_quantized_folder  # noqa: E402
from tests.support.goldens import golden  # noqa: E402
from tests.support.onnxfamilies import FAMILIES, tiny  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

HALVES = ["encoder_model", "decoder_model", "decoder_model_merged"]
OUTPUTS = {
    "bert-bare": ("last_hidden_state",), "distilbert": ("start_logits", "end_logits"), "t5-crf": ("emissions",),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    graph, path = graphs_of(tiny("bert"))[0], tmp_path_factory.mktemp("bert") / "model.onnx"
    write_graph(graph, path)
    return graph, path


def axes(path: Path) -> dict[str, list[str | int]]:
    graph = onnx.load(path).graph
    return {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_graphs_are_pytorchs_within_a_hundred_thousandth(family: str, tmp_path: Path) -> None:
    for graph in graphs_of(tiny(family)):
        write_graph(graph, tmp_path / f"{graph.name}.onnx")
        assert check(graph, tmp_path / f"{graph.name}.onnx").difference <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_outputs_have_the_names_that_clients_look_for(family: str) -> None:
    graphs = graphs_of(tiny(family))
    if len(graphs) > 1:
        assert [graph.name for graph in graphs] == HALVES
    else:
        assert graphs[0].outputs[: len(OUTPUTS.get(family, (0,)))] == OUTPUTS.get(family, ("logits",))


def test_axes_that_vary_have_names_and_others_their_size(bert: tuple[Graph, Path]) -> None:
    text = ["batch_size", "sequence_length"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert axes(bert[1]) == {**dict.fromkeys(names, text), "logits": ["batch_size", 2]}


def test_a_causal_models_past_is_an_input_and_may_be_empty(tmp_path: Path) -> None:
    graph = graphs_of(tiny("gpt2"))[0]
    write_graph(graph, tmp_path / "model.onnx")
    assert axes(tmp_path / "model.onnx")["past_key_values.1.value"] == ["batch_size", 2, "past_sequence_length", 16]


def test_the_opset_is_the_one_asked_for(tmp_path: Path, bert: tuple[Graph, Path]) -> None:
    assert write_graph(bert[0], tmp_path / "model.onnx", opset=17) == 17


def test_an_opset_that_torch_does_not_write_is_refused(tmp_path: Path, bert: tuple[Graph, Path]) -> None:
    with pytest.raises(UsageError, match="opset 14 is older"):
        write_graph(bert[0], tmp_path / "model.onnx", opset=14)


def test_weights_put_beside_the_graph_are_found_there(tmp_path: Path, bert: tuple[Graph, Path]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bert[1].read_bytes())
    put_weights_beside(path)
    assert (tmp_path / "model.onnx_data").stat().st_size > path.stat().st_size
    assert check(bert[0], path).difference <= 1e-5


def test_a_graph_of_other_weights_is_refused_with_the_figures(bert: tuple[Graph, Path]) -> None:
    torch.manual_seed(2)
    other = graphs_of(FAMILIES["bert"]().eval())[0]
    with pytest.raises(IntegrityError, match=re.escape("logits at batch") + r".* differs by 0\.\d+"):
        check(other, bert[1])


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, bert: tuple[Graph, Path]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(IntegrityError, match=re.escape("ONNX Runtime does not take model.onnx")):
        check(bert[0], tmp_path / "model.onnx")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """SparseML's quantised model, exported to QDQ and to integers, with what it answered there."""
    place = golden("sparse/fakezoo")
    told = json.loads((place / "expected_logits.json").read_text())
    [source] = [path for path in place.glob("files/*/training") if is_quantized_folder(path)]
    output = tmp_path_factory.mktemp("zoo") / "made"
    write_onnx(OnnxRequest(source, output, "zoo", OnnxForm(integer=True)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    encoded = tokenizer(
        told["texts"], padding="max_length", max_length=told["max_length"], truncation=True, return_tensors="pt"
    )
    return output, {"wanted": told["C_qat_logits"], **encoded}


@pytest.mark.parametrize("file", ["onnx/model.onnx", "onnx/model_quantized.onnx", "deployment/model.onnx"])
def test_sparsemls_quantised_model_answers_as_it_did_there(zoo: tuple[Path, dict[str, Any]], file: str) -> None:
    found = OnnxSession(zoo[0] / file)(zoo[1])["logits"]
    assert torch.allclose(found, torch.tensor(zoo[1]["wanted"]), atol=1e-6)


def test_integer_operators_are_as_many_as_the_original_exporter_wrote(zoo: tuple[Path, dict[str, Any]]) -> None:
    nodes = [node.op_type for node in onnx.load(zoo[0] / "onnx/model_quantized.onnx").graph.node]
    assert nodes.count("MatMulInteger") == 14


def test_exporting_prints_nothing(tmp_path: Path, bert: tuple[Graph, Path], capfd: pytest.CaptureFixture[str]) -> None:
    write_graph(bert[0], tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("glue", "text-classification"), ("sentiment analysis", "text-classification"), ("ner", "token-classification"),
        ("qa", "question-answering"), ("masked_language_modeling", "fill-mask"), ("text-generation", "text-generation"),
    ],
)  # fmt: skip
def test_the_original_exporters_names_of_tasks_are_understood(name: str, task: str) -> None:
    assert task_named(name).name == task
