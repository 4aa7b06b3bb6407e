"""A mirrors.yaml of a person's, changed as text: what is not the point of a change stays, comments and all.

Every change is read back: what the file then says is exactly what it said before and the change, or nothing is
changed and a hint says what to write by hand. No file is opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from hubcache.errors import BadConfig
from hubcache.mirrors.config import CONNECTIONS, TRUST, Mirror, MirrorsConfig, parse_text, parse_typed

Fields = Mapping[str, str | int | float | Sequence[str] | Mapping[str, str]]

HEADER = "# Your mirrors and short names, laid over those that came with hubcache.\n"


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry's place: whole lines [start, end) of the text, and `lead`, where the comment right above them begins."""

    node: yaml.MappingNode
    lead: int
    start: int
    end: int


class _NotSafe(Exception):
    """The text is laid out in a way that is not edited here; it never leaves this module."""


@dataclass(frozen=True, slots=True)
class MirrorsText:
    """The text of one mirrors.yaml, and the file it is of; a change makes another one.

    Raises, from every change:
        BadConfig: the text is no mirrors.yaml, or one whose layout is not edited here.
    """

    path: Path
    text: str

    @property
    def content(self) -> MirrorsConfig:
        """What the text says."""
        return parse_text(self.text, self.path)

    def names(self) -> list[str]:
        """List the mirrors' names in their order."""
        return [mirror.name for mirror in self.content.mirrors]

    def with_last(self, fields: Fields) -> MirrorsText:
        """Add a mirror behind those that are there."""
        before, added = list(self.content.mirrors), mirror_of(fields)
        return self._changed([*before, added], lambda: self._inserted(fields, -1), f"add {_flow(fields)}")

    def with_first(self, fields: Fields) -> MirrorsText:
        """Add a mirror before those that are there."""
        before, added = list(self.content.mirrors), mirror_of(fields)
        return self._changed([added, *before], lambda: self._inserted(fields, 0), f"add, as the first, {_flow(fields)}")

    def moved_first(self, name: str) -> MirrorsText:
        """Put a mirror before the others of its hub, with the comment right above it."""
        before = list(self.content.mirrors)
        at = self._at(name)
        if all(mirror.hub != before[at].hub for mirror in before[:at]):
            return self
        after = [before[at], *before[:at], *before[at + 1 :]]
        return self._changed(after, lambda: self._moved(at), f"move the mirror {name} to the top of its list")

    def with_trust(self, name: str, trust: tuple[str, ...]) -> MirrorsText:
        """Say what is believed of a mirror."""
        before = list(self.content.mirrors)
        at = self._at(name)
        if before[at].trust == trust:
            return self
        after = [*before[:at], replace(before[at], trust=trust), *before[at + 1 :]]
        said = f"trust: {_flow(trust)}"
        return self._changed(after, lambda: self._trusted(at, said), f"give the mirror {name} the line {said}")

    def without(self, name: str) -> MirrorsText:
        """Take a mirror out; a comment above it stays, it may be about more than this mirror."""
        at = self._at(name)
        after = [mirror for mirror in self.content.mirrors if mirror.name != name]
        return self._changed(after, lambda: self._cut(at), f"delete the mirror {name}")

    def _at(self, name: str) -> int:
        names = self.names()
        if names.count(name) > 1:
            raise BadConfig(f"{self.path} has the mirror {name} twice", hint="by hand, delete one of them")
        return names.index(name)

    def _changed(self, mirrors: list[Mirror], edit: Callable[[], str], by_hand: str) -> MirrorsText:
        """Make the edit, and hold what it says against what it should say."""
        before = self.content
        try:
            edited = MirrorsText(self.path, edit())
            if edited.content == replace(before, mirrors=tuple(mirrors)):
                return edited
        except (_NotSafe, BadConfig, yaml.YAMLError):
            pass
        raise BadConfig(
            f"{self.path} is laid out in a way that is not edited here; nothing was changed",
            hint=f"by hand, {by_hand}",
        )

    def _inserted(self, fields: Fields, at: int) -> str:
        rows, column = self._rows()
        if rows:
            place = rows[0].lead if at == 0 else rows[-1].end
            return self._with(place, _block(fields, column))
        place, heading = self._place_of_list()
        return self._with(place, heading + _block(fields))

    def _moved(self, at: int) -> str:
        rows, _ = self._rows()
        row, top = rows[at], rows[0].lead
        rest = self.text[:top], self.text[top : row.lead], self.text[row.end :]
        return _joined(rest[0], self.text[row.lead : row.end], rest[1], rest[2])

    def _cut(self, at: int) -> str:
        rows, _ = self._rows()
        return self.text[: rows[at].start] + self.text[rows[at].end :]

    def _trusted(self, at: int, said: str) -> str:
        row = self._rows()[0][at]
        pairs = {key.value: (key, value) for key, value in row.node.value}
        if "trust" in pairs:
            _, old = pairs["trust"]
            if not (isinstance(old, yaml.SequenceNode) and old.flow_style):
                raise _NotSafe
            start, end = old.start_mark.index, old.end_mark.index
            return self.text[:start] + said.removeprefix("trust: ") + self.text[end:]
        key, value = pairs["hub"]
        if row.node.flow_style:
            end = value.end_mark.index
            return f"{self.text[:end]}, {said}{self.text[end:]}"
        return self._with(_line_end(self.text, value.end_mark.index), " " * key.start_mark.column + said + "\n")

    def _with(self, place: int, lines: str) -> str:
        """Put whole lines in, with the line ends that the text has."""
        if "\r\n" in self.text:
            lines = lines.replace("\n", "\r\n")
        return _joined(self.text[:place], lines, self.text[place:])

    def _rows(self) -> tuple[list[_Row], int]:
        """Find the entries and the column of their dashes."""
        _, listed = self._list()
        if not isinstance(listed, yaml.SequenceNode) or not listed.value:
            return [], 0
        first, last = listed.start_mark, listed.end_mark
        dashes = [
            token.start_mark
            for token in yaml.scan(self.text, Loader=yaml.SafeLoader)
            if isinstance(token, yaml.BlockEntryToken)
            and token.start_mark.column == first.column
            and first.index <= token.start_mark.index < last.index
        ]
        if listed.flow_style or len(dashes) != len(listed.value):
            raise _NotSafe
        places = zip(dashes, listed.value, strict=True)
        return [self._row(dash, node) for dash, node in places], first.column

    def _row(self, dash: yaml.Mark, node: yaml.Node) -> _Row:
        start = lead = _line_start(self.text, dash.index)
        if not isinstance(node, yaml.MappingNode) or self.text[start : dash.index].strip(" "):
            raise _NotSafe
        while lead and self.text[(above := _line_start(self.text, lead - 1)) : lead].lstrip().startswith("#"):
            lead = above
        return _Row(node, lead, start, _line_end(self.text, max(_ends(node))))

    def _place_of_list(self) -> tuple[int, str]:
        """Find where a first entry goes, and what has to stand above it."""
        key, listed = self._list()
        if key is None:
            return len(self.text), "mirrors:\n"
        if listed is None or listed.value:
            raise _NotSafe
        return _line_end(self.text, key.end_mark.index), ""

    def _list(self) -> tuple[yaml.Node | None, yaml.Node | None]:
        """Find the key `mirrors` and its value; (None, None) where there is no such key."""
        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        return next(((key, value) for key, value in pairs if key.value == "mirrors"), (None, None))


def mirror_of(fields: Fields) -> Mirror:
    """Read fields as a mirrors.yaml's entry would be.

    Raises:
        BadConfig: says which is wrong; a token that was written where its variable's name belongs is not shown.
    """
    return parse_typed(_block(fields))


def fields_of(mirror: Mirror) -> Fields:
    """Write a mirror as the fields of an entry, those left out that are what they are by themselves."""
    told: Fields = {
        "trust": mirror.trust if mirror.trust != TRUST else (),
        "token": mirror.token or "",
        "connections": mirror.connections if mirror.connections != CONNECTIONS else 0,
        "rate": (mirror.rate or 0) / 1e6,
        "namespaces": mirror.namespaces,
        "ca": str(mirror.ca or ""),
        "headers": mirror.headers,
    }
    return {"name": mirror.name, "url": mirror.url, "hub": mirror.hub} | {
        key: said for key, said in told.items() if said
    }


def _block(fields: Fields, column: int = 2) -> str:
    lines = [_line(key, value) for key, value in fields.items()]
    return " " * column + "- " + (" " * (column + 2)).join(lines)


def _line(key: str, value: object) -> str:
    """Write one field of an entry; text that stands alone needs fewer quotes than in a list."""
    if isinstance(value, str):
        return str(yaml.safe_dump({key: value}, default_flow_style=False, width=float("inf"), allow_unicode=True))
    return f"{key}: {_flow(value)}\n"


def _flow(value: object) -> str:
    """Write a value in one line of YAML, quoted where it must be."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(said)}" for key, said in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flow, value)) + "]"
    text = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True)
    return str(text).strip()[1:-1]


def _ends(node: yaml.Node) -> Iterator[int]:
    """Yield where the parts of a node end; a block's own mark is where the next thing begins."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        yield node.end_mark.index
        return
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _ends(part)


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    """Return where the line that `at` stands in, or has just ended, is over."""
    if at and text[at - 1] == "\n":
        return at
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _joined(*parts: str) -> str:
    """Join pieces of whole lines; one that lacks its line end gets it."""
    said = [part for part in parts if part]
    return "".join(part if part.endswith("\n") or part is said[-1] else part + "\n" for part in said)
