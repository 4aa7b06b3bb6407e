"""Pruning of a trained model at once, by magnitude; no recipe is read and nothing is trained after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hubcache.errors import UsageError
from hubcache.train.sparse.masks import keep_masks, structure_of
from hubcache.train.sparse.matching import matching, prunable


@torch.no_grad()
def prune(
    model: nn.Module, sparsity: float, structure: str = "unstructured", names: Sequence[str] | None = None
) -> dict[str, float]:
    """Set the smallest weights of each layer to zero, in place; return the share of zeros by parameter.

    `structure` is unstructured, block4 or N:M, of which N stay. Without `names` (a recipe's: `re:` begins a pattern)
    all linear and convolution layers are pruned but those that share an embedding's weight.
    Raises: UsageError for a sparsity outside 0 to 1 or a model with nothing to prune; BadConfig for another structure,
    a sparsity that N:M does not have, or an unknown name.
    """
    if not 0 < sparsity < 1:
        raise UsageError(f"a sparsity is between 0 and 1, not {sparsity}", hint="--prune 0.9")
    how = structure_of(structure)
    share = how.settled(sparsity)
    weights = _layers(model) if names is None else matching(model, names)
    if not weights:
        raise UsageError(f"{type(model).__name__} has no linear or convolution layer to prune")
    for weight in weights.values():
        [mask] = keep_masks([weight], [share], how)
        # Not a product: -1 times 0 is -0, and what is not finite would stay.
        weight.masked_fill_(mask == 0, 0)
    return {name: float((weight == 0).double().mean()) for name, weight in weights.items()}


def _layers(model: nn.Module) -> dict[str, Tensor]:
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name: weight for name, weight in prunable(model).items() if id(weight) not in embeddings}
