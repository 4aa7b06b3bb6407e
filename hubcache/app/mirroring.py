"""Which mirrors there are, where they come from, and changes of the user's mirrors.yaml; no mirror is asked here."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from hubcache.app.compose import ENDPOINTS, App
from hubcache.app.local import compose_local
from hubcache.app.settings import Settings
from hubcache.errors import BadConfig, UsageError
from hubcache.localfile import write_atomically
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import HUBS, TRUST, Mirror, read_file
from hubcache.mirrors.editing import HEADER, Fields, MirrorsText, fields_of, mirror_of
from hubcache.mirrors.health import Choice, Health
from hubcache.net import Net, NetSettings

Trust = Literal["metadata", "bytes"]
TRUSTED: Mapping[Trust, tuple[str, ...]] = {"metadata": TRUST, "bytes": ("bytes",)}
"""What is believed of a mirror, by the one word that `--trust` takes: bytes always, metadata on top."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A mirror, what is known of it, and which file or variable it comes from (shipped, user, project, HF_ENDPOINT)."""

    mirror: Mirror
    health: Health
    choice: Choice
    told_by: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of the user's file: the mirror as it is now, or was, and which mirror of its hub comes first now.

    `first` is None where the hub is left with no mirror.
    """

    path: Path
    mirror: Mirror
    first: Mirror | None
    first_told_by: str = ""


def wire(settings: Settings) -> App:
    """Wire an App that reads no token and asks nothing: it knows the mirrors, in their order."""
    local = compose_local(settings)
    book = HealthBook(settings.state / "health.json" if settings.state else None)
    return App(settings, local.mirrors, local.cache, Net(NetSettings()), book)


def list_mirrors(app: App) -> list[Listed]:
    """List every hub's mirrors, in the order in which they would be asked now."""
    found = []
    for hub in HUBS:
        mirrors = app.mirrors_of(hub)
        for choice in app.book.order(list(dict.fromkeys(mirror.url for mirror in mirrors))):
            found += [
                Listed(mirror, app.book.of(mirror.url), choice, _told_by(app.settings, mirror))
                for mirror in mirrors
                if mirror.url == choice.name
            ]
    return found


def find_mirrors(app: App, names: Sequence[str], hub: str | None) -> list[Mirror]:
    """Find one hub's mirrors by their names; all of them, of huggingface unless `hub` says which, without names.

    Raises:
        UsageError: no mirror has that name, or they are of several hubs.
    """
    if hub is not None and hub not in HUBS:
        raise UsageError(f"no such hub: {hub!r}", hint=f"one of: {', '.join(HUBS)}")
    if not names:
        return app.mirrors_of(hub or "huggingface")
    known = {mirror.name: mirror for each in HUBS if hub in {None, each} for mirror in app.mirrors_of(each)}
    found = [known[name] if name in known else _no_such(name, known) for name in dict.fromkeys(names)]
    if len(hubs := {mirror.hub for mirror in found}) > 1:
        raise UsageError(f"mirrors of several hubs: {', '.join(sorted(hubs))}", hint="test those of one hub at a time")
    return found


def use(settings: Settings, name: str, trust: Trust | None = None) -> Changed:
    """Make a mirror the first of its hub in the user's file, with the trust it has unless another is given.

    Raises:
        UsageError: no mirror has that name, or it is the project's.
        BadConfig: the file is laid out in a way that is not edited.
    """
    before = _own_text(settings)
    app = wire(_readable(settings))
    known = {mirror.name: mirror for mirror in app.mirrors.mirrors}
    mirror = known[name] if name in known else _no_such(name, known)
    if _told_by(app.settings, mirror) == "project" and name not in before.names():
        raise UsageError(f"{name} is the project's, which comes first already: {settings.project_mirrors}")
    if name in before.names():
        after = before.moved_first(name)
        after = after.with_trust(name, TRUSTED[trust]) if trust else after
    else:
        chosen = replace(mirror, trust=TRUSTED[trust] if trust else mirror.trust)
        after = before.with_first(fields_of(chosen))
    return _written(settings, before, after, name)


def add(settings: Settings, fields: Fields) -> Changed:
    """Add a mirror to the user's file, behind those that stand there.

    Raises:
        BadConfig: a field is wrong, or the file is laid out in a way that is not edited.
        UsageError: there is a mirror of that name or address.
    """
    mirror = mirror_of(fields)
    before = _own_text(settings)
    app = wire(_readable(settings))
    for other in app.mirrors.mirrors:
        if other.name == mirror.name:
            raise UsageError(f"there is a mirror {other.name} already: {other.url}", hint="choose another name")
        if (other.url, other.hub) == (mirror.url, mirror.hub):
            hint = f"hubcache mirror use {other.name}"
            raise UsageError(f"{other.url} is the mirror {other.name} already", hint=hint)
    return _written(settings, before, before.with_last(fields), mirror.name)


def remove(settings: Settings, name: str) -> Changed:
    """Take a mirror out of the user's file; a shipped one that it replaced counts again.

    Raises:
        UsageError: it is not in that file.
        BadConfig: the file is laid out in a way that is not edited.
    """
    before = _own_text(settings)
    own = {mirror.name: mirror for mirror in before.content.mirrors}
    if name in own:
        return _written(settings, before, before.without(name), name)
    app = wire(_readable(settings))
    known = {mirror.name: mirror for mirror in app.mirrors.mirrors}
    mirror = known[name] if name in known else _no_such(name, known)
    if mirror.is_shipped:
        raise UsageError(
            f"{name} came with hubcache and cannot be removed",
            hint="put another before it: hubcache mirror use NAME",
        )
    raise UsageError(f"{name} is not yours to remove: it stands in {settings.project_mirrors}")


def _no_such(name: str, known: Mapping[str, Mirror]) -> Mirror:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
    raise UsageError(f"no mirror is called {name!r}", hint=hint)


def _told_by(settings: Settings, mirror: Mirror) -> str:
    """Tell who named a mirror: the variable that chose it, the user's file, the project's, or nobody here (shipped)."""
    variable, _ = ENDPOINTS.get(mirror.hub, ("", ""))
    chosen = {"huggingface": settings.endpoint, "sparsezoo": settings.zoo_api}.get(mirror.hub)
    if mirror.name == variable or (settings.environ.get(variable) and mirror.url == chosen):
        return variable
    if mirror.is_shipped:
        return "shipped"
    return "user" if settings.mirrors_file and mirror in read_file(settings.mirrors_file).mirrors else "project"


def _own_text(settings: Settings) -> MirrorsText:
    """Read the user's file as it is written, line ends and all; one that is not there yet is empty."""
    path = settings.own_mirrors_file
    if path is None:
        raise BadConfig("there is no place for a mirrors.yaml of your own", hint="export HUBCACHE_MIRRORS=FILE")
    path = path.resolve()  # a link to it is left alone
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}") from error
    return MirrorsText(path, text or HEADER)


def _readable(settings: Settings) -> Settings:
    """Return settings that read the user's file only where it is."""
    path = settings.own_mirrors_file
    return replace(settings, mirrors_file=path if path and path.exists() else None)


def _written(settings: Settings, before: MirrorsText, after: MirrorsText, name: str) -> Changed:
    """Write the user's file where it changed, and look at what it means."""
    if after != before:
        mode = stat.S_IMODE(after.path.stat().st_mode) if after.path.exists() else None
        write_atomically(after.path, after.text.encode(), scratch=after.path.parent, mode=mode)
    both = [*after.content.mirrors, *before.content.mirrors]
    mirror = next(each for each in both if each.name == name)
    app = wire(_readable(settings))
    first = next(iter(app.mirrors_of(mirror.hub)), None)
    return Changed(after.path, mirror, first, _told_by(app.settings, first) if first else "")
