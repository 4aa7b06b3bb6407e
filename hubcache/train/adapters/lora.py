"""LoRA and IA3 inside a model, by the peft package where it is installed; bottleneck adapters are not its."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hubcache.errors import UsageError

KINDS = ("lora", "ia3")
PREFIX = "base_model.model."
"""What peft writes before each tensor's name."""

_QUERIES_AND_VALUES = {
    *("query", "value", "q", "v", "q_proj", "v_proj", "q_lin", "v_lin"),
    *("query_key_value", "key_value"),
}
_KEYS_AND_VALUES = {"key", "value", "k", "v", "k_proj", "v_proj", "k_lin", "v_lin", "query_key_value", "key_value"}


@dataclass(frozen=True, slots=True)
class PeftChoice:
    """Which of peft's adapters: its kind, and LoRA's rank, scale (alpha / rank), dropout and targets.

    `targets` are the last names of the linear layers that are changed; () takes the attention's queries and values
    (IA3: keys and values), whatever the family calls them.
    """

    kind: str = "lora"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ()


def require_peft() -> None:
    """Check that peft is there. Raises: UsageError."""
    if importlib.util.find_spec("peft") is None:
        raise UsageError("LoRA and IA3 need the peft package, not installed here", hint="pip install peft")


def insert(model: nn.Module, name: str, choice: PeftChoice) -> None:
    """Add an adapter; what is new starts without any effect. Raises: UsageError without peft or layers to change."""
    config = peft_config(model, choice)
    insert_config(model, name, config)


def insert_config(model: nn.Module, name: str, config: Any) -> None:
    """Add an adapter of one of peft's own configurations.

    Raises: UsageError beside one of another kind, or on a projection with a bottleneck adapter.
    """
    from peft import inject_adapter_in_model

    _check_bare(model, config)

    # peft would wrap its own layers, and lose the names of what is inside.
    others = {one.peft_type for one in getattr(model, "peft_config", {}).values()} - {config.peft_type}
    if others:
        raise UsageError(
            f"{config.peft_type.value} and {others.pop().value} cannot be in one model", hint="load the base twice"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=name)


def _check_bare(model: nn.Module, config: Any) -> None:
    targets = () if isinstance(config.target_modules, str) else config.target_modules or ()
    behind = [
        name
        for name, _ in model.named_modules()
        if name.endswith(".adapters") and _is_target(name.removesuffix(".adapters"), targets)
    ]
    if behind:
        place = behind[0].removesuffix(".adapters")
        raise UsageError(
            f"a bottleneck adapter stands at {place}, where {config.peft_type.value} is to be",
            hint="load the base twice, or name other layers: --set adapter_targets=query,value",
        )


def _is_target(name: str, targets: Iterable[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def peft_config(model: nn.Module, choice: PeftChoice) -> Any:
    """Return the choice in peft's words. Raises: UsageError."""
    require_peft()
    from peft import IA3Config, LoraConfig

    known = _QUERIES_AND_VALUES if choice.kind == "lora" else _KEYS_AND_VALUES
    present = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or hasattr(module, "base_layer")
    }
    targets = sorted(choice.targets or known & present)
    if not set(targets) & present:
        raise UsageError(
            f"{type(model).__name__} has no linear layers {', '.join(targets or sorted(known))}",
            hint="name them: --set adapter_targets=query,value",
        )
    if choice.kind == "ia3":
        return IA3Config(target_modules=targets, feedforward_modules=[])
    return LoraConfig(r=choice.rank, lora_alpha=choice.alpha, lora_dropout=choice.dropout, target_modules=targets)


def layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """List peft's layers in a model, by name; none where peft is not installed."""
    if importlib.util.find_spec("peft") is None or not hasattr(model, "peft_config"):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Let these adapters take part, and no others."""
    for _, layer in layers(model):
        there = [name for name in names if name in _names(layer)]
        # Turned off, a layer keeps its last choice, which must not be an adapter that is gone.
        layer.enable_adapters(bool(there))
        if there:
            layer.set_adapter(there)


def adapter_state(model: nn.Module, name: str) -> dict[str, Tensor]:
    """Return an adapter's tensors, by the names that peft writes."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return {f"{PREFIX}{key.removeprefix(PREFIX)}": value.detach() for key, value in state.items()}


def load_adapter_state(model: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    """Fill an inserted adapter. Raises: UsageError where the tensors are another model's."""
    from peft import set_peft_model_state_dict

    wanted = adapter_state(model, name)
    apart = sorted(wanted.keys() ^ state.keys())
    if apart:
        raise UsageError(f"the adapter does not fit {type(model).__name__}: {len(apart)} tensors, as {apart[0]}")
    set_peft_model_state_dict(model, {key.removeprefix(PREFIX): value for key, value in state.items()}, name)


def merge(model: nn.Module) -> int:
    """Add the active adapters to the weights and take peft's layers out; return how many there were."""
    found = list(layers(model))
    for name, layer in found:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if found:
        del model.peft_config
    return len(found)


def _names(layer: Any) -> set[str]:
    return {name for kind in layer.adapter_layer_names for name in getattr(layer, kind)}
