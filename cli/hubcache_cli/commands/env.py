"""`hubcache env`: what makes other tools use this cache or mirror, for a shell to take over."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from hubcache.app.environment import SHELLS, offline_variables, online_variables, script
from hubcache_cli.options import AsJson, CacheDir, make_local_app
from hubcache_cli.output import print_json

_BY_PROGRAM = {"pwsh": "powershell"}


def run(
    shell: Annotated[
        Literal["bash", "zsh", "fish", "powershell", "cmd"] | None, typer.Option(help="For which shell; by $SHELL.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="The cache alone, and no request.")] = False,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """Print what makes any Hugging Face tool use this cache and the mirror that is configured.

    In sh, bash and zsh: eval "$(hubcache env)". How other shells take it over stands in the first line of
    what is printed for them. A token is never printed, only the name of the variable that holds it.
    """
    app = make_local_app(cache_dir)
    variables = offline_variables(app.settings) if offline else online_variables(app.settings, app.mirrors)
    if as_json:
        print_json([
            {"name": each.name, "value": None if each.copied_from else each.value,
             "copied_from": each.copied_from, "why": each.why}
            for each in variables
        ])  # fmt: skip
        return
    guessed = _BY_PROGRAM.get(app.settings.shell, app.settings.shell)
    text = script(variables, shell or (guessed if guessed in SHELLS else "bash"))
    # A path may hold bytes that are no text; the shell gets them as they are.
    sys.stdout.buffer.write(os.fsencode(text))
