"""What a run leaves behind, as one value that is written to run.json: report, model card and listing are made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "run.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Input:
    """A model or data set that went in: as it was named, and the commit or sha256 of what was read."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """One example that the model got wrong: its texts, what was right, what was said, and how sure (0 to 1)."""

    texts: tuple[str, ...]
    reference: str
    prediction: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A fine-tuning run or an evaluation.

    Attributes:
        settings: every setting with the value that held, defaults included.
        command: what repeats the run.
        history: the Trainer's log rows in order (step, epoch, loss, learning_rate, eval_…).
        metrics: split to metric to value.
        best_metric: the metric that chose the checkpoint, `best_step` where that was.
        labels: label names by id; empty for text.
        confusion: [reference, predicted] counts on the evaluation split, where labels are few.
        recipe: what changed the model while it trained (its digest is of the resolved text), by which arguments.
        sparsity: the share of zeros by weight that can be pruned, and their `total`; empty where nothing is zero.
        seconds: of training alone; `samples_per_second` of training, `peak_memory` in bytes on the device.
    """

    task: str
    model: Input
    data: tuple[Input, ...]
    settings: Mapping[str, Any]
    command: str
    metrics: Mapping[str, Mapping[str, float]]
    best_metric: str = ""
    best_step: int | None = None
    history: tuple[Mapping[str, Any], ...] = ()
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    teacher: Input | None = None
    recipe: Input | None = None
    recipe_arguments: Mapping[str, Any] = field(default_factory=dict)
    sparsity: Mapping[str, float] = field(default_factory=dict)
    device: str = "cpu"
    seconds: float = 0.0
    samples_per_second: float = 0.0
    peak_memory: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write it to `folder`/run.json, with sorted keys."""
        path = folder / FILE
        told = {"format_version": FORMAT, **asdict(self)}
        path.write_text(json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        """Return the report page as a notebook draws it: in a frame, which runs nothing and fetches nothing."""
        from hubcache.train.report import framed

        return framed(self)

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read what write wrote."""
        told: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        told.pop("format_version")
        return cls(
            **told
            | {
                "model": Input(**told["model"]),
                "data": tuple(Input(**each) for each in told["data"]),
                "teacher": Input(**told["teacher"]) if told["teacher"] else None,
                "recipe": Input(**told["recipe"]) if told.get("recipe") else None,
                "history": tuple(told["history"]),
                "labels": tuple(told["labels"]),
                "confusion": tuple(tuple(row) for row in told["confusion"]),
                "mistakes": tuple(Mistake(**each | {"texts": tuple(each["texts"])}) for each in told["mistakes"]),
                "notes": tuple(told["notes"]),
            }
        )
