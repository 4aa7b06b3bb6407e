"""One large file from an origin that limits every connection: hubcache pull, aria2c and hf download.

The limit is the server's, and stands for a CDN's; aria2c gets the CDN's address and verifies nothing.
hf download reads over one connection, so its time is the limit's and one run of it is enough.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.bench import measure
from tests.bench.big_file import FILE, REPO, write_random
from tests.bench.measure import HF, HUBCACHE, Contender, Run, Target

RATE_TO_ARIA2C = 0.95
RATE_TO_HF = 8.0


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Has a redirect raised instead of followed."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--size", type=int, default=1 << 30, help="bytes of the file")
    options.add_argument("--rate", type=int, default=20_000_000, help="bytes per second of each connection")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        write_random(place / "repo" / FILE, arguments.size)
        measured = measure_all(place, arguments)
    tell(arguments, measured)


def measure_all(place: Path, arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Serve the repo from a process of its own and measure all of them."""
    server = ["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO, "--rate", str(arguments.rate)]
    with measure.served(server) as endpoint:
        contenders = clients(endpoint, arguments.size)
        slow = {"hf": contenders.pop("hf")}
        measured = measure.alternate(contenders, runs=arguments.runs, place=place)
        return measured | measure.alternate(slow, runs=1, place=place)


def clients(endpoint: str, size: int) -> dict[str, Contender]:
    """Return the ways to fetch the file."""
    found: dict[str, Contender] = {
        "hubcache": lambda home: measure.fetch([HUBCACHE, "pull", REPO], home, endpoint, files=1, size=size),
        "hf": lambda home: measure.fetch([HF, "download", REPO], home, endpoint, files=1, size=size),
    }
    if shutil.which("aria2c"):
        address = cdn_address(f"{endpoint}/{REPO}/resolve/main/{FILE}")
        found["aria2c"] = lambda home: aria2c(address, home, size)
    return found


def cdn_address(url: str) -> str:
    """Return where the hub redirects a file to."""
    try:
        urllib.request.build_opener(_Unfollowed).open(url, timeout=10).close()
    except urllib.error.HTTPError as answer:
        if location := answer.headers.get("Location"):
            return str(location)
    raise measure.CommandFailed(f"{url} redirects nowhere")


def aria2c(address: str, home: Path, size: int) -> Run:
    """Run aria2c with 16 connections; it sets no room aside, as hubcache does not.

    Raises:
        CommandFailed: the file has another size.
    """
    ways = ["--no-conf", "--quiet", "--file-allocation=none", "-x16", "-s16"]
    measured = measure.run(["aria2c", *ways, "-d", str(home), "-o", FILE, address])
    if (home / FILE).stat().st_size != size:
        raise measure.CommandFailed(f"aria2c left {(home / FILE).stat().st_size} bytes, not {size}")
    return measured


def aria2c_version() -> str:
    """Return aria2c's version, "none" where there is no aria2c."""
    if not shutil.which("aria2c"):
        return "none"
    told = subprocess.run(["aria2c", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"[\d.]+", told.partition("version")[2])
    return found[0] if found else "unknown"


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line; a rate so many times another's is a wall time so many times smaller."""
    ours = measured["hubcache"]
    compared = measure.ratios(ours, measured["hf"], "hf")
    targets = {"wall_to_hf": Target(compared["wall_to_hf"], 1 / RATE_TO_HF)}
    if "aria2c" in measured:
        compared |= measure.ratios(ours, measured["aria2c"], "aria2c")
        targets["wall_to_aria2c"] = Target(compared["wall_to_aria2c"], 1 / RATE_TO_ARIA2C)
    sizes = {
        "size_bytes": arguments.size,
        "limit_bytes_per_s": arguments.rate,
        "runs": arguments.runs,
        "bytes_per_s": {
            name: round(statistics.median(arguments.size / run.wall for run in runs)) for name, runs in measured.items()
        },
        "aria2c": aria2c_version(),
    }
    measure.report("limited_origin", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
