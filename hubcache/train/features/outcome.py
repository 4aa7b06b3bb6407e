"""A model's scores back into labels, tags, answers and texts, beside their references, ready for the metrics.

No model runs here; the metrics themselves are in hubcache.train.metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubcache.train.features.answers import accepted_answers, find_answers
from hubcache.train.features.choices import choices_of
from hubcache.train.features.encoded import IGNORED, Encoded
from hubcache.train.features.tags import TagSet, spread_tags
from hubcache.train.features.texts import accepted_targets, target_texts
from hubcache.train.features.tokens import sentence_of, words_of
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, as_text, cell, spaced_punctuation

_BETWEEN_HAN = re.compile(
    r"(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])\s+|\s+(?=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])"
)
_NO_NUMBER = -1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model predicted on a split.

    pairs  by kind of input (hubcache.train.metrics.registry.Inputs): (predictions, references); {} without labels
    rows   a dictionary a source row: prediction, reference where there is one, score where there is one
    """

    pairs: Mapping[str, tuple[Any, Any]]
    rows: list[Row]


def outcome(task: Task, encoded: Encoded, outputs: Any, tokenizer: Any = None) -> Outcome:
    """Return what `outputs` predict for an encoded split, its rows in the same order.

    outputs is, by kind:
    classification, regression, choices   logits [rows, labels]
    token-classification                  a row of label numbers, or of logits [seq, labels], each; padding is cut off
    question-answering                    (start logits, end logits), a row [seq] each window
    text-to-text                          a text each, or a row of generated ids (decoded with `tokenizer`)
    """
    if task.kind == "token-classification":
        return _tagged(task, encoded, outputs)
    if task.kind == "question-answering":
        return _answered(task, encoded, outputs)
    if task.generates:
        return _generated(task, encoded, decoded_texts(outputs, tokenizer))
    if task.kind == "regression":
        return _estimated(encoded, np.asarray(outputs, dtype="float64").reshape(len(encoded)))
    if task.kind == "multi-label-classification":
        return _several(task, encoded, np.asarray(outputs, dtype="float64"))
    return _classified(task, encoded, np.asarray(outputs, dtype="float64"))


def scores(task: Task, found: Outcome) -> dict[str, float]:
    """Return the task's metrics of an outcome; those whose kind of input it does not have are left out."""
    from hubcache.train.metrics import metric

    chosen = [metric(name) for name in task.metrics]
    return {one.name: one.compute(*found.pairs[one.inputs]) for one in chosen if one.inputs in found.pairs}


def decoded_texts(outputs: Sequence[Any], tokenizer: Any) -> list[str]:
    """Return generated ids as texts, cut at the first end token, without special tokens; texts as they are.

    The spaces that a WordPiece tokenizer puts between Chinese characters are taken out.
    """
    if all(isinstance(one, str) for one in outputs):
        return list(outputs)
    ends = {token for token in (tokenizer.eos_token_id, tokenizer.sep_token_id) if token is not None}
    rows = []
    for ids in outputs:
        kept = [int(token) for token in ids if token >= 0]
        # The first token may be the start token, which some models share with the end.
        end = next((place for place, token in enumerate(kept) if place and token in ends), len(kept))
        rows.append(kept[:end])
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    spaced = getattr(tokenizer, "cls_token", None) == "[CLS]"
    return [_BETWEEN_HAN.sub("", text) if spaced else text for text in texts]


def restored(answer: str, context: str) -> str:
    """Return the passage of the context that an answer is, but for spaces: KE-T5's questions put some around marks."""
    letters = "".join(answer.split())
    if not letters:
        return answer.strip()
    match = re.search(r"\s*".join(re.escape(letter) for letter in letters), context)
    return match[0] if match else answer.strip()


def softmax(logits: Any) -> Any:
    """Return the probabilities of logits [rows, labels]."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _classified(task: Task, encoded: Encoded, logits: Any) -> Outcome:
    logits = logits.reshape(len(encoded), -1)
    if encoded.choices > 1:
        numbers = np.array([len(choices_of(row)) for row in encoded.rows])
        logits = np.where(np.arange(logits.shape[1])[None, :] < numbers[:, None], logits, -np.inf)
    labels, shares = logits.argmax(axis=1), softmax(logits)
    names = task.labels or tuple(str(number) for number in range(logits.shape[1]))
    rows: list[Row] = [
        {"prediction": names[label], "score": float(share[label])} for label, share in zip(labels, shares, strict=True)
    ]
    if "labels" not in encoded.features:
        return Outcome({}, rows)
    true = np.asarray(encoded.features["labels"])
    for row, label in zip(rows, true.tolist(), strict=True):
        row["reference"] = names[label]
    return Outcome({"labels": (labels, true), "probabilities": (shares, true)}, rows)


def _estimated(encoded: Encoded, values: Any) -> Outcome:
    rows: list[Row] = [{"prediction": value} for value in values.tolist()]
    if "labels" not in encoded.features:
        return Outcome({}, rows)
    true = np.asarray(encoded.features["labels"], dtype="float64")
    for row, value in zip(rows, true.tolist(), strict=True):
        row["reference"] = value
    return Outcome({"values": (values, true)}, rows)


def _several(task: Task, encoded: Encoded, logits: Any) -> Outcome:
    shares = 1 / (1 + np.exp(-logits))
    chosen = shares > float(task.option("threshold"))

    def named(row: Any) -> list[str]:
        return [task.labels[place] for place in np.flatnonzero(row).tolist()]

    rows: list[Row] = [
        {"prediction": named(made), "score": share[made].tolist()} for made, share in zip(chosen, shares, strict=True)
    ]
    if "labels" not in encoded.features:
        return Outcome({}, rows)
    true = np.asarray(encoded.features["labels"]).astype(int)
    for row, label in zip(rows, true, strict=True):
        row["reference"] = named(label)
    return Outcome({"label_rows": (chosen.astype(int), true)}, rows)


def _tagged(task: Task, encoded: Encoded, outputs: Sequence[Any]) -> Outcome:
    lengths = encoded.features["input_ids"].lengths.tolist()
    made = [_numbers(row)[:length] for row, length in zip(outputs, lengths, strict=True)]
    by_character = "characters" in encoded.extras
    tags = (_character_rows if by_character else _word_rows)(task, encoded, made)
    rows: list[Row] = [{"prediction": predicted} for predicted in tags]
    if "labels" not in encoded.features:
        return Outcome({}, rows)
    labels = [encoded.features["labels"][place].tolist() for place in range(len(encoded))]
    true = _true_characters(task, encoded) if by_character else _true_words(task, encoded)
    for row, reference in zip(rows, true, strict=True):
        row["reference"] = reference
    if task.as_published and not by_character:
        tags, true = _labelled_tokens(task, made, labels)
    return Outcome({"token_rows": (made, labels), "tag_rows": (tags, true)}, rows)


def _numbers(row: Any) -> list[int]:
    """A CRF gives lists of labels, other heads logits."""
    array = np.asarray(row)
    return (array.argmax(axis=-1) if array.ndim == 2 else array).astype(int).tolist()


def _word_rows(task: Task, encoded: Encoded, made: Sequence[Sequence[int]]) -> list[list[str]]:
    """A word's tag is its first token's; a word that the limit cut off is O."""
    outside = TagSet(task.labels).outside
    rows = []
    for place, row in enumerate(encoded.rows):
        tags = [outside] * len(words_of(cell(row, task.text)))
        before = -1
        for token, word in enumerate(encoded.extras["words"][place].tolist()):
            if word not in {-1, before} and word < len(tags) and token < len(made[place]):
                tags[word] = made[place][token]
            before = word
        rows.append([task.labels[tag] for tag in tags])
    return rows


def _true_words(task: Task, encoded: Encoded) -> list[list[str]]:
    numbers = TagSet(task.labels, task.codes).numbers
    found = []
    for row in encoded.rows:
        value = cell(row, task.label)
        tags = value.split() if isinstance(value, str) else value
        found.append([task.labels[numbers.number(tag) or 0] for tag in tags])
    return found


def _labelled_tokens(
    task: Task, made: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> tuple[list[list[str]], list[list[str]]]:
    """As SOFA scores: every labelled token is a tag of its own, and what was cut off is not there."""
    pairs = [
        [(one, true) for one, true in zip(row, label, strict=False) if true != IGNORED]
        for row, label in zip(made, labels, strict=True)
    ]
    tags = [[task.labels[one] for one, _ in row] for row in pairs]
    return tags, [[task.labels[true] for _, true in row] for row in pairs]


def _character_rows(task: Task, encoded: Encoded, made: Sequence[Sequence[int]]) -> list[list[str]]:
    from hubcache.train.metrics.ke_t5 import character_tags

    tag_set = TagSet(task.labels)
    rows = []
    for place, row in enumerate(encoded.rows):
        tokens = encoded.extras["characters"][place].tolist()
        if task.as_published:
            places = [token if 0 <= token < len(made[place]) else None for token in tokens]
            tags = character_tags(made[place], places, task.labels)
        else:
            tags = spread_tags(made[place], tokens, sentence_of(task, row), tag_set)
        rows.append([task.labels[tag] for tag in tags])
    return rows


def _true_characters(task: Task, encoded: Encoded) -> list[list[str]]:
    tags = encoded.extras["tags"]
    return [[task.labels[tag] for tag in tags[place].tolist()] for place in range(len(encoded))]


def _answered(task: Task, encoded: Encoded, outputs: tuple[Sequence[Any], Sequence[Any]]) -> Outcome:
    found = find_answers(task, encoded, outputs[0], outputs[1])
    rows: list[Row] = []
    references = [accepted_answers(task, row) for row in encoded.rows]
    for one, row, accepted in zip(found, encoded.rows, references, strict=True):
        others = [{"text": other.text, "score": other.probability} for other in one.others[:5]]
        said: Row = {
            "prediction": one.best.text,
            "score": one.best.probability,
            "reference": accepted,
            "others": others,
        }
        rows.append({**({"id": row["id"]} if "id" in row else {}), **said})
    if "start_positions" not in encoded.features:
        return Outcome({}, rows)
    return Outcome({"answers": ([one.best.text for one in found], references)}, rows)


def _generated(task: Task, encoded: Encoded, texts: list[str]) -> Outcome:
    rows: list[Row] = [{"prediction": text} for text in texts]
    if "labels" not in encoded.features:
        return Outcome({}, rows)
    accepted = [accepted_targets(task, row) for row in encoded.rows]
    targets = [as_text(target) for target in target_texts(task, encoded.rows)]
    for row, target, several in zip(rows, targets, accepted, strict=True):
        row["reference"] = target if len(several) < 2 else several
    listed = [
        several if len(several) > 1 and "accepted" not in row else target
        for several, target, row in zip(accepted, targets, encoded.rows, strict=True)
    ]
    pairs: dict[str, tuple[Any, Any]] = {
        "texts": (texts, listed),
        "answers": _as_answers(task, encoded, texts, accepted),
    }
    if task.labels:
        pairs["labels"] = ([_label_of(task, text) for text in texts], [_label_of(task, text) for text in targets])
    if task.option("number"):
        pairs["values"] = ([_number_of(text) for text in texts], [_number_of(text) for text in targets])
    return Outcome(pairs, rows)


def _as_answers(task: Task, encoded: Encoded, texts: list[str], accepted: list[list[str]]) -> tuple[Any, Any]:
    """An answer is compared as the text has it; as published, both with spaces around marks."""
    answers = [
        "" if text == "impossible" and "accepted" in row else text
        for text, row in zip(texts, encoded.rows, strict=True)
    ]
    if "!p" not in task.text:
        return answers, accepted
    if task.as_published:
        return answers, [[spaced_punctuation(text) for text in several] for several in accepted]
    contexts = [as_text(row.get("context")) for row in encoded.rows]
    return [restored(answer, context) for answer, context in zip(answers, contexts, strict=True)], accepted


def _label_of(task: Task, text: str) -> int:
    return task.labels.index(text) if text in task.labels else -1


def _number_of(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return _NO_NUMBER
