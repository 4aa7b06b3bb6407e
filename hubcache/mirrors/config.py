"""mirrors.yaml as values: endpoints by hub, and the catalogue of short names; it asks no mirror anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from hubcache.errors import BadConfig

HUBS = ("huggingface", "sparsezoo", "http")
MIRROR_KEYS = ("name", "url", "hub", "token")
TOP_KEYS = ("mirrors", "catalogue")


@dataclass(frozen=True, slots=True)
class Mirror:
    """One endpoint; `token` names the environment variable whose value goes to its origin."""

    name: str
    url: str
    hub: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class MirrorsConfig:
    """The mirrors in the order in which they are asked, and the catalogue."""

    mirrors: tuple[Mirror, ...] = ()
    catalogue: Mapping[str, str] = field(default_factory=dict)

    def of(self, hub: str) -> tuple[Mirror, ...]:
        """List the mirrors of one hub."""
        return tuple(mirror for mirror in self.mirrors if mirror.hub == hub)


def shipped_path() -> Path:
    """Find the defaults: beside this file in an installed wheel, at the top of a checkout."""
    installed = Path(__file__).with_name("mirrors.yaml")
    return installed if installed.exists() else Path(__file__).parents[2] / "mirrors.yaml"


def load(paths: Iterable[Path]) -> MirrorsConfig:
    """Read the shipped file and lay each file of `paths` over what came before.

    A mirror replaces the one of the same name, a new one comes first; a catalogue entry replaces
    the one of the same short name.

    Raises:
        BadConfig: a file that cannot be read, with its name, the wrong key and the nearest right one.
    """
    mirrors: dict[str, Mirror] = {}
    catalogue: dict[str, str] = {}
    for path in (shipped_path(), *paths):
        content = _read(path)
        ours = {mirror.name: mirror for mirror in _mirrors(content, path)}
        mirrors = {name: ours.get(name, mirror) for name, mirror in mirrors.items()}
        mirrors = {**{name: mirror for name, mirror in ours.items() if name not in mirrors}, **mirrors}
        catalogue |= _catalogue(content, path)
    return MirrorsConfig(tuple(mirrors.values()), catalogue)


def _read(path: Path) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506  # a safe loader either way
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise BadConfig(f"{path}: not YAML: {error}") from error
    if content is None:
        return {}
    return _checked(content, TOP_KEYS, path, "the file")


def _checked(content: object, keys: tuple[str, ...], path: Path, what: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise BadConfig(f"{path}: {what} is no mapping of {', '.join(keys)}")
    for key in content:
        if key not in keys:
            near = get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(keys)}"
            raise BadConfig(f"{path}: {what} has the unknown key {key!r}", hint=hint)
    return content


def _mirrors(content: Mapping[str, Any], path: Path) -> list[Mirror]:
    rows = content.get("mirrors") or []
    if not isinstance(rows, list):
        raise BadConfig(f"{path}: mirrors is no list")
    return [_mirror(row, path) for row in rows]


def _mirror(row: object, path: Path) -> Mirror:
    fields = _checked(row, MIRROR_KEYS, path, "a mirror")
    for key in ("name", "url", "hub"):
        if not isinstance(fields.get(key), str):
            raise BadConfig(f"{path}: a mirror has no {key}: {dict(fields)}")
    if fields["hub"] not in HUBS:
        raise BadConfig(f"{path}: {fields['name']}: no such hub: {fields['hub']!r}", hint=f"one of: {', '.join(HUBS)}")
    if not fields["url"].startswith(("http://", "https://")):
        raise BadConfig(f"{path}: {fields['name']}: not an http or https URL: {fields['url']!r}")
    return Mirror(fields["name"], fields["url"].rstrip("/"), fields["hub"], fields.get("token"))


def _catalogue(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    rows = content.get("catalogue") or {}
    if not isinstance(rows, dict) or not all(isinstance(text, str) for pair in rows.items() for text in pair):
        raise BadConfig(f"{path}: catalogue is no mapping of short names to references")
    return rows
