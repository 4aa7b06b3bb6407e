"""Pipelines on ONNX graphs: what onnxruntime says is what torch says, task by task, and what is missing is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)

import hubcache
from hubcache.errors import BadConfig, UsageError
from hubcache.models import T5EncoderConfig
from hubcache.models.t5_encoder import T5EncoderForEntityRecognitionWithCRF
from hubcache.train.onnx.form import OnnxForm
from hubcache.train.onnx.inputs import Shape, graphs_of
from hubcache.train.onnx.whole import OnnxRequest, write_onnx
from tests.support.inprocess import InProcess
from tests.support.nearness import near
from tests.support.training import shared_data, tiny_t5

pytestmark = [pytest.mark.train, pytest.mark.slow]

SENTENCES = ["the film is good", "a story", "Anna went to Paris with John Smith on a very long and rainy day", "no"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def exported(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "onnx").mkdir()
    for graph in graphs_of(model, tokenizer):
        if not graph.name.endswith("merged"):
            # By tracing, which takes a second a graph; test_onnx_export.py has torch's other exporter.
            torch.onnx.export(
                graph.module.eval(),
                graph.example(Shape(2, 7, 3)),
                folder / "onnx" / f"{graph.name}.onnx",
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_axes=graph.axes,
                opset_version=17,
                dynamo=False,
            )
    return folder


def bert(folder: Path, cls: Any, **config: Any) -> Path:
    tokenizer = BertTokenizer(vocab=str(shared_data("vocabs/bert-base-uncased.vocab.txt")))
    torch.manual_seed(3)
    return exported(
        folder, cls(BertConfig(vocab_size=len(tokenizer), initializer_range=0.4, **SIZES, **config)), tokenizer
    )


def same(task: str, folder: Path, inputs: Any, **options: Any) -> None:
    """Both backends answer alike, the graph with no weights beside it."""
    expected = hubcache.pipeline(task, str(folder), device="cpu")(inputs, **options)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    near(hubcache.pipeline(task, str(folder), backend="onnx")(inputs, **options), expected, rel=1e-3)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return bert(tmp_path / "mood", BertForSequenceClassification, num_labels=3)


def test_text_classification_is_torchs(classifier: Path) -> None:
    same("text-classification", classifier, SENTENCES, top_k=None)


def test_feature_extraction_is_torchs(tmp_path: Path) -> None:
    same("feature-extraction", bert(tmp_path / "bare", BertModel), SENTENCES)


def test_fill_mask_is_torchs(tmp_path: Path) -> None:
    same("fill-mask", bert(tmp_path / "mlm", BertForMaskedLM), ["the [MASK] is good", "Anna went to [MASK] on a day"])


def test_named_entities_are_torchs(tmp_path: Path) -> None:
    labels = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
    folder = bert(tmp_path / "ner", BertForTokenClassification, id2label=labels, num_labels=5)
    same("ner", folder, SENTENCES, aggregation_strategy="simple")


def test_question_answering_is_torchs(tmp_path: Path) -> None:
    folder = bert(tmp_path / "qa", BertForQuestionAnswering)
    same("question-answering", folder, {"question": "who went?", "context": SENTENCES[2]}, top_k=3)


def test_zero_shot_classification_is_torchs(tmp_path: Path) -> None:
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    folder = bert(
        tmp_path / "nli", BertForSequenceClassification, id2label=labels, label2id={v: k for k, v in labels.items()}
    )
    same("zero-shot-classification", folder, SENTENCES, candidate_labels=["sport", "public health"])


def test_continued_texts_are_torchs(tmp_path: Path) -> None:
    tokenizer = BertTokenizer(vocab=str(shared_data("vocabs/bert-base-uncased.vocab.txt")))
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.4}
    folder = exported(tmp_path / "gpt", GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)), tokenizer)
    same("text-generation", folder, SENTENCES, max_new_tokens=4, do_sample=False)


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    folder = tiny_t5(tmp_path / "plain")
    pipe = hubcache.pipeline("text2text-generation", str(folder))
    return exported(tmp_path / "t5", pipe.model, pipe.tokenizer)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("task", ["summarization", "translation_en_to_fr", "text2text-generation"])
def test_texts_from_texts_are_torchs(t5: Path, task: str, beams: int) -> None:
    same(task, t5, SENTENCES, max_new_tokens=6, num_beams=beams)


def crf_tagger(folder: Path, t5: Path) -> Path:
    tokenizer = hubcache.pipeline("text2text-generation", str(t5)).tokenizer
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    torch.manual_seed(0)
    config = T5EncoderConfig(
        vocab_size=len(tokenizer), id2label=dict(enumerate(["O", "B-PER", "I-PER"])), num_labels=3, **sizes
    )
    model = T5EncoderForEntityRecognitionWithCRF(config)
    torch.nn.init.normal_(model.crf.transitions)
    exported(folder, model, tokenizer)
    np.savez(folder / "crf.npz", **{name: value.numpy() for name, value in model.crf.state_dict().items()})
    return folder


def test_a_crf_taggers_entities_are_torchs(tmp_path: Path, t5: Path) -> None:
    same("ner", crf_tagger(tmp_path / "crf", t5), SENTENCES, ignore_labels=[])


def remade(folder: Path, made: Path, task: str, **how: Any) -> Path:
    """What `hubcache export` writes of a model's folder."""
    write_onnx(OnnxRequest(folder, made, "me/model", OnnxForm(task=task, **how)))
    return made


@pytest.mark.parametrize(
    ("task", "cls", "inputs"),
    [
        ("feature-extraction", BertModel, SENTENCES),
        ("question-answering", BertForQuestionAnswering, {"question": "who went?", "context": SENTENCES[2]}),
    ],
)
def test_what_export_writes_answers_as_torch_does(tmp_path: Path, task: str, cls: Any, inputs: Any) -> None:
    folder = bert(tmp_path / "bert", cls)
    made = remade(folder, tmp_path / "made", task)
    near(
        hubcache.pipeline(task, str(made), backend="onnx")(inputs),
        hubcache.pipeline(task, str(folder))(inputs),
        rel=1e-3,
    )


def test_what_export_writes_of_a_crf_tagger_tags_as_torch_does(tmp_path: Path, t5: Path) -> None:
    folder = crf_tagger(tmp_path / "crf", t5)
    made = remade(folder, tmp_path / "made", "ner")
    wanted = hubcache.pipeline("ner", str(folder), ignore_labels=[])(SENTENCES)
    near(hubcache.pipeline("ner", str(made), backend="onnx", ignore_labels=[])(SENTENCES), wanted, rel=1e-3)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A T5, and its export with quantised halves."""
    folder = tmp_path_factory.mktemp("halves")
    return tiny_t5(folder / "t5"), remade(folder / "t5", folder / "made", "text2text-generation", quantize="dynamic")


def test_what_export_writes_of_an_encoder_decoder_writes_as_torch_does(halves: tuple[Path, Path]) -> None:
    task, how = "text2text-generation", {"max_new_tokens": 6}
    wanted = hubcache.pipeline(task, str(halves[0]))(SENTENCES, **how)
    near(hubcache.pipeline(task, str(halves[1]), backend="onnx")(SENTENCES, **how), wanted, rel=1e-3)


def test_a_quantised_encoder_decoder_writes(halves: tuple[Path, Path]) -> None:
    pipe = hubcache.pipeline("text2text-generation", str(halves[1]), backend="deployment/decoder_model_merged.onnx")
    assert len(pipe(SENTENCES, max_new_tokens=6)) == len(SENTENCES)


def test_emissions_without_the_crfs_scores_are_refused(tmp_path: Path, t5: Path) -> None:
    folder = crf_tagger(tmp_path / "crf", t5)
    (folder / "crf.npz").unlink()
    with pytest.raises(BadConfig, match="no CRF's scores"):
        hubcache.pipeline("ner", str(folder), backend="onnx")


def test_a_repo_without_a_graph_is_refused_with_the_export_that_makes_one(classifier: Path) -> None:
    (classifier / "onnx/model.onnx").unlink()
    with pytest.raises(UsageError, match="no ONNX file") as refused:
        hubcache.pipeline("text-classification", str(classifier), backend="onnx")
    assert refused.value.hint == f"hubcache export {classifier} --format onnx"


@pytest.mark.parametrize("path", ["onnx/model_quantized.onnx", "deployment/model.onnx"])
def test_a_graph_is_found_at_its_other_places(classifier: Path, path: str) -> None:
    (classifier / path).parent.mkdir(exist_ok=True)
    (classifier / "onnx/model.onnx").rename(classifier / path)
    same("text-classification", classifier, SENTENCES)


def test_a_graph_is_named_by_its_path(classifier: Path) -> None:
    (classifier / "onnx/model.onnx").rename(classifier / "onnx/model_fp16.onnx")
    pipe = hubcache.pipeline("text-classification", str(classifier), backend="onnx/model_fp16.onnx")
    assert len(pipe(SENTENCES)) == 4


def test_a_graph_of_another_task_is_refused(classifier: Path) -> None:
    with pytest.raises(UsageError, match="no token-classification"):
        hubcache.pipeline("ner", str(classifier), backend="onnx")


def test_a_broken_file_is_told(classifier: Path) -> None:
    (classifier / "onnx/model.onnx").write_bytes(b"no graph")
    with pytest.raises(BadConfig, match="onnxruntime cannot run"):
        hubcache.pipeline("text-classification", str(classifier), backend="onnx")


def test_a_graph_is_not_run_on_another_device(classifier: Path) -> None:
    with pytest.raises(UsageError, match="on the CPU"):
        hubcache.pipeline("text-classification", str(classifier), backend="onnx", device="cuda")


def test_an_unknown_backend_is_refused(classifier: Path) -> None:
    with pytest.raises(UsageError, match="no backend 'tensorrt'"):
        hubcache.pipeline("text-classification", str(classifier), backend="tensorrt")


def test_the_command_answers_from_a_graph(classifier: Path, tmp_path: Path) -> None:
    command = InProcess(tmp_path, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(tmp_path / "state"))
    for weights in classifier.glob("*.safetensors"):
        weights.unlink()
    ran = command("predict", "text-classification", classifier, "the film is good", "--backend", "onnx")
    assert ran.code == 0, ran.err
    assert set(json.loads(ran.out)) == {"label", "score"} or set(json.loads(ran.out)[0]) == {"label", "score"}
