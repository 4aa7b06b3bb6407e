"""What a conversion did, told so that it can be shown and stored; it decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is not as it was published.

    `renamed` has (original name, ours); `ignored` has (name, why it was left out) of tensors and of whatever stood
    beside them; `missing` has what the original lacks and a model makes anew; `left_behind` the files with no place in
    the converted repo; `notes` the rest.
    """

    renamed: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Tell it in lines, with a few examples where there are many."""
        told = [f"renamed {_some([f'{old} -> {new}' for old, new in self.renamed])}"] if self.renamed else []
        for why, pairs in groupby(sorted(self.ignored, key=lambda pair: pair[1]), key=lambda pair: pair[1]):
            told.append(f"left out {_some([name for name, _ in pairs])}: {why}")
        told += [f"not in the original: {_some(self.missing)}"] if self.missing else []
        told += [f"left behind: {_some(self.left_behind)}"] if self.left_behind else []
        return (*told, *self.notes)


def _some(names: Sequence[str]) -> str:
    shown: Iterable[str] = names[:_EXAMPLES]
    more = len(names) - _EXAMPLES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
