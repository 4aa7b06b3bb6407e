"""Bottleneck adapters inside a transformer's layers, several by name; heads, folders and training are not known here.

They hang on the projections that end attention and feed-forward, by a hook, so that the model's own weights keep their
names and a checkpoint of the base still loads. Sources: Houlsby et al. 2019, arXiv 1902.00751, section 2.1; Pfeiffer
et al. 2020, arXiv 2005.00247 (after the feed-forward alone).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from hubcache.errors import UsageError

SITE = "adapters"
"""What the module with a projection's adapters is called below it."""

_ATTENTION = re.compile(
    r"(?:attention\.output\.dense|decoder\.layer\.\d+\.(?:cross_)?attention\.dense|(?:Self|EncDec)Attention\.o"
    r"|(?:self|encoder)_attn\.out_proj|attention\.out_lin|albert_layers\.\d+\.attention\.dense)$"
)
_FEED_FORWARD = re.compile(
    r"(?:layer\.\d+\.output(?:\.dense)?|DenseReluDense\.wo|layers\.\d+\.fc2|ffn\.lin2|albert_layers\.\d+\.ffn_output)$"
)


@dataclass(frozen=True, slots=True)
class BottleneckConfig:
    """Where bottleneck adapters stand and how wide they are.

    kind        houlsby: after attention and feed-forward; pfeiffer: after the feed-forward alone
    reduction   the layer's width by the adapter's
    activation  a name that transformers knows (relu, silu, gelu, …); "" is the kind's: silu for houlsby, else relu
    dropout     on the adapter's inner values
    """

    kind: str = "pfeiffer"
    reduction: float = 16.0
    activation: str = ""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in {"houlsby", "pfeiffer"}:
            raise UsageError(f"there is no bottleneck adapter {self.kind!r}", hint="houlsby or pfeiffer")
        if self.reduction <= 0 or (self.activation and self.activation not in ACT2FN):
            raise UsageError(f"no adapter has reduction {self.reduction} and activation {self.activation!r}")

    @property
    def function(self) -> str:
        """The name of the non-linearity."""
        return self.activation or ("silu" if self.kind == "houlsby" else "relu")


class Bottleneck(nn.Module):
    """Down, a non-linearity, up, added to what came in; a new one is exactly the identity."""

    def __init__(self, width: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.config = config
        inner = max(1, round(width / config.reduction))
        self.down = nn.Linear(width, inner)
        self.activation = ACT2FN[config.function]
        self.dropout = nn.Dropout(config.dropout)
        self.up = nn.Linear(inner, width)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return hidden [..., width], changed."""
        changed: Tensor = hidden + self.up(self.dropout(self.activation(self.down(hidden))))
        return changed


class Site(nn.ModuleDict):
    """The adapters of one projection; `active` run in their order, and none of them is no cost."""

    def __init__(self) -> None:
        super().__init__()
        self.active: tuple[str, ...] = ()

    def forward(self, hidden: Tensor) -> Tensor:
        """Return hidden [..., width] as the active adapters change it."""
        for name in self.active:
            hidden = self[name](hidden)
        return hidden


def insert(model: nn.Module, name: str, config: BottleneckConfig) -> None:
    """Add adapters to a model, inactive, in the kind and on the device of the weights beside them.

    Raises: UsageError for a model without the layers of a family that is known, or with peft's around them.
    """
    found = dict(places(model, config))
    _check_bare(model, config)
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no layers that a bottleneck adapter is known for",
            hint="BERT-, RoBERTa-, DistilBERT-, ALBERT- and BART-like models, T5, StructBERT, PALM and VECO have",
        )
    for linear in found.values():
        if SITE not in dict(linear.named_children()):
            linear.add_module(SITE, Site())
            # A plain function that finds its adapters from the module: copies of the model keep their own.
            linear.register_forward_hook(_adapted)
        adapter = Bottleneck(linear.out_features, config)
        linear.get_submodule(SITE)[name] = adapter.to(linear.weight.device, linear.weight.dtype)


def _check_bare(model: nn.Module, config: BottleneckConfig) -> None:
    """Refuse a projection that peft has wrapped: what comes out of its layer is not what the base gives."""
    wrapped = [name for name, module in model.named_modules() if hasattr(module, "base_layer") and _is_at(name, config)]
    if wrapped:
        raise UsageError(
            f"LoRA or IA3 is on {wrapped[0]}, where a {config.kind} adapter stands", hint="load the base twice"
        )


def _is_at(name: str, config: BottleneckConfig) -> bool:
    return bool(_FEED_FORWARD.search(name) or (config.kind == "houlsby" and _ATTENTION.search(name)))


def places(model: nn.Module, config: BottleneckConfig) -> Iterator[tuple[str, Any]]:
    """List the projections, by name, that adapters of this kind stand behind."""
    for name, module in model.named_modules():
        if _is_at(name, config) and isinstance(module, nn.Linear):
            yield name, module


def sites(model: nn.Module) -> Iterator[tuple[str, Site]]:
    """List what holds a model's adapters, by the name of the projection that it stands behind."""
    for name, module in model.named_modules():
        if isinstance(module, Site):
            yield name.rpartition(".")[0], module


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Let these adapters run, one after another, and no others."""
    for _, site in sites(model):
        site.active = tuple(name for name in names if name in site)


def adapter_state(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return an adapter's tensors; the keys leave out its own name, so that it may be loaded under another."""
    return {
        f"{place}.{SITE}.{key}": value.detach()
        for place, site in sites(model)
        if name in site
        for key, value in site[name].state_dict().items()
    }


def load_adapter_state(model: nn.Module, name: str, state: dict[str, Tensor]) -> None:
    """Fill an inserted adapter. Raises: UsageError where the tensors are another model's."""
    wanted = adapter_state(model, name)
    apart = sorted(key for key in wanted.keys() ^ state.keys())
    apart = apart or [key for key in wanted if wanted[key].shape != state[key].shape]
    if apart:
        raise UsageError(f"the adapter does not fit {type(model).__name__}: {len(apart)} tensors, as {apart[0]}")
    with torch.no_grad():
        for key, value in state.items():
            wanted[key].copy_(value)


def _adapted(module: Any, _inputs: Any, output: Tensor) -> Tensor:
    changed: Tensor = module.adapters(output)
    return changed
