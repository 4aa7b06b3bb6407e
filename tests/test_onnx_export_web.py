"""transformers.js runs what `hubcache export` made, from `hubcache serve`, and answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.demo.models import tiny_bert
from tests.support.inprocess import InProcess
from tests.support.serving import Served
from tests.support.training import tiny_t5
from tests.support.webclients import Node

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = [pytest.mark.slow, pytest.mark.train]

SENTENCE = "A small model that loads without a network!"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "bert").mkdir()
    for path, content in tiny_bert(6).items():
        (folder / "bert" / path).write_bytes(content)
    return {"bert": folder / "bert", "t5": tiny_t5(folder / "t5")}


@pytest.fixture(scope="module")
def endpoint(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    hubcache = InProcess(folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), OMP_NUM_THREADS="1")
    tasks = {"bert": "feature-extraction", "t5": "text2text-generation"}
    for name, source in sources.items():
        for command in (
            ("pull", source, "--as", f"me/{name}"),
            ("export", f"me/{name}", "--format", "onnx", "--task", tasks[name]),
        ):
            ran = hubcache(*command, timeout=250)
            assert ran.code == 0, ran.err
    with Served(folder, "--offline") as served:
        yield served.endpoint


def test_an_exported_encoder_embeds_as_pytorch_does(
    endpoint: str, node: Node, sources: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sources["bert"])
    model = transformers.AutoModel.from_pretrained(sources["bert"]).eval()
    with torch.no_grad():
        wanted = model(**tokenizer(SENTENCE, return_tensors="pt")).last_hidden_state.mean(1)[0].tolist()
    told = node("transformers.mjs", endpoint, tmp_path, "local/bert-onnx", SENTENCE)
    assert told["features"] == pytest.approx(wanted, abs=1e-4)


def test_an_exported_encoder_decoder_writes_as_pytorch_does(
    endpoint: str, node: Node, sources: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sources["t5"])
    model = transformers.T5ForConditionalGeneration.from_pretrained(sources["t5"]).eval()
    written = model.generate(**tokenizer(SENTENCE, return_tensors="pt"), max_new_tokens=6, do_sample=False)
    told = node("generate.mjs", endpoint, tmp_path, "local/t5-onnx", "text2text-generation", SENTENCE)
    assert told["text"].strip() == tokenizer.decode(written[0], skip_special_tokens=True).strip()
