"""`hubcache demo`: what hubcache does, shown in under a minute without any network."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hubcache.app.settings import Settings
from hubcache.demo.run import run_demo


def run(
    keep: Annotated[Path | None, typer.Option(help="Keep the demo's cache, in the folder hub of this one.")] = None,
) -> None:
    """Pull from three kinds of source and load each offline, all on this machine.

    An embedded upstream on loopback stands for the Hugging Face Hub, the SparseZoo and an object store.
    It is stopped before the models are loaded, in processes of their own, under HF_HUB_OFFLINE=1.
    """
    environ = Settings.from_environ().environ
    if keep is not None:
        run_demo(keep.absolute(), environ, print)
        return
    with tempfile.TemporaryDirectory(prefix="hubcache-demo-") as folder:
        run_demo(Path(folder), environ, print)
