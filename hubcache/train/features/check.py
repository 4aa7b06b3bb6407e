"""All that is wrong with a task's data, found before anything is trained, each with its cure; it changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.features.answers import accepted_answers
from hubcache.train.features.choices import choices_of
from hubcache.train.features.encoded import too_long
from hubcache.train.features.relations import marked_entities, with_marks
from hubcache.train.features.texts import target_texts
from hubcache.train.features.tokens import sentence_of, words_of
from hubcache.train.tasks.labels import LabelNumbers, is_unlabelled, label_cell, several
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import Row, cell, columns_of, has_cell, text_of

_MEASURED = 5000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (fatal) or worth knowing, and its cure."""

    what: str
    cure: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.cure}"


def check_task(
    task: Task, splits: Mapping[str, Sequence[Row]], tokenizer: Any = None, model_limit: int | None = None
) -> list[Finding]:
    """Return everything found in the data of a bound task (read_task_data), the fatal first.

    Lengths are measured with a tokenizer, on the first 5,000 rows of a split; model_limit is the most tokens that the
    model takes.
    """
    found = [*_settings(task, model_limit)]
    for split in ("train", *(name for name in splits if name != "train")):
        rows = splits.get(split, ())
        if not rows:
            found.append(
                Finding(f"the split {split} is empty", "check the file, its splits and --split", split == "train")
            )
            continue
        columns = list(_columns(task, split, rows))
        found += columns
        if not any(one.fatal for one in columns):
            found += _rows(task, split, rows)
            found += _lengths(task, split, rows, tokenizer)
    found += _classes(task, splits.get("train", ()))
    return sorted(found, key=lambda one: not one.fatal)


def _settings(task: Task, model_limit: int | None) -> Iterator[Finding]:
    from hubcache.train.metrics import METRICS

    for name in task.metrics:
        if name not in METRICS:
            yield Finding(f"there is no metric {name}", nearest(name, METRICS))
    limit = int(task.option("max_length"))
    if model_limit is not None and limit > model_limit:
        what = f"the task takes {limit} tokens, the model {model_limit}"
        yield Finding(what, f"--set max_length={model_limit}")


def _columns(task: Task, split: str, rows: Sequence[Row]) -> Iterator[Finding]:
    wanted = [name for name in task.columns if name != "marked"]
    if "marked" in columns_of(task.text) and "marked" not in rows[0]:
        wanted += ["sentence", "subject_entity", "object_entity"]
    listed = ", ".join(dict.fromkeys(name for row in rows[:100] for name in row))
    for name in wanted:
        missing = sum(not has_cell(row, name) for row in rows)
        if missing:
            yield Finding(
                f"{split}: {missing} of {len(rows)} rows have no {name}", f"there are {listed}; --column {name}=NAME"
            )
    for name in columns_of(task.label):
        missing = sum(not has_cell(row, name) for row in rows)
        if missing == len(rows):
            yield Finding(
                f"{split}: no row has the label {name}", f"there are {listed}; --column label=NAME", split != "test"
            )


def _rows(task: Task, split: str, rows: Sequence[Row]) -> Iterator[Finding]:
    """Check each row, and tell each kind of mistake once, with how many rows have it and the first."""
    check = _CHECKS.get(task.kind, _label)(task)
    counts: Counter[str] = Counter()
    first: dict[str, tuple[int, UsageError]] = {}
    unlabelled = 0
    for number, row in enumerate(rows, start=1):
        if task.label and not task.label.count("{") and is_unlabelled(label_cell(task, row)):
            unlabelled += 1
            continue
        try:
            check(row)
        except UsageError as error:
            kind = error.message.partition(":")[0]
            counts[kind] += 1
            first.setdefault(kind, (number, error))
    for kind, count in counts.most_common(_SHOWN):
        number, mistake = first[kind]
        yield Finding(f"{split}: {kind} (row {number}, {count} such rows)", mistake.hint or "correct or drop the row")
    if len(counts) > _SHOWN:
        yield Finding(f"{split}: {len(counts) - _SHOWN} other mistakes", "correct the first ones and check again")
    if unlabelled and unlabelled < len(rows):
        instead = "are left out" if task.unlabelled is None else f"count as {task.unlabelled!r}"
        yield Finding(f"{split}: {unlabelled} of {len(rows)} rows have no label", f"they {instead}", fatal=False)


def _lengths(task: Task, split: str, rows: Sequence[Row], tokenizer: Any) -> Iterator[Finding]:
    if tokenizer is None:
        return
    limit = int(task.option("max_length"))
    measured = rows[:_MEASURED]
    texts = [" ".join(_texts(task, row)) for row in measured]
    long = too_long(tokenizer, texts, limit)
    if long:
        cure = "they are read in windows" if task.kind == "question-answering" else "they are cut; --set max_length=N"
        yield Finding(f"{split}: {long} of {len(measured)} texts are longer than {limit} tokens", cure, fatal=False)
    if task.generates and task.label:
        limit = int(task.option("max_target_length"))
        long = too_long(tokenizer, [target for target in target_texts(task, measured) if target], limit)
        if long:
            what = f"{split}: {long} of {len(measured)} targets are longer than {limit} tokens"
            yield Finding(what, "they are cut; --set target_length=N", fatal=False)


def _texts(task: Task, row: Row) -> list[str]:
    if task.kind == "token-classification" and task.option("tags") != "words":
        return [sentence_of(task, row)]
    marked = with_marks(task)(row)
    return [text_of(one)(marked) for one in (task.question, task.text, task.pair) if one]


def _classes(task: Task, rows: Sequence[Row]) -> Iterator[Finding]:
    if task.kind not in {"text-classification", "relation-extraction"} or not rows:
        return
    seen = {str(label_cell(task, row)) for row in rows[:_MEASURED]}
    if len(seen) == 1:
        yield Finding(
            f"train: all rows have the label {seen.pop()}", "there is nothing to learn: shuffle or choose rows"
        )


def _label(task: Task) -> Callable[[Row], None]:
    numbers = LabelNumbers(task.labels, task.codes)

    def check(row: Row) -> None:
        if task.kind == "multi-label-classification":
            for value in several(label_cell(task, row)):
                numbers.number(value)
        elif task.labels:
            numbers.number(label_cell(task, row))

    return check


def _number(task: Task) -> Callable[[Row], None]:
    def check(row: Row) -> None:
        value = label_cell(task, row)
        try:
            float(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{value!r} is no number", hint="a regression's label is one: or --task text-classification"
            ) from error

    return check


def _tags(task: Task) -> Callable[[Row], None]:
    numbers = LabelNumbers(task.labels, task.codes)

    def check(row: Row) -> None:
        kind, value = task.option("tags"), label_cell(task, row)
        if kind not in {"words", "characters"}:
            return
        tags = value.split() if isinstance(value, str) else value
        words = words_of(cell(row, task.text)) if kind == "words" else sentence_of(task, row)
        if len(tags) != len(words):
            raise UsageError("the tags are not as many as the tokens", hint="give one tag a token")
        for tag in tags:
            numbers.number(tag)

    return check


def _span(task: Task) -> Callable[[Row], None]:
    def check(row: Row) -> None:
        answers = label_cell(task, row)
        if not isinstance(answers, Mapping) or "answer_start" not in answers:
            raise UsageError(
                "answers are no {text, answer_start}", hint="extractive answers need their place in the text"
            )
        context = text_of(task.text)(row)
        accepted = accepted_answers(task, row)
        if accepted and not answers["answer_start"]:
            raise UsageError("an answer has no answer_start", hint="give its first character's place in the context")
        if accepted and context[answers["answer_start"][0] :][: len(accepted[0])] != accepted[0]:
            raise UsageError(
                "an answer is not where answer_start says", hint="count characters, not bytes; or drop the row"
            )

    return check


def _marks(task: Task) -> Callable[[Row], None]:
    label = _label(task)

    def check(row: Row) -> None:
        label(row)
        marked_entities(task, row)

    return check


def _choice(_: Task) -> Callable[[Row], None]:
    def check(row: Row) -> None:
        if len(choices_of(row)) < 2:
            raise UsageError("a row has one choice", hint="give at least two")

    return check


_CHECKS: Mapping[str, Callable[[Task], Callable[[Row], None]]] = {
    "regression": _number,
    "token-classification": _tags,
    "question-answering": _span,
    "relation-extraction": _marks,
    "multiple-choice": _choice,
}
