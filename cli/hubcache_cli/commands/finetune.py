"""`hubcache finetune`: a cached model and rows in, a fine-tuned model as a repo of the cache out."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hubcache.app.exporting import ExportRequest, check_export, export_onnx
from hubcache.app.local import LocalApp
from hubcache.app.training import Planned, Trained, TrainRequest, check_training, plan_training, train
from hubcache.errors import UsageError
from hubcache.train.onnx.form import OnnxForm
from hubcache.train.recipes import run_file
from hubcache.train.sparse.recipe.arguments import parse_arguments
from hubcache_cli.options import AsJson, CacheDir, Quiet, complete_cached, make_app, make_local_app
from hubcache_cli.output import note, print_json
from hubcache_cli.training import (
    ColumnOption,
    ConfigOption,
    DataOption,
    SettingOption,
    TaskSettingOption,
    data_choice,
    pairs,
    record_facts,
    record_lines,
    typed_pairs,
)

FORMS = (None, "onnx", "integer")
CHILD_TUNING = {"F": "ChildTuning-F", "D": "ChildTuning-D"}


def run(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A cached reference.", autocompletion=complete_cached)
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="A task's name, or a file that defines one.")] = None,
    data: DataOption = None,
    config: ConfigOption = "",
    split: Annotated[
        list[str] | None, typer.Option("--split", metavar="ROLE=EXPR", help="train=train[:90%], validation=dev.")
    ] = None,
    column: ColumnOption = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Distil from this cached model.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="REF", help="Prune, quantise and distil by this recipe.")
    ] = None,
    recipe_argument: Annotated[
        list[str] | None, typer.Option("--recipe-arg", metavar="KEY=VALUE", help="Change a variable of the recipe.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", help="The repo to make: org/name.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="A YAML file of settings.")] = None,
    setting: SettingOption = None,
    task_setting: TaskSettingOption = None,
    model_setting: Annotated[
        list[str] | None, typer.Option("--model-set", metavar="KEY=VALUE", help="Change the model's configuration.")
    ] = None,
    child_tuning: Annotated[str | None, typer.Option("--child-tuning", metavar="F|D", help="Child-Tuning.")] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="Train this alone: lora, ia3, prompt, prefix, pfeiffer or houlsby.")
    ] = None,
    pulls: Annotated[bool, typer.Option("--pull", help="First pull what the cache lacks of all these.")] = False,
    form: Annotated[
        str | None, typer.Option("--export", metavar="FORM", help="Also make an ONNX repo: onnx, or integer.")
    ] = None,
    published: Annotated[str | None, typer.Option("--run", help="Repeat a published run by its name.")] = None,
    nproc: Annotated[int, typer.Option("--nproc", help="Processes on this machine.", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and say everything, train nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Fine-tune a cached model on a task, offline, and keep the result as a repo of the cache.

    Model, columns, labels, lengths, disk and memory are checked before anything is trained. A run that was
    killed goes on when the same command is given again. Prints the snapshot's path, and the export's.
    """
    if form not in FORMS:
        raise UsageError(f"--export is {' or '.join(filter(None, FORMS))}, not {form}")
    if nproc > 1:
        raise typer.Exit(_run_processes(nproc))
    app = make_local_app(cache_dir)
    request = TrainRequest(
        model=model or "", task=task or "", data=data_choice(data, config, pairs(split, "--split"), column),
        teacher=teacher, recipe=recipe, recipe_arguments=_recipe_arguments(recipe_argument),
        output=output, settings_file=settings, settings=tuple(setting or ()),
        options=typed_pairs(task_setting, "--task-set"), model_config=typed_pairs(model_setting, "--model-set"),
        command=shlex.join(["hubcache", *sys.argv[1:]]),
    )  # fmt: skip
    request = _with_adapter(_with_child_tuning(_with_run_file(request, published), child_tuning), adapter)
    if not request.model or not request.task:
        raise UsageError("a model and a task are needed", hint="hubcache finetune MODEL --task T, or --run NAME")

    # Under torchrun, the first process speaks for all.
    is_silent = quiet or app.settings.environ.get("RANK", "0") != "0"

    def say(line: str) -> None:
        if not is_silent:
            note(line)

    if pulls:
        from hubcache.app.bringing import bring  # with it the HTTP client, 60 ms

        bring(make_app(cache_dir), request, bars=app.settings.progress_bars and not is_silent, say=say)
    planned = _plan(app, request, form, say)
    settings_told = planned.lines if dry_run else planned.summary
    for line in (*planned.data.said, *settings_told, *check_training(planned)):
        say(line)
    if dry_run:
        return
    trained = train(app, planned)
    if trained is not None:
        exported = _export(app, trained, form, say) if form else {}
        _show(trained, exported, as_json=as_json, quiet=quiet)


def _plan(app: LocalApp, request: TrainRequest, form: str | None, say: Callable[[str], object]) -> Planned:
    planned = plan_training(app, request, say=say)
    if form:
        check_export(planned, integer=form == "integer")
    return planned


def _export(app: LocalApp, trained: Trained, form: str, say: Callable[[str], object]) -> dict[str, Any]:
    repo, revision = trained.artifact.repo.name, trained.artifact.revision
    request = ExportRequest(
        f"{repo}@{revision.commit}", output=f"{repo}-onnx", form=OnnxForm(integer=form == "integer")
    )
    artifact, path = export_onnx(app, request, say)
    say(f"kept as {artifact.repo}@{artifact.revision.asked}")
    return {"exported": {"repo": artifact.repo.name, "commit": artifact.revision.commit, "path": str(path)}}


def _show(trained: Trained, exported: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    artifact = trained.artifact
    if not quiet:
        for line in record_lines(trained.record):
            note(line)
        note(f"kept as {artifact.repo}@{artifact.revision.asked}; report: {trained.path / 'report.html'}")
    if as_json:
        print_json(_facts(trained) | exported)
    else:
        print(trained.path)
        if exported:
            print(exported["exported"]["path"])


def _facts(trained: Trained) -> dict[str, Any]:
    revision = trained.artifact.revision
    kept = {"repo": trained.artifact.repo.name, "revision": revision.asked, "commit": revision.commit}
    return kept | {"path": str(trained.path)} | record_facts(trained.record)


def _with_run_file(request: TrainRequest, name: str | None) -> TrainRequest:
    """Lay what was typed over a published run's settings."""
    if name is None:
        return request
    found = run_file(name)
    typed = tuple(f"{key}={value}" for key, value in found.settings.items())
    return replace(
        request, model=request.model or found.model, task=request.task or found.task,
        settings=(*typed, *request.settings), options={**found.task_settings, **request.options},
        model_config={**found.model_config, **request.model_config}, keep_decoder_layers=found.keep_decoder_layers,
    )  # fmt: skip


def _with_adapter(request: TrainRequest, adapter: str | None) -> TrainRequest:
    return request if adapter is None else replace(request, settings=(*request.settings, f"adapter={adapter}"))


def _recipe_arguments(texts: list[str] | None) -> dict[str, Any]:
    return {name: value for text in texts or () for name, value in parse_arguments(text).items()}


def _with_child_tuning(request: TrainRequest, letter: str | None) -> TrainRequest:
    if letter is None:
        return request
    if letter.upper() not in CHILD_TUNING:
        raise UsageError(f"there is no Child-Tuning {letter!r}", hint="--child-tuning F, or D")
    return replace(request, settings=(*request.settings, f"child_tuning={CHILD_TUNING[letter.upper()]}"))


def _run_processes(count: int) -> int:
    """Run this very command in several processes under torchrun, and return its exit code."""
    words = iter(sys.argv[1:])
    kept: list[str] = []
    for word in words:
        if word == "--nproc":
            next(words, None)
        elif not word.startswith("--nproc="):
            kept.append(word)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*launcher, "-m", "hubcache_cli.main", *kept]
    return subprocess.run(command, check=False).returncode  # noqa: S603  # our own interpreter and our own arguments
