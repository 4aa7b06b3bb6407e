"""Checking a large cache: hubcache verify, and as many openssl dgst -sha256 at once as there are processors.

Both read the same blobs from the page cache, each a whole process from its start to its end; hubcache verify looks at
links, refs and listings as well. openssl has each large blob for itself, the largest first, and the small ones by the
hundred, so that it pays for no more processes than it must. The blobs are made here and hold nothing of sense.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HUBCACHE, Contender, Run, Target

RATE_TO_OPENSSL = 0.9
SHARES = (30, 22, 16, 12, 9, 6, 5)
"""How the bytes are spread over the large blobs, in hundredths."""
BLOCK = 1 << 22
SMALL = 4096
BATCH = 250
COMMIT = hashlib.sha1(b"commit").hexdigest()


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=5)
    options.add_argument("--size", type=int, default=4 << 30, help="bytes of the large blobs")
    options.add_argument("--files", type=int, default=2000, help="small files, of 4 KiB at most")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as home:
        blobs = make_cache(home / "hub", arguments.size, arguments.files)
        size = sum(blob.stat().st_size for blob in blobs)
        contenders = ways(home, blobs)
        measure.alternate(contenders, runs=1, place=arguments.dir)
        measured = measure.alternate(contenders, runs=arguments.runs, place=arguments.dir)
    tell(arguments, measured, size)


def ways(home: Path, blobs: list[Path]) -> dict[str, Contender]:
    """Return both ways to hash the blobs; every check begins with an index that remembers nothing."""
    environ = measure.environment(home)
    check = [HUBCACHE, "verify"]
    found: dict[str, Contender] = {
        "hubcache": lambda place: measure.run(check, environ | {"XDG_STATE_HOME": str(place / "state")})
    }
    if shutil.which("openssl"):
        lines = home / "lines"
        lines.write_text(command_lines(blobs))
        program = f'exec xargs -P {os.cpu_count()} -L 1 openssl dgst -sha256 < "{lines}"'
        found["openssl"] = lambda _: hashed(["sh", "-c", program], environ, len(blobs))
    return found


def command_lines(blobs: list[Path]) -> str:
    """Write the arguments of each openssl on a line of its own, the largest first."""
    ordered = sorted(blobs, key=lambda blob: -blob.stat().st_size)
    large = [str(blob) for blob in ordered if blob.stat().st_size > SMALL]
    small = [str(blob) for blob in ordered[len(large) :]]
    batches = [" ".join(small[at : at + BATCH]) for at in range(0, len(small), BATCH)]
    return "".join(f"{line}\n" for line in (*large, *batches))


def hashed(command: list[str], environ: dict[str, str], files: int) -> Run:
    """Run openssl.

    Raises:
        CommandFailed: it printed fewer hashes than there are files.
    """
    measured = measure.run(command, environ)
    if measured.lines < files:
        raise measure.CommandFailed(f"{measured.lines} hashes of {files} files")
    return measured


def make_cache(cache: Path, size: int, files: int) -> list[Path]:
    """Write one repo as huggingface_hub lays it out, and return its blobs."""
    folder = cache / "models--bench--large"
    snapshot = folder / "snapshots" / COMMIT
    for place in (snapshot, folder / "blobs", folder / "trees", folder / "refs"):
        place.mkdir(parents=True)
    rows: dict[str, dict[str, object]] = {}
    blobs = []
    for number, share in enumerate(SHARES):
        name, written = write_blob(folder / "blobs" / f"part{number}", size * share // 100)
        rows[f"model-{number}.safetensors"] = {
            "size": written, "blob_id": "0" * 40, "lfs_sha256": name, "lfs_size": written,
        }  # fmt: skip
        blobs.append(folder / "blobs" / name)
    for number in range(files):
        content = b"%d\n" % number * (1 + number % (SMALL // 8))
        name = hashlib.sha1(b"blob %d\0" % len(content[:SMALL]) + content[:SMALL]).hexdigest()
        (folder / "blobs" / name).write_bytes(content[:SMALL])
        rows[f"file{number:05d}.json"] = {"size": len(content[:SMALL]), "blob_id": name}
        blobs.append(folder / "blobs" / name)
    for path, row in rows.items():
        (snapshot / path).symlink_to(f"../../blobs/{row.get('lfs_sha256', row['blob_id'])}")
    (folder / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": rows}))
    (folder / "refs" / "main").write_text(COMMIT)
    return blobs


def write_blob(scratch: Path, size: int) -> tuple[str, int]:
    """Write a blob under its sha256; return that and its size."""
    block, hasher, left = os.urandom(BLOCK), hashlib.sha256(), size
    with scratch.open("wb") as file:
        while left:
            piece = block[: min(left, BLOCK)]
            file.write(piece)
            hasher.update(piece)
            left -= len(piece)
    scratch.rename(scratch.with_name(hasher.hexdigest()))
    return hasher.hexdigest(), size


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]], size: int) -> None:
    """Print the line; a rate so many times another's is a wall time so many times smaller."""
    compared, targets = {}, {}
    if "openssl" in measured:
        compared = measure.ratios(measured["hubcache"], measured["openssl"], "openssl")
        targets["wall_to_openssl"] = Target(compared["wall_to_openssl"], 1 / RATE_TO_OPENSSL)
    sizes = {
        "size_bytes": size,
        "files": arguments.files,
        "runs": arguments.runs,
        "bytes_per_s": {
            name: round(statistics.median(size / run.wall for run in runs)) for name, runs in measured.items()
        },
    }
    measure.report("verify_cache", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
