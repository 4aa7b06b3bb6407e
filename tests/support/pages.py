"""An HTML page as a checked tree, and a PNG as rows of pixels; nothing is rendered here."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})


@dataclass(slots=True)
class Element:
    """An element with its attributes, children and own text, in order."""

    name: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, *names: str) -> list[Element]:
        """Return the elements of these names in it, all where none is named, in the order of the page."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] * (not names or child.name in names) + child.all(*names)
        return found

    def classed(self, name: str) -> list[Element]:
        """Return the elements of a class in it."""
        return [one for one in self.all() if name in (one.attributes.get("class") or "").split()]


def parsed(page: str) -> Element:
    """Parse a page. Raises: ValueError for a tag that is not closed, or closed in the wrong order."""
    parser = _Tree()
    parser.feed(page)
    parser.close()
    if len(parser.open) != 1:
        raise ValueError(f"not closed: {[one.name for one in parser.open[1:]]}")
    return parser.open[0]


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len(dict(attrs)) != len(attrs):
            raise ValueError(f"an attribute twice in <{tag}>: {attrs}")
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1].name != tag:
            raise ValueError(f"</{tag}> ends <{self.open[-1].name}>")
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def png_rows(path: Path) -> set[bytes]:
    """Return the different filtered rows of a PNG; a blank picture has one or two."""
    content = path.read_bytes()
    position, packed, width, channels = 8, b"", 0, 3
    while position < len(content):
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        body = content[position + 8 : position + 8 + size]
        if kind == b"IHDR":
            width, channels = struct.unpack(">I", body[:4])[0], {2: 3, 6: 4}[body[9]]
        packed += body if kind == b"IDAT" else b""
        position += size + 12
    plain, step = zlib.decompress(packed), 1 + width * channels
    return {plain[start : start + step] for start in range(0, len(plain), step)}
