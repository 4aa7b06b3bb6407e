"""mirrors.yaml as values: endpoints by hub, short names, and rules for the server; it asks no mirror anything.

Files are laid over each other in this order: the shipped one, the user's, the project's. A mirror replaces the
one of its name, and a file's mirrors come, in their order, before those of the files that it is laid over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from hubcache.core.rules import Rule, Rules
from hubcache.core.urls import split_url, without_credentials
from hubcache.errors import BadConfig, BadReference
from hubcache.mirrors.servefile import read_rules
from hubcache.mirrors.yamlfile import NULL, TEXT, YamlFile

HUBS = ("huggingface", "modelscope", "sparsezoo", "http")
TRUST = ("metadata", "bytes")
CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Mirror:
    """One endpoint that carries a hub's content.

    Attributes:
        token: the name of an environment variable, or `file:PATH`; its value goes to this origin only.
        trust: what is believed of it: "metadata" (commits, listings, digests), "bytes", or both.
        connections: how many at once, at most.
        rate: bytes per second over all connections, None for no limit.
        namespaces: the orgs (or names, as shell patterns) it may be asked for; () for every public one.
        ca: a file of certificates to trust for it.
        headers: sent with every request to it.
        is_shipped: it came with hubcache, nobody here has chosen it.
    """

    name: str
    url: str
    hub: str
    token: str | None = None
    trust: tuple[str, ...] = TRUST
    connections: int = CONNECTIONS
    rate: float | None = None
    namespaces: tuple[str, ...] = ()
    ca: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_shipped: bool = False

    @property
    def is_fallback(self) -> bool:
        """Whether it only stands in for others: nobody chose it, and its word is not taken for anything."""
        return self.is_shipped and "metadata" not in self.trust


@dataclass(frozen=True, slots=True)
class MirrorsConfig:
    """The mirrors in the order in which they are asked, the catalogue, and the rules of `hubcache serve`."""

    mirrors: tuple[Mirror, ...] = ()
    catalogue: Mapping[str, str] = field(default_factory=dict)
    serve: Rules = field(default_factory=Rules)

    def of(self, hub: str) -> tuple[Mirror, ...]:
        """List the mirrors of one hub."""
        return tuple(mirror for mirror in self.mirrors if mirror.hub == hub)


def shipped_path() -> Path:
    """Find the defaults: beside this file in an installed wheel, at the top of a checkout."""
    installed = Path(__file__).with_name("mirrors.yaml")
    return installed if installed.exists() else Path(__file__).parents[2] / "mirrors.yaml"


def load(paths: Iterable[Path] = (), *, project: Path | None = None) -> MirrorsConfig:
    """Read the shipped file and lay the user's files and the project's over it.

    Raises:
        BadConfig: a file that cannot be read, with its name, the line, and the nearest right key.
    """
    shipped = _File(shipped_path(), is_shipped=True).read()
    mirrors, catalogue = {mirror.name: mirror for mirror in shipped.mirrors}, dict(shipped.catalogue)
    rules: tuple[Rule, ...] = ()
    for file in _overlay([*paths], project):
        content = file.read()
        ours = {mirror.name: mirror for mirror in content.mirrors if not file.repeats(mirror, shipped.mirrors)}
        mirrors = ours | {name: mirror for name, mirror in mirrors.items() if name not in ours}
        catalogue |= content.catalogue
        rules = content.serve.rules + rules
    return MirrorsConfig(tuple(mirrors.values()), catalogue, Rules(rules))


def _overlay(paths: list[Path], project: Path | None) -> list[_File]:
    """List the files from the lowest to the highest; your own stays yours where you work in its folder."""
    is_own = project is not None and project.resolve() in [path.resolve() for path in paths]
    return [*map(_File, paths), *([_File(project, is_project=True)] if project is not None and not is_own else [])]


def read_file(path: Path) -> MirrorsConfig:
    """Read one file, and nothing below it.

    Raises:
        BadConfig: as load.
    """
    return _File(path).read()


def parse_text(text: str, path: Path) -> MirrorsConfig:
    """Read the text of one file; `path` is where it stands, or would stand.

    Raises:
        BadConfig: as load.
    """
    return _File(path).parse(text)


def parse_typed(text: str) -> Mirror:
    """Read one mirror's entry, as a list of one, that no file holds yet.

    Raises:
        BadConfig: as load, with no file and line to name.
    """
    (mirror,) = _Typed(Path.cwd() / "mirrors.yaml").parse(f"mirrors:\n{text}").mirrors
    return mirror


class _File(YamlFile):
    """One mirrors.yaml."""

    def __init__(self, path: Path, *, is_project: bool = False, is_shipped: bool = False) -> None:
        super().__init__(path)
        self._is_shipped = is_shipped
        self._is_project = is_project

    def repeats(self, mirror: Mirror, shipped: tuple[Mirror, ...]) -> bool:
        """Tell whether an entry says nothing: a project's that is a shipped one, as in a copy of the shipped file.

        The same entry in the user's own file is a choice, which `hubcache mirror use` writes.
        """
        return self._is_project and replace(mirror, is_shipped=True) in shipped

    def read(self) -> MirrorsConfig:
        try:
            return self.parse(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(f"{self.path}: {error}") from error

    def parse(self, text: str) -> MirrorsConfig:
        node = self.compose(text)
        if node is None:
            return MirrorsConfig()
        top = self.mapping(node, ("mirrors", "catalogue", "serve"), "the file")
        said = {key: value for key, value in top.items() if value.tag != NULL}
        mirrors = self.sequence(said["mirrors"], "mirrors") if "mirrors" in said else []
        catalogue = self.texts(said["catalogue"], "catalogue") if "catalogue" in said else {}
        serve = self._serve(said["serve"]) if "serve" in said else Rules()
        return MirrorsConfig(tuple(self._mirror(row) for row in mirrors), catalogue, serve)

    def _serve(self, node: yaml.Node) -> Rules:
        if self._is_project or self._is_shipped:
            raise self.wrong(
                node,
                "only your own mirrors.yaml says whom `serve` is for: whoever wrote another would open your mirror",
                "write it in your own mirrors.yaml",
            )
        return read_rules(self, node)

    def _mirror(self, node: yaml.Node) -> Mirror:
        fields = self.mapping(node, ("name", "url", "hub", *_FIELDS), "a mirror")
        for key in ("name", "url", "hub"):
            if key not in fields or fields[key].tag != TEXT:
                raise self.wrong(fields.get(key, node), f"a mirror has no {key}")
        name = self.text(fields["name"], "name")
        url = self._url(fields["url"], name)
        hub = self.one_of(fields["hub"], HUBS, "hub")
        if self._is_project and "token" in fields:
            raise self.wrong(
                fields["token"],
                f"{name}: a project's file names no token: whoever wrote it would choose where yours goes",
                "name it in your own mirrors.yaml",
            )
        rest = {key: reader(self, fields[key], key) for key, reader in _FIELDS.items() if key in fields}
        return Mirror(name, url, hub, **rest, is_shipped=self._is_shipped)

    def _url(self, node: yaml.Node, name: str) -> str:
        url = self.text(node, "url")
        if without_credentials(url) != url:
            raise self.wrong(node, f"{name}: credentials do not belong in a URL", "name a token's variable instead")
        try:
            return split_url(url).address.rstrip("/")
        except BadReference as error:
            raise self.wrong(node, f"{name}: not an http or https URL: {error.message}") from error

    def _trust(self, node: yaml.Node, what: str) -> tuple[str, ...]:
        return tuple(self.one_of(each, TRUST, what) for each in self.sequence(node, what))

    def _connections(self, node: yaml.Node, what: str) -> int:
        text = self.text(node, what)
        if not text.isdigit() or not 1 <= int(text) <= 64:
            raise self.wrong(node, f"{what} is no number from 1 to 64: {text!r}")
        return int(text)

    def _rate(self, node: yaml.Node, what: str) -> float:
        """Read MB/s as bytes per second."""
        text = self.text(node, what)
        try:
            rate = float(text) * 1e6
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise self.wrong(node, f"{what} is no number of MB/s: {text!r}")
        return rate

    def _token(self, node: yaml.Node, what: str) -> str:
        text = self.text(node, what)
        if not text.startswith("file:") and not _VARIABLE.fullmatch(text):
            # Not repeated: it may be the token itself.
            raise self.wrong(node, f"{what} is the NAME of an environment variable, or file:PATH")
        return text

    def _file(self, node: yaml.Node, what: str) -> Path:
        path = self.path.parent / Path(self.text(node, what)).expanduser()
        if not path.is_file():
            raise self.wrong(node, f"{what}: there is no file {path}")
        return path


class _Typed(_File):
    """Values from a command line: they stand on no line of a file."""

    def wrong(self, node: yaml.Node, message: str, hint: str = "") -> BadConfig:
        return BadConfig(message, hint=hint)


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.ASCII)
_FIELDS: dict[str, Callable[[_File, yaml.Node, str], Any]] = {
    "trust": _File._trust,
    "token": _File._token,
    "connections": _File._connections,
    "rate": _File._rate,
    "namespaces": _File.names,
    "ca": _File._file,
    "headers": _File.texts,
}
