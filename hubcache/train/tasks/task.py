"""What a task is: its rows, texts, labels, head, metrics and generation settings, as one value; it runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from hubcache.errors import UsageError
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.template import Row, columns_of

Kind = Literal[
    "text-classification",
    "multi-label-classification",
    "regression",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "relation-extraction",
    "text-to-text",
]
KINDS: tuple[str, ...] = get_args(Kind)

Layout = str | Callable[[list[Row]], list[Row]]

_HEADS = {
    "text-classification": "AutoModelForSequenceClassification",
    "multi-label-classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "relation-extraction": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "text-to-text": "AutoModelForSeq2SeqLM",
}
_T5_HEADS = {
    "AutoModelForSequenceClassification": "T5EncoderForSequenceClassificationMean",
    "AutoModelForTokenClassification": "T5EncoderForTokenClassification",
}
_PROBLEM_TYPES = {
    "text-classification": "single_label_classification",
    "relation-extraction": "single_label_classification",
    "multi-label-classification": "multi_label_classification",
    "regression": "regression",
}
# What each kind knows beside the fields of a task, with its default.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "text-classification": {},
    "multi-label-classification": {"threshold": 0.5},
    "regression": {},
    "token-classification": {"tags": "words", "label_all_tokens": False, "window": 448, "stride": 128},
    "question-answering": {
        "stride": 128,
        "max_question_length": 64,
        "max_answer_length": 30,
        "n_best": 20,
        "no_answer": False,
        "no_answer_threshold": 0.0,
    },
    "multiple-choice": {},
    "relation-extraction": {"positions": False, "markers": "*#"},
    "text-to-text": {"number": False},
}
_COMMON_OPTIONS: Mapping[str, Any] = {"max_length": 128, "max_target_length": 128, "special_tokens": True}


def _own_names() -> Mapping[str, str]:
    return {"train": "train", "validation": "validation", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task, its definition being data: the shipped ones are in shipped/*.yaml, a user's own is one entry like them.

    layout       how records become rows (a name of data/layouts.py, or a function); "" where they are rows already
    text, pair   a column, or a template of columns (template.py); the context of a question, a choice's beginning
    question     the column of the question, where there is one
    label        the column of the label, of the answers, or the target's column or template
    labels       the names, in the order of their numbers; () finds them in the data
    codes        how the data spells the labels, where it is not their names or numbers
    unlabelled   what a row without label counts as (a number, or a text as target); None leaves it out
    head         the model's class: an Auto class, or a class of hubcache.models; "" is the kind's
    t5_head      the class for a T5 encoder instead, "" is the kind's
    metrics      names of hubcache.train.metrics; the best checkpoint is chosen by `best_metric`
    generation   what generate() is called with
    options      settings of the kind, see OPTIONS
    as_published the original's defects are reproduced (what they are: docstrings of hubcache.train.features), for the
                 sake of figures that were published with them
    """

    name: str
    kind: Kind
    about: str = ""
    aliases: tuple[str, ...] = ()
    dataset: str = ""
    config: str = ""
    splits: Mapping[str, str] = field(default_factory=_own_names)
    layout: Layout = ""
    text: str = ""
    pair: str = ""
    question: str = ""
    label: str = ""
    labels: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    unlabelled: int | str | None = None
    head: str = ""
    t5_head: str = ""
    metrics: tuple[str, ...] = ()
    best_metric: str = ""
    generation: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    as_published: bool = False

    def __post_init__(self) -> None:
        """Check what no data is needed for. Raises: UsageError."""
        if self.kind not in KINDS:
            raise UsageError(f"task {self.name}: there is no kind {self.kind!r}", hint=nearest(self.kind, KINDS))
        for option in self.options:
            if option not in OPTIONS[self.kind] and option not in _COMMON_OPTIONS:
                known = (*OPTIONS[self.kind], *_COMMON_OPTIONS)
                raise UsageError(f"task {self.name}: {self.kind} has no option {option!r}", hint=nearest(option, known))
        if self.best_metric and self.best_metric not in self.metrics:
            raise UsageError(
                f"task {self.name}: the best metric {self.best_metric} is none of its metrics",
                hint=f"add it to metrics: {', '.join(self.metrics)}",
            )
        if self.codes and len(self.codes) != len(self.labels):
            raise UsageError(f"task {self.name}: {len(self.codes)} codes for {len(self.labels)} labels")

    def option(self, name: str) -> Any:
        """Return an option, or what its kind takes for it."""
        defaults = {**_COMMON_OPTIONS, **OPTIONS[self.kind]}
        return self.options.get(name, defaults[name])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the texts are made of, in order, without the label's."""
        found = [*columns_of(self.text), *columns_of(self.pair), *columns_of(self.question)]
        return tuple(dict.fromkeys(found))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that the label or target is made of."""
        return columns_of(self.label)

    @property
    def generates(self) -> bool:
        """Tell whether predictions are generated texts."""
        return self.kind == "text-to-text"

    @property
    def better_by(self) -> str:
        """The metric that chooses the best checkpoint, "" where the task has none."""
        return self.best_metric or (self.metrics[0] if self.metrics else "")

    def model_config(self) -> dict[str, Any]:
        """Return what a model's config must say for this task: label names, their number and the problem type."""
        settings: dict[str, Any] = {}
        if self.kind in _PROBLEM_TYPES:
            settings["problem_type"] = _PROBLEM_TYPES[self.kind]
        if self.kind == "regression":
            settings["num_labels"] = 1
        elif self.labels and self.kind in {*_PROBLEM_TYPES, "token-classification"}:
            settings["num_labels"] = len(self.labels)
            settings["id2label"] = dict(enumerate(self.labels))
            settings["label2id"] = {name: number for number, name in enumerate(self.labels)}
        return settings


def head_of(task: Task, model_type: str = "") -> str:
    """Return the class name of the head: an Auto class of transformers, or a class of hubcache.models.

    A T5 (`model_type` t5, or t5_encoder once it has such a head) classifies with its encoder alone, as KE-T5 does.
    """
    head = task.head or _HEADS[task.kind]
    if model_type not in {"t5", "t5_encoder"}:
        return head
    return task.t5_head or _T5_HEADS.get(head, head)


def changed(task: Task, settings: Mapping[str, Any]) -> Task:
    """Return the task with other settings; `options.stride` and `generation.num_beams` reach into those.

    Raises: UsageError for a setting that no task has, with the nearest.
    """
    known = {one.name for one in fields(Task)}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        outer, dot, inner = name.partition(".")
        if outer not in known:
            raise UsageError(f"a task has no setting {name!r}", hint=nearest(outer, known))
        if dot:
            values[outer] = {**values.get(outer, getattr(task, outer)), inner: value}
        else:
            values[outer] = value
    return replace(task, **{name: settled(name, value) for name, value in values.items()})


def settled(name: str, value: Any) -> Any:
    """Return a field's value as a task holds it: lists as tuples."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(str(member) for member in value)
    if name in {"labels", "codes", "metrics", "aliases"} and isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value
