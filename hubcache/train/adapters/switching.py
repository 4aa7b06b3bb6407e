"""The `adapters` package's methods on any model: add, train, activate, save and load by name; each name has its head.

It stands in for that package's import, which transformers 5 ended; its fusion and other adapter kinds are not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from hubcache.errors import UsageError
from hubcache.train.adapters import adapted
from hubcache.train.adapters.adapted import Choice, choice_of
from hubcache.train.adapters.base import AdapterFile, base_of_model, check_base
from hubcache.train.adapters.bottleneck import BottleneckConfig

NAMES = {
    "pfeiffer": "pfeiffer",
    "seq_bn": "pfeiffer",
    "houlsby": "houlsby",
    "double_seq_bn": "houlsby",
    "lora": "lora",
    "ia3": "ia3",
    "prompt_tuning": "prompt",
    "prompt": "prompt",
    "prefix_tuning": "prefix",
    "prefix": "prefix",
}
"""The configurations that are known by a word, the `adapters` package's words among them."""


@dataclass(slots=True)
class Heads:
    """The heads of a model's adapters ("" for the model's own), their labels, and whose is in the model now."""

    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    owner: str = ""
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)


class AdapterMethods:
    """What init gives a model; a name's head is put into the model when the adapter is activated."""

    adapter_heads: Heads

    def add_adapter(self, name: str, config: str | Choice = "pfeiffer", set_active: bool = False) -> None:
        """Add an adapter, which changes nothing yet, with a copy of the model's own head. Raises: UsageError."""
        adapted.add(_model(self), name, _choice(config))
        self._activate(self.active_adapters if not set_active else [name])

    def add_classification_head(
        self, name: str, num_labels: int = 2, id2label: Mapping[int, str] | None = None
    ) -> None:
        """Give an adapter (added before or after) a new head of its own, for so many labels. Raises: UsageError."""
        named = [id2label[number] for number in sorted(id2label)] if id2label else []
        add_head(_model(self), name, named or [f"LABEL_{number}" for number in range(num_labels)])

    def train_adapter(self, name: str | Sequence[str]) -> None:
        """Activate an adapter (or several, one on the other) and freeze all but it and the head."""
        self.set_active_adapters(name)
        adapted.train_only(_model(self), _listed(name))

    def set_active_adapters(self, name: str | Sequence[str] | None) -> None:
        """Let an adapter run, with its head; several run one on the other; None turns all off. Raises: UsageError."""
        self._activate(_listed(name))

    @property
    def active_adapters(self) -> list[str]:
        """The adapters that run, in their order."""
        return list(getattr(self, "_active_adapters", ()))

    def save_adapter(self, folder: str | Path, name: str, with_head: bool = True) -> None:
        """Write an adapter and its head to a folder, with the digest of the base. Raises: UsageError."""
        active = self.active_adapters
        self.set_active_adapters(name)
        adapted.save(_model(self), Path(folder), name, base_of_model(self), head=with_head)
        self._activate(active)

    def load_adapter(
        self,
        folder: str | Path,
        load_as: str | None = None,
        with_head: bool = True,
        set_active: bool = False,
        any_base: bool = False,
    ) -> str:
        """Load an adapter, inactive, and return its name; `any_base` takes it over whatever base this is.

        Raises: UsageError for another base, or an adapter or a head that does not fit; BadConfig for no adapter.
        """
        model, active, file = _model(self), self.active_adapters, AdapterFile.read(Path(folder))
        if not any_base:
            check_base(file.base, base_of_model(model))
        name, beside = adapted.load(model, Path(folder), load_as)
        if beside and with_head:
            if file.labels and file.labels != model.adapter_heads.labels[""]:
                add_head(model, name, file.labels)
            self._activate([name])
            fill(model, beside)
        self._activate([name] if set_active else active)
        return name

    def _activate(self, active: Sequence[str]) -> None:
        model = _model(self)
        adapted.activate(model, active)
        self._active_adapters = tuple(active)
        swap_head(model, active[-1] if active else "")


def init(model: Any) -> Any:
    """Give a transformers model the methods of AdapterMethods, and return it."""
    if not isinstance(model, AdapterMethods):
        model.__class__ = _class_with_methods(model.__class__)
        names = model.config.id2label
        model.adapter_heads = Heads(labels={"": tuple(names[number] for number in sorted(names))})
    return model


def swap_head(model: Any, owner: str) -> None:
    """Put an adapter's head into the model and keep the one that was there; a new adapter has a copy of the model's."""
    heads = model.adapter_heads
    if owner == heads.owner:
        return
    _keep_head(model)
    _put_head(model, owner)


def add_head(model: Any, owner: str, labels: Sequence[str]) -> None:
    """Make an adapter a head for labels of its own: a copy of the model's, its last layer drawn anew.

    Raises: UsageError for a model without a classifier.
    """
    heads = model.adapter_heads
    _keep_head(model)
    made = nn.ModuleDict(deepcopy(heads.kept[""]))
    layers = [name for name, module in made.named_modules() if _tells_apart(module, len(heads.labels[""]))]
    if not layers:
        raise UsageError(
            f"{type(model).__name__} has no classifier", hint="load it by AutoModelForSequenceClassification"
        )
    parent, _, child = layers[-1].rpartition(".")
    old: Any = made.get_submodule(layers[-1])
    layer = nn.Linear(old.in_features, len(labels), bias=old.bias is not None)
    nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
    if old.bias is not None:
        nn.init.zeros_(layer.bias)
    setattr(made.get_submodule(parent), child, layer)
    heads.kept[owner], heads.labels[owner] = dict(made.items()), tuple(labels)
    if heads.owner == owner:
        _put_head(model, owner)


def _tells_apart(module: Any, labels: int) -> bool:
    return isinstance(module, nn.Linear) and module.out_features == labels


def _keep_head(model: Any) -> None:
    heads = model.adapter_heads
    heads.kept[heads.owner] = {name: model.get_submodule(name) for name in adapted.head_children(model)}


def _put_head(model: Any, owner: str) -> None:
    heads = model.adapter_heads
    chosen = heads.kept.get(owner) or deepcopy(heads.kept[""])
    where = next(model.parameters())
    for name, module in chosen.items():
        # One that was put aside did not follow the model to another device or kind of number.
        setattr(model, name, module.to(where.device, where.dtype))
    labels = heads.labels.get(owner, heads.labels[""])
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: number for number, label in enumerate(labels)}
    if hasattr(model, "num_labels"):
        model.num_labels = len(labels)
    heads.owner = owner


def fill(model: Any, beside: dict[str, torch.Tensor]) -> None:
    """Put saved tensors, a head's, into the model. Raises: UsageError where they do not fit."""
    state = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    for key, value in beside.items():
        if key not in state or state[key].shape != value.shape:
            there = list(state[key].shape) if key in state else "not there"
            raise UsageError(
                f"the adapter's head does not fit {type(model).__name__}: {key} is {list(value.shape)}, here {there}",
                hint="load the model with as many labels (num_labels=N), or the adapter with with_head=False",
            )
    with torch.no_grad():
        for key, value in beside.items():
            state[key].copy_(value)


FLEXIBLE = {"AutoAdapterModel": "AutoModelForSequenceClassification"}
"""The `adapters` package's class for any head, and what stands for it: here heads are classifiers of texts."""


class AutoWithAdapters:
    """One of transformers' Auto classes, whose models have the methods of AdapterMethods."""

    def __init__(self, auto: Any) -> None:
        self._auto = auto

    def from_pretrained(self, *arguments: Any, **options: Any) -> Any:
        """Load a model as the Auto class does."""
        return init(self._auto.from_pretrained(*arguments, **options))

    def from_config(self, *arguments: Any, **options: Any) -> Any:
        """Make a model as the Auto class does."""
        return init(self._auto.from_config(*arguments, **options))


@cache
def auto_class(name: str) -> AutoWithAdapters:
    """Return an Auto class by its name. Raises: AttributeError for one that transformers does not have."""
    return AutoWithAdapters(getattr(transformers, FLEXIBLE.get(name, name)))


@cache
def _class_with_methods(kind: Any) -> Any:
    # The name stays: transformers writes it into config.json, and looks heads and losses up by it.
    told = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (AdapterMethods, kind), told)


def _model(owner: Any) -> Any:
    return owner


def _listed(name: str | Sequence[str] | None) -> list[str]:
    return [] if name is None else [name] if isinstance(name, str) else list(name)


def _choice(config: str | Choice) -> Choice:
    if not isinstance(config, str):
        return config
    if config not in NAMES:
        raise UsageError(f"there is no adapter configuration {config!r}", hint=f"there are {', '.join(NAMES)}")
    return choice_of(NAMES[config])


def pfeiffer_config(
    reduction_factor: float = 16, non_linearity: str = "relu", dropout: float = 0.0
) -> BottleneckConfig:
    """Return a Pfeiffer adapter's configuration, in the `adapters` package's words."""
    return BottleneckConfig("pfeiffer", reduction_factor, non_linearity, dropout)


def houlsby_config(
    reduction_factor: float = 16, non_linearity: str = "swish", dropout: float = 0.0
) -> BottleneckConfig:
    """Return a Houlsby adapter's configuration, in the `adapters` package's words."""
    return BottleneckConfig("houlsby", reduction_factor, non_linearity, dropout)
