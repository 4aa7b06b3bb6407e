"""Which column is the text, which the label: a task's columns under the names that the data has, said aloud.

Nothing is read or tokenised here. A name in the data that a task asks for is always taken as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.tasks.labels import found_labels, label_cell, several
from hubcache.train.tasks.task import Task, changed
from hubcache.train.tasks.template import Row, columns_of, has_cell, renamed

ROLES = ("text", "pair", "question", "label")
TEXTS = (
    *("text", "sentence", "sentence1", "content", "title", "review", "tweet", "comment", "utterance", "query"),
    *("question", "document", "body", "message", "form", "premise", "inputs", "input", "source", "abstract", "article"),
)
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("sentence_A", "sentence_B"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("#1 String", "#2 String"),
    ("question", "sentence"),
    ("query", "document"),
)
LABELS = (
    *("label", "labels", "gold_label", "category", "class", "intent", "sentiment", "emotion", "topic", "target", "y"),
    *("score", "rating", "similarity", "relatedness_score", "entailment_judgment", "is_duplicate", "quality", "stars"),
    *("label_desc", "relation"),
)
TOKENS = ("tokens", "words", "token", "text", "sentence", "inputs")
TAGS = ("ner_tags", "tags", "labels", "label", "pos_tags", "ner")
SOURCES = ("source", "src", "article", "document", "abstract", "content", "input", "inputs", "sentence", "text")
TARGETS = (
    *("target", "tgt", "summary", "highlights", "title", "keyphrase", "targets", "output", "response", "answer"),
    "label",
)
LANGUAGES = ("en", "fr", "de", "es", "ko", "zh", "ja", "ru", "it", "pt", "nl", "ro", "cs", "ar", "hi", "tr", "vi")
KNOWN_COLUMNS = frozenset(
    name.lower()
    for group in (TEXTS, LABELS, TOKENS, TAGS, SOURCES, TARGETS, LANGUAGES, *PAIRS, ("id", "idx", "guid", "context"))
    for name in group
)
_SCANNED = 2000


def bind(task: Task, rows: Sequence[Row], names: Mapping[str, str] | None = None) -> tuple[Task, list[str]]:
    """Return the task with the columns that the rows have, and what was chosen, a line each.

    names maps a role or a column of the task to one of the data (`--column label=rating`): the roles are text, pair,
    question and label. Raises: UsageError for a column that cannot be found, with those there are.
    """
    if not rows:
        raise UsageError(f"{task.name}: there are no rows", hint="check the file and its splits")
    columns = tuple(dict.fromkeys(name for row in islice(rows, 1000) for name in row))
    asked = _asked(task, dict(names or {}), columns)
    found = _found(asked, rows, columns)
    said = [
        f"{role}: {_shown(getattr(found, role))}"
        for role in ROLES
        if getattr(found, role) and getattr(found, role) != getattr(task, role)
    ]
    return found, said


def with_labels(
    task: Task, rows: Iterable[Row], class_names: Mapping[str, Sequence[str]] | None = None
) -> tuple[Task, list[str]]:
    """Return the task with the label names of the data, unless it has its own, and a line that says them."""
    if task.labels or task.kind in {"regression", "question-answering", "multiple-choice", "text-to-text"}:
        return task, []
    named = (class_names or {}).get(task.label)
    if named:
        return replace(task, labels=tuple(named)), [f"{len(named)} labels, named by the data: {_listed(named)}"]
    labels, codes = found_labels(_label_values(task, rows))
    if not labels:
        raise UsageError(f"{task.name}: the column {task.label} has no label", hint="check --column label=NAME")
    said = [f"{len(labels)} labels found in {task.label}: {_listed(labels)}"]
    return replace(task, labels=labels, codes=codes), said


def _label_values(task: Task, rows: Iterable[Row]) -> Iterator[Any]:
    for row in rows:
        value = label_cell(task, row)
        if task.kind == "token-classification":
            yield from value.split() if isinstance(value, str) else value or ()
        elif task.kind == "multi-label-classification":
            yield from several(value)
        else:
            yield value


def _asked(task: Task, names: dict[str, str], columns: Sequence[str]) -> Task:
    """Put in what the user names: a role's column, or another name for a column of the task."""
    for name in names.values():
        if name not in columns and name.partition(".")[0] not in columns:
            raise UsageError(f"the data has no column {name!r}", hint=f"there are {', '.join(columns)}")
    roles = {role: names.pop(role) for role in ROLES if role in names}
    known = {*task.columns, *task.label_columns}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"{task.name} has no column {unknown[0]!r} to rename",
            hint=f"name text, pair, question, label or one of {', '.join(sorted(known))}",
        )
    renames = {role: renamed(getattr(task, role), names) for role in ROLES}
    return changed(task, {**renames, **roles})


def _found(task: Task, rows: Sequence[Row], columns: Sequence[str]) -> Task:
    guessed = _guessed(task, columns, rows) if not task.text else task
    wanted = {
        role: {name: _renamed_column(name, role, guessed, rows, columns) for name in columns_of(getattr(guessed, role))}
        for role in ROLES
    }
    return changed(guessed, {role: renamed(getattr(guessed, role), names) for role, names in wanted.items()})


def _renamed_column(name: str, role: str, task: Task, rows: Sequence[Row], columns: Sequence[str]) -> str:
    if name == "marked" or any(has_cell(row, name) for row in islice(rows, 1000)):
        return name
    taken = {*task.columns, *task.label_columns} - {name}
    for other in _aliases(name, role, task):
        match = _same_name(other, columns)
        if match and match not in taken:
            return match
    positional = _by_place(name, task, columns)
    if positional:
        return positional
    if role == "label":
        # A test set has none: whether that matters is for the caller to check.
        return name
    hint = f"there are {', '.join(columns)}: name it with --column {name}=COLUMN"
    raise UsageError(f"{task.name}: the data has no column {name!r}", hint=hint)


def _aliases(name: str, role: str, task: Task) -> Iterator[str]:
    yield name
    for first, second in PAIRS:
        if name.lower() in {first.lower(), second.lower()} and task.pair:
            place = 0 if name.lower() == first.lower() else 1
            yield from (pair[place] for pair in PAIRS)
    if role == "label":
        yield from TARGETS if task.generates else TAGS if task.kind == "token-classification" else LABELS
    elif task.kind == "token-classification":
        yield from TOKENS
    elif not task.pair and role == "text" and task.kind != "question-answering" and len(task.columns) == 1:
        yield from SOURCES if task.generates else TEXTS


def _guessed(task: Task, columns: Sequence[str], rows: Sequence[Row]) -> Task:
    """Fill in the roles of a task that says nothing but its kind."""
    if all(name.startswith("column") and name[6:].isdigit() for name in columns):
        return _placed(task, columns)
    if task.kind == "question-answering":
        return replace(task, text="context", question="question", label=task.label or "answers")
    if task.kind == "token-classification":
        text = _first(TOKENS, columns) or _no_column(task, "tokens", columns)
        return replace(task, text=text, label=task.label or _first(TAGS, columns, but=text) or "ner_tags")
    if task.kind == "multiple-choice":
        text = _first(("text", "premise", "context"), columns) or "text"
        return replace(task, text=text, label=task.label or "label")
    if task.generates:
        return _source_and_target(task, columns)
    label = task.label or _first(LABELS, columns) or _few_values(columns, rows)
    pair = next((pair for pair in PAIRS if all(_same_name(name, columns) for name in pair)), None)
    if pair and not task.pair:
        return replace(task, text=_same_name(pair[0], columns), pair=_same_name(pair[1], columns), label=label)
    text = _first(TEXTS, columns, but=label) or _longest_text(columns, rows, but=label)
    return replace(task, text=text or _no_column(task, "text", columns), label=label)


def _source_and_target(task: Task, columns: Sequence[str]) -> Task:
    source = _first(SOURCES, columns, but=task.label)
    target = task.label or _first(TARGETS, columns, but=source or "")
    if not source or not target:
        languages = [name for name in columns if name.lower() in LANGUAGES]
        if len(languages) >= 2:
            source, target = source or languages[0], task.label or languages[1]
    return replace(task, text=source or _no_column(task, "text", columns), label=target or "target")


def _placed(task: Task, columns: Sequence[str]) -> Task:
    """Columns without names: two are text and label (source and target), three two texts and a label."""
    if len(columns) == 3 and not task.generates and task.kind != "token-classification":
        return replace(task, text=columns[0], pair=columns[1], label=task.label or columns[2])
    if len(columns) == 1:
        return replace(task, text=columns[0], label=task.label or "label")
    return replace(task, text=columns[0], label=task.label or columns[-1])


def _by_place(name: str, task: Task, columns: Sequence[str]) -> str:
    """Without a header, a task's columns stand in its own order: first text, second text, label."""
    if not all(column.startswith("column") and column[6:].isdigit() for column in columns):
        return ""
    order = [*task.columns, *task.label_columns]
    return columns[order.index(name)] if name in order and order.index(name) < len(columns) else ""


def _first(names: Sequence[str], columns: Sequence[str], but: str = "") -> str:
    found = (_same_name(name, columns) for name in names)
    return next((name for name in found if name and name != but), "")


def _same_name(name: str, columns: Sequence[str]) -> str:
    """Return the column of that name, in other letter case at worst; "" where there is none."""
    if name in columns:
        return name
    return next((column for column in columns if column.lower() == name.lower()), "")


def _few_values(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the column with the fewest values, of those that have at least two and repeat themselves."""
    sample = rows[:_SCANNED]
    counts = {name: len({str(row.get(name)) for row in sample}) for name in columns}
    likely = {name: count for name, count in counts.items() if 1 < count <= max(2, len(sample) // 3)}
    return min(likely, key=lambda name: likely[name], default="label")


def _longest_text(columns: Sequence[str], rows: Sequence[Row], but: str) -> str:
    sample = rows[:_SCANNED]
    sizes = {
        name: sum(len(row[name]) for row in sample if isinstance(row.get(name), str)) for name in columns if name != but
    }
    best = max(sizes, key=lambda name: sizes[name], default="")
    return best if best and sizes[best] else ""


def _no_column(task: Task, role: str, columns: Sequence[str]) -> str:
    raise UsageError(
        f"{task.name}: no column looks like {role}", hint=f"there are {', '.join(columns)}: --column {role}=NAME"
    )


def _shown(template: str) -> str:
    return f"column {template}" if "{" not in template else template


def _listed(names: Sequence[str], shown: int = 10) -> str:
    rest = f"… ({len(names) - shown} more)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
