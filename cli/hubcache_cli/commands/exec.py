"""`hubcache exec`: a command under the environment that `hubcache env` prints, offline if asked."""

from __future__ import annotations

from typing import Annotated

import typer

from hubcache.app.environment import applied, offline_variables, online_variables, without_proxies
from hubcache.errors import UsageError
from hubcache.offline.run import run_command, run_offline
from hubcache_cli.options import CacheDir, make_local_app
from hubcache_cli.output import note


def run(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The command, after --.")],
    offline: Annotated[bool, typer.Option("--offline", help="Refuse every connection beyond this machine.")] = False,
    require_enforcement: Annotated[
        bool, typer.Option("--require-enforcement", help="Run nothing where --offline cannot be enforced.")
    ] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Run a command so that it uses this cache and the mirror that is configured; its exit code is passed on.

    With --offline nothing that it or its children do gets beyond this machine, and what was tried is listed
    on stderr in the end. docs/offline.md says how, and on which systems.
    """
    if require_enforcement and not offline:
        raise UsageError("--require-enforcement says how --offline is meant", hint="hubcache exec --offline -- CMD")
    app = make_local_app(cache_dir)
    environ = app.settings.environ
    if not offline:
        code = run_command(command, applied(environ, online_variables(app.settings, app.mirrors)), notify=note)
    else:
        environ = without_proxies(applied(environ, offline_variables(app.settings)))
        code = run_offline(command, environ, require=require_enforcement, notify=note)
    raise typer.Exit(code)
