"""One large file into an empty cache: hubcache pull, hf download and curl; it measures loopback, not a network.

`hubcache pull` verifies the file's sha256 and syncs it to the disk; the other two do neither.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HF, HUBCACHE, Contender, Run, Target

REPO = "bench/large"
FILE = "model.safetensors"
STEP = 1 << 20
WALL_TO_HF = 1 / 3
CPU_TO_HF = 1 / 2
WALL_TO_CURL = 2.0
PEAK_RSS = 120 << 20


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--size", type=int, default=2 << 30, help="bytes of the file")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        write_random(place / "repo" / FILE, arguments.size)
        measured = measure_all(place, arguments.runs)
    tell(arguments, measured)


def write_random(file: Path, size: int) -> None:
    """Write a file of random bytes."""
    file.parent.mkdir(parents=True)
    with file.open("wb") as out:
        for at in range(0, size, STEP):
            out.write(os.urandom(min(STEP, size - at)))


def measure_all(place: Path, runs: int) -> dict[str, list[Run]]:
    """Serve the repo from a process of its own and measure the three."""
    with measure.served(["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO]) as endpoint:
        contenders = clients(endpoint)
        # Untimed: compiles the modules and lets the server read the file once.
        measure.alternate(contenders, runs=1, place=place)
        return measure.alternate(contenders, runs=runs, place=place)


def clients(endpoint: str) -> dict[str, Contender]:
    """Return the three ways to fetch the file; curl follows the redirect to the CDN's address."""
    url = f"{endpoint}/{REPO}/resolve/main/{FILE}"
    return {
        "hubcache": lambda home: measure.run([HUBCACHE, "pull", REPO], measure.environment(home, endpoint)),
        "hf": lambda home: measure.run([HF, "download", REPO], measure.environment(home, endpoint)),
        "curl": lambda home: measure.run(["curl", "-sSfL", "-o", str(home / FILE), url]),
    }


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line with the four targets."""
    ours, hf, curl = measured["hubcache"], measured["hf"], measured["curl"]
    ratios = {
        "wall_to_hf": measure.wall(ours) / measure.wall(hf),
        "cpu_to_hf": measure.cpu(ours) / measure.cpu(hf),
        "wall_to_curl": measure.wall(ours) / measure.wall(curl),
    }
    targets = {
        "wall_to_hf": Target(ratios["wall_to_hf"], WALL_TO_HF),
        "cpu_to_hf": Target(ratios["cpu_to_hf"], CPU_TO_HF),
        "wall_to_curl": Target(ratios["wall_to_curl"], WALL_TO_CURL),
        "peak_rss_bytes": Target(max(run.rss for run in ours), PEAK_RSS),
    }
    sizes = {
        "size_bytes": arguments.size,
        "runs": arguments.runs,
        "gb_per_s": round(statistics.median(arguments.size / run.wall for run in ours) / 1e9, 3),
    }
    measure.report("big_file", sizes, measured, ratios=ratios, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
