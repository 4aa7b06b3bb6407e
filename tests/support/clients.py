"""The table of clients that `hubcache serve` was run with, docs/clients.md, made of what passed.

It runs no client: the tests do, and record what they saw.

    python -m tests.support.clients write     after a run of every client's tests
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "clients.md"
OFFLINE = "offline"
ADOPTED = "offline, cache by huggingface_hub"
PULLING = "pull-through"
MODES = (OFFLINE, ADOPTED, PULLING)
HEAD = """\
# Clients

Each client is unmodified and runs in a process of its own, told of nothing but the mirror's address. It pulls from
`hubcache serve`, what it stored is compared with upstream's bytes, and where it keeps a cache it loads the same again
with the mirror and upstream gone. Three ways of serving: `offline` from a cache that `hubcache pull` filled, `offline`
from one that huggingface_hub filled, and `pull-through` from an empty cache with an upstream behind it.

`python -m tests.support.clients write` made this table of what passed when it was last run.

"""


@dataclass(frozen=True, slots=True, order=True)
class Case:
    """One thing that one client does, and the modes that it is run in.

    A module of tests lists its cases in CASES.
    """

    client: str
    did: str
    modes: tuple[str, ...] = (OFFLINE, PULLING)


@dataclass(frozen=True, slots=True)
class Passed:
    """A case that passed in a mode, and the client's version."""

    client: str
    did: str
    mode: str
    version: str


def cache_folder(name: str) -> Path:
    """Return a folder that stays between runs, outside the checkout; HUBCACHE_TESTS_CACHE moves it."""
    base = os.environ.get("HUBCACHE_TESTS_CACHE") or Path.home() / ".cache" / "hubcache-tests"
    return Path(base) / name


@contextmanager
def recorded(case: Case, mode: str, version: str) -> Iterator[None]:
    """Record that a case passed, unless the block raises: then what an earlier run recorded is gone too."""
    assert mode in case.modes, f"{case} is not listed for {mode}"
    file = cache_folder("clients") / f"{sha256(repr((case.client, case.did, mode)).encode()).hexdigest()[:16]}.json"
    file.unlink(missing_ok=True)
    yield
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"client": case.client, "did": case.did, "mode": mode, "version": version}))
    draft.replace(file)


def passed() -> list[Passed]:
    """Read what has passed so far."""
    return [Passed(**json.loads(file.read_text())) for file in sorted(cache_folder("clients").glob("*.json"))]


def suite() -> list[Case]:
    """Return every case of every module of tests that lists some."""
    files = [*ROOT.glob("tests/clients/test_*.py"), *ROOT.glob("tests/test_clients_*.py")]
    names = sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return [case for name in names for case in getattr(import_module(name), "CASES", [])]


def names(cases: Iterable[Case]) -> set[tuple[str, str, str]]:
    """Return client, what it did and mode of each case."""
    return {(case.client, case.did, mode) for case in cases for mode in case.modes}


def render(cases: Iterable[Case], results: Iterable[Passed]) -> str:
    """Return the table as Markdown, a row a case in the order of the suite.

    Raises:
        LookupError: a case has not passed in one of its modes.
    """
    versions = {(one.client, one.did, one.mode): one.version for one in results}
    cases = list(cases)
    if missing := sorted(names(cases) - versions.keys()):
        raise LookupError("not passed: " + "; ".join(" / ".join(name) for name in missing))
    lines = [_row(("client", "version", "what it did", *MODES)), _row(["---"] * (3 + len(MODES)))]
    for case in sorted(cases, key=lambda case: case.client.lower()):
        version = versions[case.client, case.did, case.modes[0]]
        marks = ["yes" if mode in case.modes else "" for mode in MODES]
        lines.append(_row((case.client, version, case.did, *marks)))
    return HEAD + "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def parse(text: str) -> set[tuple[str, str, str]]:
    """Return what a rendered table names: client, what it did and mode."""
    found = set()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] not in ("client", "---"):
            client, _, did, *marks = cells
            found |= {(client, did, mode) for mode, mark in zip(MODES, marks, strict=True) if mark}
    return found


def main() -> int:
    """Write docs/clients.md of what passed; exit code 1 where a case did not pass, 2 for wrong arguments."""
    if sys.argv[1:] != ["write"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        TABLE.write_text(render(suite(), passed()))
    except LookupError as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
