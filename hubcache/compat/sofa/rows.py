"""The rows of SOFA's fine-tuning functions: files as `datasets` would read them, keys or functions to take values by.

Nothing is tokenised here, and nothing fetched: a data set by name has to be in the cache of `datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from hubcache.errors import UsageError
from hubcache.train.data.delimited import read_csv
from hubcache.train.data.reading import read_jsonl, read_parquet
from hubcache.train.data.rows import decoded

Row: TypeAlias = dict[str, Any]
Files: TypeAlias = "str | Path | Sequence[str | Path]"
Taken: TypeAlias = "str | Callable[[Row], Any]"
"""A column's name, or a function of the row."""

TEXT = "text"


def text_rows(path: Path) -> list[Row]:
    """Return a row a line, under "text"; only \\n and \\r\\n end a line, and a blank line is a row."""
    lines = decoded(path).replace("\r\n", "\n").split("\n")
    return [{TEXT: line} for line in (lines if lines[-1] else lines[:-1])]


READERS: Mapping[str, Callable[[Path], list[Row]]] = {
    TEXT: text_rows,
    "csv": lambda path: read_csv(path).rows,
    "json": lambda path: read_jsonl(path).rows,
    "parquet": lambda path: read_parquet(path).rows,
}
"""What reads files, by the name that `datasets` has for it."""


def read_files(files: Files, loader: str = TEXT) -> list[Row]:
    """Read a file, all files of a folder, or a list of files. Raises: UsageError for what cannot be read."""
    if loader not in READERS:
        raise UsageError(f"no reader is called {loader!r}", hint=f"dataset_name is one of {', '.join(READERS)}")
    named = [files] if isinstance(files, str | Path) else files
    paths = [path for each in named for path in _files_at(Path(each))]
    return [row for path in paths for row in READERS[loader](path)]


def read_cached(name: str, configs: str, split: str, cache_dir: str) -> list[Row]:
    """Return a data set's rows, of several configs (split at commas) in turn.

    Raises: UsageError where `datasets` is not installed.
    """
    try:
        import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]  # has no types
    except ImportError as error:
        raise UsageError("a data set by name needs `datasets`", hint="run: pip install datasets") from error
    parts = [datasets.load_dataset(name, each, split=split, cache_dir=cache_dir) for each in configs.split(",")]
    return [dict(row) for row in (parts[0] if len(parts) == 1 else datasets.interleave_datasets(parts))]


def prepared(
    rows: list[Row], map_function: Callable[[Row], Row | None] | None, filter_function: Callable[[Row], bool] | None
) -> list[Row]:
    """Filter the rows, then map them: what the function returns is put into the row."""
    kept = rows if filter_function is None else [row for row in rows if filter_function(row)]
    return kept if map_function is None else [{**row, **(map_function(row) or {})} for row in kept]


def take(row: Row, taken: Taken) -> Any:
    """Return a row's value. Raises: KeyError for a column it has not, TypeError where this is no key or function."""
    if isinstance(taken, str):
        if taken not in row:
            raise KeyError(f"a row has no column {taken!r}, only {', '.join(row)}")
        return row[taken]
    if not callable(taken):
        raise TypeError(f"a sequence or label is a column's name or a function of the row, not {taken!r}")
    return taken(row)


def label_names(named: Sequence[Any] | str | None, seen: set[str]) -> list[str]:
    """Return the labels in order: as named (a text is split at commas), else those seen, sorted.

    Raises: ValueError where one that is seen is not named.
    """
    if named is None:
        return sorted(seen)
    names = [str(name) for name in (named.split(",") if isinstance(named, str) else named)]
    unknown = sorted(seen - set(names))
    if unknown:
        raise ValueError(f"label_enumerate_values lacks {', '.join(unknown)}")
    return names


def label_maps(names: Sequence[str]) -> dict[str, Any]:
    """Return id2label and label2id of a configuration."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    if not path.is_file():
        raise UsageError(f"there is no data file {path}")
    return [path]
