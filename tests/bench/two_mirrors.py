"""One large file from two mirrors that limit every connection, and from one of them; hubcache against itself."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench import measure
from tests.bench.big_file import FILE, REPO, write_random
from tests.bench.measure import HUBCACHE, Contender, Run, Target

GAIN = 1.7


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--size", type=int, default=1 << 29, help="bytes of the file")
    options.add_argument("--rate", type=int, default=10_000_000, help="bytes per second of each connection")
    options.add_argument("--connections", type=int, default=10, help="at once to each mirror")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        write_random(place / "repo" / FILE, arguments.size)
        measured = measure_both(place, arguments)
    tell(arguments, measured)


def measure_both(place: Path, arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Serve the repo from two processes and measure pulls from both and from one."""
    server = ["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO, "--rate", str(arguments.rate)]
    with ExitStack() as stack:
        mirrors = [stack.enter_context(measure.served(server)) for _ in range(2)]

        def pull(home: Path, asked: Sequence[str]) -> Run:
            book = write_mirrors(home, asked, arguments.connections)
            return measure.fetch([HUBCACHE, "pull", REPO], home, asked[0], files=1, size=arguments.size, mirrors=book)

        contenders: dict[str, Contender] = {
            "both": lambda home: pull(home, mirrors),
            "one": lambda home: pull(home, mirrors[:1]),
        }
        return measure.alternate(contenders, runs=arguments.runs, place=place)


def write_mirrors(home: Path, urls: Sequence[str], connections: int) -> Path:
    """Write a mirrors.yaml with these mirrors in this order.

    HF_ENDPOINT has to be one of them: then the mirrors that come with hubcache are not asked.
    """
    file = home / "mirrors.yaml"
    entries = [
        f"  - {{name: mirror{at}, url: '{url}', hub: huggingface, connections: {connections}}}\n"
        for at, url in enumerate(urls)
    ]
    file.write_text("mirrors:\n" + "".join(entries))
    return file


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line with the one target."""
    compared = measure.ratios(measured["both"], measured["one"], "one")
    sizes = {
        "size_bytes": arguments.size,
        "limit_bytes_per_s": arguments.rate,
        "connections": arguments.connections,
        "runs": arguments.runs,
        "bytes_per_s": {
            name: round(statistics.median(arguments.size / run.wall for run in runs)) for name, runs in measured.items()
        },
    }
    targets = {"wall_to_one": Target(compared["wall_to_one"], 1 / GAIN)}
    measure.report("two_mirrors", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
