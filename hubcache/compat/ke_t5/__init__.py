"""Model classes by the names that ke-t5-downstreams takes on its command line; weights are loaded elsewhere.

Its command lines are `python -m hubcache.compat.ke_t5.train_ddp` and `… test_ddp`.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TypeVar

from hubcache.errors import BadReference
from hubcache.models.t5_encoder import SEQUENCE_CLASSIFIERS, TOKEN_CLASSIFIERS

THEIR_MODULES = ("ke_t5.models", "ke_t5.models.models")

Model = TypeVar("Model", bound=type)

# The reference's interface: a decorator run by the user's module fills what a later call reads.
_registry: dict[str, type] = {model.__name__: model for model in (*SEQUENCE_CLASSIFIERS, *TOKEN_CLASSIFIERS)}


def register_model(name: str) -> Callable[[Model], Model]:
    """Register the decorated class as `name`; warns where the name meant another class, and then means this one."""

    def registered(model: Model) -> Model:
        if _registry.get(name, model) is not model:
            warnings.warn(f"the model name {name} now means {model.__module__}:{model.__qualname__}", stacklevel=2)
        _registry[name] = model
        return model

    return registered


def load_model(model_path: str) -> type:
    """Return the class that `model_path` names.

    It is a registered name, `module:Class` or `path/to/module:Class`; letter case and underscores are no matter where
    no class is spelled exactly so (t5_encoder_for_token_classification). The reference's own modules stand for
    hubcache's models. Importing a module runs it: name none that you do not trust.
    Raises BadReference.
    """
    if model_path in _registry:
        return _registry[model_path]
    module_path, _, name = model_path.rpartition(":")
    module_name = module_path.replace("/", ".")
    if not module_name or module_name in THEIR_MODULES:
        found = [_registry[spelling] for spelling in _spellings(name, _registry)]
        known: Iterable[str] = _registry
    else:
        module = _imported(module_name, model_path)
        found = [getattr(module, spelling) for spelling in _spellings(name, dir(module))]
        known = (public for public in dir(module) if public[:1].isupper())
    for model in found:
        if isinstance(model, type):
            return model
    raise BadReference(f"{model_path} names no model class", hint=_nearest(name, known))


def _imported(module_name: str, model_path: str) -> ModuleType:
    """Import the user's module; an import that fails inside of it is its own error."""
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise BadReference(f"{model_path}: {module_name} is no module name", hint="write module:Class")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise BadReference(
            f"{model_path}: there is no module {error.name}",
            hint="run from the folder that holds it, or put that folder on PYTHONPATH",
        ) from error


def _spellings(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that `name` may mean, its own spelling first."""
    return sorted((each for each in known if _loose(each) == _loose(name)), key=lambda each: each != name)


def _loose(name: str) -> str:
    return name.replace("_", "").lower()


def _nearest(name: str, known: Iterable[str]) -> str:
    """Name up to three known classes that are spelled most like `name`."""
    by_loose = {_loose(each): each for each in known}
    close = difflib.get_close_matches(_loose(name), by_loose, n=3, cutoff=0.0)
    return "the nearest: " + ", ".join(by_loose[each] for each in close) if close else "it defines no class"
