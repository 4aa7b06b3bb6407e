"""What `hubcache predict` refuses: a plain message on stderr and the exit code of usage or absence, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.support import tinymodels as tiny  # after the skips: it imports torch
from tests.support.inprocess import InProcess

pytestmark = pytest.mark.train

MOODS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
ENTAILS = ["contradiction", "neutral", "entailment"]
SOME = ("--context", "Ada lives in London.")
LONG = "word " * 700
NO_UNICODE = "bad \udcff byte"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    folder = tmp_path_factory.mktemp("refusals")
    line = InProcess(folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"))
    made = {
        "my/mask": tiny.encoder(folder / "mask", "ForMaskedLM", family="DistilBert"),
        "my/mood": tiny.encoder(folder / "mood", "ForSequenceClassification", **MOODS),
        "my/nli": tiny.encoder(
            folder / "nli", "ForSequenceClassification", id2label=dict(enumerate(ENTAILS)),
            label2id={name: number for number, name in enumerate(ENTAILS)},
        ),
        "my/ner": tiny.encoder(folder / "ner", "ForTokenClassification"),
        "my/qa": tiny.encoder(folder / "qa", "ForQuestionAnswering"),
        "my/gpt": tiny.gpt(folder / "gpt"),
        "my/bart": tiny.bart(folder / "bart", "ForConditionalGeneration"),
    }  # fmt: skip
    for name, place in made.items():
        tiny.put(line.cache, name, place)
    return line


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        # Models and tasks.
        (["nosuch", "my/mood", "x"], 2, "there is no pipeline 'nosuch'"),
        (["ner", "org/none", "x"], 5, "hubcache pull org/none"),
        (["feature-extraction", "/no/folder", "x"], 2, "there is no folder /no/folder"),
        (["ner", "my/mood", "x"], 2, "is a model for text-classification, not for token-classification"),
        (["sentiment-analysis", "my/ner", "x"], 2, "is a model for token-classification"),
        (["question-answering", "my/gpt", "x", *SOME], 2, "qa_outputs.weight would be random"),
        (["ner", "my/mask", "x"], 2, "has no trained head for token-classification"),
        (["summarization", "my/mood", "x"], 2, "has no model for summarization"),
        # Texts.
        (["sentiment-analysis", "my/mood"], 2, "there is no text"),
        (["fill-mask", "my/mask", "no mask"], 2, "No mask_token"),
        (["fill-mask", "my/mask", LONG + "[MASK]"], 2, "a text has 703 tokens, the model reads 512"),
        (["text-generation", "my/gpt", LONG], 2, "tokens, the model reads 1024"),
        (["question-answering", "my/qa", "who"], 2, 'takes {"question"'),
        (["question-answering", "my/qa", "", *SOME], 2, "the question is empty"),
        (["question-answering", "my/qa", "who", "--context", " "], 2, "the context is empty"),
        (["sentiment-analysis", "my/mood", NO_UNICODE], 2, r"a text is no Unicode: 'bad \udcff byte'"),
        (["question-answering", "my/qa", "who", "--context", NO_UNICODE], 2, "a text is no Unicode"),
        # Options.
        (["ner", "my/ner", "x", "--set", "aggregation_strategy=best"], 2, "one of: none, simple, first, average, max"),
        (["zero-shot-classification", "my/nli", "x"], 2, "there are no labels to choose from"),
        (["zero-shot-classification", "my/nli", "x", "--labels", "a,,b"], 2, "a label is empty in 'a,,b'"),
        (["zero-shot-classification", "my/nli", "x", "--labels", "a", "--set", "hypothesis_template=x"], 2, "template"),
        (["question-answering", "my/qa", "who", *SOME, "--set", "top_k=0"], 2, "top_k is 0"),
        (["question-answering", "my/qa", "who", *SOME, "--set", "top_k=x"], 2, "the pipeline refused"),
        (["question-answering", "my/qa", "who", *SOME, "--set", "doc_stride=400"], 2, "doc_stride 400 leaves no room"),
        (["text-generation", "my/gpt", "x", "--set", "max_new_tokens=-1"], 2, "must be greater than 0"),
        (["text-generation", "my/gpt", "x", "--set", "tempurature=1"], 2, "['tempurature']"),
        (["summarization", "my/bart", "x", "--set", "num_beams=0", "--set", "max_length=9"], 2, "the pipeline refused"),
        (["summarization", "my/bart", LONG, "--set", "truncation=false"], 2, "the model reads 600"),
        (["sentiment-analysis", "my/mood", "x", "--device", "cuda:99"], 2, "there is no device cuda:99 here"),
        (["sentiment-analysis", "my/mood", "x", "--device", "nonsense"], 2, "there is no device nonsense here"),
    ],
    ids=lambda each: " ".join(each)[:50] if isinstance(each, list) else "",
)  # fmt: skip
def test_what_cannot_be_answered_is_said_in_words_with_its_exit_code(
    cache: InProcess, arguments: list[str], code: int, told: str
) -> None:
    ran = cache("predict", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err


@pytest.mark.parametrize(
    "content", [b"\x7fELF\x02\x01\xff\xfe\x00", "caf\xe9\n".encode("latin-1")], ids=["ELF", "latin"]
)
def test_a_file_that_is_no_utf_8_is_named(cache: InProcess, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    ran = cache("predict", "sentiment-analysis", "my/mood", "--file", tmp_path / "file")
    assert (ran.code, f"{tmp_path / 'file'} is no text in UTF-8" in ran.err) == (2, True)


@pytest.mark.parametrize(("name", "told"), [("none", "No such file"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(cache: InProcess, tmp_path: Path, name: str, told: str) -> None:
    ran = cache("predict", "sentiment-analysis", "my/mood", "--file", tmp_path / name)
    assert (ran.code, told in ran.err) == (2, True)


def test_a_row_without_a_text_is_refused(cache: InProcess) -> None:
    ran = cache("predict", "sentiment-analysis", "my/mood", "-", given=b'{"label": 1}\n')
    assert (ran.code, "the pipeline refused" in ran.err) == (2, True)


def test_a_question_of_null_is_refused(cache: InProcess) -> None:
    ran = cache("predict", "question-answering", "my/qa", "-", given=b'{"question": null, "context": "x"}\n')
    assert (ran.code, "takes" in ran.err) == (2, True)


@pytest.mark.parametrize(("given", "told"), [(b"\xff\xfe\n", "stdin is no text in UTF-8"), (None, "stdin is closed")])
def test_a_stdin_that_gives_no_text_is_refused(cache: InProcess, given: bytes | None, told: str) -> None:
    ran = cache("predict", "sentiment-analysis", "my/mood", "-", given=given)
    assert (ran.code, told in ran.err) == (2, True)


def test_nothing_on_stdin_is_answered_with_nothing(cache: InProcess) -> None:
    ran = cache("predict", "sentiment-analysis", "my/mood", "-")
    assert (ran.code, ran.out) == (0, "")


def test_an_error_is_json_where_json_is_asked(cache: InProcess) -> None:
    ran = cache("predict", "fill-mask", "my/mask", "no mask", "--json")
    assert '"exit_code": 2' in ran.err


def test_what_was_answered_before_a_refusal_is_printed(cache: InProcess) -> None:
    texts = ["good"] * 64 + [NO_UNICODE]
    ran = cache("predict", "sentiment-analysis", "my/mood", *texts)
    assert (ran.code, len(ran.out.splitlines())) == (2, 64)


def test_a_mask_within_what_is_read_is_filled_where_truncation_is_asked(cache: InProcess) -> None:
    ran = cache("predict", "fill-mask", "my/mask", "[MASK] " + LONG, "--set", "truncation=true")
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)


def test_a_model_of_masks_has_features_where_no_bare_one_is_cached(cache: InProcess) -> None:
    ran = cache("predict", "feature-extraction", "auto", "x")
    assert (ran.code, "taking my/mask from the cache" in ran.err) == (0, True)


def test_a_model_without_entailment_is_told_of(cache: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    ran = cache("predict", "zero-shot-classification", "my/mood", "x", "--labels", "a,b")
    assert (ran.code, "none of the model's labels is entailment (NEGATIVE, POSITIVE)" in caplog.text) == (0, True)


def test_emoji_are_texts(cache: InProcess) -> None:
    ran = cache("predict", "sentiment-analysis", "my/mood", "😀", "a 😀")
    assert (ran.code, len(ran.out.splitlines())) == (0, 2)
