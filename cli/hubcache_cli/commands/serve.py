"""`hubcache serve`: the cache as a Hub for every client that knows HF_ENDPOINT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hubcache.app.compose import compose
from hubcache.app.records import open_index
from hubcache.app.serving import Place, upstream_of
from hubcache.errors import UsageError
from hubcache_cli.options import CacheDir, make_settings
from hubcache_cli.output import note

if TYPE_CHECKING:
    from hubcache.core.ports import Source

PORT = 8090


def run(
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = PORT,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no upstream: what is here is all there is.")] = False,
    names: Annotated[
        list[str] | None, typer.Option("--name", metavar="HOST", help="A host name that leads here; can be repeated.")
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option("--origin", metavar="URL", help="A web page's origin that may read everything; *: every one."),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Serve this cache to whatever speaks to huggingface.co: set HF_ENDPOINT to the address that is printed.

    What is not here comes from the mirrors that are configured, once, verified, and stays. Gated and private repos
    go to nobody unless a rule in mirrors.yaml grants them.
    """
    try:
        from hubcache.server.app import FrontSettings
        from hubcache.server.run import Served, build_app, serve
    except ModuleNotFoundError as error:
        raise UsageError(f"serving needs {error.name}", hint="pip install 'hubcache[serve]'") from error
    settings = make_settings(cache_dir)
    settings = replace(settings, offline=settings.offline or offline)
    app = compose(settings)
    front = FrontSettings(tuple(names or ()), tuple(origins or ()), "offline" if settings.offline else "pull-through")
    place = Place(host, port, front.names, front.instance)
    upstream: Source | None = upstream_of(settings, place, notify=note)
    served = Served(app.cache, open_index(settings), app.mirrors.serve, upstream)
    note(f"serving {app.cache.root}, {front.mode}" + _reach(host))
    serve(build_app(served, front, note), host, port, announce=lambda endpoint: print(endpoint, flush=True))


def _reach(host: str) -> str:
    """Say who can reach it, where that is not this machine alone."""
    is_local = host in {"127.0.0.1", "localhost", "::1"}
    return "" if is_local else f"; whoever reaches {host} can read it, and there is no password"
