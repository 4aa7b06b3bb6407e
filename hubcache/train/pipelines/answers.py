"""Question answering, which transformers 5 dropped: spans of a text in characters, from windows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from transformers.pipelines.base import ChunkPipeline

from hubcache.errors import UsageError
from hubcache.train.pipelines.batching import ByLength

DEFAULTS = {"doc_stride": None, "max_seq_len": None, "max_question_len": 64, "padding": None}
SAID = {"top_k": 1, "max_answer_len": 15, "handle_impossible_answer": False, "align_to_words": True}

Span = dict[str, Any]


class QuestionAnswering(ByLength, ChunkPipeline):
    """Answer questions on contexts: {"score", "start", "end", "answer"}, or a list of them with `top_k` above 1.

    A context longer than `max_seq_len` tokens is read in windows that share `doc_stride` of them. A score is the
    product of the probabilities of both ends within its window. `handle_impossible_answer` lets "" compete;
    `align_to_words` widens a span to whole words. `start` and `end` count the context's characters.
    """

    _load_tokenizer = True
    by_token = True

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Answer `question=, context=` (texts, or lists of them), a dictionary of both, or a list of dictionaries."""
        for name in ("question", "context"):
            if name in options and options[name] is None:
                raise UsageError(f"the {name} is None")
        for name in ("data", "X"):
            if name in options:
                inputs = (*inputs, options.pop(name))
        if len(inputs) == 1 and isinstance(inputs[0], Sequence) and not isinstance(inputs[0], (str, Mapping)):
            inputs = (list(inputs[0]),)
        asked = _asked(inputs, {name: options.pop(name) for name in ("question", "context") if name in options})
        if not isinstance(asked, list):
            return super().__call__(asked, **options)
        answers = list(self.stream(asked, **options))
        return answers[0] if len(answers) == 1 else answers

    def _sanitize_parameters(self, **options: Any) -> Any:
        if "topk" in options:
            options["top_k"] = options.pop("topk")
        unknown = set(options) - set(DEFAULTS) - set(SAID)
        if unknown:
            raise UsageError(f"question answering has no option {', '.join(sorted(unknown))}")
        for name, least in (("top_k", 1), ("max_answer_len", 1)):
            if options.get(name, least) < least:
                raise UsageError(f"{name} is {options[name]}, it has to be {least} or more")
        return (
            {name: value for name, value in options.items() if name in DEFAULTS},
            {},
            {name: value for name, value in options.items() if name in SAID},
        )

    def preprocess(self, input_: Any, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield the windows of a question and its context."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise UsageError("question answering needs a fast tokenizer", hint="save it with its tokenizer.json")
        options = DEFAULTS | options
        question, context = _pair(input_)
        limit = int(options["max_seq_len"] or min(self.tokenizer.model_max_length, 384))
        question = self._cut(question, min(int(options["max_question_len"]), limit // 2))
        stride = options["doc_stride"]
        room = limit - len(self.tokenizer(question, "")["input_ids"])
        stride = min(128, limit // 2, room // 2) if stride is None else int(stride)
        if not 0 <= stride < room:
            raise UsageError(f"doc_stride {stride} leaves no room in windows of {limit} tokens", hint="a smaller one")
        windows = self.tokenizer(
            question, context, truncation="only_second", max_length=limit, stride=stride, return_tensors=None,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        count = len(windows["input_ids"])
        for at in range(count):
            yield {
                **{name: windows[name][at] for name in self.tokenizer.model_input_names if name in windows},
                "spans": _places(windows, at),
                "context": context,
                # Where the model was taught to point when a window has no answer.
                "has_null": windows["input_ids"][at][0] == self.tokenizer.cls_token_id,
                "is_last": at == count - 1,
            }

    def _cut(self, question: str, most: int) -> str:
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return question if len(offsets) <= most else question[: offsets[most - 1][1]]

    def _forward(self, input_tensors: Any, **_: Any) -> dict[str, Any]:
        kept = {name: input_tensors.pop(name) for name in ("spans", "context", "has_null", "is_last")}
        output = self.model(**input_tensors)
        # A dimension more, so that these count as outputs by token.
        return {**kept, "start": output["start_logits"][..., None], "end": output["end_logits"][..., None]}

    def postprocess(self, model_outputs: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """Return the best spans of all windows."""
        options = SAID | options
        most = int(options["top_k"])
        found: dict[tuple[int, int], Span] = {}
        nothing = 1.0
        for window in model_outputs:
            start, end, null = _probabilities(window)
            nothing = min(nothing, null)
            for score, first, last in best_spans(start, end, int(options["max_answer_len"]), most):
                span = _span(window, (score, first, last), words=bool(options["align_to_words"]))
                place = (span["start"], span["end"])
                # What two windows share counts once.
                if place not in found or found[place]["score"] < score:
                    found[place] = span
        answers = list(found.values())
        if options["handle_impossible_answer"] or not answers:
            answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        answers = sorted(answers, key=lambda one: -one["score"])[:most]
        return answers[0] if most == 1 else answers


def best_spans(start: Any, end: Any, longest: int, most: int) -> list[tuple[float, int, int]]:
    """Return the likeliest (score, first, last) of probabilities [seq], last not before first, at most `longest` long.

    Spans of probability 0 are none.
    """
    scores = np.tril(np.triu(start[:, None] * end[None, :]), longest - 1)
    flat = scores.ravel()
    if most < flat.size:
        chosen = np.argpartition(-flat, most - 1)[:most]
    else:
        chosen = np.arange(flat.size)
    ranked = chosen[np.argsort(-flat[chosen], kind="stable")]
    width = len(end)
    return [(float(flat[at]), int(at // width), int(at % width)) for at in ranked if flat[at] > 0]


def _probabilities(window: Mapping[str, Any]) -> tuple[Any, Any, float]:
    """Return both ends' probabilities over the context's tokens, and that of "".

    [CLS] takes its part in any case, as in transformers 4: a window without the answer points there, and its passages
    must not count as much as the answer in another.
    """
    inside = np.array([begin >= 0 for begin, *_ in window["spans"]])
    allowed = inside.copy()
    allowed[0] = allowed[0] or window["has_null"]
    ends = []
    for name in ("start", "end"):
        logits = window[name][0, :, 0].float().numpy().astype("float64")
        logits = np.where(allowed, logits, -np.inf)
        shares = np.exp(logits - (logits.max() if allowed.any() else 0.0))
        ends.append(shares / max(float(shares.sum()), np.finfo("float64").tiny))
    null = float(ends[0][0] * ends[1][0]) if window["has_null"] else 0.0
    return np.where(inside, ends[0], 0.0), np.where(inside, ends[1], 0.0), null


def _span(window: Mapping[str, Any], found: tuple[float, int, int], *, words: bool) -> Span:
    score, first, last = found
    begin, _, word_begin, _ = window["spans"][first]
    _, end, _, word_end = window["spans"][last]
    start, stop = (word_begin, word_end) if words else (begin, end)
    return {"score": score, "start": start, "end": stop, "answer": window["context"][start:stop]}


def _places(windows: Any, at: int) -> list[tuple[int, int, int, int]]:
    """Return the characters of each token and of its word, -1 where it is none of the context's."""
    parts, words, offsets = windows.sequence_ids(at), windows.word_ids(at), windows["offset_mapping"][at]
    found = []
    for part, word, (begin, end) in zip(parts, words, offsets, strict=True):
        if part != 1:
            found.append((-1, -1, -1, -1))
            continue
        whole = windows.word_to_chars(at, word, sequence_index=1) if word is not None else (begin, end)
        found.append((begin, end, min(begin, whole[0]), max(end, whole[1])))
    return found


def _asked(inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """Make one dictionary, or a list of them, or whatever else transformers iterates over, of what a call was given."""
    if not inputs:
        question, context = named.get("question"), named.get("context")
        if isinstance(question, str) and isinstance(context, str):
            return [{"question": question, "context": context}]
        questions, contexts = question or [], context or []
        if not questions or not contexts:
            raise UsageError(f"there is no {'context' if questions else 'question'}")
        contexts = [contexts] * len(questions) if isinstance(contexts, str) else contexts
        if isinstance(questions, str) or len(questions) != len(contexts):
            raise UsageError("questions and contexts have to be as many as each other")
        return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]
    if len(inputs) == 2 and all(isinstance(each, str) for each in inputs):
        return [{"question": inputs[0], "context": inputs[1]}]
    if len(inputs) > 1:
        return list(inputs)
    return [inputs[0]] if isinstance(inputs[0], Mapping) else inputs[0]


def _pair(row: Any) -> tuple[str, str]:
    if not isinstance(row, Mapping) or not all(isinstance(row.get(name), str) for name in ("question", "context")):
        raise UsageError('question answering takes {"question": …, "context": …}')
    for name in ("question", "context"):
        if not row[name].strip():
            raise UsageError(f"the {name} is empty")
    return row["question"], row["context"]
