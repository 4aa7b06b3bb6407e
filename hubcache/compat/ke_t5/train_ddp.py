"""KE-T5's train_ddp command line: `python -m hubcache.compat.ke_t5.train_ddp …`, alone or under torchrun.

It fetches nothing: model and data are folders or in the cache.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hubcache.compat.ke_t5.bench import Bench, make_bench, read_rows, run_command, start, tell_scores
from hubcache.compat.ke_t5.checkpoints import load_weights, read_checkpoint
from hubcache.compat.ke_t5.options import train_options
from hubcache.compat.ke_t5.places import RunFolder
from hubcache.compat.ke_t5.training import make_training
from hubcache.errors import UsageError
from hubcache.train.heads import quietly


def train(arguments: Sequence[str]) -> None:
    """Do what the flags say: train, score (--test) or write a folder for from_pretrained (--hf_path).

    Raises: UsageError, OfflineError.
    """
    options = train_options(arguments)
    task = start(options)
    folder = RunFolder.of(options.output_dir, options.model_name, options.pre_trained_model, task.name)
    resumed = resumed_from(folder, options.resume)
    # The last of the default splits is the test's, which no training needs.
    roles = {"train": options.train_split, "validation": options.valid_split, "test": options.valid_split}
    data = None if options.hf_path else read_rows(task, options.hf_data_dir, roles)
    bench = make_bench(options, data.task if data else task, options.pre_trained_model)
    if resumed is None and options.resume:
        bench.say(f"there is no checkpoint {folder.checkpoint(options.resume)}: starting anew")
    if data is None or options.test:
        if resumed is not None:
            load_weights(bench.model, read_checkpoint(resumed)["state_dict"], resumed)
        if data is None:
            write_folder(bench, folder.hf_path(options.hf_path))
            return
        encoded = bench.encoded(data.rows["validation"])
        metrics = bench.score(encoded).metrics
    else:
        encoded = bench.encoded(data.rows["validation"])
        training = make_training(bench, folder, options, bench.encoded(data.rows["train"]))
        if resumed is not None:
            training.restore(resumed)
        metrics = training.run(encoded)
    if bench.place.is_first:
        tell_scores(task, metrics, len(encoded.rows))


def resumed_from(folder: RunFolder, told: str) -> Path | None:
    """Return the checkpoint of --resume, None where `true` or `best` finds none yet. Raises: UsageError."""
    path = folder.checkpoint(told) if told else None
    if path is None or path.is_file():
        return path
    if told.lower() not in {"true", "best"}:
        raise UsageError(f"there is no checkpoint {path}", hint=f"--resume true goes on from {folder.last}")
    return None


def write_folder(bench: Bench, path: Path) -> None:
    """Write model and tokenizer for from_pretrained; the original leaves the tokenizer out."""
    if bench.place.is_first:
        with quietly():
            bench.model.save_pretrained(path)
        bench.tokenizer.save_pretrained(path)
    bench.say(f"written to {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_command(train, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
