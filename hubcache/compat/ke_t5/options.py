"""The flags of train_ddp and test_ddp, in the spellings that absl takes; they are read here and nothing is done."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

DEFAULT_MODEL = "ke_t5.models.models:T5EncoderForSequenceClassificationMean"
DEFAULT_WEIGHTS = "KETI-AIR/ke-t5-base"
_NEGATED = re.compile(r"--?no(test|pass_only_model_io|schedule|distributed)")
_ONE_DASH = re.compile(r"^-(?=[a-z]\w)")
_BY_TORCHRUN = "torchrun's environment says it"

UNUSED = {
    "hf_cache_dir": "data is read from --hf_data_dir or hubcache's cache, and written nowhere else",
    "gpu": "CUDA_VISIBLE_DEVICES chooses, and under torchrun each process has its own",
    "world_size": _BY_TORCHRUN,
    "local_rank": _BY_TORCHRUN,
    "distributed": _BY_TORCHRUN,
    "pass_only_model_io": "a model gets its own columns in any case, and the figures have the others",
}
"""The original's flags that change nothing here, and why: who gives one is told so."""

HIGHEST_RATE = 0.001


def train_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags of train_ddp."""
    parser = _parser("train_ddp", "Train a model on a task, as ke-t5-downstreams does.")
    add = parser.add_argument
    _flag(parser, "test", "score the validation split, and train nothing")
    _flag(parser, "schedule", "one cycle of rates up to --learning_rate")
    add("--pre_trained_model", default=DEFAULT_WEIGHTS, help="the weights to begin with: a cached repo or a folder")
    add("--train_split", default="train[:90%]", help="the rows that are trained on")
    add("--valid_split", "--test_split", default="train[90%:]", help="the rows that choose the best checkpoint")
    add("--batch_size", "--batch", type=int, default=32, help="rows of a step and process")
    add("--epochs", type=int, default=30, help="passes over the training rows")
    add("--start_epoch", type=int, default=0, help="the number of the first epoch")
    add("--learning_rate", type=float, help=f"the highest rate of --schedule, {HIGHEST_RATE} by default")
    options = _read(parser, arguments)
    if options.learning_rate is not None and not options.schedule:
        options.notes.append("--learning_rate is --schedule's: the optimizer's is --gin_param AdamW.lr=RATE")
    options.learning_rate = HIGHEST_RATE if options.learning_rate is None else options.learning_rate
    return options


def test_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags of test_ddp."""
    parser = _parser("test_ddp", "Score a trained model on a task, as ke-t5-downstreams does.")
    add = parser.add_argument
    add("--pre_trained_model", default="", help="what it was trained from; by default what --output_dir has")
    add("--test_split", default="test", help="the rows that are scored")
    add("--batch_size", "--batch", type=int, default=24, help="rows of a batch")
    return _read(parser, arguments)


def _read(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags; `notes` says of those that were given what they do not do."""
    options = parser.parse_args([_spelled(one) for one in arguments])
    given = [name for name in UNUSED if getattr(options, name) is not None]
    options.notes = [f"--{name} is not used: {UNUSED[name]}" for name in given]
    return options


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python -m hubcache.compat.ke_t5.{name}", "%(prog)s [flags]", about)
    add = parser.add_argument
    add("--gin_file", action="append", default=[], help="a file of gin bindings; may be given several times")
    add("--gin_param", action="append", default=[], help="one gin binding, name=value; may be given several times")
    add("--task", default="klue_tc", help="a task's name, or a file of tasks")
    add("--model_name", default=DEFAULT_MODEL, help="the model's class: a registered name, or module:Class")
    add("--hf_data_dir", default="./data", help="where the data is; else the cache is looked into")
    add("--hf_cache_dir", help="not used: data is in --hf_data_dir or in hubcache's cache")
    add("--output_dir", default="output", help="where runs are kept")
    add("--resume", default="", help="true (the last checkpoint), best, or a file")
    add("--hf_path", default="", help="the model as a folder for from_pretrained; train_ddp writes it and ends")
    add("--module_import", action="append", default=[], help="a module to import, which runs it, before all else")
    add("--workers", type=int, default=0, help="processes that prepare batches")
    add("--print_freq", type=int, default=50, help="steps between log lines")
    add("--seed", type=int, default=42, help="of everything that is drawn; the original has none")
    for ours in ("gpu", "world_size", "local_rank"):
        spellings = {f"--{ours}", f"--{ours.replace('_', '-')}"}
        add(*sorted(spellings), type=int, help="not used: torchrun's environment says it")
    _flag(parser, "distributed", "not used: torchrun's environment says it", default=None)
    _flag(parser, "pass_only_model_io", "not used: a model gets its own columns in any case", default=None)
    return parser


def _flag(parser: argparse.ArgumentParser, name: str, told: str, default: bool | None = False) -> None:
    parser.add_argument(f"--{name}", type=_truth, nargs="?", const=True, default=default, metavar="BOOL", help=told)


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "t", "1", "yes", "false", "f", "0", "no"}:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in {"true", "t", "1", "yes"}


def _spelled(argument: str) -> str:
    """Return an argument as argparse reads it: absl takes -epochs and --noschedule as well."""
    negated = _NEGATED.fullmatch(argument)
    return f"--{negated[1]}=false" if negated else _ONE_DASH.sub("--", argument, count=1)
