"""Entity marks in a sentence, `*subject*` and `#object#`, and the tokens they cover; no relation is predicted here.

By default the marks stand where the indices say. `task.as_published` reproduces KE-T5 instead: the entity's word is
looked for as a regular expression at its index, so a word with `(`, `+` or `.` in it is mostly left unmarked while
the token indices are shifted as if it was marked, and the range's last token is inclusive, while the models take it as
exclusive and so lose the last word piece. KE-T5's published relation figures (README: 73.64) depend on all three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, columns_of, text_of

Span = tuple[int, int]
"""First character and the one after the last, in the marked sentence, the opening mark included."""


def with_marks(task: Task) -> Callable[[Row], Row]:
    """Return the function that adds `marked` to a row, where the task's text needs it."""
    if "marked" not in columns_of(task.text):
        return lambda row: row

    def mark(row: Row) -> Row:
        return row if "marked" in row else {**row, "marked": marked_entities(task, row)[0]}

    return mark


def marked_entities(task: Task, row: Mapping[str, Any]) -> tuple[str, tuple[Span, Span]]:
    """Return the sentence with its marks and where subject and object are in it.

    A row has `sentence`, `subject_entity` and `object_entity` {word, start_idx}. Raises: UsageError for an index that
    is not the word's, with the row.
    """
    sentence = row["sentence"]
    entities = row["subject_entity"], row["object_entity"]
    markers = task.option("markers") if task.kind == "relation-extraction" else "*#"
    if task.as_published:
        return _published(sentence, entities, markers)
    for entity in entities:
        begin, word = entity["start_idx"], entity["word"]
        if sentence[begin : begin + len(word)] != word:
            raise UsageError(
                f"an entity is not where its start_idx says: {word!r} is not at {begin} of {sentence!r}",
                hint="start_idx counts characters from 0; correct or drop the row",
            )
    return _by_place(sentence, entities, markers)


def _by_place(sentence: str, entities: tuple[Any, Any], markers: str) -> tuple[str, tuple[Span, Span]]:
    """Insert all four marks in one pass, so that entities within each other are marked, too.

    At one place an entity closes before another opens; of two that open there the longer opens first.
    """
    spans = [(one["start_idx"], one["start_idx"] + len(one["word"])) for one in entities]
    inserts = []
    for number, (begin, end) in enumerate(spans):
        inserts.append((begin, 1, -end, number))
        inserts.append((end, 0, -begin, number))
    places: dict[tuple[int, int], int] = {}
    pieces: list[str] = []
    before = length = 0
    for at, opens, _, number in sorted(inserts):
        pieces += [sentence[before:at], markers[number]]
        length += at - before + 1
        before = at
        places[number, opens] = length
    marked = "".join([*pieces, sentence[before:]])
    subject, object_ = ((places[number, 1] - 1, places[number, 0] - 1) for number in (0, 1))
    return marked, (subject, object_)


def _published(sentence: str, entities: tuple[Any, Any], markers: str) -> tuple[str, tuple[Span, Span]]:
    subject, object_ = entities
    subject_first = subject["start_idx"] < object_["start_idx"]
    marked = _by_pattern(sentence, subject["word"], subject["start_idx"], markers[0])
    object_begin = object_["start_idx"] + 2 * subject_first
    marked = _by_pattern(marked, object_["word"], object_begin, markers[1])
    subject_begin = subject["start_idx"] + 2 * (not subject_first)
    # The end is the word's last character, at which the mark's own place leads.
    return marked, (
        (subject_begin, subject_begin + len(subject["word"])),
        (object_begin, object_begin + len(object_["word"])),
    )


def _by_pattern(sentence: str, word: str, begin: int, marker: str) -> str:
    try:
        match = re.match(f"(.{{{begin}}})({word})", sentence)
    except re.error:
        return sentence
    if match is None or not match[2]:
        return sentence
    return f"{match[1]}{marker}{match[2]}{marker}{sentence[match.end() :]}"


def entity_tokens(task: Task, row: Row, encoding: Any, length: int) -> list[list[int]]:
    """Return [[first, end], [first, end]] of subject and object among the `length` tokens of an encoded text.

    The end is exclusive, and a range that the limit cut off is the last token. As published it is inclusive and may
    lie beyond.
    """
    marked, spans = marked_entities(task, row)
    opening = text_of(task.text)({**row, "marked": marked}).index(marked)
    tokens = [[_token(encoding, opening + begin), _token(encoding, opening + end)] for begin, end in spans]
    if task.as_published:
        return tokens
    bounded = []
    for first, last in tokens:
        begin = min(first, length - 1)
        bounded.append([begin, max(min(last + 1, length), begin + 1)])
    return bounded


def _token(encoding: Any, place: int) -> int:
    """A character without token (a space) is its next neighbour's."""
    for character in range(place, place + 4):
        token = encoding.char_to_token(character)
        if token is not None:
            return int(token)
    return len(encoding) - 1
