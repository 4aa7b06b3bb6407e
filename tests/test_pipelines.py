"""hubcache.pipeline on tiny models: results equal to transformers' own, and those of the tasks that it dropped."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers import pipeline as theirs

import hubcache
from hubcache.errors import OfflineError, UsageError
from hubcache.models import PalmForConditionalGeneration, PalmTokenizer, T5EncoderConfig
from hubcache.models.t5_encoder import T5EncoderForEntityRecognitionWithCRF
from hubcache.train.pipelines import register
from hubcache.train.pipelines.build import build
from tests.support.goldens import golden
from tests.support.nearness import near
from tests.support.training import rows_of, shared_data, tiny_t5

pytestmark = pytest.mark.train

SENTENCES = ["the film is good", "a story", "Anna went to Paris with John Smith on a very long and rainy day", "no"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Every connection fails, and the cache is an empty one."""

    def refused(*_: object) -> None:
        raise AssertionError("a connection was tried")

    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refused)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bert(folder: Path, cls: Any, vocabulary: str = "bert-base-uncased", **config: Any) -> Path:
    tokenizer = BertTokenizer(vocab=str(shared_data(f"vocabs/{vocabulary}.vocab.txt")))
    torch.manual_seed(3)
    model = cls(BertConfig(vocab_size=len(tokenizer), initializer_range=0.4, **SIZES, **config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    labels = {0: "NEGATIVE", 1: "neutral", 2: "POSITIVE"}
    return bert(tmp_path / "mood", BertForSequenceClassification, id2label=labels, num_labels=3)


@pytest.mark.parametrize("options", [{}, {"top_k": None}, {"top_k": 2}], ids=str)
def test_sentiment_analysis_says_what_transformers_says(classifier: Path, options: dict[str, Any]) -> None:
    made = hubcache.pipeline("sentiment-analysis", str(classifier))(SENTENCES, **options)
    near(made, theirs("sentiment-analysis", str(classifier))(SENTENCES, **options))


def test_return_all_scores_gives_every_label_in_the_labels_order(classifier: Path) -> None:
    [first, *_] = hubcache.pipeline("text-classification", str(classifier), return_all_scores=True)(SENTENCES)
    assert [one["label"] for one in first] == ["NEGATIVE", "neutral", "POSITIVE"]


def test_a_text_longer_than_the_model_reads_is_cut(classifier: Path) -> None:
    [said] = hubcache.pipeline("text-classification", str(classifier))("word " * 900)
    assert set(said) == {"label", "score"}


def test_feature_extraction_has_a_row_for_each_token_of_its_own_text(classifier: Path) -> None:
    made = hubcache.pipeline("feature-extraction", str(classifier))(SENTENCES)
    near(made, theirs("feature-extraction", str(classifier))(SENTENCES))


def test_fill_mask_says_what_transformers_says(tmp_path: Path) -> None:
    folder = bert(tmp_path / "mlm", BertForMaskedLM)
    texts = ["the [MASK] is good", "Anna went to [MASK] with John Smith on a long day"]
    near(hubcache.pipeline("fill-mask", str(folder))(texts), theirs("fill-mask", str(folder))(texts))


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_ner_groups_as_transformers_does(tmp_path: Path, strategy: str) -> None:
    labels = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
    folder = bert(tmp_path / "ner", BertForTokenClassification, id2label=labels, num_labels=5)
    made = hubcache.pipeline("ner", str(folder), aggregation_strategy=strategy)(SENTENCES)
    near(made, theirs("ner", str(folder), aggregation_strategy=strategy)(SENTENCES))


def test_grouped_entities_is_the_simple_strategy(tmp_path: Path) -> None:
    labels = dict(enumerate(["O", "B-PER", "I-PER"]))
    folder = bert(tmp_path / "ner", BertForTokenClassification, id2label=labels, num_labels=3)
    made = hubcache.pipeline("ner", str(folder), grouped_entities=True)(SENTENCES)
    near(made, theirs("ner", str(folder), aggregation_strategy="simple")(SENTENCES))


@pytest.mark.parametrize("multi", [False, True])
def test_zero_shot_classification_says_what_transformers_says(tmp_path: Path, multi: bool) -> None:
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    folder = bert(
        tmp_path / "nli", BertForSequenceClassification, id2label=labels, label2id={v: k for k, v in labels.items()}
    )
    asked: dict[str, Any] = {"candidate_labels": ["sport", "public health"], "multi_label": multi}
    made = hubcache.pipeline("zero-shot-classification", str(folder))(SENTENCES, **asked)
    near(made, theirs("zero-shot-classification", str(folder))(SENTENCES, **asked))


def test_text_generation_continues_each_prompt_as_if_alone(tmp_path: Path) -> None:
    tokenizer = BertTokenizer(vocab=str(shared_data("vocabs/bert-base-uncased.vocab.txt")))
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    made = hubcache.pipeline("text-generation", str(tmp_path))(SENTENCES, **asked)
    assert made == theirs("text-generation", str(tmp_path))(SENTENCES, **asked)


@pytest.fixture
def t5(tmp_path: Path) -> Path:
    return tiny_t5(tmp_path / "t5")


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("summarization", "summary_text"),
        ("translation_en_to_fr", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
def test_a_text_from_a_text_stands_under_the_tasks_own_name(t5: Path, task: str, key: str) -> None:
    [said] = hubcache.pipeline(task, str(t5))("the film is good", max_new_tokens=5)
    assert list(said) == [key]
    assert isinstance(said[key], str)


def test_texts_from_texts_are_what_generate_gives_each_alone(t5: Path) -> None:
    pipe = hubcache.pipeline("summarization", str(t5))
    made = pipe(SENTENCES, max_new_tokens=6, return_tensors=True)
    for text, said in zip(SENTENCES, made, strict=True):
        [alone] = pipe.model.generate(**pipe.tokenizer(text, return_tensors="pt"), max_new_tokens=6)
        assert said["summary_token_ids"][: len(alone)].tolist() == alone.tolist()


def test_the_prefix_of_a_translation_comes_from_the_models_own_parameters(t5: Path) -> None:
    config = json.loads((t5 / "config.json").read_text())
    config["task_specific_params"] = {"translation_en_to_fr": {"prefix": "translate English to French: "}}
    (t5 / "config.json").write_text(json.dumps(config))
    pipe = hubcache.pipeline("translation_en_to_fr", str(t5))
    ids = pipe.preprocess("good")["input_ids"][0]
    assert pipe.tokenizer.decode(ids, skip_special_tokens=True).startswith("translate English to French")


@pytest.mark.parametrize("run", range(5))
def test_palm_generates_the_goldens(tmp_path: Path, run: int) -> None:
    folder = golden("sofa/palm/generation_undertrained")
    told = json.loads((folder / "outputs.json").read_text())["runs"][run]
    model = PalmForConditionalGeneration.from_pretrained(folder)
    tokenizer = PalmTokenizer(vocab=str(golden("sofa/tokenizers/zh_vocab.txt")))
    with np.load(folder / "inputs.npz") as stored:
        rows = [
            ids[mask > 0].tolist() for ids, mask in zip(stored["input_tokens"], stored["attention_mask"], strict=True)
        ]
    inputs = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]
    options = {"num_beams": told["beam_size"], "min_length": told["min_length"], "max_length": told["max_length"]}
    made = build("text2text-generation", model, tokenizer)(inputs, return_tensors=True, **options)
    for said, expected in zip(made, told["predictions"], strict=True):
        ids = said["generated_token_ids"].tolist()
        assert ids[: len(expected)] == expected
        assert not any(ids[len(expected) :])


def test_the_ke_t5_crf_tagger_makes_entities(t5: Path, tmp_path: Path) -> None:
    base = hubcache.pipeline("text2text-generation", str(t5))
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    labels = dict(enumerate(["O", "B-PER", "I-PER"]))
    torch.manual_seed(0)
    config = T5EncoderConfig(vocab_size=len(base.tokenizer), id2label=labels, num_labels=3, **sizes)
    T5EncoderForEntityRecognitionWithCRF(config).save_pretrained(tmp_path / "crf")
    base.tokenizer.save_pretrained(tmp_path / "crf")
    pipe = hubcache.pipeline("ner", str(tmp_path / "crf"), ignore_labels=[])
    assert {one["entity"] for one in pipe("the film is good")} <= set(labels.values())


def test_a_registered_pipeline_is_made_with_the_models_folder(classifier: Path) -> None:
    class Shout:
        def __init__(self, model: Any, tokenizer: Any = None, task: str = "", device: Any = None) -> None:
            self.model = model

        def __call__(self, text: str) -> str:
            return text.upper()

    register("shout", Shout)
    assert hubcache.pipeline("shout", str(classifier))("hey") == "HEY"


def test_a_stream_is_answered_in_order_before_it_ends(classifier: Path) -> None:
    read = []

    def endless() -> Iterator[str]:
        while True:
            read.append(1)
            yield SENTENCES[len(read) % 4]

    results = hubcache.pipeline("text-classification", str(classifier)).stream(endless())
    assert next(results) == hubcache.pipeline("text-classification", str(classifier))([SENTENCES[1]])[0]
    assert len(read) <= 64


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as refused:
        hubcache.pipeline("nonsense")
    assert "question-answering" in refused.value.hint


def test_an_empty_cache_has_no_default_and_says_so() -> None:
    with pytest.raises(OfflineError, match="no model in the cache fits ner"):
        hubcache.pipeline("ner")


# Question answering: weights are set so that the wanted span is known.


class Pointed:
    """A pipeline whose model points at one token as the start, and at another as the end."""

    def __init__(self, folder: Path, vocabulary: str, start: str, end: str) -> None:
        bert(folder, BertForQuestionAnswering, vocabulary)
        self.pipe = hubcache.pipeline("question-answering", str(folder))
        model, width = self.pipe.model, SIZES["hidden_size"]
        with torch.no_grad():
            for parameter in model.bert.parameters():
                parameter.zero_()
            words = model.bert.embeddings.word_embeddings.weight
            words[self.pipe.tokenizer.convert_tokens_to_ids(start), 0] = 1
            words[self.pipe.tokenizer.convert_tokens_to_ids(end), 1] = 1
            for name, module in model.bert.named_modules():
                if name.endswith("LayerNorm"):
                    module.weight.fill_(1)
            model.qa_outputs.weight.copy_(torch.eye(2, width) * 3)
            model.qa_outputs.bias.zero_()


def test_the_best_span_is_given_in_characters_of_the_context(tmp_path: Path) -> None:
    pipe = Pointed(tmp_path, "bert-base-uncased", "new", "york").pipe
    context = "Anna   lives in New York, she says."
    said = pipe(question="Where does Anna live?", context=context)
    assert list(said) == ["score", "start", "end", "answer"]
    assert (said["start"], said["end"], said["answer"]) == (16, 24, "New York")
    assert 0 < said["score"] <= 1


def test_an_answer_beyond_the_first_window_is_found(tmp_path: Path) -> None:
    pipe = Pointed(tmp_path, "bert-base-uncased", "new", "york").pipe
    context = "the film is good . " * 60 + "it is New York ." + " the film is good ." * 60
    said = pipe(question="Where?", context=context, max_seq_len=64, doc_stride=16)
    assert (said["answer"], said["start"]) == ("New York", context.index("New York"))


def test_a_word_that_is_pointed_at_in_part_is_given_whole_unless_asked_otherwise(tmp_path: Path) -> None:
    pipe = Pointed(tmp_path, "bert-base-uncased", "##ding", "##ding").pipe
    asked = {"question": "What?", "context": "an unpretending embedding here"}
    whole, part = pipe(asked), pipe(asked, align_to_words=False)
    assert whole["answer"] in {"unpretending", "embedding"}
    assert part["answer"] == "ding"


def test_top_k_gives_distinct_spans_best_first(tmp_path: Path) -> None:
    said = Pointed(tmp_path, "bert-base-uncased", "new", "york").pipe(
        question="Where?", context="New York or old New York", top_k=3
    )
    assert len({(one["start"], one["end"]) for one in said}) == 3
    assert [one["score"] for one in said] == sorted((one["score"] for one in said), reverse=True)


def test_no_answer_is_the_empty_text_where_the_first_token_is_likeliest(tmp_path: Path) -> None:
    pipe = Pointed(tmp_path, "bert-base-uncased", "[CLS]", "[CLS]").pipe
    asked = {"question": "Where?", "context": "the film is good"}
    said = pipe(asked, handle_impossible_answer=True)
    assert (said["answer"], said["start"], said["end"]) == ("", 0, 0)
    assert pipe(asked)["answer"]


@pytest.mark.parametrize(("name", "vocabulary"), [("xquad_en", "bert-base-uncased"), ("xquad_zh", "bert-base-chinese")])
def test_xquads_answers_are_passages_of_their_contexts(tmp_path: Path, name: str, vocabulary: str) -> None:
    pipe = Pointed(tmp_path, vocabulary, "[UNK]", "[UNK]").pipe
    rows = rows_of(name, "validation", 12)
    said = pipe([{"question": row["question"], "context": row["context"]} for row in rows], max_seq_len=96)
    assert all(one["answer"] == row["context"][one["start"] : one["end"]] for one, row in zip(said, rows, strict=True))


def test_a_chinese_answer_is_counted_in_characters(tmp_path: Path) -> None:
    pipe = Pointed(tmp_path, "bert-base-chinese", "北", "京").pipe
    said = pipe(question="她住在哪里？", context="安娜 住在北京，她说。")
    assert (said["answer"], said["start"], said["end"]) == ("北京", 5, 7)
