"""Tags of words, characters or spans as labels of tokens, and back; the model's scores are not looked at here.

By default an entity that ends with the sentence is kept, and an I- after O begins one. `task.as_published` reproduces
KE-T5: the entity at the end is dropped (an I- after O fails there), a mention at either end of a window is skipped,
and sub-words of labelled words count each for themselves in the figures, as in SOFA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.features.encoded import IGNORED
from hubcache.train.tasks.labels import LabelNumbers
from hubcache.train.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Entity:
    """Characters [begin, end) of a text, of one type."""

    begin: int
    end: int
    kind: str


class TagSet:
    """A task's tags by number and name, with the I- that follows each B-."""

    def __init__(self, labels: Sequence[str], codes: Sequence[str] = ()) -> None:
        self.names = tuple(labels)
        self.numbers = LabelNumbers(labels, codes)
        self._by_name = {name: number for number, name in enumerate(labels)}
        self.outside = self._by_name.get("O", 0)
        self.inside = [
            self._by_name.get(f"I{name[1:]}", number) if name[:1] == "B" else number
            for number, name in enumerate(labels)
        ]

    def of(self, kind: str, first: bool) -> int:
        """Return the number of `B-kind` or `I-kind`; without types the tags are B and I. Raises: UsageError."""
        prefix = "B" if first else "I"
        name = f"{prefix}-{kind}" if kind else prefix
        if name not in self._by_name:
            raise UsageError(f"there is no tag {name}", hint=f"there are {', '.join(self.names[:12])}")
        return self._by_name[name]


def word_labels(tags: Sequence[int], word_ids: Sequence[int | None], tag_set: TagSet, all_tokens: bool) -> list[int]:
    """Spread words' tags over tokens: the first token of a word has its tag, a special token -100.

    The others have -100, or with all_tokens the tag itself, an I- for a B- where there is one. Source: SOFA's
    run_sequence_labeling_hf.
    """
    labels: list[int] = []
    before: int | None = None
    for word in word_ids:
        if word is None:
            labels.append(IGNORED)
        elif word != before:
            labels.append(tags[word])
        else:
            labels.append(tag_set.inside[tags[word]] if all_tokens else IGNORED)
        before = word
    return labels


def character_entities(tags: Sequence[str], as_published: bool = False) -> list[Entity]:
    """Return the entities of IOB2 tags, one a character. Raises: UsageError for an I- after O, as published only."""
    found: list[Entity] = []
    begin, kind = -1, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, new = tag.partition("-")
        if prefix == "I" and begin >= 0 and new == kind:
            continue
        ends_with_text = place == len(tags)
        if begin >= 0 and as_published and not ends_with_text and tags[begin][:1] == "I":
            raise UsageError(
                f"{tags[begin]} at {begin} begins no entity", hint="B- begins one; or take as_published off"
            )
        if begin >= 0 and not (as_published and ends_with_text):
            found.append(Entity(begin, place, kind))
        begin, kind = (place, new) if prefix in {"B", "I"} else (-1, "")
    return found


def span_entities(spans: Mapping[str, Sequence[Any]], types: Sequence[str]) -> list[Entity]:
    """Return the entities of {begin: [], end: [], label: []}; a label is a type's name or number."""
    names = [str(types[label]) if isinstance(label, int) else str(label) for label in spans["label"]]
    return [Entity(begin, end, kind) for begin, end, kind in zip(spans["begin"], spans["end"], names, strict=True)]


def entity_types(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the types of B- labels, in order."""
    return tuple(name[2:] for name in labels if name.startswith("B-"))


def entity_labels(entities: Sequence[Entity], encoding: Any, length: int, tag_set: TagSet) -> list[int]:
    """Return the labels of `length` tokens: those that touch an entity are B- then I-, all others O."""
    labels = [tag_set.outside] * length
    for entity in entities:
        touched = (encoding.char_to_token(place) for place in range(entity.begin, entity.end))
        for number, token in enumerate(sorted({token for token in touched if token is not None})):
            if token < length:
                labels[token] = tag_set.of(entity.kind, first=number == 0)
    return labels


def character_labels(entities: Sequence[Entity], length: int, tag_set: TagSet) -> list[int]:
    """Return the tag numbers of `length` characters."""
    labels = [tag_set.outside] * length
    for entity in entities:
        for place in range(entity.begin, min(entity.end, length)):
            labels[place] = tag_set.of(entity.kind, first=place == entity.begin)
    return labels


def character_tokens(text: str, encoding: Any) -> list[int]:
    """Return the token of each character, -1 where it has none.

    A single space belongs to the token after it, as in the tokenizers of KE-T5's time.
    """
    tokens = [encoding.char_to_token(place) for place in range(len(text))]
    for place in range(len(text) - 1):
        if tokens[place] is None and text[place].isspace():
            tokens[place] = tokens[place + 1] if not text[place + 1].isspace() else None
    return [-1 if token is None else int(token) for token in tokens]


def spread_tags(tags: Sequence[int], tokens: Sequence[int], text: str, tag_set: TagSet) -> list[int]:
    """Return the tag of each character from its token's: B- on a token's first letter, I- after it.

    A space is inside where the letters around it are of one entity, else O; a token beyond the tags is O.
    """
    spread = [tag_set.outside] * len(text)
    begun = -1
    for place, token in enumerate(tokens):
        if text[place].isspace() or not 0 <= token < len(tags):
            continue
        spread[place] = tags[token] if token != begun else tag_set.inside[tags[token]]
        begun = token
    for place in range(1, len(text) - 1):
        if text[place].isspace():
            after = next((spread[one] for one in range(place + 1, len(text)) if not text[one].isspace()), -1)
            before = spread[place - 1]
            if after != tag_set.outside and after == tag_set.inside[before] and tag_set.names[after][:1] == "I":
                spread[place] = after
    return spread


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the windows over `length` tokens, each beginning `stride` after the one before."""
    begin = 0
    while begin < length:
        end = min(begin + window, length)
        yield begin, end
        if end == length:
            return
        begin += min(end - begin, stride)


def mentions_within(cluster: Mapping[str, Sequence[Any]], begin: int, end: int, as_published: bool) -> list[Entity]:
    """Return a cluster's mentions within characters [begin, end), from there; as published not those at its ends."""
    found = []
    for first, last in zip(cluster["begin"], cluster["end"], strict=True):
        within = begin < first and last < end if as_published else begin <= first and last <= end
        if within:
            found.append(Entity(first - begin, last - begin, ""))
    return found


def tag_numbers(task: Task, value: Any, tag_set: TagSet) -> list[int]:
    """Return a row's tags by number; a text is cut at spaces. Raises: UsageError for a tag that is none."""
    tags = value.split() if isinstance(value, str) else value
    numbers = [tag_set.numbers.number(tag) for tag in tags]
    if None in numbers:
        raise UsageError(f"{task.name}: a tag is empty in {value!r}", hint="write O for no entity")
    return [number for number in numbers if number is not None]
