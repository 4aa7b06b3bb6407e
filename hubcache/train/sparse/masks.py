"""Which weights to keep for a sparsity: the smallest go, one by one, in blocks, or N of M.

It scores by magnitude alone and holds no mask; see pruning.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hubcache.errors import BadConfig
from hubcache.train.tasks.nearest import nearest

_BLOCK4, _TENSORRT = "block4", "tensorrt"
_KINDS = ("unstructured", _BLOCK4, _TENSORRT, "2:4", "[1, 4]")
_STRIDE = 61
_WORTHWHILE = 1000
_CLOSE = 0.01
"""A recipe may write 1:3 as 0.66 or 0.67."""


class Structure(Protocol):
    """How weights go together when they are pruned."""

    def scores(self, weight: Tensor) -> Tensor:
        """Return a score for each group, [groups]; the lowest go first, those at infinity never."""

    def spread(self, kept: Tensor, weight: Tensor) -> Tensor:
        """Return [groups] as a mask of the weight's shape."""

    def settled(self, final_sparsity: float) -> float:
        """Return the sparsity that the structure ends at. Raises: BadConfig where it cannot be had."""


@dataclass(frozen=True, slots=True)
class Single:
    """Each weight for itself."""

    def scores(self, weight: Tensor) -> Tensor:
        """Return the magnitudes."""
        return weight.abs().flatten()

    def spread(self, kept: Tensor, weight: Tensor) -> Tensor:
        """Return the mask."""
        return kept.view(weight.shape)

    def settled(self, final_sparsity: float) -> float:
        """Take any sparsity."""
        return final_sparsity


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of rows (output channels) x columns (input channels), -1 for all; the mean magnitude is the score.

    `cut` lets blocks at the edge be smaller.
    """

    rows: int
    columns: int
    cut: bool = False

    def scores(self, weight: Tensor) -> Tensor:
        """Return the means of the blocks."""
        flat = _channels_last(weight.abs())
        total = self._sums(flat)
        return (total / self._sums(torch.ones_like(flat))).flatten()

    def spread(self, kept: Tensor, weight: Tensor) -> Tensor:
        """Return the mask."""
        flat = _channels_last(weight)
        rows, columns = self._size(flat)
        places, height, width = flat.shape
        grid = kept.view(places, math.ceil(height / rows), math.ceil(width / columns))
        full = grid.repeat_interleave(rows, 1).repeat_interleave(columns, 2)
        return _channels_back(full[:, :height, :width], weight)

    def settled(self, final_sparsity: float) -> float:
        """Take any sparsity."""
        return final_sparsity

    def _size(self, flat: Tensor) -> tuple[int, int]:
        _, height, width = flat.shape
        rows = height if self.rows == -1 else self.rows
        columns = width if self.columns == -1 else self.columns
        if not self.cut and (height % rows or width % columns):
            raise BadConfig(f"recipe: mask_type [{rows}, {columns}] does not divide a weight of {height} x {width}")
        return rows, columns

    def _sums(self, flat: Tensor) -> Tensor:
        rows, columns = self._size(flat)
        _, height, width = flat.shape
        padded = torch.nn.functional.pad(flat, (0, -width % columns, 0, -height % rows))
        return padded.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).sum((2, 4))


@dataclass(frozen=True, slots=True)
class NofM:
    """At most `kept` weights of each `group` along the input channels stay in the end."""

    kept: int
    group: int

    def scores(self, weight: Tensor) -> Tensor:
        """Return the magnitudes of those that may go, infinity for the others."""
        flat = _channels_last(weight.abs())
        if flat.shape[-1] % self.group:
            raise BadConfig(f"recipe: mask_type {self.kept}:{self.group} does not divide {flat.shape[-1]} channels")
        groups = flat.reshape(-1, self.group)
        order = groups.argsort(dim=1, stable=True)
        return groups.scatter(1, order[:, self.group - self.kept :], math.inf).flatten()

    def spread(self, kept: Tensor, weight: Tensor) -> Tensor:
        """Return the mask."""
        return _channels_back(kept.view(_channels_last(weight).shape), weight)

    def settled(self, final_sparsity: float) -> float:
        """Return the one sparsity of the pattern."""
        whole = 1 - self.kept / self.group
        if abs(final_sparsity - whole) > _CLOSE:
            raise BadConfig(
                f"recipe: mask_type {self.kept}:{self.group} has a sparsity of {whole:g}, not {final_sparsity:g}",
                hint=f"final_sparsity: {whole:g}",
            )
        return whole


def structure_of(mask_type: str | Sequence[int]) -> Structure:
    """Return what a recipe's mask_type stands for: unstructured, block4, [r, c], N:M (N stay), tensorrt (2:4).

    Raises: BadConfig for anything else.
    """
    if mask_type == "unstructured":
        return Single()
    if mask_type == _BLOCK4:
        return Blocks(1, 4, cut=True)
    text = "2:4" if mask_type == _TENSORRT else str(mask_type)
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        kept, group = int(found[1]), int(found[2])
        if 0 < kept < group:
            return NofM(kept, group)
    if found := re.fullmatch(r"[\[(]\s*(-1|[1-9]\d*)\s*,\s*(-1|[1-9]\d*)\s*(?:,\s*1\s*)*[\])]", text):
        return Blocks(int(found[1]), int(found[2]))
    raise BadConfig(f"recipe: there is no mask_type {mask_type!r}", hint=nearest(text, _KINDS))


def keep_masks(
    weights: Sequence[Tensor], sparsities: Sequence[float], structure: Structure, *, together: bool = False
) -> list[Tensor]:
    """Return a mask of each weight's shape and dtype, 1 where it stays; round(groups * sparsity) groups go.

    `together` counts over all weights, by the first sparsity. Ties go in the order of the index. Raises: BadConfig.
    """
    with torch.no_grad():
        # Half precision has too few values to tell the means of blocks apart, and no kthvalue on every device.
        precise = (weight.to(torch.promote_types(weight.dtype, torch.float32)) for weight in weights)
        scores = [structure.scores(weight) for weight in precise]
        if together and scores:
            joined = _kept(torch.cat([score.to(scores[0].device) for score in scores]), sparsities[0])
            kept = list(joined.split([len(score) for score in scores]))
        else:
            kept = [_kept(score, sparsity) for score, sparsity in zip(scores, sparsities, strict=True)]
        pairs = zip(kept, weights, strict=True)
        return [structure.spread(each.to(weight.device), weight).to(weight.dtype) for each, weight in pairs]


def _kept(scores: Tensor, sparsity: float) -> Tensor:
    """Return which groups stay, [groups] of bool."""
    count = round(len(scores) * sparsity)
    if count <= 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = _smallest(scores, count)
    if threshold.isinf():
        return scores.isinf()
    kept = scores > threshold
    surplus = len(scores) - int(kept.count_nonzero()) - count
    if surplus > 0:
        kept[(scores == threshold).nonzero().flatten()[-surplus:]] = True
    return kept


def _smallest(scores: Tensor, count: int) -> Tensor:
    """Return the count-th smallest score.

    A sample tells between which values it lies, so that few of many have to be looked through: 4 times as fast.
    """
    sample = scores[::_STRIDE]
    rank, margin = count / _STRIDE, 2 * math.sqrt(len(sample))
    if not margin < rank < len(sample) - margin or len(sample) < _WORTHWHILE:
        return scores.kthvalue(count).values
    low = sample.kthvalue(int(rank - margin) + 1).values
    high = sample.kthvalue(int(rank + margin) + 1).values
    place = count - int((scores <= low).count_nonzero())
    between = scores[(scores > low) & (scores <= high)]
    if 0 < place <= len(between):
        return between.kthvalue(place).values
    return scores.kthvalue(count).values


def _channels_last(weight: Tensor) -> Tensor:
    """Return [positions, out, in] of a weight [out, in, ...]; a vector is one row."""
    if weight.dim() < 2:
        return weight.reshape(1, 1, -1)
    return weight.reshape(*weight.shape[:2], -1).permute(2, 0, 1)


def _channels_back(flat: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() < 2:
        return flat.reshape(weight.shape)
    return flat.permute(1, 2, 0).reshape(weight.shape).contiguous()
