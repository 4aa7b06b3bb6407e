"""Label cells as numbers: names, numbers and codes, several a row, and the rows that have none; no tensor is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.task import Task
from hubcache.train.tasks.template import cell

# CMNLI and OCNLI write "-" where the annotators did not agree.
_NO_LABEL = frozenset(("", "-", "-1", None))


class LabelNumbers:
    """Turn a task's label cells into numbers; every spelling met is looked up once."""

    def __init__(self, labels: Sequence[str], codes: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)
        self._known: dict[Any, int] = {name: number for number, name in enumerate(self.labels)}
        self._known.update({code: number for number, code in enumerate(codes)})
        self._lower = {str(name).lower(): number for name, number in self._known.items()}

    def number(self, value: Any) -> int | None:
        """Return the number of a cell, None where it says that there is no label.

        A text is a code or a name, else a number in digits; a whole number is the label's number, unless it is out of
        range and its digits are a code. Raises: UsageError for anything else.
        """
        if isinstance(value, list | dict):
            raise UsageError(
                f"{value!r} is no single label", hint="for several a row: --task multi-label-classification"
            )
        key = (type(value), value)
        if key not in self._known:
            self._known[key] = self._looked_up(value)
        found = self._known[key]
        return None if found < 0 else found

    def _looked_up(self, value: Any) -> int:
        spelled = value.strip() if isinstance(value, str) else value
        if isinstance(spelled, bool) and str(spelled).lower() in self._known:
            return self._known[str(spelled).lower()]
        if isinstance(spelled, str) and spelled in self._known:
            return self._known[spelled]
        if is_unlabelled(spelled):
            return -1
        number = _whole(spelled)
        if number is not None and 0 <= number < len(self.labels):
            return number
        if number is not None and str(number) in self._known:
            return self._known[str(number)]
        if isinstance(spelled, str) and spelled.lower() in self._lower:
            return self._lower[spelled.lower()]
        raise UsageError(f"{value!r} is no label", hint=nearest(str(value), self.labels))


def is_unlabelled(value: Any) -> bool:
    """Tell whether a label cell stands for no label: empty, "-", or a number below 0."""
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN, as pandas writes it
        return True
    if isinstance(value, str):
        return value.strip() in _NO_LABEL
    return isinstance(value, int | float) and not isinstance(value, bool) and value == -1


def row_labels(task: Task) -> Callable[[Mapping[str, Any]], int | None]:
    """Return the function that numbers a row's label; a row without one is `task.unlabelled`."""
    numbers = LabelNumbers(task.labels, task.codes)
    instead = task.unlabelled if isinstance(task.unlabelled, int) else None

    def read(row: Mapping[str, Any]) -> int | None:
        number = numbers.number(label_cell(task, row))
        return instead if number is None else number

    return read


def label_cell(task: Task, row: Mapping[str, Any]) -> Any:
    """Return the label cell of a row, None where the column is not there."""
    try:
        return cell(row, task.label)
    except KeyError:
        return None


def several(value: Any) -> list[Any]:
    """Return the labels of a cell that may hold several: a list, or a text with commas."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part for part in (piece.strip() for piece in value.split(",")) if part]
    return list(value) if isinstance(value, list | tuple) else [value]


def found_labels(values: Iterable[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the label names that cells hold, and their codes where the numbers are not 0, 1, 2…

    Texts are sorted as texts, numbers as numbers; numbers that begin with 0 name themselves without gaps.
    """
    seen = {value.strip() if isinstance(value, str) else value for value in values if not is_unlabelled(value)}
    if seen and all(isinstance(value, bool) for value in seen):
        return ("false", "true"), ()
    if seen and all(_whole(value) is not None for value in seen):
        numbers = sorted({int(value) for value in seen})
        names = tuple(str(number) for number in numbers)
        if numbers[0] >= 0 and numbers[-1] < 2 * len(numbers) + 2:
            return tuple(str(number) for number in range(numbers[-1] + 1)), ()
        return names, names
    return tuple(sorted(str(value) for value in seen)), ()


def _whole(value: Any) -> int | None:
    """Return a whole number, also one in digits or a float that is whole; None for the rest."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    text = str(value)
    return int(text) if text.lstrip("-").isdigit() and text.isascii() else None
