"""Listing a large cache: hubcache ls and hf cache ls over the same folder, made on disk here; nothing is pulled."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HF, HUBCACHE, Contender, Run, Target

WALL_TO_HF = 1 / 3


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
    """Print the line with the one target."""
    ours, hf = measured["hubcache"], measured["hf"]
    compared = measure.ratios(ours, hf, "hf")
    sizes = {"repos": arguments.repos, "files": arguments.files, "runs": arguments.runs}
    targets = {"wall_to_hf": Target(compared["wall_to_hf"], WALL_TO_HF)}
    measure.report("cache_ls", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
