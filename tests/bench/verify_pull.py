"""What verifying adds to a pull: the same pull of one large file with its hashing and without, from a loopback hub.

Once behind a line of a fixed rate, which the target is for, and once without a limit, where two cores have the server,
the pull and its hashing to share. pull_as.py takes the hashing away, for this measurement alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import measure
from tests.bench.big_file import FILE, REPO, write_random
from tests.bench.measure import ROOT, Contender, Run, Target

WALL_TO_UNVERIFIED = 1.05


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--size", type=int, default=1 << 30, help="bytes of the file")
    options.add_argument("--rate", type=int, default=100_000_000, help="bytes per second of the line")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        write_random(place / "repo" / FILE, arguments.size)
        line = ["tests.bench.line", "--repo", REPO, str(place / "repo"), "--rate", str(arguments.rate)]
        limited = measure_both([*line, "--tally", str(place / "tally")], "", place, arguments)
        bare = ["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO]
        unlimited = measure_both(bare, "_unlimited", place, arguments)
    tell(arguments, limited | unlimited)


def measure_both(server: list[str], suffix: str, place: Path, arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Measure pulls with and without verifying in turns, from a server of its own."""
    with measure.served(server) as endpoint:
        contenders: dict[str, Contender] = {
            how + suffix: lambda home, how=how: pull(how, home, endpoint, arguments.size)  # type: ignore[misc]
            for how in ("verified", "unverified")
        }
        measure.alternate(contenders, runs=1, place=place)
        return measure.alternate(contenders, runs=arguments.runs, place=place)


def pull(how: str, home: Path, endpoint: str, size: int) -> Run:
    """Pull the file into an empty cache.

    Raises:
        CommandFailed: it is not there with its size.
    """
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench.pull_as", how, "pull", REPO]
    return measure.fetch(command, home, endpoint, files=1, size=size)


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line; without a limit it is told, and has no target."""
    compared = {
        f"{kind}_to_unverified{suffix}": ratio
        for suffix in ("", "_unlimited")
        for kind, ratio in (
            ("wall", measure.wall(measured[f"verified{suffix}"]) / measure.wall(measured[f"unverified{suffix}"])),
            ("cpu", measure.cpu(measured[f"verified{suffix}"]) / measure.cpu(measured[f"unverified{suffix}"])),
        )
    }
    targets = {"wall_to_unverified": Target(compared["wall_to_unverified"], WALL_TO_UNVERIFIED)}
    sizes = {"size_bytes": arguments.size, "line_bytes_per_s": arguments.rate, "runs": arguments.runs}
    measure.report("verify_pull", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
