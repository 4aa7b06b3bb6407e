"""Question answering against XQuAD: spans written down from reading the rows, given back by a model trained on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import BertConfig, BertForQuestionAnswering  # noqa: E402  # after the skips

from hubcache.train.pipelines.build import build  # noqa: E402
from tests.support.tinymodels import wordpieces  # noqa: E402
from tests.support.training import shared_data  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

WINDOW = {"max_seq_len": 96, "doc_stride": 24}
VOCABULARY = {"en": "bert-base-uncased", "zh": "bert-base-chinese"}

# A row's number in validation.jsonl, then what its context says: the characters from start to end, and their text.
SPANS = {
    "en": [
        (0, 475, 483, "electric"),
        (1, 135, 139, "1851"),
        (2, 241, 255, "Charles Porter"),
        (3, 60, 73, "working fluid"),
        (4, 274, 280, "565 °C"),
        (5, 239, 245, "Sweden"),
        (6, 128, 140, "static discs"),
        (8, 300, 326, "ten times their own weight"),
        (16, 760, 780, "66 million years ago"),
        (24, 560, 579, "mid-Cambrian period"),
        (25, 1328, 1336, "Porifera"),
        (28, 698, 717, "Battle of Bạch Đằng"),
        (29, 719, 723, "1288"),
    ],
    "zh": [
        (0, 117, 118, "电"),
        (1, 27, 32, "1851年"),
        (2, 80, 86, "查尔斯·波特"),
        (3, 11, 15, "工作流体"),
        (4, 72, 77, "565°C"),
        (5, 52, 54, "瑞典"),
        (6, 52, 55, "静止盘"),
        (8, 95, 105, "十倍于自身体重的食物"),
        (11, 174, 185, "小触手tentilla"),
        (16, 222, 228, "6600万年"),
        (24, 141, 145, "中寒武纪"),
        (25, 368, 370, "海绵"),
        (28, 222, 227, "白藤江之战"),
        (29, 213, 219, "1288 年"),
    ],
}
# Questions of one row put to the context of another, which does not know.
UNANSWERED = [(5, 0), (0, 16), (25, 3)]


class Learned:
    """A language's rows, and a pipeline whose model learned their spans; a window without one points at [CLS]."""

    def __init__(self, language: str) -> None:
        lines = (shared_data(f"xquad_{language}") / "validation.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        self.spans = SPANS[language]
        self.answered = [self.asked(rows[number], rows[number]) for number, *_ in self.spans]
        self.unanswered = [self.asked(rows[one], rows[other]) for one, other in UNANSWERED]
        self.tokenizer = wordpieces(VOCABULARY[language])
        self.tokenizer.model_max_length = 512
        torch.manual_seed(0)
        self.model = BertForQuestionAnswering(
            BertConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=128,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                initializer_range=0.1,
            )
        )
        self.learn()
        self.pipe = build("question-answering", self.model, self.tokenizer, device="cpu")

    @staticmethod
    def asked(row: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
        return {"question": row["question"], "context": other["context"]}

    def learn(self) -> None:
        """Train on all windows until every end is almost certain."""
        batch = self.windows()
        optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        for _ in range(400):
            loss = self.model(**batch).loss
            if loss < 2e-2:
                return
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        raise AssertionError(f"not learned: loss {loss:.4f}")

    def windows(self) -> dict[str, Any]:
        asked = [*self.answered, *self.unanswered]
        read = self.tokenizer(
            [one["question"] for one in asked], [one["context"] for one in asked], truncation="only_second",
            max_length=WINDOW["max_seq_len"], stride=WINDOW["doc_stride"], return_overflowing_tokens=True,
            padding=True, return_tensors="pt",
        )  # fmt: skip
        places: list[tuple[int, int]] = []
        for at, row in enumerate(read.pop("overflow_to_sample_mapping").tolist()):
            _, start, end, _ = self.spans[row] if row < len(self.spans) else (0, 0, 0, "")
            first = read.char_to_token(at, start, sequence_index=1) if end else None
            last = read.char_to_token(at, end - 1, sequence_index=1) if end else None
            places.append((first, last) if first and last else (0, 0))
        starts, ends = torch.tensor(places).T
        return {**read, "start_positions": starts, "end_positions": ends}


@pytest.fixture(scope="module", params=["en", "zh"])
def learned(request: pytest.FixtureRequest) -> Iterator[Learned]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Learned(request.param)
    torch.set_num_threads(threads)


def test_every_answer_is_the_span_that_was_written_down(learned: Learned) -> None:
    said = learned.pipe(learned.answered, **WINDOW)
    assert [(one["start"], one["end"], one["answer"]) for one in said] == [span[1:] for span in learned.spans]


def test_a_written_span_is_what_its_context_says(learned: Learned) -> None:
    for asked, (_, start, end, text) in zip(learned.answered, learned.spans, strict=True):
        assert asked["context"][start:end] == text


def test_some_answers_stand_beyond_the_first_window(learned: Learned) -> None:
    first = [
        learned.tokenizer(one["question"], one["context"], truncation="only_second", max_length=96)
        for one in learned.answered
    ]
    places = [read.char_to_token(span[1], sequence_index=1) for read, span in zip(first, learned.spans, strict=True)]
    assert places.count(None) >= 4


def test_a_question_alone_is_answered_as_in_a_list(learned: Learned) -> None:
    [*_, last] = learned.pipe(learned.answered, **WINDOW)
    alone = learned.pipe(**learned.answered[-1], **WINDOW)
    assert (alone["start"], alone["end"]) == (last["start"], last["end"])
    assert alone["score"] == pytest.approx(last["score"], rel=1e-4)


def test_what_the_context_does_not_know_is_the_empty_answer(learned: Learned) -> None:
    said = learned.pipe(learned.unanswered, handle_impossible_answer=True, **WINDOW)
    assert [(one["answer"], one["start"], one["end"]) for one in said] == [("", 0, 0)] * len(UNANSWERED)
    assert all(one["score"] > 0.9 for one in said)


def test_what_the_context_knows_is_answered_where_the_empty_answer_competes(learned: Learned) -> None:
    said = learned.pipe(learned.answered, handle_impossible_answer=True, **WINDOW)
    assert [one["answer"] for one in said] == [span[3] for span in learned.spans]


def test_without_the_empty_answer_an_unknown_one_is_a_passage_with_a_low_score(learned: Learned) -> None:
    for asked, one in zip(learned.unanswered, learned.pipe(learned.unanswered, **WINDOW), strict=True):
        assert one["answer"] == asked["context"][one["start"] : one["end"]] != ""
        assert one["score"] < 0.1


def test_the_best_of_three_is_the_answer(learned: Learned) -> None:
    for found, span in zip(learned.pipe(learned.answered, top_k=3, **WINDOW), learned.spans, strict=True):
        assert (len(found), found[0]["answer"]) == (3, span[3])


def test_whole_words_are_no_other_spans_where_the_ends_are_words_ends(learned: Learned) -> None:
    said = learned.pipe(learned.answered, align_to_words=False, **WINDOW)
    assert [one["answer"] for one in said] == [span[3] for span in learned.spans]


# A model whose weights point at two tokens, wherever the windows are cut.


def pointed(folder: Path, start: str, end: str, vocabulary: str = "bert-base-uncased") -> Any:
    from tests.test_pipelines import Pointed

    return Pointed(folder, vocabulary, start, end).pipe


@pytest.mark.parametrize("shift", range(0, 30, 3))
def test_an_answer_that_a_windows_end_cuts_is_found_whole_in_the_next(tmp_path: Path, shift: int) -> None:
    pipe = pointed(tmp_path, "new", "city")
    context = "good " * (20 + shift) + "the New big old York City , says she " + "good " * 40
    said = pipe(question="Where?", context=context, max_seq_len=32, doc_stride=8)
    assert (said["answer"], said["start"]) == ("New big old York City", context.index("New"))


def test_windows_that_share_nothing_still_cover_the_whole_context(tmp_path: Path) -> None:
    pipe = pointed(tmp_path, "new", "new")
    for place in range(0, 60, 7):
        words = ["good"] * 60
        words[place] = "New"
        said = pipe(question="Where?", context=" ".join(words), max_seq_len=24, doc_stride=0)
        assert (said["answer"], said["start"]) == ("New", 5 * place)


def test_a_score_counts_what_the_model_gives_to_no_answer(tmp_path: Path) -> None:
    said = pointed(tmp_path, "[CLS]", "[CLS]")(question="Where?", context="the film is good")
    assert said["answer"]
    assert 0 < said["score"] < 1e-6


def test_an_answer_is_no_longer_than_max_answer_len(tmp_path: Path) -> None:
    pipe = pointed(tmp_path, "new", "city")
    asked = {"question": "Where?", "context": "it is New big old York City here"}
    assert pipe(asked)["answer"] == "New big old York City"
    assert len(pipe(asked, max_answer_len=3)["answer"].split()) <= 3


def test_chinese_without_blanks_is_cut_between_characters(tmp_path: Path) -> None:
    pipe = pointed(tmp_path, "北", "京", "bert-base-chinese")
    context = "今天天气很好我们去公园散步吧" * 9 + "她住在北京市" + "今天天气很好" * 9
    said = pipe(question="她住在哪里？", context=context, max_seq_len=40, doc_stride=10)
    assert (said["answer"], said["start"], said["end"]) == ("北京", 129, 131)
