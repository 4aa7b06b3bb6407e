"""Tokenisers of BLEU as sacrebleu 2.6.0 has them (13a, intl, zh, char); not tokenisers for a model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

Tokenizer = Literal["13a", "intl", "zh", "char"]

_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# All of ASCII's marks except ' , - . which depend on their neighbours.
_MARKS = re.compile(r"[!-&(-+/:-@\[-`{-~]")
_STOP_AFTER_TEXT = re.compile(r"([^0-9])([.,])")
_STOP_BEFORE_TEXT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")

# Written in classes of characters: N number, P punctuation, S symbol, - any other.
_PUNCTUATION_AFTER = re.compile(r"[^N]P")
_PUNCTUATION_BEFORE = re.compile(r"P[^N]")

_HAN = (
    (0x2E80, 0x2FDF),
    (0x2FF0, 0x303F),
    (0x3100, 0x312F),
    (0x31A0, 0x31BF),
    (0x31C0, 0x31EF),
    (0x3200, 0x4DB5),
    (0x4E00, 0x9FBB),
    (0xF900, 0xFA2D),
    (0xFA30, 0xFA6A),
    (0xFA70, 0xFAD9),
    (0xFE10, 0xFE1F),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFFEF),
    # sacrebleu writes U+20000..U+2A6D6 with a four-digit escape, so these are the ones it splits in truth,
    # and the rare ideographs beyond the basic plane stay joined. Kept: published scores are computed with it.
    (0x2001, 0x2A6D),
)


def split_13a(text: str) -> list[str]:
    """Split as WMT's mteval-v13a does."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, mark in _ENTITIES:
        text = text.replace(entity, mark)
    return _split_western(f" {text} ")


def split_intl(text: str) -> list[str]:
    """Split off every punctuation mark that is not between digits, and every symbol, of any script (mteval-v14)."""
    text = _part(text, _PUNCTUATION_AFTER, "{0} {1} ")
    text = _part(text, _PUNCTUATION_BEFORE, " {0} {1}")
    return "".join(f" {char} " if _class(char) == "S" else char for char in text).split()


def split_zh(text: str) -> list[str]:
    """Split Chinese by character and the rest as Western text."""
    return _split_western("".join(f" {char} " if _is_han(ord(char)) else char for char in text.strip()))


def split_chars(text: str) -> list[str]:
    """Split by character, white space left out."""
    return [char for char in text if not char.isspace()]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "13a": split_13a,
    "intl": split_intl,
    "zh": split_zh,
    "char": split_chars,
}


def _split_western(text: str) -> list[str]:
    text = _MARKS.sub(r" \g<0> ", text)
    text = _STOP_AFTER_TEXT.sub(r"\1 \2 ", text)
    text = _STOP_BEFORE_TEXT.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


def _is_han(code: int) -> bool:
    return any(first <= code <= last for first, last in _HAN)


def _class(char: str) -> str:
    first = unicodedata.category(char)[0]
    return first if first in "NPS" else "-"


def _part(text: str, pattern: re.Pattern[str], shape: str) -> str:
    """Rewrite each pair of characters whose classes match; the standard `re` knows no Unicode classes."""
    pieces, done = [], 0
    for match in pattern.finditer("".join(map(_class, text))):
        begin = match.start()
        pieces += [text[done:begin], shape.format(text[begin], text[begin + 1])]
        done = begin + 2
    return "".join([*pieces, text[done:]])
