"""KE-T5's test_ddp command line: `python -m hubcache.compat.ke_t5.test_ddp …`, alone or under torchrun.

It trains nothing, and it is no module of tests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hubcache.compat.ke_t5.bench import Bench, make_bench, read_rows, run_command, start, tell_scores
from hubcache.compat.ke_t5.bindings import EvaluationHelper
from hubcache.compat.ke_t5.checkpoints import load_weights, read_checkpoint
from hubcache.compat.ke_t5.options import DEFAULT_WEIGHTS, test_options
from hubcache.compat.ke_t5.places import RunFolder, only_run
from hubcache.errors import UsageError
from hubcache.train.evaluate import PREDICTIONS, write_predictions
from hubcache.train.scoring import Scored


def score(arguments: Sequence[str]) -> None:
    """Score what the flags say; predictions.jsonl is in the run's folder, the figures are on stdout.

    Without --pre_trained_model it is that of the one run of this class on this task, which its checkpoint tells (the
    original looks for one of ke-t5-small). Raises: UsageError, OfflineError.
    """
    options = test_options(arguments)
    task = start(options)
    helper = EvaluationHelper()
    options.notes += helper.notes
    generation = helper.generation(task.generation)
    roles = dict.fromkeys(("train", "validation", "test"), options.test_split)
    data = read_rows(task, options.hf_data_dir, roles)
    weights = options.pre_trained_model
    folder = RunFolder.of(options.output_dir, options.model_name, weights or DEFAULT_WEIGHTS, task.name)
    if options.resume.lower() in {"true", "best"} and not weights:
        folder = only_run(options.output_dir, options.model_name, task.name)
    if options.hf_path:
        bench = make_bench(options, data.task, str(folder.hf_path(options.hf_path)))
    elif options.resume:
        path = folder.checkpoint(options.resume)
        if not path.is_file():
            raise UsageError(f"there is no checkpoint {path}", hint="train first, or name one: --resume FILE")
        told = read_checkpoint(path)
        bench = make_bench(options, data.task, weights or str(told.get("pre_trained_model") or DEFAULT_WEIGHTS))
        load_weights(bench.model, told["state_dict"], path)
    else:
        bench = make_bench(options, data.task, weights or DEFAULT_WEIGHTS)
    _tell(bench, folder.path, bench.score(bench.encoded(data.rows["test"]), generation))


def _tell(bench: Bench, folder: Path, scored: Scored) -> None:
    if not bench.place.is_first:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / PREDICTIONS, scored.rows)
    tell_scores(bench.task, scored.metrics, len(scored.rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_command(score, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
