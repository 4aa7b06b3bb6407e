"""Many small files over a slow network: hubcache pull and hf download, every answer delayed; bandwidth is no limit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HF, HUBCACHE, Contender, Run, Target

REPO = "bench/many"
WALL_TO_HF = 1 / 3


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--files", type=int, default=500, help="how many")
    options.add_argument("--size", type=int, default=2000, help="bytes of each, about")
    options.add_argument("--delay-ms", type=float, default=20.0, help="added to every answer")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        write_files(place / "repo", arguments.files, arguments.size)
        measured = measure_both(place, arguments)
    tell(arguments, measured)


def write_files(folder: Path, count: int, size: int) -> None:
    """Write files in ten folders, each with bytes of its own."""
    for number in range(count):
        file = folder / f"part{number % 10}" / f"row{number:05d}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size // 2).hex().encode() + b"\n")


def measure_both(place: Path, arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Serve the repo from a process of its own and measure both clients."""
    sizes = [file.stat().st_size for file in (place / "repo").rglob("*.json")]
    count, size = len(sizes), sum(sizes)
    server = ["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO]
    with measure.served([*server, "--delay-ms", str(arguments.delay_ms)]) as endpoint:
        contenders: dict[str, Contender] = {
            "hubcache": lambda home: measure.fetch([HUBCACHE, "pull", REPO], home, endpoint, files=count, size=size),
            "hf": lambda home: measure.fetch([HF, "download", REPO], home, endpoint, files=count, size=size),
        }
        return measure.alternate(contenders, runs=arguments.runs, place=place)


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line with the one target."""
    ours, hf = measured["hubcache"], measured["hf"]
    compared = measure.ratios(ours, hf, "hf")
    sizes = {
        "files": arguments.files,
        "size_bytes": arguments.size,
        "delay_ms": arguments.delay_ms,
        "runs": arguments.runs,
    }
    targets = {"wall_to_hf": Target(compared["wall_to_hf"], WALL_TO_HF)}
    measure.report("small_files", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
