"""Entity-level precision, recall and F1 of tag rows (`B-PER I-PER O`), as seqeval 1.2.2 counts them; not per token.

Without a scheme a chunk is found leniently, by the rules of CoNLL's script: any change of type, and an `I-` after `O`,
begins one. With a scheme only well-formed chunks count, and a prefix outside the scheme is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Literal

from hubcache.train.metrics.counts import Score, Tally, check_rows, macro, micro, ratio, weighted

Tags = Sequence[str]
Scheme = Literal["IOB2", "IOE2", "IOBES", "BILOU"]
Span = tuple[str, int, int]

# An entity, written in the prefixes of a run of tokens that share one type.
_WELL_FORMED: dict[str, re.Pattern[str]] = {
    "IOB2": re.compile("BI*"),
    "IOE2": re.compile("I*E"),
    "IOBES": re.compile("S|BI*E"),
    "BILOU": re.compile("U|BI*L"),
}
_PREFIXES = {"IOB2": "IOB", "IOE2": "IOE", "IOBES": "IOBES", "BILOU": "BILOU"}


@dataclass(frozen=True, slots=True)
class EntityScores:
    """The scores of each type, their averages, and the share of tokens whose tag is right."""

    types: dict[str, Score]
    micro: Score
    macro: Score
    weighted: Score
    accuracy: float


def entity_spans(tags: Tags, scheme: Scheme | None = None) -> list[Span]:
    """Return the entities of one sentence as (type, first token, token after the last).

    Raises: ValueError for a prefix that the scheme does not have.
    """
    return list(_lenient_spans(tags) if scheme is None else _strict_spans(tags, scheme))


def entity_tallies(
    predictions: Sequence[Tags], references: Sequence[Tags], scheme: Scheme | None = None
) -> dict[str, Tally]:
    """Count the entities of each type, sorted by type; an entity is hit when type and both ends agree."""
    _check_sentences(predictions, references)
    guessed, true = _placed(predictions, scheme), _placed(references, scheme)
    hits, made, real = (Counter(span[0] for _, span in side) for side in (guessed & true, guessed, true))
    return {kind: Tally(hits[kind], made[kind], real[kind]) for kind in sorted(made | real)}


def entity_scores(
    predictions: Sequence[Tags], references: Sequence[Tags], scheme: Scheme | None = None
) -> EntityScores:
    """Score tag rows by entities; every figure is 0 where neither side has any."""
    tallies = entity_tallies(predictions, references, scheme)
    pairs = [pair for made, real in zip(predictions, references, strict=True) for pair in zip(made, real, strict=True)]
    return EntityScores(
        {kind: tally.score for kind, tally in tallies.items()},
        micro(tallies.values()),
        macro(tallies.values()),
        weighted(tallies.values()),
        ratio(sum(made == real for made, real in pairs), len(pairs)),
    )


def entity_f1(predictions: Sequence[Tags], references: Sequence[Tags]) -> float:
    """Return the micro F1 over entities found leniently (seqeval's default)."""
    return micro(entity_tallies(predictions, references).values()).f1


def entity_precision(predictions: Sequence[Tags], references: Sequence[Tags]) -> float:
    """Return the micro precision over entities found leniently."""
    return micro(entity_tallies(predictions, references).values()).precision


def entity_recall(predictions: Sequence[Tags], references: Sequence[Tags]) -> float:
    """Return the micro recall over entities found leniently."""
    return micro(entity_tallies(predictions, references).values()).recall


def entity_f1_iob2(predictions: Sequence[Tags], references: Sequence[Tags]) -> float:
    """Return the micro F1 over well-formed IOB2 entities."""
    return micro(entity_tallies(predictions, references, "IOB2").values()).f1


def entity_f1_iobes(predictions: Sequence[Tags], references: Sequence[Tags]) -> float:
    """Return the micro F1 over well-formed IOBES entities."""
    return micro(entity_tallies(predictions, references, "IOBES").values()).f1


def _check_sentences(predictions: Sequence[Tags], references: Sequence[Tags]) -> None:
    check_rows(predictions, references)
    for row, (made, real) in enumerate(zip(predictions, references, strict=True)):
        if len(made) != len(real):
            raise ValueError(f"row {row} has {len(made)} predicted tags for {len(real)}")


def _placed(rows: Sequence[Tags], scheme: Scheme | None) -> set[tuple[int, Span]]:
    return {(row, span) for row, tags in enumerate(rows) for span in entity_spans(tags, scheme)}


@cache
def _kind(tag: str) -> str:
    return tag[1:].strip("-") or "_"


def _lenient_spans(tags: Tags) -> Iterator[Span]:
    before, kind_before, begin = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = tag[0], _kind(tag)
        if _ends(before, prefix, kind != kind_before):
            yield kind_before, begin, place
        if _begins(before, prefix, kind != kind_before):
            begin = place
        before, kind_before = prefix, kind


def _ends(before: str, prefix: str, other_kind: bool) -> bool:
    return before in "ES" or (before in "BI" and prefix in "BSO") or (before != "O" and other_kind)


def _begins(before: str, prefix: str, other_kind: bool) -> bool:
    return prefix in "BS" or (prefix in "EI" and before in "ESO") or (prefix != "O" and other_kind)


def _strict_spans(tags: Tags, scheme: Scheme) -> Iterator[Span]:
    wrong = [tag for tag in set(tags) if tag[0] not in _PREFIXES[scheme]]
    if wrong:
        raise ValueError(f"{scheme} has no tag {min(wrong)!r}")
    begin = 0
    for kind, run in groupby(tags, key=_kind):
        prefixes = "".join(tag[0] for tag in run)
        for match in _WELL_FORMED[scheme].finditer(prefixes):
            yield kind, begin + match.start(), begin + match.end()
        begin += len(prefixes)
