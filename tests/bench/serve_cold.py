"""Many clients on one file that is not here yet, behind a line of a fixed rate, beside one download without a server.

The line decides how long it takes, not the two cores that all share; its rate is in the output. What the line sent is
counted where it is sent, and the first byte's way is timed by one clock from there to the clients.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

from tests.bench import measure, serving
from tests.bench.big_file import FILE, REPO, write_random
from tests.bench.limited_origin import cdn_address
from tests.bench.line import Tally, tally
from tests.bench.measure import Contender, Run, Target
from tests.bench.serve_warm import digest_of
from tests.bench.serving import Taken

SENT_OF_SIZE = 1.005  # 1.00 to two digits
FIRST_BYTE_S = 0.1
WALL_TO_DIRECT = 1.15


@dataclass(frozen=True, slots=True)
class Cold:
    """What one cold run took: the line's tally and the seconds until the first and the last client had a byte."""

    line: Tally
    first: float
    last_first: float


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=1)
    options.add_argument("--size", type=int, default=1 << 30, help="bytes of the file")
    options.add_argument("--rate", type=int, default=25_000_000, help="bytes per second of the line")
    options.add_argument("--clients", type=int, default=64)
    arguments = options.parse_args()
    seen: dict[str, list[Cold]] = {"direct": [], "hubcache": []}
    with measure.scratch(arguments.dir) as place:
        repo = place / "repo"
        write_random(repo / FILE, arguments.size)
        digest = digest_of(repo / FILE)
        contenders: dict[str, Contender] = {
            "direct": lambda folder: direct(folder, repo, arguments, seen["direct"]),
            "hubcache": lambda folder: through(folder, repo, arguments, seen["hubcache"], digest),
        }
        measured = measure.alternate(contenders, runs=arguments.runs, place=place)
    tell(arguments, measured, seen)


def line_command(folder: Path, repo: Path, rate: int) -> list[str]:
    """Return the command of a hub behind a new line."""
    return ["tests.bench.line", "--repo", REPO, str(repo), "--rate", str(rate), "--tally", str(folder / "tally")]


def direct(folder: Path, repo: Path, arguments: argparse.Namespace, seen: list[Cold]) -> Run:
    """Download the file once from the hub's CDN; there is no server, so CPU time and memory are the client's."""
    with measure.served(line_command(folder, repo, arguments.rate)) as endpoint:
        taken = serving.drain([cdn_address(f"{endpoint}/{REPO}/resolve/main/{FILE}")])
    seen.append(cold(tally(folder / "tally"), serving.whole(taken, arguments.size)))
    return Run(taken.wall, taken.cpu, taken.rss, 0)


def through(folder: Path, repo: Path, arguments: argparse.Namespace, seen: list[Cold], digest: str) -> Run:
    """Have all clients ask a server with an empty cache at once.

    Raises:
        CommandFailed: a client did not get the whole file, or the cache has not got it.
    """
    line = line_command(folder, repo, arguments.rate)
    with measure.served(line) as endpoint, serving.hubcache(folder, endpoint) as peer:
        url = f"{peer.endpoint}/{REPO}/resolve/main/{FILE}"
        before = peer.cpu
        taken = serving.drain([url], clients=arguments.clients)
        used = serving.cost(peer, before, taken.wall)
        serving.check_served(url, arguments.size, digest)
    seen.append(cold(tally(folder / "tally"), serving.whole(taken, arguments.size * arguments.clients)))
    return used


def cold(line: Tally, taken: Taken) -> Cold:
    """Return how long after the line's first byte the clients had theirs."""
    lags = sorted(client.first - line.began for client in taken.clients)
    return Cold(line, lags[0], lags[-1])


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]], seen: dict[str, list[Cold]]) -> None:
    """Print the line; every client counts, so the first byte's target is the last client's."""
    compared = {"wall_to_direct": measure.wall(measured["hubcache"]) / measure.wall(measured["direct"])}
    last_first = statistics.median(each.last_first for each in seen["hubcache"])
    sizes = {
        "size_bytes": arguments.size,
        "line_bytes_per_s": arguments.rate,
        "clients": arguments.clients,
        "runs": arguments.runs,
        "sent_bytes": {name: [each.line.sent for each in those] for name, those in seen.items()},
        "upstream_bodies": {name: [each.line.bodies for each in those] for name, those in seen.items()},
        "first_byte_s": {
            name: [[round(each.first, 4), round(each.last_first, 4)] for each in those] for name, those in seen.items()
        },
    }
    targets = {
        "sent_of_size": Target(max(each.line.sent for each in seen["hubcache"]) / arguments.size, SENT_OF_SIZE),
        "first_byte_s": Target(last_first, FIRST_BYTE_S),
        "wall_to_direct": Target(compared["wall_to_direct"], WALL_TO_DIRECT),
    }
    measure.report("serve_cold", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
