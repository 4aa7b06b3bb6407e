"""A checkpoint of StructBERT large's size converted, against unpacking its archive; the weights are random numbers.

Both sides hash what they write, as the cache does. The peak is the whole process's, with torch's own memory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tarfile
from pathlib import Path

from hubcache.cache.stage import CacheStage
from hubcache.convert.checkpoint import plan_conversion
from hubcache.convert.families import FAMILIES
from hubcache.core.artifact import RepoPath
from hubcache.sources.tarball import stage_archive
from tests.bench import measure
from tests.bench.measure import ROOT, Contender, Run, Target

WEIGHTS = "pytorch_model.bin"
PEAK_TO_FILE = 1.2
WALL_TO_UNPACK = 2.0


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--layers", type=int, default=24, help="layers of the model")
    options.add_argument("--hidden", type=int, default=1024, help="its width")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        step("make", str(place / "repo"), str(arguments.layers), str(arguments.hidden))
        archive = pack(place / "repo", place / "repo.tar.gz")
        contenders: dict[str, Contender] = {
            "convert": lambda folder: step("convert", str(place / "repo"), str(folder)),
            "unpack": lambda folder: step("unpack", str(archive), str(folder)),
        }
        # Untimed: compiles the modules and reads the files once.
        measure.alternate(contenders, runs=1, place=place)
        measured = measure.alternate(contenders, runs=arguments.runs, place=place)
        tell(arguments, measured, (place / "repo" / WEIGHTS).stat().st_size)


def step(name: str, *arguments: str) -> Run:
    """Run one of the functions below as a process of its own, where torch's memory counts for nobody else."""
    code = f"import sys; from tests.bench.convert_large import {name}; {name}(*sys.argv[1:])"
    return measure.run([sys.executable, "-c", code, *arguments], measure.environment(ROOT) | {"PYTHONPATH": str(ROOT)})


def make(folder: str, layers: str, hidden: str) -> None:
    """Write StructBERT as it is published, with random weights."""
    import torch

    config = {"model_type": "sbert", "num_hidden_layers": int(layers), "hidden_size": int(hidden)}
    config |= {"intermediate_size": 4 * int(hidden), "num_attention_heads": max(1, int(hidden) // 64)}
    place = Path(folder)
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    (place / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    shapes = FAMILIES["sbert"].layout(config).required
    torch.save({name: torch.randn(shape) / math.sqrt(shape[-1]) for name, shape in shapes.items()}, place / WEIGHTS)


def pack(folder: Path, archive: Path) -> Path:
    """Write the folder's files as a flat archive; random numbers do not get smaller with more patience."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, file.name)
    return archive


def unpack(archive: str, folder: str) -> None:
    """Unpack the archive as the source of tarballs does."""
    with Path(archive).open("rb") as stream:
        stage_archive(stream, ".tar.gz", CacheStage(Path(folder), lambda size: None))


def convert(repo: str, folder: str) -> None:
    """Convert the unpacked files as the cache does."""
    files = {RepoPath(file.name): file for file in Path(repo).iterdir()}
    checkpoint = plan_conversion(files, name="structbert")
    assert checkpoint is not None
    checkpoint.convert(CacheStage(Path(folder), lambda size: None).write)


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]], size: int) -> None:
    """Print the line with the two targets."""
    compared = measure.ratios(measured["convert"], measured["unpack"], "unpack")
    compared["peak_to_file"] = max(run.rss for run in measured["convert"]) / size
    targets = {
        "wall_to_unpack": Target(compared["wall_to_unpack"], WALL_TO_UNPACK),
        "peak_to_file": Target(compared["peak_to_file"], PEAK_TO_FILE),
    }
    sizes = {"size_bytes": size, "runs": arguments.runs}
    measure.report("convert_large", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
