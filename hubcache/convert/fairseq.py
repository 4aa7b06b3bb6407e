"""VECO's encoder-decoder as fairseq keeps it: arguments and a dictionary instead of a config; no tensor is read."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcache.convert.configs import Config, from_fairseq
from hubcache.convert.naming import unwrapped
from hubcache.convert.pickles import Pickled
from hubcache.convert.tensors import StoredTensor
from hubcache.errors import EntryNotFound, IntegrityError

# <s>, <pad>, </s> and <unk> are in no dict.txt.
_SPECIALS = 4
_BY_WORD = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
_POSITIONS = "encoder.embed_positions.weight"
_USUAL_POSITIONS = 514


@dataclass(frozen=True, slots=True)
class FromFairseq:
    """The config that the arguments describe, and the tensors without the pre-training's mask token."""

    config: Config
    tensors: Mapping[str, StoredTensor]
    notes: tuple[str, ...]


def read_fairseq(stored: Pickled, dictionary: Path) -> FromFairseq:
    """Make a config out of a checkpoint's arguments and its dictionary.

    Raises:
        EntryNotFound: the dictionary cannot be read.
        IntegrityError: there are no arguments, or they describe another architecture.
    """
    arguments = stored.others.get("args")
    if not isinstance(arguments, argparse.Namespace):
        raise IntegrityError("the checkpoint holds no args: it is no fairseq model of VECO's time")
    words = _count_words(dictionary)
    names = {name: unwrapped(name) for name in stored.tensors}
    masked = [
        name for name, plain in names.items() if plain in _BY_WORD and stored.tensors[name].shape[:1] == (words + 1,)
    ]
    cut = {name: stored.tensors[name].first_rows(words) for name in masked}
    positions = next((stored.tensors[name].shape for name, plain in names.items() if plain == _POSITIONS), ())
    config = from_fairseq(vars(arguments), words, positions[0] if positions else _USUAL_POSITIONS)
    notes = (f"cut the last row, the mask token's, off {', '.join(masked)}: dict.txt has {words} tokens",)
    return FromFairseq(config, {**stored.tensors, **cut}, notes if masked else ())


def _count_words(dictionary: Path) -> int:
    try:
        with dictionary.open("rb") as lines:
            return sum(1 for line in lines if line.strip()) + _SPECIALS
    except OSError as error:
        raise EntryNotFound(f"{dictionary}: {error.strerror}") from error
