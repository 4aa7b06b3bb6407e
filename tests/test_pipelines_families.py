"""Pipelines over this package's families, and over models of many languages; tests/test_pipelines.py has the rest."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers  # noqa: E402  # after the skips

import hubcache  # noqa: E402
from hubcache import models  # noqa: E402
from tests.support import tinymodels as tiny  # noqa: E402
from tests.support.training import shared_data, tiny_t5  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

TEXTS = ["the film is good", "Anna went to Paris on a very long and rainy day", "no"]
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
TAGS = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC"]))
MOODS = {0: "bad", 1: "good", 2: "so-so"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def labels(names: dict[int, str]) -> dict[str, Any]:
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


def logits(pipe: Any, text: str) -> Any:
    """Return what the model says to one text alone."""
    read = pipe.tokenizer(text, return_tensors="pt")
    names = [name for name in read if name in pipe.tokenizer.model_input_names]
    with torch.no_grad():
        return pipe.model(**{name: read[name] for name in names}).logits[0]


def check_classes(pipe: Any) -> None:
    for text, said in zip(TEXTS, pipe(TEXTS, top_k=None), strict=True):
        shares = torch.softmax(logits(pipe, text), -1)
        expected = {pipe.model.config.id2label[at]: float(share) for at, share in enumerate(shares)}
        assert {one["label"]: one["score"] for one in said} == pytest.approx(expected, abs=1e-5)


def check_tags(pipe: Any) -> None:
    """Each token's label is the one that the model gives it in the text alone."""
    for text, said in zip(TEXTS, pipe(TEXTS, ignore_labels=[]), strict=True):
        best = logits(pipe, text).argmax(-1).tolist()
        assert [one["entity"] for one in said] == [pipe.model.config.id2label[best[one["index"]]] for one in said]
        assert len(said) == len(pipe.tokenizer(text, add_special_tokens=False)["input_ids"])


# SOFA's.


def sbert(folder: Path, head: str, **config: Any) -> Any:
    words = models.SbertTokenizer(vocab=str(shared_data("vocabs/bert-base-uncased.vocab.txt")))
    made = models.SbertConfig(vocab_size=len(words), initializer_range=0.4, **tiny.ENCODER, **config)
    return tiny.save(folder, tiny.model_of(getattr(models, f"SbertFor{head}"), made), words)


def test_structbert_classifies(tmp_path: Path) -> None:
    pipe = hubcache.pipeline("text-classification", sbert(tmp_path, "SequenceClassification", **labels(MOODS)))
    assert isinstance(pipe.model, models.SbertForSequenceClassification)
    check_classes(pipe)


def test_structbert_tags(tmp_path: Path) -> None:
    check_tags(hubcache.pipeline("ner", sbert(tmp_path, "TokenClassification", **labels(TAGS))))


def test_structbert_fills_masks(tmp_path: Path) -> None:
    pipe = hubcache.pipeline("fill-mask", sbert(tmp_path, "MaskedLM"))
    [best, _] = pipe("the [MASK] is good", top_k=2)
    assert best["token"] == int(logits(pipe, "the [MASK] is good")[2].argmax())


def test_structbert_answers_questions(tmp_path: Path) -> None:
    said = hubcache.pipeline("question-answering", sbert(tmp_path, "QuestionAnswering"))("Who?", TEXTS[1])
    assert said["answer"] == TEXTS[1][said["start"] : said["end"]] != ""


def veco(folder: Path, head: str, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(shared_data("vocabs/sentencepiece_test_model.model"), folder / "sentencepiece.bpe.model")
    words = models.VecoTokenizer.from_pretrained(folder)
    made = models.VecoConfig(
        vocab_size=len(words), max_position_embeddings=66, type_vocab_size=1, pad_token_id=words.pad_token_id,
        initializer_range=0.4, **tiny.ENCODER, **config,
    )  # fmt: skip
    return tiny.save(folder, tiny.model_of(getattr(models, f"VecoFor{head}"), made), words)


def test_veco_classifies(tmp_path: Path) -> None:
    pipe = hubcache.pipeline("text-classification", veco(tmp_path, "SequenceClassification", **labels(MOODS)))
    assert isinstance(pipe.model, models.VecoForSequenceClassification)
    check_classes(pipe)


def test_veco_reads_no_more_than_its_places(tmp_path: Path) -> None:
    pipe = hubcache.pipeline("text-classification", veco(tmp_path, "SequenceClassification", **labels(MOODS)))
    assert pipe("film " * 200)[0]["label"] in MOODS.values()


def test_veco_tags(tmp_path: Path) -> None:
    check_tags(hubcache.pipeline("ner", veco(tmp_path, "TokenClassification", **labels(TAGS))))


@pytest.fixture
def palm(tmp_path: Path) -> Path:
    words = models.PalmTokenizer(vocab=str(shared_data("vocabs/bert-base-chinese.vocab.txt")))
    special = {"bos_token_id": words.cls_token_id, "eos_token_id": words.sep_token_id, "pad_token_id": 0}
    config = models.PalmConfig(
        vocab_size=len(words), dec_hidden_layers=2, max_position_embeddings=128, initializer_range=0.4, **special,
        **tiny.ENCODER,
    )  # fmt: skip
    return tiny.save(tmp_path / "palm", tiny.model_of(models.PalmForConditionalGeneration, config), words)


def test_palm_writes_from_text_what_its_own_search_finds(palm: Path) -> None:
    pipe = hubcache.pipeline("text2text-generation", palm)
    texts = ["今天天气很好", "我们去公园散步吧，明天也去"]
    symbols = {"[CLS]": pipe.model.config.bos_token_id, "[SEP]": pipe.model.config.eos_token_id}
    search = models.TextGenerator(pipe.model, None, symbols, beam_size=3, min_length=2, max_length=8)
    made = pipe(texts, num_beams=3, min_length=2, max_length=8, return_tensors=True)
    for text, said in zip(texts, made, strict=True):
        read = pipe.tokenizer(text, return_tensors="pt")
        batch = [read["input_ids"], torch.zeros_like(read["input_ids"]), read["attention_mask"]]
        [[best]] = search.translate_batch(batch)["predictions"]
        assert said["generated_token_ids"][: len(best)].tolist() == best.tolist()


def test_palm_summarises_under_the_summarys_name(palm: Path) -> None:
    [said] = hubcache.pipeline("summarization", palm)("今天天气很好", max_length=6)
    assert list(said) == ["summary_text"]


# KE-T5's.


def ke_t5(folder: Path, head: str, names: dict[int, str]) -> Path:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_t5(folder / "base"))
    torch.manual_seed(0)
    made = models.T5EncoderConfig(vocab_size=len(tokenizer), **T5, **labels(names), initializer_factor=4.0)
    return tiny.save(folder / "head", getattr(models, f"T5EncoderFor{head}")(made), tokenizer)


def test_the_ke_t5_tagger_tags(tmp_path: Path) -> None:
    check_tags(hubcache.pipeline("ner", ke_t5(tmp_path, "TokenClassification", TAGS)))


def test_the_ke_t5_crf_tagger_gives_the_best_path(tmp_path: Path) -> None:
    folder = ke_t5(tmp_path, "EntityRecognitionWithCRF", TAGS)
    pipe = hubcache.pipeline("ner", folder, ignore_labels=[])
    plain = models.T5EncoderForEntityRecognitionWithCRF.from_pretrained(folder, crf_scores=False).eval()
    for text, said in zip(TEXTS, pipe(TEXTS), strict=True):
        read = pipe.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            [path] = plain(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits
        assert [one["entity"] for one in said] == [TAGS[path[one["index"]]] for one in said]


def test_the_ke_t5_crf_taggers_entities_are_grouped(tmp_path: Path) -> None:
    pipe = hubcache.pipeline("ner", ke_t5(tmp_path, "EntityRecognitionWithCRF", TAGS), grouped_entities=True)
    for one in [entity for text in pipe(TEXTS) for entity in text]:
        assert list(one) == ["entity_group", "score", "word", "start", "end"]
        assert one["entity_group"] in {"PER", "LOC"}


@pytest.mark.parametrize("head", ["SequenceClassificationSimple", "SequenceClassificationMean"])
def test_the_ke_t5_classifiers_classify(tmp_path: Path, head: str) -> None:
    pipe = hubcache.pipeline("text-classification", ke_t5(tmp_path, head, MOODS))
    assert type(pipe.model).__name__ == f"T5EncoderFor{head}"
    check_classes(pipe)


# Languages.


def many_languages(folder: Path, family: str, **told: Any) -> Path:
    """Write an mBART or NLLB whose pieces are the test model's."""
    folder.mkdir(exist_ok=True)
    shutil.copy(shared_data("vocabs/sentencepiece_test_model.model"), folder / "sentencepiece.bpe.model")
    words = getattr(transformers, f"{family}Tokenizer").from_pretrained(folder, **told)
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": 0}
    sizes = {**tiny.BART, "vocab_size": len(words), "max_position_embeddings": 64, "init_std": 0.4}
    name = "M2M100" if family == "Nllb" else "MBart"
    config = getattr(transformers, f"{name}Config")(
        decoder_start_token_id=words.eos_token_id, forced_eos_token_id=words.eos_token_id, **special, **sizes
    )
    return tiny.save(folder, tiny.model_of(getattr(transformers, f"{name}ForConditionalGeneration"), config), words)


CODES = ["eng_Latn", "fra_Latn", "deu_Latn"]


@pytest.mark.parametrize(
    ("family", "told", "source", "target"),
    [
        ("MBart", {}, "en_XX", "fr_XX"),
        ("MBart50", {}, "en_XX", "fr_XX"),
        ("Nllb", {"extra_special_tokens": CODES}, "eng_Latn", "fra_Latn"),
    ],
)
def test_a_translation_begins_with_the_language_it_is_into(
    tmp_path: Path, family: str, told: dict[str, Any], source: str, target: str
) -> None:
    pipe = hubcache.pipeline("translation", many_languages(tmp_path, family, **told), src_lang=source, tgt_lang=target)
    [said] = pipe("This is a test", max_length=6, return_tensors=True)
    assert said["translation_token_ids"].tolist()[1] == pipe.tokenizer.convert_tokens_to_ids(target)
    read = pipe.preprocess("This is a test", src_lang=source)["input_ids"][0].tolist()
    assert pipe.tokenizer.convert_tokens_to_ids(source) in read


def test_the_languages_of_a_call_count_over_the_pipelines_and_for_that_call_alone(tmp_path: Path) -> None:
    folder = many_languages(tmp_path, "MBart50")
    pipe = hubcache.pipeline("translation", folder, src_lang="en_XX", tgt_lang="fr_XX")
    firsts = []
    for options in ({}, {"src_lang": "fr_XX", "tgt_lang": "de_DE"}, {}):
        [said] = pipe("This is a test", max_length=6, return_tensors=True, **options)
        firsts.append(pipe.tokenizer.convert_ids_to_tokens(int(said["translation_token_ids"][1])))
    assert firsts == ["fr_XX", "de_DE", "fr_XX"]


def test_the_tasks_name_may_hold_the_languages(tmp_path: Path) -> None:
    folder = many_languages(tmp_path, "MBart50")
    pipe = hubcache.pipeline("translation_en_XX_to_de_DE", folder)
    [said] = pipe(["This is a test"], max_length=6, return_tensors=True)
    assert pipe.tokenizer.convert_ids_to_tokens(int(said["translation_token_ids"][1])) == "de_DE"


def test_a_text_without_languages_is_translated_as_the_model_is_set(tmp_path: Path) -> None:
    [said] = hubcache.pipeline("translation", tiny.marian(tmp_path))("This is a test", max_length=6)
    assert list(said) == ["translation_text"]


@pytest.mark.parametrize("task", ["translation_en_to_de", "translation_en_to_fr"])
def test_t5_is_told_by_its_own_prefix_which_languages_are_meant(tmp_path: Path, task: str) -> None:
    folder = tiny_t5(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    told = {name: {"prefix": f"translate English to {word}: "} for name, word in
            (("translation_en_to_de", "German"), ("translation_en_to_fr", "French"))}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**config, "task_specific_params": told}))
    pipe = hubcache.pipeline(task, folder)
    [said] = pipe("good", max_new_tokens=5, return_tensors=True)
    read = pipe.tokenizer(told[task]["prefix"] + "good", return_tensors="pt")
    assert said["translation_token_ids"].tolist() == pipe.model.generate(**read, max_new_tokens=5)[0].tolist()


# Other makers' packages.


def test_an_installed_package_brings_a_pipeline_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sbert(tmp_path / "model", "SequenceClassification", **labels(MOODS))
    site = tmp_path / "site"
    facts = site / "loud_pipelines-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-pipelines\nVersion: 1.0\n", "utf-8")
    (facts / "entry_points.txt").write_text("[hubcache.pipelines]\nloud = loud_pipelines:Loud\n", "utf-8")
    (site / "loud_pipelines.py").write_text(
        "from transformers import AutoModelForSequenceClassification\n"
        "class Loud:\n"
        "    auto_class = AutoModelForSequenceClassification\n"
        "    def __init__(self, model, tokenizer, task, device, mark='!'):\n"
        "        self.model, self.tokenizer, self.task, self.mark = model, tokenizer, task, mark\n"
        "    def __call__(self, text):\n"
        "        ids = self.tokenizer(text, return_tensors='pt')\n"
        "        label = self.model.config.id2label[int(self.model(**ids).logits.argmax())]\n"
        "        return {'label': label.upper() + self.mark, 'task': self.task}\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(site))
    said = hubcache.pipeline("loud", str(model), mark="?")("the film is good")
    sys.modules.pop("loud_pipelines")
    assert (said["label"] in {f"{name.upper()}?" for name in MOODS.values()}, said["task"]) == (True, "loud")
