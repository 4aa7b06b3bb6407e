"""Small answers: HEAD of a file and a revision's facts under load, and the first listing of a large repo.

Beside hubcache serve stand a bare aiohttp route, which is as fast as the library gets, and olah, which has the
revision's facts in its cache and asks upstream at every HEAD. The wall and CPU times told are those of 1,000 requests.
A listing is timed on a server that was just started, over a cache that huggingface_hub could have written; it is over
when the rows were parsed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import measure, serving
from tests.bench.big_file import FILE, REPO
from tests.bench.measure import CommandFailed, Contender, Run, Target
from tests.bench.serving import Peer
from tests.support.httpd import Body

PER_SECOND = 5000
P95_MS = 5.0
LISTED_S = 0.2
MANY = "bench/many"
FOLDER = 100  # files of each folder of the large repo


@dataclass(frozen=True, slots=True)
class Load:
    """What one run found: answers per second, and the time under which 95 of 100 stay, in milliseconds."""

    per_s: float
    p95_ms: float


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--seconds", type=float, default=4.0, help="of each run")
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--files", type=int, default=10_000, help="of the repo that is listed")
    options.add_argument("--no-olah", action="store_true", help="leave olah out, which has to be installed")
    arguments = options.parse_args()
    loads: dict[str, list[Load]] = {}
    with measure.scratch(arguments.dir) as place:
        write_repos(place, arguments.files)
        measured = measure_loads(place, arguments, loads)
        listing: dict[str, Contender] = {"listing": lambda _: listed(place, arguments.files)}
        measured |= measure.alternate(listing, runs=arguments.runs, place=place)
    tell(arguments, measured, loads)


def write_repos(place: Path, files: int) -> None:
    """Lay out the small repo that is asked about, and one of many files."""
    (place / "repo").mkdir()
    (place / "repo" / FILE).write_bytes(bytes(1 << 16))
    (place / "repo" / "config.json").write_text("{}")
    serving.lay_out_folder(place / "hub", REPO, place / "repo")
    many: dict[str, Body] = {f"part{at // FOLDER:03d}/file{at:05d}.json": b"%d\n" % at for at in range(files)}
    serving.lay_out(place / "hub", MANY, many)


def measure_loads(place: Path, arguments: argparse.Namespace, loads: dict[str, list[Load]]) -> dict[str, list[Run]]:
    """Start the servers and let them take turns under load, the first turn unmeasured."""
    with ExitStack() as stack:
        ours = stack.enter_context(serving.hubcache(place))
        bare = stack.enter_context(serving.bare(place / "repo"))
        asked = questions("hubcache", ours) | {"aiohttp_get": (bare, "GET", "/words")}
        if not arguments.no_olah:
            command = ["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO]
            upstream = stack.enter_context(measure.served(command))
            large = f"/{REPO}/resolve/main/{FILE}"
            asked |= questions("olah", stack.enter_context(serving.olah(place / "olah", upstream, large)))

        def contender(name: str) -> Contender:
            return lambda _: loaded(*asked[name], arguments, loads.setdefault(name, []))

        contenders = {name: contender(name) for name in asked}
        measure.alternate(contenders, runs=1, place=place)
        loads.clear()
        return measure.alternate(contenders, runs=arguments.runs, place=place)


def questions(name: str, peer: Peer) -> dict[str, tuple[Peer, str, str]]:
    """Return what a hub is asked."""
    return {
        f"{name}_head": (peer, "HEAD", f"/{REPO}/resolve/main/{FILE}"),
        f"{name}_revision": (peer, "GET", f"/api/models/{REPO}/revision/main"),
    }


def loaded(peer: Peer, method: str, target: str, arguments: argparse.Namespace, loads: list[Load]) -> Run:
    """Ask a server for some seconds.

    Raises:
        CommandFailed: an answer was no 200.
    """
    command = [sys.executable, "-m", "tests.bench.ask", peer.endpoint + target, "--method", method]
    command += ["--connections", str(arguments.connections), "--seconds", str(arguments.seconds)]
    before = peer.cpu
    done = subprocess.run(command, cwd=measure.ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise CommandFailed(f"{method} {target}: {done.stderr}")
    told = json.loads(done.stdout)
    loads.append(Load(told["answers"] / told["seconds"], told["p95_ms"]))
    used, thousands = serving.cost(peer, before, told["seconds"]), told["answers"] / 1000
    return replace(used, wall=used.wall / thousands, cpu=used.cpu / thousands)


def listed(place: Path, files: int) -> Run:
    """Start a server and list the large repo.

    Raises:
        CommandFailed: files are missing.
    """
    with serving.hubcache(place) as peer:
        before, began = peer.cpu, time.perf_counter()
        with urllib.request.urlopen(
            f"{peer.endpoint}/api/models/{MANY}/tree/main?recursive=true", timeout=60
        ) as answer:
            rows = json.load(answer)
        wall = time.perf_counter() - began
        found = sum(row["type"] == "file" for row in rows)
        if found != files:
            raise CommandFailed(f"{found} files are listed, not {files}")
        return serving.cost(peer, before, wall)


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]], loads: Mapping[str, list[Load]]) -> None:
    """Print the line; at least so many a second is at most so many microseconds for each."""
    per_s = {name: statistics.median(load.per_s for load in those) for name, those in loads.items()}
    p95 = {name: statistics.median(load.p95_ms for load in those) for name, those in loads.items()}
    compared = {
        f"{name}_rate_to_{other}": per_s[f"hubcache_{name}"] / per_s[peer]
        for name in ("head", "revision")
        for other, peer in (("aiohttp", "aiohttp_get"), ("olah", f"olah_{name}"))
        if peer in per_s
    }
    sizes = {
        "connections": arguments.connections,
        "files": arguments.files,
        "runs": arguments.runs,
        "per_s": {name: round(rate) for name, rate in per_s.items()},
        "p95_ms": {name: round(ms, 2) for name, ms in p95.items()},
    }
    targets = {
        f"{name}_{what}": target
        for name in ("head", "revision")
        for what, target in (
            ("us_each", Target(1e6 / per_s[f"hubcache_{name}"], 1e6 / PER_SECOND)),
            ("p95_ms", Target(p95[f"hubcache_{name}"], P95_MS)),
        )
    }
    targets["listing_s"] = Target(measure.wall(measured["listing"]), LISTED_S)
    measure.report("serve_metadata", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
