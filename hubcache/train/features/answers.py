"""Questions on texts into windows of token ids with start and end positions, and scores back into answers as text.

A long text is cut into windows that overlap by the option `stride`; a window without the answer points at its first
token, the place of "no answer". Characters are counted, so languages without spaces need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubcache.errors import UsageError
from hubcache.train.features.encoded import Encoded, Ragged, input_features, tokenized
from hubcache.train.tasks.labels import label_cell
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, as_text, text_of

NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A span of the text: its characters [begin, end), its score (start and end logit) and probability.

    The probability is among the n best and no answer; text "" is no answer.
    """

    text: str
    score: float
    probability: float
    begin: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to one question, best first, and how much better than the best span no answer scored."""

    best: Answer
    others: tuple[Answer, ...]
    no_answer_score: float


def encode_answers(task: Task, rows: Sequence[Row], tokenizer: Any, limit: int, labelled: bool) -> Encoded:
    """Encode pairs (question, text) to windows of at most `limit` tokens, with their `start_positions` and
    `end_positions` [windows]; extras `offsets` has the characters of each token of the text, -1 elsewhere.

    Raises: UsageError for a tokenizer without offsets, or a stride that leaves no room.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{task.name} needs a fast tokenizer", hint="save the model's tokenizer with tokenizer.json")
    asked = [_cut_question(task, row, tokenizer, limit) for row in rows]
    contexts = [text_of(task.text)(row) for row in rows]
    windowed: dict[str, Any] = {"truncation": "only_second", "max_length": limit, "stride": _stride(task, limit)}
    wanted: dict[str, Any] = {"return_overflowing_tokens": True, "return_offsets_mapping": True}
    batch = tokenized(tokenizer, asked, contexts, **windowed, **wanted)
    row_of = np.array(batch.get("overflow_to_sample_mapping", []) if len(rows) else [], dtype="int64")
    begins, ends = _offsets(batch, len(row_of))
    features = input_features(batch)
    if labelled:
        places = [_place(task, rows[row], begins[window], ends[window]) for window, row in enumerate(row_of.tolist())]
        features["start_positions"] = np.array([first for first, _ in places], dtype="int64")
        features["end_positions"] = np.array([last for _, last in places], dtype="int64")
    extras = {"begins": Ragged.of(begins), "ends": Ragged.of(ends)}
    cut = int(np.sum(np.bincount(row_of, minlength=len(rows)) > 1)) if len(rows) else 0
    return Encoded(features, rows, row_of, extras=extras, cut=cut)


def accepted_answers(task: Task, row: Mapping[str, Any]) -> list[str]:
    """Return the answers that count as right; none where the question cannot be answered."""
    answers = label_cell(task, row)
    if answers is None or row.get("is_impossible"):
        return []
    texts = answers.get("text", []) if isinstance(answers, Mapping) else answers
    return [as_text(text) for text in ([texts] if isinstance(texts, str) else texts)]


def find_answers(task: Task, encoded: Encoded, starts: Sequence[Any], ends: Sequence[Any]) -> list[Answered]:
    """Return the answers to every question from its windows' scores [windows, seq], rows possibly of other length.

    With the option `no_answer`, "" is the answer where its score beats the best span's by more than
    `no_answer_threshold`; else the best span always is.
    """
    found: list[list[Answer]] = [[] for _ in encoded.rows]
    nothing = [np.inf] * len(encoded.rows)
    for window, row in enumerate(encoded.row_of.tolist()):
        begins = np.asarray(encoded.extras["begins"][window])
        start = np.asarray(starts[window], dtype="float64")[: len(begins)]
        end = np.asarray(ends[window], dtype="float64")[: len(begins)]
        nothing[row] = min(nothing[row], float(start[NO_ANSWER] + end[NO_ANSWER]))
        context = text_of(task.text)(encoded.rows[row])
        found[row] += _spans(task, context, (begins, np.asarray(encoded.extras["ends"][window])), (start, end))
    return [_answered(task, each, null) for each, null in zip(found, nothing, strict=True)]


def _spans(task: Task, context: str, offsets: tuple[Any, Any], scores: tuple[Any, Any]) -> list[Answer]:
    """Return the n best spans of a window: both ends in the text, in order, not longer than allowed."""
    begins, ends = offsets
    start, end = scores
    most, longest = int(task.option("n_best")), int(task.option("max_answer_length"))
    places = np.flatnonzero(begins >= 0)
    if not len(places):
        return []
    first = places[np.argsort(-start[places], kind="stable")[:most]]
    last = places[np.argsort(-end[places], kind="stable")[:most]]
    length = last[None, :] - first[:, None]
    score = np.where((length >= 0) & (length < longest), start[first][:, None] + end[last][None, :], -np.inf)
    best = np.argsort(-score, axis=None, kind="stable")[:most]
    found = []
    for place in best.tolist():
        at, to = first[place // len(last)], last[place % len(last)]
        value = float(score.flat[place])
        if np.isfinite(value):
            begin, stop = int(begins[at]), int(ends[to])
            found.append(Answer(context[begin:stop].strip(), value, 0.0, begin, stop))
    return found


def _answered(task: Task, spans: list[Answer], nothing: float) -> Answered:
    """Equal texts of several windows count once."""
    by_place: dict[tuple[int, int], Answer] = {}
    for span in sorted(spans, key=lambda one: -one.score):
        by_place.setdefault((span.begin, span.end), span)
    ranked = list(by_place.values())[: int(task.option("n_best"))]
    scores = np.array([*(one.score for one in ranked), nothing if task.option("no_answer") else -np.inf])
    if not np.isfinite(scores).any():
        return Answered(Answer("", 0.0, 1.0), (), 0.0)
    exponents = np.exp(scores - scores.max())
    shares = (exponents / exponents.sum()).tolist()
    answers = [
        Answer(one.text, one.score, share, one.begin, one.end) for one, share in zip(ranked, shares[:-1], strict=True)
    ]
    lead = nothing - answers[0].score if answers else np.inf
    if not answers or (task.option("no_answer") and lead > float(task.option("no_answer_threshold"))):
        return Answered(Answer("", nothing, shares[-1]), tuple(answers), float(lead))
    return Answered(answers[0], tuple(answers[1:]), float(lead))


def _cut_question(task: Task, row: Row, tokenizer: Any, limit: int) -> str:
    """A question takes at most a half of a window; only long ones are tokenised here."""
    question = text_of(task.question)(row).strip()
    most = _question_limit(task, limit)
    if len(question) <= most:
        return question
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def _stride(task: Task, limit: int) -> int:
    """Windows overlap by at most half of what the longest question leaves to the text (special tokens: up to 4)."""
    return max(min(int(task.option("stride")), (limit - _question_limit(task, limit) - 4) // 2), 1)


def _question_limit(task: Task, limit: int) -> int:
    return max(min(int(task.option("max_question_length")), limit // 2 - 2), 1)


def _offsets(batch: Any, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return where each token of the text begins and ends in it, -1 for all other tokens."""
    begins, ends = [], []
    for window in range(count):
        parts, offsets = batch.sequence_ids(window), batch["offset_mapping"][window]
        begins.append([place[0] if part == 1 else -1 for part, place in zip(parts, offsets, strict=True)])
        ends.append([place[1] if part == 1 else -1 for part, place in zip(parts, offsets, strict=True)])
    return begins, ends


def _place(task: Task, row: Row, begins: list[int], ends: list[int]) -> tuple[int, int]:
    """Return the first and last token of the first answer; both 0 where it is not whole in this window."""
    answers = label_cell(task, row) or {}
    texts, starts = list(answers.get("text", ())), list(answers.get("answer_start", ()))
    if row.get("is_impossible") or not texts or not starts or starts[0] < 0:
        return NO_ANSWER, NO_ANSWER
    first, last = int(starts[0]), int(starts[0]) + len(texts[0])
    inside = [place for place, begin in enumerate(begins) if begin >= 0]
    if not inside or first < begins[inside[0]] or last > ends[inside[-1]]:
        return NO_ANSWER, NO_ANSWER
    covering = [place for place in inside if begins[place] < last and ends[place] > first]
    return (covering[0], covering[-1]) if covering else (NO_ANSWER, NO_ANSWER)
