"""Sentences into token ids with a label a token, for tags of words, of characters, of spans, and of mentions.

What a tag becomes on tokens, and back, is in tags.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hubcache.errors import UsageError
from hubcache.train.features.encoded import Encoded, Ragged, input_features, tokenized
from hubcache.train.features.tags import (
    Entity,
    TagSet,
    character_entities,
    character_labels,
    character_tokens,
    entity_labels,
    entity_types,
    mentions_within,
    span_entities,
    tag_numbers,
    windows,
    word_labels,
)
from hubcache.train.tasks.labels import label_cell
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, as_text, cell

MARKER = "*"


def encode_tokens(task: Task, rows: Sequence[Row], tokenizer: Any, limit: int, labelled: bool) -> Encoded:
    """Encode a tagging task; what a row holds is the option `tags`.

    words       a list of words (or a text, cut at spaces) and of tags; extras `words`, the word of each token or -1
    characters  a list of characters and of tags; extras `characters`, the token of each character or -1
    spans       a text and {begin: [], end: [], label: []}; extras as for characters
    mentions    a text and clusters of mentions: windows of the option's `window` tokens, all mentions tagged B I
    cluster     the same, a row a mention, which is wrapped in `*`: the mentions of its cluster are tagged
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{task.name} needs a fast tokenizer", hint="save the model's tokenizer with tokenizer.json")
    kind = task.option("tags")
    kept = [row for row in rows if not labelled or label_cell(task, row) is not None]
    if kind == "words":
        return _words(task, kept, tokenizer, limit, labelled)
    if kind in {"mentions", "cluster"}:
        kept = list(_windowed(task, kept, tokenizer))
    elif kind not in {"characters", "spans"}:
        raise UsageError(f"{task.name}: tags are of words, characters, spans, mentions or cluster, not {kind!r}")
    return _characters(task, kept, tokenizer, limit, labelled)


def words_of(value: Any) -> list[str]:
    """Return the words of a cell: a list as it stands, a text cut at spaces."""
    return value.split() if isinstance(value, str) else [as_text(word) for word in value]


def sentence_of(task: Task, row: Mapping[str, Any]) -> str:
    """Return the text of a row tagged by character: its characters joined."""
    value = cell(row, task.text)
    return value if isinstance(value, str) else "".join(value)


def row_entities(task: Task, row: Mapping[str, Any], types: Sequence[str]) -> list[Entity]:
    """Return the entities that a row's label says."""
    label = label_cell(task, row)
    if label is None:
        return []
    if task.option("tags") == "characters":
        numbers = TagSet(task.labels, task.codes).numbers
        names = [task.labels[numbers.number(tag) or 0] for tag in label]
        return character_entities(names, task.as_published)
    if task.option("tags") == "spans":
        return span_entities(label, types)
    return list(row["mentions"])


def _words(task: Task, rows: list[Row], tokenizer: Any, limit: int, labelled: bool) -> Encoded:
    sentences = [words_of(cell(row, task.text)) or [""] for row in rows]
    settings: dict[str, Any] = {"truncation": True, "max_length": limit, "is_split_into_words": True}
    batch = tokenized(tokenizer, sentences, add_special_tokens=bool(task.option("special_tokens")), **settings)
    features = input_features(batch)
    word_ids = [batch.word_ids(place) for place in range(len(rows))]
    if labelled:
        features["labels"] = Ragged.of(list(_word_labels(task, rows, sentences, word_ids)))
    numbers = [[-1 if word is None else word for word in one] for one in word_ids]
    cut = sum(max(one, default=-1) + 1 < len(words) for one, words in zip(numbers, sentences, strict=True))
    return Encoded(features, rows, np.arange(len(rows)), extras={"words": Ragged.of(numbers)}, cut=cut)


def _word_labels(
    task: Task, rows: list[Row], sentences: list[list[str]], word_ids: list[list[int | None]]
) -> Iterator[list[int]]:
    tag_set = TagSet(task.labels, task.codes)
    for row, words, ids in zip(rows, sentences, word_ids, strict=True):
        tags = tag_numbers(task, label_cell(task, row), tag_set) or [tag_set.outside]
        if len(tags) != len(words):
            start = " ".join(words[:8])
            raise UsageError(f"{len(tags)} tags for {len(words)} words in {start!r}…", hint="give one tag a word")
        yield word_labels(tags, ids, tag_set, bool(task.option("label_all_tokens")))


def _characters(task: Task, rows: list[Row], tokenizer: Any, limit: int, labelled: bool) -> Encoded:
    texts = [sentence_of(task, row) for row in rows]
    special = bool(task.option("special_tokens"))
    batch = tokenized(tokenizer, texts, add_special_tokens=special)
    short = tokenized(tokenizer, texts, truncation=True, max_length=limit, add_special_tokens=special)
    features = input_features(short)
    lengths = features["input_ids"].lengths
    tag_set, types = TagSet(task.labels, task.codes), entity_types(task.labels)
    labels, tags, tokens = [], [], []
    for place, (row, text) in enumerate(zip(rows, texts, strict=True)):
        tokens.append(character_tokens(text, batch[place]))
        if labelled:
            entities = row_entities(task, row, types)
            labels.append(entity_labels(entities, batch[place], int(lengths[place]), tag_set))
            tags.append(character_labels(entities, len(text), tag_set))
    extras = {"characters": Ragged.of(tokens)}
    if labelled:
        features["labels"] = Ragged.of(labels)
        extras["tags"] = Ragged.of(tags)
    cut = int(sum(len(ids) > limit for ids in batch["input_ids"]))
    return Encoded(features, rows, np.arange(len(rows)), extras=extras, cut=cut)


def _windowed(task: Task, rows: list[Row], tokenizer: Any) -> Iterator[Row]:
    """Cut documents into windows of tokens; each becomes rows of `text`, `mentions`, and where it stands."""
    for number, row in enumerate(rows):
        text = sentence_of(task, row)
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = encoding["offset_mapping"]
        clusters = (label_cell(task, row) or {}).get("mention", [])
        name = row.get("id", number)
        for place, (first, end) in enumerate(windows(len(offsets), task.option("window"), task.option("stride"))):
            begin, stop = offsets[first][0], offsets[end - 1][1]
            within = [mentions_within(one, begin, stop, task.as_published) for one in clusters]
            window: Row = {"id": f"{name}:{place}", "span_ch_start": begin, "span_ch_end": stop, task.label: clusters}
            yield from _mention_rows(task, {**window, task.text: text[begin:stop]}, within)


def _mention_rows(task: Task, window: Row, clusters: list[list[Entity]]) -> Iterator[Row]:
    if task.option("tags") == "mentions":
        yield {**window, "mentions": [mention for cluster in clusters for mention in cluster]}
        return
    count = 0
    for cluster in clusters:
        for chosen in cluster:
            text, mentions = _wrapped(window[task.text], cluster, chosen)
            yield {**window, "id": f"{window['id']}:{count}", task.text: text, "mentions": mentions}
            count += 1


def _wrapped(text: str, cluster: list[Entity], chosen: Entity) -> tuple[str, list[Entity]]:
    """Wrap one mention in markers, which become part of it; the places behind move."""
    wrapped = f"{text[: chosen.begin]}{MARKER}{text[chosen.begin : chosen.end]}{MARKER}{text[chosen.end :]}"
    moved = []
    for mention in cluster:
        begin = mention.begin + (mention.begin > chosen.begin) + (mention.begin >= chosen.end)
        end = mention.end + (mention.end > chosen.begin) + (mention.end >= chosen.end)
        moved.append(Entity(begin, end, mention.kind))
    return wrapped, moved
