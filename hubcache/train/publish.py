"""What a finished run leaves: the best weights, a record, and a folder that holds them and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from safetensors.torch import load_model

from hubcache.train.adapters.tuning import write
from hubcache.train.callbacks import Clock
from hubcache.train.device import peak_memory, versions
from hubcache.train.heads import quietly
from hubcache.train.record import FILE, RunRecord
from hubcache.train.scoring import Scored
from hubcache.train.setup import Run, notes
from hubcache.train.sparse.tuning import FILE as RECIPE
from hubcache.train.sparse.tuning import resulting, sparsity_of
from hubcache.train.trainer import FineTuner


def load_best(run: Run, trainer: FineTuner) -> None:
    """Put the best checkpoint's weights into the model, if the last is not the best."""
    step = trainer.state.best_global_step
    if not step or step == trainer.state.global_step:
        return
    load_model(trainer.model, run.checkpoints / f"checkpoint-{step}" / "model.safetensors")
    run.say(f"the best checkpoint is that of step {step}")


def make_record(run: Run, trainer: FineTuner, clock: Clock, scored: Mapping[str, Scored]) -> RunRecord:
    """Return what the run leaves behind; confusion and mistakes are the validation split's, else the test's."""
    request, state = run.request, trainer.state
    shown = scored.get("validation") or next(iter(scored.values()), None)
    history = [row for row in state.log_history if "train_runtime" not in row]
    seen = (state.epoch or 0) * len(run.encoded["train"])
    return RunRecord(
        task=request.task.name,
        model=request.model_input,
        data=request.data_inputs,
        settings=request.settings.told(),
        command=request.command,
        metrics={split: each.metrics for split, each in scored.items()},
        best_metric=run.chosen[0].removeprefix("eval_") if run.chosen else "",
        best_step=state.best_global_step if run.chosen else None,
        history=tuple(history),
        labels=request.task.labels,
        confusion=shown.confusion if shown else (),
        mistakes=shown.mistakes if shown else (),
        teacher=request.teacher_input,
        recipe=request.recipe_input,
        recipe_arguments=request.recipe_arguments,
        sparsity=sparsity_of(trainer.model),
        device=run.place.told,
        seconds=clock.seconds,
        samples_per_second=seen / clock.seconds if clock.seconds else 0.0,
        peak_memory=peak_memory(run.place.device),
        versions=versions(),
        notes=tuple(notes(run)),
    )


def publish(run: Run, trainer: FineTuner, record: RunRecord) -> None:
    """Write the model, its tokenizer and, last, the record; then the checkpoints go.

    Of an adapter, it and the head alone are written. A recipe goes beside the weights, after the one that
    the model came with.
    """
    partial = run.checkpoints / "output"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model = trainer.model
    model.config.architectures = [type(model).__name__]
    with quietly():
        if run.request.settings.adapter:
            write(run.loaded, partial, run.request.model, run.request.model_input)
        else:
            model.save_pretrained(partial)
    run.loaded.tokenizer.save_pretrained(partial)
    for code in sorted(run.request.model.glob("*.py")):
        shutil.copy2(code, partial / code.name)
    recipe = resulting(run.request.model, run.request.recipe)
    if recipe is not None:
        (partial / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8", newline="\n")
    record.write(partial)
    names = sorted((path.name for path in partial.iterdir()), key=lambda name: name == FILE)
    for name in names:
        os.replace(partial / name, run.request.output / name)
    shutil.rmtree(run.checkpoints)
