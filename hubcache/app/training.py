"""Fine-tuning of what is in the cache: references in, a commit of the cache out; the work itself is train/'s."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubcache.app.converting import INSTALL
from hubcache.app.local import LocalApp, PullRequest, parse_request
from hubcache.app.publishing import publish_folder
from hubcache.cache.locks import held_if_free
from hubcache.core.artifact import Artifact, Kind, RepoId
from hubcache.core.digests import new_hasher
from hubcache.errors import CacheLocked, HubcacheError, OfflineError, UsageError
from hubcache.localfile import hash_file
from hubcache.train.data import Choices, TaskData, read_task_data
from hubcache.train.record import Input, RunRecord
from hubcache.train.settings import TrainSettings, adapter_rate
from hubcache.train.tasks import Task, changed, load_task

if TYPE_CHECKING:
    from hubcache.train.finetune import FinetuneRequest
    from hubcache.train.sparse.recipe import Recipe

Say = Callable[[str], object]

ADAPTER = "adapter_config.json"
"""The file that makes a folder an adapter's."""

TEACHER_WORDS = ("self", "disable")
"""What a recipe that distils may be told instead of a teacher: the model as it is, or none."""

FIRST_ASKED = ("epochs", "batch_size", "learning_rate", "seed")


@dataclass(frozen=True, slots=True)
class DataChoice:
    """Which rows a task is trained or scored on, as it was typed.

    `source` is a path, or a cached data set's reference; None asks for the task's own data set. `splits` map train,
    validation and test to a split's expression, `columns` the task's columns to the data's.
    """

    source: str | None = None
    config: str = ""
    splits: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What is to be fine-tuned on what, as it was typed; `command` repeats it.

    `options` change the task (max_length, stride, …), `settings` the training, over those of `settings_file`. `recipe`
    changes the model while it trains, with `recipe_arguments` in place of its variables; one that distils takes "self"
    and "disable" for a teacher, too.
    """

    model: str
    task: str
    data: DataChoice = field(default_factory=DataChoice)
    teacher: str | None = None
    recipe: str | None = None
    recipe_arguments: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None
    settings_file: Path | None = None
    settings: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    keep_decoder_layers: tuple[int, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that is set up: what trains, the defaults its settings began with, and where the result goes."""

    request: FinetuneRequest
    defaults: TrainSettings
    data: TaskData
    repo: RepoId

    @property
    def lines(self) -> list[str]:
        """Every setting with what it is, those that differ from the defaults starred."""
        return self.request.settings.lines(self.defaults)

    @property
    def summary(self) -> list[str]:
        """The settings that people ask for first, and those that differ from the defaults."""
        told, usual = self.request.settings.told(), self.defaults.told()
        shown = [name for name in told if name in FIRST_ASKED or told[name] != usual[name]]
        return ["settings: " + ", ".join(f"{name} {told[name]}" for name in shown)]


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: its record, and the commit that holds the model."""

    record: RunRecord
    artifact: Artifact
    path: Path

    def _repr_html_(self) -> str:
        return self.record._repr_html_()


def plan_training(app: LocalApp, request: TrainRequest, *, say: Say) -> Planned:
    """Find the model, the data and the teacher on this machine, and settle every setting.

    Raises:
        OfflineError: one of them is not in the cache; the hint is the pull that brings it.
        UsageError, BadConfig: the task, the data or a setting does not fit.
    """
    require_libraries()
    from hubcache.train.checks import parameters_in  # torch, 1.4 s
    from hubcache.train.finetune import FinetuneRequest

    model, model_input = find_folder(app, request.model)
    if (model / ADAPTER).is_file():
        raise UsageError(
            f"{request.model} is an adapter: it trains over a model of its own",
            hint=f"hubcache export {request.model} --merge --output org/name, and train that",
        )
    task = changed(load_task(request.task), dict(request.options)) if request.options else load_task(request.task)
    data, data_inputs = read_data(app, task, request.data)
    recipe, recipe_input = _find_recipe(app, request)
    word = request.teacher if recipe is not None and request.teacher in TEACHER_WORDS else ""
    teacher, teacher_input = find_folder(app, request.teacher) if request.teacher and not word else (None, None)
    rows = len(data.rows.get("train", ()))
    is_t5 = _model_type(model).startswith("t5")
    defaults = TrainSettings.for_task(data.task.kind, parameters_in(model), rows, t5=is_t5)
    if recipe is not None and recipe.max_epochs > 0:
        defaults = replace(defaults, epochs=float(recipe.max_epochs))
    settings = _settled(defaults, request)
    if settings.adapter:
        defaults = adapter_rate(defaults)
        settings = _settled(defaults, request)
    made = FinetuneRequest(
        model=model, task=data.task, splits=data.rows, output=Path(), settings=settings, teacher=teacher,
        model_input=model_input, data_inputs=data_inputs, teacher_input=teacher_input, command=request.command, say=say,
        model_config=request.model_config, keep_decoder_layers=request.keep_decoder_layers, teacher_word=word or "",
        recipe=recipe, recipe_input=recipe_input, recipe_arguments=request.recipe_arguments if recipe else {},
    )  # fmt: skip
    repo = RepoId.parse(request.output or f"local/{_stem(request.model)}-{_stem(data.task.name)}")
    state = _state_folder(app)
    logs = state / "tensorboard" / repo.name
    return Planned(replace(made, output=state / "runs" / _run_key(made), logs=logs), defaults, data, repo)


def check_training(planned: Planned) -> list[str]:
    """Check everything that can fail before the first step, in seconds; return what is worth knowing, a line each.

    Raises:
        UsageError: the run cannot work; the message lists every reason with its cure.
    """
    from hubcache.train.checks import check

    found = check(planned.request)
    fatal = [one for one in found if one.fatal]
    if fatal:
        raise UsageError("; ".join(one.what for one in fatal), hint="; ".join(dict.fromkeys(one.cure for one in fatal)))
    return [str(one) for one in found]


def train(app: LocalApp, planned: Planned) -> Trained | None:
    """Fine-tune, and make the result a commit of the cache; None in the processes beside the first.

    A run that was killed goes on when the same request comes again.

    Raises:
        CacheLocked: another process is at this very run.
        HubcacheError: as finetune and publish_folder raise them.
    """
    from hubcache.train.card import write_card
    from hubcache.train.device import place
    from hubcache.train.finetune import finetune
    from hubcache.train.report import write_report

    folder = planned.request.output
    folder.mkdir(parents=True, exist_ok=True)
    if not place(planned.request.settings.precision).is_first:
        finetune(planned.request)
        return None
    with held_if_free(folder.with_suffix(".lock")) as is_held:
        if not is_held:
            raise CacheLocked(f"another process is at this very run, in {folder}", hint="wait for it, or --set seed=1")
        record = finetune(planned.request)
        write_report(record, folder)
        write_card(record, folder, planned.repo.name)
        artifact, path = publish_folder(app, folder, planned.repo, origin="hubcache finetune")
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)
    return Trained(record, artifact, path)


def require_libraries() -> None:
    """Check that what trains and evaluates is installed.

    Raises:
        UsageError: names what is missing.
    """
    missing = [name for name in ("torch", "transformers", "accelerate") if find_spec(name) is None]
    if missing:
        raise UsageError(f"this needs {', '.join(missing)}, not installed here", hint=INSTALL)


def find_folder(app: LocalApp, text: str, *, kind: Kind | None = None) -> tuple[Path, Input]:
    """Find what a reference means on this machine: a folder or file, and the commit or sha256 that names its content.

    Raises:
        OfflineError: it is not in the cache.
        UsageError: there is no such path.
    """
    reference = parse_request(app, PullRequest(text, kind=kind), notify=lambda _: None)
    if reference.scheme == "file":
        path = Path(reference.address)
        if not path.exists():
            raise UsageError(f"there is no {path} on this machine")
        return path, Input(text, files_digest([path] if path.is_file() else sorted(path.rglob("*"))))
    try:
        artifact = app.cache.resolve(reference)
    except OfflineError as error:
        kinds = f" --type {kind}" if kind and kind != "model" else ""
        raise OfflineError(error.message, hint=f"online, run: hubcache pull {text}{kinds}") from error
    commit = artifact.revision.commit
    return app.cache.folder(artifact.repo).snapshot_path(commit), Input(f"{artifact.repo}@{commit[:12]}", commit)


def read_data(app: LocalApp, task: Task, choice: DataChoice) -> tuple[TaskData, tuple[Input, ...]]:
    """Read a task's rows from a path or a cached data set.

    Raises:
        UsageError: the task has no data set of its own, and no source was named; or the rows do not fit.
        OfflineError: the data set is not in the cache.
    """
    source = choice.source or task.dataset
    if not source:
        raise UsageError(f"the task {task.name} has no data set of its own", hint="name one: --data PATH")
    if choice.source and (Path(source).expanduser().exists() or source.startswith((".", "/", "~"))):
        place, named = Path(source).expanduser(), None
    else:
        place, named = find_folder(app, source, kind="dataset")
    choices = Choices(config=choice.config, splits=dict(choice.splits) or None, columns=dict(choice.columns) or None)
    data = read_task_data(task, place, choices)
    return data, (named or Input(source, files_digest(data.files)),)


def files_digest(files: Any) -> str:
    """Name the content of several files by one sha256: of their names and their own."""
    whole = hashlib.sha256()
    for file in files:
        if Path(file).is_file():
            hasher = new_hasher("sha256", Path(file).stat().st_size)
            hash_file(Path(file), hasher)
            whole.update(f"{Path(file).name}\0{hasher.hexdigest()}\n".encode())
    return whole.hexdigest()


def _find_recipe(app: LocalApp, request: TrainRequest) -> tuple[Recipe | None, Input | None]:
    """Find the request's recipe, resolved; the digest is of the text that it resolves to."""
    if request.recipe is None:
        if request.recipe_arguments:
            raise UsageError("--recipe-arg changes a recipe, and there is none", hint="name one: --recipe REF")
        return None, None
    from hubcache.app.recipes import find_recipe

    recipe = find_recipe(app, request.recipe, arguments=request.recipe_arguments)
    return recipe, Input(request.recipe, hashlib.sha256(recipe.to_yaml().encode()).hexdigest())


def _settled(defaults: TrainSettings, request: TrainRequest) -> TrainSettings:
    settings = defaults if request.settings_file is None else defaults.updated_from(request.settings_file)
    return settings.updated_by(request.settings)


def _model_type(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def _stem(text: str) -> str:
    """Make a part of a repo's name of a model or a task."""
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in text.partition("@")[0].rstrip("/").split("/")[-1])
    return kept.strip("-.")[:60] or "model"


def _state_folder(app: LocalApp) -> Path:
    if app.settings.state is None:
        raise HubcacheError("there is no folder for runs in progress", hint="export XDG_STATE_HOME=DIR")
    return app.settings.state


def _run_key(request: FinetuneRequest) -> str:
    """Name a run: the same for the same request, so that a killed one is found and goes on."""
    inputs = [str(each) for each in (request.model_input, *request.data_inputs, request.teacher_input)]
    changes = [dict(request.model_config), request.keep_decoder_layers]
    # A run without a recipe keeps the name that it had before there were any.
    if request.recipe is not None:
        changes += [request.recipe.to_yaml(), request.teacher_word]
    told = [request.settings.told(), request.task.name, inputs, changes]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
