"""`hubcache evaluate`: cached models scored on a task's split, in one table."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hubcache.app.evaluating import ScoreRequest, evaluate_cached
from hubcache.train.record import RunRecord
from hubcache_cli.options import AsJson, CacheDir, Quiet, complete_cached, make_local_app
from hubcache_cli.output import note, print_json, print_table, shorten
from hubcache_cli.training import (
    ColumnOption,
    ConfigOption,
    DataOption,
    SettingOption,
    TaskOption,
    TaskSettingOption,
    data_choice,
    metric_text,
    pairs,
    record_facts,
    typed_pairs,
)


def run(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Cached references.", autocompletion=complete_cached)
    ],
    task: TaskOption,
    data: DataOption = None,
    config: ConfigOption = "",
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    where: Annotated[
        list[str] | None, typer.Option("--rows", metavar="ROLE=EXPR", help="Which rows a split is: test=dev[:100].")
    ] = None,
    column: ColumnOption = None,
    setting: SettingOption = None,
    task_setting: TaskSettingOption = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="Let an entailment model judge each label.")] = False,
    base: Annotated[str | None, typer.Option("--base", help="Put adapters over this model, whatever it is.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="A folder for predictions.jsonl, one below it for each of several.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Score cached models on a split of a task, offline: trained ones, zero-shot ones, or such as generate.

    Prints a table of the metrics, over the whole split.
    """
    app = make_local_app(cache_dir)
    command = shlex.join(["hubcache", *sys.argv[1:]])
    choice = data_choice(data, config, pairs(where, "--rows"), column)
    options = typed_pairs(task_setting, "--task-set")
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, model in enumerate(models):
            place = Path(scratch) / str(number) if output is None else output
            place = place / str(number) if output is not None and len(models) > 1 else place
            request = ScoreRequest(
                model, task, place, split, choice, tuple(setting or ()), options, zero_shot, base, command
            )
            records.append(evaluate_cached(app, request, say=(lambda _: None) if quiet else note))
            if as_json:
                print_json({"model": model, "split": split} | record_facts(records[-1]))
    if not as_json:
        _print(models, records, split)


def _print(models: list[str], records: list[RunRecord], split: str) -> None:
    found = dict.fromkeys(name for record in records for name in record.metrics[split])
    names = sorted(found, key=lambda name: name == "loss")
    rows = [
        (shorten(model, 40), *(metric_text(record.metrics[split].get(name, float("nan"))) for name in names))
        for model, record in zip(models, records, strict=True)
    ]
    print_table(("MODEL", *(name.upper() for name in names)), rows, right=range(1, len(names) + 1))
