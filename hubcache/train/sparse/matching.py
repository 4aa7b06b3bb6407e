"""Find the parameters that a recipe names: exactly, by `re:`, `__ALL__` or `__ALL_PRUNABLE__`.

It changes no parameter and knows no modifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hubcache.errors import BadConfig
from hubcache.train.tasks.nearest import nearest

ALL, ALL_PRUNABLE = "__ALL__", "__ALL_PRUNABLE__"
PATTERN = "re:"
_PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)


def plain(name: str) -> str:
    """Return a parameter's name as it is without quantisation: a wrapper's `.module` is left out."""
    return ".".join(part for part in name.split(".") if part != "module")


def named_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by plain name; a tied parameter stands under each of its names."""
    return {plain(name): parameter for name, parameter in model.named_parameters(remove_duplicate=False)}


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of linear and convolution layers by plain name; embeddings are none."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _PRUNABLE):
            found[plain(f"{name}.weight" if name else "weight")] = module.weight
    return found


def matching(model: nn.Module, wanted: str | Sequence[str], *, where: str = "") -> dict[str, Tensor]:
    """Return the parameters that `wanted` names, in the model's order, each once; `where` names the modifier.

    Raises: BadConfig for a name or pattern without a parameter, with the nearest.
    """
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    known = named_parameters(model)
    found: set[str] = set()
    for one in asked:
        names = _named(model, known, one)
        if not names:
            raise BadConfig(f"{where or 'recipe'}: no parameter is {one!r}", hint=nearest(plain(one), known))
        found.update(names)
    return _once({name: parameter for name, parameter in known.items() if name in found})


def _named(model: nn.Module, known: Mapping[str, Tensor], one: str) -> Iterable[str]:
    if one == ALL:
        return list(known)
    if one == ALL_PRUNABLE:
        return list(prunable(model))
    if one.startswith(PATTERN):
        pattern = _compiled(one.removeprefix(PATTERN))
        return [name for name in known if pattern.match(name)]
    return [plain(one)] if plain(one) in known else []


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadConfig(f"recipe: {PATTERN}{pattern} is no regular expression: {error}") from error


def _once(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    kept = {}
    for name, parameter in named.items():
        if id(parameter) not in seen:
            kept[name] = parameter
            seen.add(id(parameter))
    return kept
