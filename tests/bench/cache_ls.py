"""Listing a large cache: hubcache ls, with its index and without, and hf cache ls over the same folder, made here."""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HF, HUBCACHE, Contender, Run, Target

COLD_TO_HF = 1 / 2
SECONDS = {20_000: 0.25, 100_000: 1.0}
"""Seconds that a listing with the index may take, by how many files there are at most."""


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=5)
    options.add_argument("--repos", type=int, default=1000, help="repos in the cache")
    options.add_argument("--files", type=int, default=20, help="files of each")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as home:
        for number in range(arguments.repos):
            make_repo(home / "hub", number, arguments.files)
        environ = measure.environment(home)
        contenders: dict[str, Contender] = {
            "hubcache": lambda _: listed([HUBCACHE, "ls"], environ, arguments.repos),
            "hubcache_without_index": lambda place: listed(
                [HUBCACHE, "ls"], environ | {"XDG_STATE_HOME": str(place / "state")}, arguments.repos
            ),
            "hf": lambda _: listed([HF, "cache", "ls"], environ, arguments.repos),
        }
        measure.alternate(contenders, runs=1, place=arguments.dir)
        measured = measure.alternate(contenders, runs=arguments.runs, place=arguments.dir)
    tell(arguments, measured)


def listed(command: list[str], environ: dict[str, str], repos: int) -> Run:
    """Run a listing.

    Raises:
        CommandFailed: it has fewer lines than there are repos.
    """
    measured = measure.run(command, environ)
    if measured.lines < repos:
        raise measure.CommandFailed(f"{' '.join(command)}: {measured.lines} lines for {repos} repos")
    return measured


def make_repo(cache: Path, number: int, files: int) -> None:
    """Write one repo as huggingface_hub lays it out: blobs, a snapshot's links, its listing, its ref."""
    folder = cache / f"models--org{number % 50}--model{number:04d}"
    commit = hashlib.sha1(b"%d" % number).hexdigest()
    snapshot = folder / "snapshots" / commit
    for place in (snapshot, folder / "blobs", folder / "trees", folder / "refs"):
        place.mkdir(parents=True)
    rows = {}
    for index in range(files):
        content = b"%d %d\n" % (number, index) * 16
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (folder / "blobs" / blob).write_bytes(content)
        (snapshot / f"file{index:02d}.json").symlink_to(f"../../blobs/{blob}")
        rows[f"file{index:02d}.json"] = {"size": len(content), "blob_id": blob}
    (folder / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": rows}))
    (folder / "refs" / "main").write_text(commit)


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line with its targets."""
    ours, cold, hf = measured["hubcache"], measured["hubcache_without_index"], measured["hf"]
    compared = measure.ratios(ours, hf, "hf") | {"cold_to_hf": measure.ratios(cold, hf, "hf")["wall_to_hf"]}
    files = arguments.repos * arguments.files
    most = next((seconds for count, seconds in SECONDS.items() if files <= count), SECONDS[100_000] * files / 100_000)
    sizes = {"repos": arguments.repos, "files": arguments.files, "runs": arguments.runs}
    wall = statistics.median(run.wall for run in ours)
    targets = {"wall": Target(wall, most), "cold_to_hf": Target(compared["cold_to_hf"], COLD_TO_HF)}
    measure.report("cache_ls", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
