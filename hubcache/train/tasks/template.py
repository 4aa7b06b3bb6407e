"""Texts made of a row's columns: `premise: {premise} hypothesis: {hypothesis}`; a column's name alone is its cell.

No row is checked here and nothing is tokenised.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from hubcache.errors import UsageError

Row = dict[str, Any]

_NOT_A_WORD = re.compile(r"(\W)")
_SPACES = re.compile(r"\s+")


def cell(row: Mapping[str, Any], column: str) -> Any:
    """Return a cell; `labels.real-label` is the key `real-label` of the column `labels`. Raises: KeyError."""
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    if not dot or not isinstance(row.get(outer), Mapping):
        raise KeyError(column)
    return cell(row[outer], inner)


def has_cell(row: Mapping[str, Any], column: str) -> bool:
    """Tell whether `cell` finds the column."""
    try:
        cell(row, column)
    except KeyError:
        return False
    return True


def columns_of(template: str) -> tuple[str, ...]:
    """Return the columns that a template or a column's name needs, in order."""
    if "{" not in template:
        return (template,) if template else ()
    return tuple(dict.fromkeys(field for _, field, _, _ in _parts(template) if field))


def renamed(template: str, names: Mapping[str, str]) -> str:
    """Return the template with other columns in it."""
    if "{" not in template:
        return names.get(template, template)
    return "".join(_written(part, names) for part in _parts(template))


@cache
def text_of(template: str) -> Callable[[Mapping[str, Any]], str]:
    """Return the function that writes a row's text.

    `{score:.1f}` formats, `{context!p}` puts spaces around every mark that is no letter (and squeezes the whole text,
    as KE-T5 does for questions), `{{` is a brace. A list's members are joined by a space. A missing column raises
    KeyError, a broken template UsageError.
    """
    if "{" not in template:
        return lambda row: as_text(cell(row, template))
    parts = _parts(template)
    spaced = any(conversion == "p" for _, _, _, conversion in parts)

    def write(row: Mapping[str, Any]) -> str:
        text = "".join(
            literal + ("" if not field else _formatted(cell(row, field), spec or "", conversion))
            for literal, field, spec, conversion in parts
        )
        return _SPACES.sub(" ", text) if spaced else text

    return write


def as_text(value: Any) -> str:
    """Write a cell as text: a list joined by spaces, an absent one as nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(as_text(member) for member in value)
    return str(value)


def spaced_punctuation(text: str) -> str:
    """Put a space around every character that is neither letter, digit nor `_`, and squeeze spaces."""
    return _SPACES.sub(" ", _NOT_A_WORD.sub(r" \1 ", text))


def _formatted(value: Any, spec: str, conversion: str | None) -> str:
    if conversion == "p":
        return spaced_punctuation(as_text(value))
    return format(value, spec) if spec else as_text(value)


_Part = tuple[str, str | None, str | None, str | None]


@cache
def _parts(template: str) -> tuple[_Part, ...]:
    try:
        parts = tuple(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"the template {template!r} does not parse: {error}", hint="write a brace as {{") from error
    if any(field == "" for _, field, _, _ in parts):
        raise UsageError(f"the template {template!r} has {{}} without a column", hint="write {column}")
    return parts


def _written(part: _Part, names: Mapping[str, str]) -> str:
    literal, field, spec, conversion = part
    escaped = literal.replace("{", "{{").replace("}", "}}")
    if not field:
        return escaped
    ending = (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
    return f"{escaped}{{{names.get(field, field)}{ending}}}"
