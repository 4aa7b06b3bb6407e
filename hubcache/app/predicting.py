"""Pipelines over what is cached: which model a name or a task means on this machine; the work itself is train/'s."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hubcache.app.exporting import find_base
from hubcache.app.local import LocalApp, PullRequest, compose_local, parse_request
from hubcache.app.settings import Settings
from hubcache.app.training import require_libraries
from hubcache.cache.scan import scan_repos
from hubcache.errors import BadReference, OfflineError, UsageError
from hubcache.train.pipelines import find_task, fitting, task_of
from hubcache.train.pipelines.graphs import TORCH, check_backend, graph_file, has_graph
from hubcache.train.pipelines.loading import split
from hubcache.train.pipelines.registry import custom

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cached model that fits a task: its name and folder, and how well it fits."""

    name: str
    folder: Path
    fit: int


def pipeline(
    task: str | None = None,
    model: Any = None,
    tokenizer: Any = None,
    *,
    device: Any = None,
    cache_dir: str | Path | None = None,
    backend: str = TORCH,
    **options: Any,
) -> Any:
    """Make a pipeline, as transformers.pipeline does, of a cached model: nothing is asked of any hub.

    `model` is a reference, a folder or a model; None takes a cached one that fits the task, and says which on stderr.
    `backend` is torch, or onnx for the repo's ONNX file, or the path of one in it. Of transformers' other arguments
    revision and dtype count, use_fast, token and device_map change nothing; all else is the pipeline's own.

    Raises:
        OfflineError: the model is not in the cache, or none there fits the task.
        UsageError: there is no such task or argument, or the model has no such file or is another task's.
    """
    settings = Settings.from_environ()
    settings = settings if cache_dir is None else replace(settings, hub_cache=Path(cache_dir).absolute())
    told = split(options)
    if told.revision is not None:
        if not isinstance(model, str):
            raise UsageError("a revision is of a repo", hint="name the repo: model='org/name'")
        model = f"{model}@{told.revision}"
    asked: dict[str, Any] = {"tokenizer": tokenizer, "device": device, "options": told.options, "backend": backend}
    pipe = open_pipeline(compose_local(settings), task, model, **asked)
    if told.dtype is not None:
        from hubcache.train.pipelines.build import change_type  # torch, which `pipe` has loaded

        change_type(pipe, told.dtype)
    return pipe


def open_pipeline(
    app: LocalApp,
    task: str | None,
    model: Any,
    *,
    tokenizer: Any = None,
    device: Any = None,
    options: dict[str, Any] | None = None,
    say: Say | None = None,
    backend: str = TORCH,
) -> Any:
    """Make a pipeline of what the cache holds; see pipeline()."""
    check_backend(backend)
    if task is not None and custom(task) is None:
        find_task(task)
    tell, called = say or _tell, ""
    if model is None:
        if task is None:
            raise UsageError("a task or a model is needed")
        chosen = default_model(app, task, say=tell, backend=backend)
        called, model = chosen.name, chosen.folder
    elif isinstance(model, (str, Path)):
        called, model = str(model), model_folder(app, str(model))
    if task is None:
        config = model.config.to_dict() if not isinstance(model, Path) else _config_of(model)
        task = task_of(config)
    tokenizer = model_folder(app, str(tokenizer)) if isinstance(tokenizer, (str, Path)) else tokenizer
    require_libraries()
    if backend != TORCH:
        _require_graph(model, task, backend, called)
    base = find_base(app, model) if isinstance(model, Path) and custom(task) is None else None
    from hubcache.train.pipelines.build import build, load_adapted  # torch and transformers, 4 s

    if base is not None:
        tokenizer = model if tokenizer is None else tokenizer
        model = load_adapted(model, base, find_task(task))
    return build(task, model, tokenizer, device=device, options=options, backend=backend)


def _require_graph(model: Any, task: str, backend: str, called: str) -> None:
    if not isinstance(model, Path):
        raise UsageError("a model in memory has no ONNX file", hint="name its repo or folder")
    if find_spec("onnxruntime") is None:
        raise UsageError("this needs onnxruntime, not installed here", hint="pip install 'hubcache[onnx]'")
    if custom(task) is None:
        graph_file(model, task, backend, called=called)


def model_folder(app: LocalApp, text: str) -> Path:
    """Find a model's folder on this machine; a name that the cache does not have may be a folder's here.

    Raises:
        OfflineError: it is not in the cache.
        UsageError: there is no such folder.
    """
    here = Path(text).expanduser()
    try:
        reference = parse_request(app, PullRequest(text), notify=lambda _: None)
        if reference.scheme == "file":
            here = Path(reference.address)
            if not here.is_dir():
                raise UsageError(f"there is no folder {here} on this machine")
            return here
        artifact = app.cache.resolve(reference)
    except (OfflineError, BadReference) as error:
        if (here / "config.json").is_file():
            return here
        if isinstance(error, BadReference):
            raise
        raise OfflineError(error.message, hint=f"online, run: hubcache pull {text}") from error
    return app.cache.folder(artifact.repo).snapshot_path(artifact.revision.commit)


def default_model(app: LocalApp, task: str, *, say: Say, backend: str = TORCH) -> Candidate:
    """Choose the cached model that fits a task best, of equal ones the first by name, and say so.

    On onnx it is one that has an ONNX file.

    Raises:
        OfflineError: none does.
    """
    fit = [] if custom(task) else sorted(candidates(app, task), key=lambda each: (-each.fit, each.name))
    found = [each for each in fit if backend == TORCH or has_graph(each.folder, task, backend)]
    if not found:
        raise OfflineError(f"no model in the cache fits {task}", hint="name one, or online: hubcache pull org/name")
    others = f", one of {len(found)} that fit" if len(found) > 1 else ""
    say(f"no model was named: taking {found[0].name} from the cache{others}")
    return found[0]


def candidates(app: LocalApp, task: str) -> Iterator[Candidate]:
    """List the cached models whose config.json names a head for the task: what main means, else the one commit."""
    for repo in scan_repos(app.cache.root):
        commits = repo.commits() if repo.repo.kind == "model" else []
        commit = repo.refs().get("main") or (commits[0] if len(commits) == 1 else None)
        if commit is not None:
            folder = repo.snapshot_path(commit)
            fit = fitting(task, _config_of(folder))
            if fit:
                yield Candidate(str(repo.repo), folder, fit)


def predictions(pipe: Any, inputs: Iterable[Any], options: dict[str, Any]) -> Iterator[Any]:
    """Yield a JSON value for each of the inputs, in order.

    Raises:
        UsageError: an option or input that the pipeline refuses, in its own words.
    """
    from hubcache.train.pipelines.refusals import refused  # torch and transformers, which `pipe` has loaded

    with refused():
        asked = (_unicode(each) for each in inputs)
        results = pipe.stream(asked, **options) if hasattr(pipe, "stream") else (pipe(one, **options) for one in asked)
        for result in results:
            yield plain(result)


def _unicode(row: Any) -> Any:
    """Refuse bytes that are no Unicode, as a command line has them: no tokenizer takes them."""
    for text in row.values() if isinstance(row, dict) else (row,):
        if isinstance(text, str) and not text.isascii() and _is_broken(text):
            raise UsageError(f"a text is no Unicode: {text[:80]!a}")
    return row


def _is_broken(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def plain(value: Any) -> Any:
    """Return a result in JSON's own types: numbers and lists for numpy's and torch's."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if value is None or isinstance(value, (str, int, float)):
        # numpy's float64 is a float, too.
        return float(value) if isinstance(value, float) else value
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
