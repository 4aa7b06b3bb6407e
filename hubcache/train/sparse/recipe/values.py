"""Readers of a modifier's arguments: a YAML value in, a value of the right type out; no rule between two arguments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hubcache.errors import BadConfig

Reader = Callable[[Any], Any]
MASKS = ("unstructured", "block4", "tensorrt")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def number(value: Any) -> float | int:
    """Read a finite number; YAML 1.1 leaves `1e-4` a string, so text is read too.

    Raises BadConfig.
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadConfig(f"{value!r} is no number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadConfig(f"{short(value)} is no number")
    if (isinstance(value, int) and abs(value) > 10**15) or not math.isfinite(value):
        raise BadConfig(f"{short(value)} is out of range")
    return value


def epoch(value: Any) -> float:
    """Read an epoch: 0 or later, or -1 for "no bound".

    Raises BadConfig.
    """
    read = float(number(value))
    if read < 0 and read != -1:
        raise BadConfig(f"{read:g} is no epoch: 0 or later, or -1")
    if read > 1e6:
        raise BadConfig(f"{read:g} epochs are out of range")
    return read


def between(low: float, high: float, *, above: bool = False) -> Reader:
    """Make a reader of numbers in [low, high], or (low, high] with `above`."""

    def read(value: Any) -> float | int:
        found = number(value)
        if not low <= found <= high or (above and found == low):
            raise BadConfig(f"{found:g} is not in {'(' if above else '['}{low:g}, {high:g}]")
        return found

    return read


def whole(low: int, high: int) -> Reader:
    """Make a reader of whole numbers in [low, high]."""

    def read(value: Any) -> int:
        found = number(value)
        if found != int(found) or not low <= found <= high:
            raise BadConfig(f"{found:g} is no whole number in [{low}, {high}]")
        return int(found)

    return read


def frequency(value: Any) -> float:
    """Read an update frequency in epochs: -1 is every step.

    Raises BadConfig.
    """
    read = float(number(value))
    if read != -1 and read <= 0:
        raise BadConfig(f"{read:g} is no update frequency: epochs above 0, or -1 for every step")
    return read


def flag(value: Any) -> bool:
    """Read yes or no: true, false, 0, 1 or such a word.

    Raises BadConfig.
    """
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise BadConfig(f"{short(value)} is neither true nor false")


def word(value: Any) -> str:
    """Read a non-empty text.

    Raises BadConfig.
    """
    if not isinstance(value, str) or not value:
        raise BadConfig(f"{short(value)} is no name")
    return value


def one_of(*names: str) -> Reader:
    """Make a reader of one of these words."""

    def read(value: Any) -> str:
        if value not in names:
            raise BadConfig(f"{short(value)} is none of {', '.join(names)}")
        return str(value)

    return read


def words(value: Any) -> tuple[str, ...]:
    """Read a list of names; one name alone is a list of one.

    Raises BadConfig.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise BadConfig(f"{short(value)} is no list of names")
    return tuple(word(name) for name in value)


def params(value: Any) -> str | tuple[str, ...]:
    """Read parameter names: a token or one name stays a text, a list becomes a tuple; `re:` patterns must compile.

    Raises BadConfig.
    """
    names = words(value)
    for name in names:
        if name.startswith("re:"):
            try:
                re.compile(name[3:])
            except (re.error, OverflowError, RecursionError) as error:
                raise BadConfig(f"{name!r} is no pattern: {error}") from None
    return names[0] if isinstance(value, str) else names


def groups(value: Any) -> tuple[int, ...]:
    """Read indices of an optimizer's parameter groups.

    Raises BadConfig.
    """
    if not isinstance(value, (list, tuple)):
        raise BadConfig(f"{short(value)} is no list of parameter groups")
    return tuple(whole(0, 10**6)(index) for index in value)


def init_sparsity(value: Any) -> float | int | str:
    """Read a sparsity in [0, 1] or `__FROM_PARAM__`, what the weight already has.

    Raises BadConfig.
    """
    return value if value == "__FROM_PARAM__" else between(0, 1)(value)


def final_sparsity(value: Any) -> float | int | dict[float, tuple[str, ...]]:
    """Read a sparsity in [0, 1], or a mapping of sparsity to the parameters that reach it.

    Raises BadConfig.
    """
    if not isinstance(value, Mapping):
        return between(0, 1)(value)
    if not value:
        raise BadConfig("no sparsity is named")
    read = between(0, 1)
    return {float(read(share)): _listed(names) for share, names in value.items()}


def mask_type(value: Any) -> str | tuple[int, int]:
    """Read what shape zeros come in: unstructured, block4, [rows, columns], tensorrt or N:M.

    YAML 1.1 reads an unquoted 2:4 as the base-60 number 124, so such a number is read back.
    Raises BadConfig.
    """
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return (whole(-1, 10**6)(value[0]), whole(-1, 10**6)(value[1]))
    if isinstance(value, int) and not isinstance(value, bool) and value > 60:
        value = "{}:{}".format(*divmod(value, 60))
    if isinstance(value, str):
        pattern = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", value)
        if value in MASKS or (pattern and int(pattern[1]) <= int(pattern[2])):
            return value
    raise BadConfig(f"{short(value)} is no mask type: {', '.join(MASKS)}, N:M or [rows, columns]")


def pairs(value: Any) -> dict[Any, Any]:
    """Read a mapping as it is.

    Raises BadConfig.
    """
    if not isinstance(value, Mapping):
        raise BadConfig(f"{short(value)} is no mapping")
    return dict(value)


def mapping(value: Any) -> dict[str, Any]:
    """Read a mapping of names to plain values.

    Raises BadConfig.
    """
    return {word(key): plain(held) for key, held in pairs(value).items()}


def plain(value: Any) -> Any:
    """Return a value made of text, finite numbers, booleans, None, lists and mappings only; the rest as text.

    Raises BadConfig.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**30):
        return value
    return _dated(value)


def optional(read: Reader) -> Reader:
    """Make a reader that leaves None alone."""
    return lambda value: None if value is None else read(value)


def only(kept: Collection[Any], why: str) -> Reader:
    """Make a reader of an argument that is accepted but must hold one of these values."""

    def read(value: Any) -> Any:
        if isinstance(value, (dict, list, set)) or value not in kept:
            raise BadConfig(f"{short(value)} {why}")
        return value

    return read


def short(value: Any) -> str:
    """Show a value in an error, 60 characters at most."""
    text = repr(str(value)) if isinstance(value, str) else str(type(value).__name__)
    if isinstance(value, (bool, float)) or value is None or (isinstance(value, int) and abs(value) < 10**18):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(names: Any) -> tuple[str, ...]:
    read = params(names)
    return (read,) if isinstance(read, str) else read


def _dated(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise BadConfig(f"{short(value)} is no plain value")
