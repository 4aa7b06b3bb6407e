"""The one function of head pruning that SOFA passed on and transformers 5 no longer has; it prunes nothing itself."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], Tensor]:
    """Return the heads still to prune, and the places [(n_heads - pruned) * head_size] of a projection that stay.

    n_heads counts the heads that are there, `heads` are numbered as they were before any was pruned.
    """
    wanted = set(heads) - already_pruned_heads
    places = {head - sum(gone < head for gone in already_pruned_heads) for head in wanted}
    return wanted, torch.arange(n_heads * head_size)[
        torch.tensor([head not in places for head in range(n_heads)]).repeat_interleave(head_size)
    ]
