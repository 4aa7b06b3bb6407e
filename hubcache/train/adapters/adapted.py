"""Adapters of either kind in one model: add, train alone, switch, save and load; no cache is known here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hubcache.errors import BadConfig, UsageError
from hubcache.train.adapters import bottleneck, lora, prompts
from hubcache.train.adapters.base import WEIGHTS, AdapterFile, Base
from hubcache.train.adapters.bottleneck import BottleneckConfig
from hubcache.train.adapters.lora import PeftChoice
from hubcache.train.adapters.prompts import PromptChoice
from hubcache.train.heads import is_backbone

Choice = BottleneckConfig | PeftChoice | PromptChoice
DEFAULT = "default"


def choice_of(kind: str, **knobs: Any) -> Choice:
    """Return the configuration of a kind: pfeiffer, houlsby, lora, ia3, prompt or prefix. Raises: UsageError."""
    if kind in prompts.KINDS:
        return PromptChoice(kind, **knobs)
    return PeftChoice(kind, **knobs) if kind in lora.KINDS else BottleneckConfig(kind, **knobs)


def add(model: nn.Module, name: str, choice: Choice) -> None:
    """Add an adapter, inactive; active, a new one changes nothing yet, but for a prompt or a prefix.

    Raises: UsageError for a name that is taken or cannot be one.
    """
    if not name.replace("-", "_").isidentifier():
        raise UsageError(f"{name!r} cannot name an adapter", hint="letters, digits, - and _")
    if name in names(model):
        raise UsageError(f"there is an adapter {name!r} already", hint="give this one another name")
    if isinstance(choice, PeftChoice):
        lora.insert(model, name, choice)
    elif isinstance(choice, PromptChoice):
        prompts.insert(model, name, choice)
    else:
        bottleneck.insert(model, name, choice)
    activate(model, ())


def names(model: nn.Module) -> list[str]:
    """List a model's adapters."""
    ours = dict.fromkeys(name for _, site in bottleneck.sites(model) for name in site)
    theirs = getattr(model, "peft_config", {}) if any(True for _ in lora.layers(model)) else {}
    return [*ours, *theirs, *prompts.names(model)]


def activate(model: nn.Module, active: Sequence[str]) -> None:
    """Let these adapters run, in this order, and no others. Raises: UsageError for one there is none of."""
    unknown = [name for name in active if name not in names(model)]
    if unknown:
        raise UsageError(f"there is no adapter {unknown[0]!r}", hint=f"there are {', '.join(names(model)) or 'none'}")
    bottleneck.activate(model, active)
    lora.activate(model, active)
    prompts.activate(model, active)


def train_only(model: nn.Module, active: Sequence[str], new: Collection[str] = ()) -> int:
    """Freeze everything but these adapters, which are activated, the head, and what is `new`; return how much trains.

    A language model's output layer is no head: it came with the base.
    """
    activate(model, active)
    kept = {id(value) for name in active for value in adapter_parameters(model, name)}
    heads = tuple(f"{child}." for child in head_children(model))
    for name, parameter in model.named_parameters():
        is_free = id(parameter) in kept or name in new or (bool(heads) and name.startswith(heads))
        parameter.requires_grad_(is_free)
    return sum(int(parameter.numel()) for parameter in model.parameters() if parameter.requires_grad)


def adapter_parameters(model: nn.Module, name: str) -> list[Tensor]:
    """List an adapter's own parameters."""
    ours = [value for _, site in bottleneck.sites(model) if name in site for value in site[name].parameters()]
    theirs = [
        value
        for _, layer in lora.layers(model)
        for key, value in layer.named_parameters()
        if not key.startswith("base_layer.") and name in key.split(".")
    ]
    return ours + theirs + prompts.parameters(model, name)


def head_children(model: Any) -> list[str]:
    """List the modules of a model that are its head: neither backbone nor a language model's output layer."""
    is_bare = model.base_model is model and not str(model.config.model_type).startswith("t5")
    output = model.get_output_embeddings()
    return [
        name
        for name, child in model.named_children()
        if not is_bare
        and any(True for _ in child.parameters())
        and not is_backbone(model, f"{name}.")
        and (output is None or all(module is not output for module in child.modules()))
    ]


def head_state(model: Any) -> dict[str, Tensor]:
    """Return the head's tensors by their names in the model."""
    return {
        f"{child}.{key}": value.detach()
        for child in head_children(model)
        for key, value in model.get_submodule(child).state_dict().items()
    }


def save(model: Any, folder: Path, name: str, base: Base, *, head: bool = True, also: Collection[str] = ()) -> None:
    """Write an adapter, with the head and the parameters named in `also` (a pooler that was new), and its base.

    One of peft's is written so that PeftModel.from_pretrained loads it. Raises: UsageError for a name there is none of.
    """
    if name not in names(model):
        raise UsageError(f"there is no adapter {name!r}", hint=f"there are {', '.join(names(model)) or 'none'}")
    folder.mkdir(parents=True, exist_ok=True)
    beside = head_state(model) if head else {}
    beside |= {key: value.detach() for key, value in model.named_parameters() if key in also}
    modules = tuple(head_children(model)) if head else ()
    if name in dict.fromkeys(key for _, site in bottleneck.sites(model) for key in site):
        config = config_of(model, name)
        told = {"adapter": config.kind, **{key: value for key, value in asdict(config).items() if key != "kind"}}
        state = bottleneck.adapter_state(model, name) | beside
    elif name in prompts.names(model):
        told = _told_of(prompts.peft_told(model, name), base, modules)
        state = prompts.adapter_state(model, name) | {f"{prompts.PREFIX}{key}": value for key, value in beside.items()}
    else:
        told = _told_of(model.peft_config[name].to_dict(), base, modules)
        state = lora.adapter_state(model, name) | {f"{lora.PREFIX}{key}": value for key, value in beside.items()}
    save_file({key: value.contiguous() for key, value in state.items()}, folder / WEIGHTS, {"format": "pt"})
    names_of_labels = model.config.id2label
    labels = tuple(names_of_labels[number] for number in sorted(names_of_labels)) if modules else ()
    AdapterFile(name, base, modules, told, labels).write(folder)


def load(model: Any, folder: Path, name: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """Add a saved adapter to a model, inactive; return its name, and the tensors that were saved beside it (the head).

    Raises: BadConfig, UsageError for a folder that holds no adapter, or not one of this model's.
    """
    file = AdapterFile.read(folder)
    name = name or file.name
    before = prompts.PREFIX if file.is_prompt else lora.PREFIX
    state = {key.removeprefix(before): value for key, value in _weights(folder).items()}
    if file.is_prompt:
        kind = prompts.TYPES[str(file.told["peft_type"])]
        add(model, name, PromptChoice(kind, int(file.told["num_virtual_tokens"])))
        own = {prompts.KEY}
        prompts.load_adapter_state(model, name, state)
    elif file.is_peft:
        _add_peft(model, name, file)
        own = {key for key in state if f"{lora.PREFIX}{key}" in lora.adapter_state(model, name)}
        lora.load_adapter_state(model, name, {f"{lora.PREFIX}{key}": state[key] for key in own})
    else:
        knobs = {key: value for key, value in file.told.items() if key in ("reduction", "activation", "dropout")}
        add(model, name, BottleneckConfig(str(file.told.get("adapter")), **knobs))
        own = {key for key in state if f".{bottleneck.SITE}." in key}
        bottleneck.load_adapter_state(model, name, {key: state[key] for key in own})
    return name, {key: value for key, value in state.items() if key not in own}


def _weights(folder: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise BadConfig(f"{folder / WEIGHTS} cannot be read: {error}") from error


def config_of(model: nn.Module, name: str) -> BottleneckConfig:
    """Return a bottleneck adapter's configuration."""
    found: BottleneckConfig = next(site[name].config for _, site in bottleneck.sites(model) if name in site)
    return found


def _add_peft(model: Any, name: str, file: AdapterFile) -> None:
    lora.require_peft()
    from peft import PeftConfig

    if name in names(model):
        raise UsageError(f"there is an adapter {name!r} already", hint="give this one another name")
    config = PeftConfig.from_peft_type(**file.told)  # type: ignore[no-untyped-call]  # peft gives it no types
    config.modules_to_save = None
    config.inference_mode = False
    lora.insert_config(model, name, config)
    activate(model, ())


def _told_of(config: Mapping[str, Any], base: Base, modules: Sequence[str]) -> dict[str, Any]:
    """Return one of peft's configurations with what it says of the base and the head."""
    told = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    told |= {"base_model_name_or_path": base.reference, "modules_to_save": list(modules) or None}
    return told | {"revision": base.commit or None, "inference_mode": True}
