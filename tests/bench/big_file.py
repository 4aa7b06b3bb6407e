"""One large file into an empty cache: hubcache pull, hf download and curl; it measures loopback, not a network.

`hubcache pull` verifies the file's sha256 and syncs it to the disk; the other two do neither. The
server shares the machine's cores with whom it serves.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import time
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
        measured = measure_all(place, arguments)
    tell(arguments, measured)


def write_random(file: Path, size: int) -> None:
    """Write a file of random bytes."""
    file.parent.mkdir(parents=True)
    with file.open("wb") as out:
        for at in range(0, size, STEP):
            out.write(os.urandom(min(STEP, size - at)))


def measure_all(place: Path, arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Serve the repo from a process of its own and measure all of them."""
    with measure.served(["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO]) as endpoint:
        contenders = clients(endpoint, arguments.size)
        # Untimed: compiles the modules, and has the machine touch the memory that the timed runs get.
        measure.alternate(contenders, runs=1, place=place)
        return measure.alternate(contenders, runs=arguments.runs, place=place)


def clients(endpoint: str, size: int) -> dict[str, Contender]:
    """Return the ways to fetch the file; curl, where there is one, follows the redirect to the CDN's address."""
    url = f"{endpoint}/{REPO}/resolve/main/{FILE}"
    found: dict[str, Contender] = {
        "hubcache": lambda home: measure.fetch([HUBCACHE, "pull", REPO], home, endpoint, files=1, size=size),
        "hf": lambda home: measure.fetch([HF, "download", REPO], home, endpoint, files=1, size=size),
    }
    if shutil.which("curl"):
        found["curl"] = lambda home: measure.run(["curl", "-sSfL", "-o", str(home / FILE), url])
    return found


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line with the four targets."""
    ours, hf = measured["hubcache"], measured["hf"]
    hashing = arguments.size * sha256_seconds()
    compared = measure.ratios(ours, hf, "hf")
    compared["cpu_without_sha256_to_hf"] = (measure.cpu(ours) - hashing) / measure.cpu(hf)
    targets = {
        "wall_to_hf": Target(compared["wall_to_hf"], WALL_TO_HF),
        "cpu_to_hf": Target(compared["cpu_to_hf"], CPU_TO_HF),
        "peak_rss_bytes": Target(max(run.rss for run in ours), PEAK_RSS),
    }
    if "curl" in measured:
        compared |= measure.ratios(ours, measured["curl"], "curl")
        targets["wall_to_curl"] = Target(compared["wall_to_curl"], WALL_TO_CURL)
    sizes = {
        "size_bytes": arguments.size,
        "runs": arguments.runs,
        "sha256_cpu_s": round(hashing, 3),
        "bytes_per_s": round(statistics.median(arguments.size / run.wall for run in ours)),
    }
    measure.report("big_file", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


def sha256_seconds() -> float:
    """Measure the CPU seconds that one byte's sha256 costs here: no client that verifies can do without."""
    hasher, chunk, count = hashlib.sha256(), bytes(STEP), 64
    began = time.process_time()
    for _ in range(count):
        hasher.update(chunk)
    return (time.process_time() - began) / (count * STEP)


if __name__ == "__main__":
    main()
