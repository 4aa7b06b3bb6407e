"""A client's run against a mirror in each mode: pulled while the mirror is there, loaded again when all is gone.

It knows no client; their scripts stand in scripts/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import ADOPTED, OFFLINE, PULLING, Case, recorded
from tests.support.commandline import CommandLine
from tests.support.httpd import body_hex
from tests.support.loophub import LoopHub
from tests.support.serving import Served

SCRIPTS = Path(__file__).with_name("scripts")
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A repo that fills the mirror's cache where there is no upstream."""

    name: str
    kind: str = "model"
    revisions: tuple[str, ...] = ("main",)


@dataclass(frozen=True, slots=True)
class Told:
    """What a script's cases gave in one mode, with the mirror and without."""

    client: str
    mode: str
    version: str
    online: dict[str, dict[str, Any]]
    offline: dict[str, dict[str, Any]]
    wrong: list[str] = field(default_factory=list)

    def value(self, case: str) -> Any:
        """Return what a case gave from the mirror."""
        return _value(self.online, case, "from the mirror")

    def again(self, case: str) -> Any:
        """Return what a case gave with the mirror and upstream gone."""
        return _value(self.offline, case, "with the mirror gone")

    @contextmanager
    def proven(self, case: Case) -> Iterator[None]:
        """Record a case unless the block raises, or the client stored a byte that upstream does not have."""
        with recorded(case, self.mode, self.version):
            assert self.wrong == []
            yield


def _value(told: dict[str, dict[str, Any]], case: str, when: str) -> Any:
    if "error" in told[case]:
        raise AssertionError(f"{case} {when}: {told[case]['error']}")
    return told[case]["value"]


@dataclass(frozen=True, slots=True)
class Client:
    """A script under an interpreter, with a home of its own; `environ` holds for both of its runs."""

    name: str
    script: str
    home: Path
    python: str = sys.executable
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, **environ: str) -> dict[str, Any]:
        """Run it and return what it told.

        Raises:
            AssertionError: it ended otherwise than with 0; the message has its stderr.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        answer = self.home / "told.json"
        tools = f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": tools, "HOME": str(self.home), "HF_HOME": str(self.home / "hf"), **self.environ, **environ}
        variables |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        command = [self.python, str(SCRIPTS / self.script), str(answer), *arguments]
        done = subprocess.run(command, env=variables, cwd=self.home, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(answer.read_text())

    def wrong(self, hub: LoopHub) -> list[str]:
        """Name what its cache holds that upstream does not, byte for byte."""
        stored = [path for path in self.home.glob("hf/hub/*--*/snapshots/*/**/*") if path.is_file()]
        return [str(path) for path in stored if not is_upstreams(path, self.home / "hf/hub", hub)]


def is_upstreams(file: Path, cache: Path, hub: LoopHub) -> bool:
    """Tell whether a file of a snapshot has the content that its commit has upstream."""
    folder, _, commit, *parts = file.relative_to(cache).parts
    kinds, name = folder.split("--", 1)
    published = hub.files(name.replace("--", "/"), commit, kind=KINDS[kinds]).get("/".join(parts))
    return published is not None and body_hex(published.body, "sha256") == sha256(file.read_bytes()).hexdigest()


def lacks(*modules: str) -> pytest.MarkDecorator:
    """Skip what needs a client that is not installed: the tests' smallest set of packages has none."""
    missing = [module for module in modules if find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@contextmanager
def mirror(mode: str, folder: Path, hub: LoopHub, wanted: Sequence[Wanted]) -> Iterator[str]:
    """Serve in a mode and give the endpoint; in the offline ones the cache is filled first and upstream stopped."""
    if mode == PULLING:
        with Served(folder, HF_ENDPOINT=hub.endpoint) as served:
            yield served.endpoint
        return
    fill = {OFFLINE: fill_by_hubcache, ADOPTED: fill_by_huggingface_hub}[mode]
    fill(folder, hub, wanted)
    hub.stop()
    try:
        with Served(folder, "--offline") as served:
            yield served.endpoint
    finally:
        hub.start()


def fill_by_hubcache(folder: Path, hub: LoopHub, wanted: Sequence[Wanted]) -> None:
    """Pull everything with the command."""
    hubcache = CommandLine(folder, HF_ENDPOINT=hub.endpoint)
    for repo in wanted:
        for revision in repo.revisions:
            ran = hubcache("pull", repo.name, "--type", repo.kind, "--revision", revision)
            assert ran.code == 0, ran.err


def fill_by_huggingface_hub(folder: Path, hub: LoopHub, wanted: Sequence[Wanted]) -> None:
    """Pull everything with snapshot_download: a cache with nothing of ours in it."""
    pulls = [
        {"repo_id": repo.name, "repo_type": repo.kind, "revision": revision}
        for repo in wanted
        for revision in repo.revisions
    ]
    told = Client("huggingface_hub", "fill.py", folder / "filler", environ={"HF_HUB_CACHE": str(folder / "hub")}).run(
        json.dumps(pulls), HF_ENDPOINT=hub.endpoint
    )
    _value(told["cases"], "fill", "from upstream")


def told_in(mode: str, folder: Path, hub: LoopHub, client: Client, wanted: Sequence[Wanted], *arguments: str) -> Told:
    """Run a client against a mirror, then again offline with the mirror ended and upstream stopped."""
    with mirror(mode, folder / "mirror", hub, wanted) as endpoint:
        online = client.run(*arguments, HF_ENDPOINT=endpoint)
    hub.stop()
    try:
        offline = client.run(*arguments, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    finally:
        hub.start()
    return Told(client.name, mode, online["version"], online["cases"], offline["cases"], client.wrong(hub))
