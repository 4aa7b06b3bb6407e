"""SOFA's finetune_with_huggingface.py: `python -m hubcache.compat.sofa.examples.finetune …`, with the script's flags.

It fetches nothing; new scripts use `hubcache finetune`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import HfArgumentParser, TrainingArguments

from hubcache.compat.sofa.examples import run_classification_hf, run_generation_hf, run_sequence_labeling_hf
from hubcache.compat.sofa.rows import TEXT, Row
from hubcache.compat.sofa.training import ARGUMENTS, OLD_ARGUMENTS
from hubcache.errors import HubcacheError, UsageError

COLUMNS = {"qnli": ("question", "sentence"), "qqp": ("question1", "question2")}
"""The columns of the pairs that are not called premise and hypothesis, by configuration."""

LABELLING = ("token_classification", "sequence_labeling")
NUMBERS = {"per_gpu_eval_batch_size": int, "per_gpu_train_batch_size": int, "warmup_ratio": float}
SWITCHES = frozenset({"do_train", "do_eval", "do_predict"})
"""What the scripts say and their functions do not read."""

_NOT_GIVEN = object()


def told(default: Any, about: str) -> Any:
    """Describe a flag: its default and what it is."""
    return field(default=default, metadata={"help": about})


@dataclass(frozen=True)
class ScriptArguments:
    """The script's own flags; the others are training arguments, of transformers 4 or 5.

    The reference reads `max_sequence_length` and the three columns and uses none of them.
    """

    pretrain_model_path: str = told("", "a folder, or a cached repo")
    task_type: str = told(
        "single_label_classification", "as run_classification_hf has, token_classification, generation"
    )
    train_file_path: str | None = told(None, "a file, or a folder of files")
    dev_file_path: str | None = told(None, "a file, or a folder of files")
    max_sequence_length: int = told(128, "tokens of an input")
    pair: int = told(0, "1: two texts")
    text_a_idx: int = told(0, "in lines of text, the number of the first text's column, from 0")
    text_b_idx: int = told(1, "the number of the second text's column")
    label_idx: int = told(-1, "the number of the label's column, -1: the last")
    model_args: str | None = told(None, "JSON, laid over the model's configuration")
    dataset_name: str = told(TEXT, "text (tabs between columns), csv, json, parquet, or a data set that is cached")
    cache_dir: str = told(".cache", "the cache of `datasets`")
    train_dataset_config: str | None = told(None, "configurations of the data set, split at commas")
    eval_dataset_config: str | None = told(None, "configurations of the data set, split at commas")
    label_enumerate_values: str | None = told(None, "the labels, split at commas")


def read_flags(arguments: Sequence[str]) -> tuple[ScriptArguments, dict[str, Any]]:
    """Return the script's flags, and the training arguments that were given. Raises: UsageError."""
    parser = HfArgumentParser([TrainingArguments, ScriptArguments], prog=f"python -m {__package__}")  # type: ignore[list-item, unused-ignore]  # it takes any dataclass
    for name in sorted((OLD_ARGUMENTS | SWITCHES) - ARGUMENTS):
        parser.add_argument(f"--{name}", type=NUMBERS.get(name, str), nargs="?", const=True)
    # What is not given is left to the functions, which have the reference's defaults.
    parser.set_defaults(**dict.fromkeys(OLD_ARGUMENTS | SWITCHES, _NOT_GIVEN))
    given = {name: value for name, value in vars(parser.parse_args(list(arguments))).items() if value is not _NOT_GIVEN}
    own = {one.name: given.pop(one.name) for one in fields(ScriptArguments)}
    script = ScriptArguments(**own)
    if not script.pretrain_model_path or "output_dir" not in given:
        raise UsageError("--pretrain_model_path and --output_dir have to be given", hint="see --help")
    return script, {name: value for name, value in given.items() if name in OLD_ARGUMENTS}


def finetune(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Do what the flags say; return what was logged. Raises: UsageError, and what the run_…_hf of the task does."""
    script, given = read_flags(arguments)
    given |= {
        "pretrain_model_path": script.pretrain_model_path,
        "train_file_path": script.train_file_path,
        "dev_file_path": script.dev_file_path,
        "sequence_length": script.max_sequence_length,
        "config_args": json.loads(script.model_args) if script.model_args else None,
    }
    if script.task_type in LABELLING:
        labels = script.label_enumerate_values
        return run_sequence_labeling_hf(
            **given, first_sequence=words_of(0), label=words_of(1), label_enumerate_values=labels
        )
    given |= {"task_type": script.task_type, "dataset_name": script.dataset_name}
    if script.task_type == "generation":
        return run_generation_hf(**given)
    return run_classification_hf(**given, **columns(script))


def columns(script: ScriptArguments) -> dict[str, Any]:
    """Return what run_classification_hf is told of texts and labels: columns by the data set, or by number."""
    if script.dataset_name == TEXT:
        first, label = cell_of(script.text_a_idx), cell_of(script.label_idx)
        second = cell_of(script.text_b_idx) if script.pair else None
    else:
        names = COLUMNS.get(script.train_dataset_config or "", ("premise", "hypothesis"))
        first, second = (cell_of(names[0]), cell_of(names[1])) if script.pair else (cell_of("sentence"), None)
        label = cell_of("label")
    if script.task_type == "multi_label_classification":
        one, label = label, lambda row: str(one(row)).split(",")
    return {
        "first_sequence": first,
        "second_sequence": second,
        "label": label,
        "label_enumerate_values": script.label_enumerate_values,
        "train_dataset_config": script.train_dataset_config,
        "eval_dataset_config": script.eval_dataset_config,
        "cache_dir": script.cache_dir,
    }


def cell_of(column: int | str) -> Callable[[Row], Any]:
    """Return what takes a row's cell: of a line of text by the column's number. Raises (then): UsageError."""

    def taken(row: Row) -> Any:
        cells: Any = row[TEXT].split("\t") if isinstance(column, int) else row
        try:
            return cells[column]
        except (IndexError, KeyError) as error:
            raise UsageError(f"a row has no column {column}: {row}") from error

    return taken


def words_of(column: int) -> Callable[[Row], list[str]]:
    """Return what takes the words, split at spaces, of a column of a line of text."""
    take = cell_of(column)
    return lambda row: take(row).split(" ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code, 1 with the message on stderr for what the user can mend."""
    try:
        logs = finetune(sys.argv[1:] if arguments is None else arguments)
    except HubcacheError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    print(json.dumps(logs[-1] if logs else {}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
