"""A checkpoint's tensors brought under the names of our models; whether they are the right ones, layouts.py tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hubcache.convert.naming import Naming
from hubcache.convert.tensors import StoredTensor

FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(slots=True)
class Renamed:
    """The tensors by our names, the original name of each, and what was done to get there."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    issues: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The original names that changed, each with ours."""
        return tuple((name, ours) for ours, name in self.originals.items() if name != ours)


def rename_all(tensors: Mapping[str, StoredTensor], naming: Naming) -> Renamed:
    """Rename every tensor, leave out what the model has no place for, and check what it ties against its source."""
    renamed = Renamed()
    for name, tensor in tensors.items():
        _rename(renamed, name, tensor, naming)
    for name, source in naming.tied.items():
        if name in renamed.tensors:
            _tie(renamed, name, source)
    return renamed


def _rename(renamed: Renamed, name: str, tensor: StoredTensor, naming: Naming) -> None:
    ours = naming.rename(name)
    if (why := naming.why_ignored(ours)) is not None:
        renamed.ignored.append((name, why))
        return
    if ours in renamed.tensors:
        renamed.issues.append(f"{name}: a second tensor that is called {ours}")
        return
    if tensor.dtype not in FLOATS:
        renamed.issues.append(f"{name}: its numbers are {tensor.dtype}, not floating-point")
    renamed.tensors[ours] = tensor
    renamed.originals[ours] = name


def _tie(renamed: Renamed, name: str, source: str) -> None:
    tensor, original = renamed.tensors.pop(name), renamed.originals.pop(name)
    if source not in renamed.tensors:
        renamed.tensors[source] = tensor
        renamed.originals[source] = original
    elif tensor.is_equal(renamed.tensors[source]):
        renamed.ignored.append((original, f"the same as {source}, which the model takes it from"))
    else:
        renamed.issues.append(f"{original}: differs from {source}, which the model takes it from")
