"""Options that several commands share, and the App they are run against; a command pays only for the parts it uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hubcache.app.settings import Settings
from hubcache.cache.scan import scan_repos
from hubcache.core.artifact import KINDS, Kind
from hubcache.errors import UsageError

if TYPE_CHECKING:
    from hubcache.app.compose import App
    from hubcache.app.local import LocalApp


def make_settings(cache_dir: Path | None) -> Settings:
    """Read the environment; `--cache-dir` has the last word on the cache."""
    settings = Settings.from_environ()
    return settings if cache_dir is None else replace(settings, hub_cache=cache_dir.absolute())


def make_app(cache_dir: Path | None) -> App:
    """Wire all the parts from the environment."""
    from hubcache.app.compose import compose  # the HTTP client costs 60 ms

    return compose(make_settings(cache_dir))


def make_local_app(cache_dir: Path | None) -> LocalApp:
    """Wire the parts that need no network from the environment."""
    from hubcache.app.local import compose_local

    return compose_local(make_settings(cache_dir))


def parse_kind(text: str | None) -> Kind | None:
    """Read `--type`.

    Raises:
        UsageError: no such type.
    """
    if text is None or text in KINDS:
        return next((kind for kind in KINDS if kind == text), None)
    raise UsageError(f"no such type: {text!r}", hint=f"--type {'|'.join(KINDS)}")


def complete_cached(incomplete: str) -> list[str]:
    """Complete a reference from what is cached."""
    names = (str(folder.repo) for folder in scan_repos(Settings.from_environ().hub_cache))
    return [name for name in names if name.startswith(incomplete)]


CacheDir = Annotated[Path | None, typer.Option("--cache-dir", help="The cache to use instead of HF_HUB_CACHE.")]
TypeOption = Annotated[str | None, typer.Option("--type", help="What a bare name is: model, dataset or space.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with sizes in bytes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the result and errors.")]
Portable = Annotated[bool, typer.Option("--portable", help="Put the modelling code into what is converted.")]
CachedReference = Annotated[
    str, typer.Argument(metavar="REF", help="A cached reference.", autocompletion=complete_cached)
]
