"""The model card of a run's result, as the Hub reads it; it is made of the run's record and computes nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hubcache.errors import UsageError
from hubcache.train.record import RunRecord
from hubcache.train.report.figures import score, seconds, setting
from hubcache.train.report.markup import visible
from hubcache.train.report.summary import (
    best_name,
    best_score,
    changed_settings,
    inputs,
    metric_rows,
    splits_in_order,
)
from hubcache.train.tasks import Task, head_of, load_task

FILE = "README.md"

_HUB_NAME = re.compile(
    r"(?:hf:)?(?:models/|datasets/)?([A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?)(?:@\S*)?", re.ASCII
)
_MARKS = re.compile(r"([\\`*_\[\]<>#|~&$])")
_TAGS = {
    "multi-label-classification": "text-classification",
    "regression": "text-classification",
    "relation-extraction": "text-classification",
    "text-to-text": "text2text-generation",
}
_LANGUAGES = {
    "ko": ("klue", "KETI-AIR/nikl", "KETI-AIR/korquad", "kor_3i4k"),
    "zh": ("clue", "cluener", "dureader_qg", "dureader_robust", "lcsts", "weather"),
    "en": ("glue", "rotten_tomatoes", "sick", "tweet_eval", "go_emotions", "conll2003", "wnut_17", "squad", "squad_v2"),
}
_OURS = ("Sbert", "Palm", "Veco", "T5EncoderFor")


@dataclass(frozen=True, slots=True)
class _Loading:
    """How the weights are loaded: the class, and whether it is one of hubcache.models."""

    class_name: str
    ours: bool


def write_card(record: RunRecord, folder: Path, repo: str) -> Path:
    """Write the card of `repo` to `folder`/README.md; `folder` may hold the model's config.json.

    It names no licence: which one holds for weights made of several works is a person's to say.
    """
    path = folder / FILE
    task = _task(record.task)
    front = yaml.safe_dump(_front(record, task, repo), allow_unicode=True, sort_keys=False, width=1000)
    body = "\n\n".join(part for part in _body(record, task, repo, folder) if part)
    path.write_text(f"---\n{front}---\n\n{body}\n", encoding="utf-8", newline="\n")
    return path


def hub_name(name: str) -> str:
    """Return the repo's name on the hub out of how it was named; "" for a path, an archive or the like."""
    match = _HUB_NAME.fullmatch(name)
    return match[1] if match else ""


def _task(name: str) -> Task | None:
    """Find a shipped task; a file of the user's is not run for a card."""
    try:
        return None if name.partition(":")[0].endswith((".py", ".yaml", ".yml")) else load_task(name)
    except UsageError:
        return None


def _front(record: RunRecord, task: Task | None, repo: str) -> dict[str, Any]:
    base = hub_name(record.model.name)
    datasets = list(dict.fromkeys(filter(None, (_data_set(one.name) for one in record.data))))
    told = {
        "base_model": base or None,
        "base_model_relation": "finetune" if base else None,
        "datasets": datasets,
        "language": _language(task),
        "library_name": "transformers",
        "pipeline_tag": _tag(task),
        "tags": ["hubcache", visible(record.task)],
        "metrics": sorted({visible(name) for values in record.metrics.values() for name in values} - {"loss"}),
        "model-index": _index(record, task, repo),
    }
    return {key: value for key, value in told.items() if value}


def _data_set(name: str) -> str:
    """Return a data set's name on the hub; a plain word may just as well be a file."""
    return hub_name(name) if "/" in name and not Path(name).suffix else ""


def _language(task: Task | None) -> str | None:
    if task is None:
        return None
    return next((code for code, names in _LANGUAGES.items() if task.dataset in names), None)


def _tag(task: Task | None) -> str | None:
    if task is None:
        return None
    named = task.name if task.name in {"summarization", "translation"} else task.kind
    return _TAGS.get(named, named)


def _index(record: RunRecord, task: Task | None, repo: str) -> list[dict[str, Any]]:
    name = visible(record.task)
    results = [
        {
            "task": {"type": _tag(task) or "other", "name": name},
            "dataset": {"name": name, "type": (task.dataset if task else "") or name, "split": visible(split)},
            "metrics": [
                {"type": visible(metric), "name": visible(metric), "value": float(value)}
                for metric, value in sorted(record.metrics[split].items())
                if math.isfinite(value) and metric != "loss"
            ],
        }
        for split in splits_in_order(record)
    ]
    kept = [result for result in results if result["metrics"]]
    return [{"name": visible(repo), "results": kept}] if kept else []


def _body(record: RunRecord, task: Task | None, repo: str, folder: Path) -> list[str]:
    return [
        f"# {_plain(repo.rpartition('/')[2])}",
        _opening(record, task),
        "## What was read",
        _table(
            ("role", "name", "commit or sha256"),
            [(role, _code(one.name), _code(one.digest)) for role, one in inputs(record)],
        ),
        *_metrics(record),
        *_settings(record),
        *_sparsity(record),
        "## Load it",
        _loading(task, repo, folder),
        "## Make it again",
        _fenced("sh", record.command),
        _circumstances(record),
        "\n".join(f"- {_plain(note)}" for note in record.notes),
    ]


def _opening(record: RunRecord, task: Task | None) -> str:
    about = f" ({_plain(task.about)})" if task and task.about else ""
    told = f"{_code(record.model.name)}, fine-tuned on {_code(record.task)}{about}."
    best = best_score(record)
    if best is None:
        return told
    split, value = best
    return f"{told} **{_code(best_name(record))} {score(best_name(record), value)}** on {_plain(split)}."


def _metrics(record: RunRecord) -> list[str]:
    rows = [[_code(name), *values] for name, *values in metric_rows(record)]
    return ["## Metrics", _table(("metric", *splits_in_order(record)), rows)] if rows else []


def _settings(record: RunRecord) -> list[str]:
    changed = changed_settings(record)
    if not changed:
        return ["## Settings", "All as hubcache's plain defaults have them."] if record.settings else []
    rows = [(_code(name), _code(setting(value))) for name, value in changed.items()]
    return ["## Settings", "Those that are not hubcache's plain defaults:", _table(("setting", "value"), rows)]


def _sparsity(record: RunRecord) -> list[str]:
    """Return the share of zeros, over all and by weight; a recipe's arguments stand above it."""
    told = ", ".join(_code(f"{key}={value}") for key, value in record.recipe_arguments.items())
    parts = [f"The recipe was given {told}."] if told else []
    if record.sparsity:
        rows = [(_code(name), f"{100 * share:.2f} %") for name, share in record.sparsity.items() if name != "total"]
        parts += [
            f"**{100 * record.sparsity['total']:.2f} %** of the weights that can be pruned are zero.",
            _table(("weight", "zeros"), rows),
        ]
    return ["## Sparsity" if record.sparsity else "## Recipe", *parts] if parts else []


def _loading(task: Task | None, repo: str, folder: Path) -> str:
    found = _class_of(folder, task)
    name = json.dumps(visible(repo), ensure_ascii=False)
    lines = [
        f"from transformers import AutoTokenizer{'' if found.ours else f', {found.class_name}'}",
        *([f"from hubcache.models import {found.class_name}"] if found.ours else []),
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({name})",
        f"model = {found.class_name}.from_pretrained({name})",
    ]
    why = "\n\n`hubcache.models` registers the class with transformers, so it is imported first." if found.ours else ""
    return _fenced("python", "\n".join(lines)) + why


def _class_of(folder: Path, task: Task | None) -> _Loading:
    """Choose the class from config.json where it is ours, else the Auto class of the task."""
    config = folder / "config.json"
    told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    stated = next(iter(told.get("architectures") or ()), "")
    if stated.startswith(_OURS) and stated.isidentifier():
        return _Loading(stated, ours=True)
    head = head_of(task, told.get("model_type", "")) if task else "AutoModel"
    return _Loading(head, ours=head.startswith(_OURS))


def _circumstances(record: RunRecord) -> str:
    versions = ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in sorted(record.versions.items()))
    time = f" {seconds(record.seconds)} of training." if record.seconds else ""
    return f"Made on {_plain(record.device)}{f' with {versions}' if versions else ''}.{time}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[_plain(cell) for cell in heading], ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Write a text so that Markdown and HTML in it are only characters."""
    return _MARKS.sub(r"\\\1", _one_line(text))


def _code(text: str) -> str:
    """Write a code span, which may stand in a table."""
    told = _one_line(text).replace("|", "\\|")
    fence = "`" * (_longest(told) + 1)
    pad = " " if told.startswith("`") or told.endswith("`") or not told else ""
    return f"{fence}{pad}{told}{pad}{fence}"


def _fenced(language: str, text: str) -> str:
    told = visible(text)
    fence = "`" * max(3, _longest(told) + 1)
    return f"{fence}{language}\n{told}\n{fence}"


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _one_line(text: str) -> str:
    return " ".join(visible(text).split())
