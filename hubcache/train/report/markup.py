"""HTML and SVG that are escaped by construction; it knows nothing of reports or charts."""

from __future__ import annotations

import html
import re

# What a browser would drop, obey or refuse: it is shown instead, so that a text is harmless and still tells what it is.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)

Attribute = str | int | float | bool | None


class Markup(str):
    """Text that is HTML already: it is written as it is."""

    __slots__ = ()


def visible(text: str) -> str:
    """Show control characters, direction overrides and broken surrogates as signs; line ends become newlines."""
    return _HIDDEN.sub(lambda match: _sign(match[0]), text.replace("\r\n", "\n").replace("\r", "\n"))


def joined(*children: str) -> Markup:
    """Join texts, escaped, and markup, as it is."""
    return Markup("".join(child if isinstance(child, Markup) else _escaped(child) for child in children))


def element(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """Make an element; `class_` is class, `aria_label` aria-label, True a bare attribute, None or False none."""
    return Markup(f"<{name}{_attributes(attributes)}>{joined(*children)}</{name}>")


def void(name: str, /, **attributes: Attribute) -> Markup:
    """Make an element that has no end tag."""
    return Markup(f"<{name}{_attributes(attributes)}>")


def _attributes(attributes: dict[str, Attribute]) -> str:
    told = ""
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = name.rstrip("_").replace("_", "-")
        told += f" {spelled}" if value is True else f' {spelled}="{_escaped(str(value))}"'
    return told


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _sign(character: str) -> str:
    code = ord(character)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"
