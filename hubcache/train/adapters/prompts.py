"""Prompt and prefix tuning as peft has them, inside a model as it is; LoRA and bottleneck adapters are not these.

A prompt is learned vectors before the embedded input, a prefix learned keys and values before those of each layer.
Sources: Lester et al. 2021, arXiv 2104.08691; Li and Liang 2021, arXiv 2101.00190; peft for layout and files.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from hubcache.errors import UsageError
from hubcache.train.adapters.lora import require_peft

KINDS = ("prompt", "prefix")
TYPES = {"PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
"""peft's names."""

SITE = "prompts"
"""What the module with a model's prompts is called below its backbone."""

KEY = "prompt_embeddings"
PREFIX = "base_model."
"""What peft calls the vectors, and writes before the names of a head's tensors beside them."""

_WITH_PREFIX = ("bert", "camembert", "electra", "roberta", "sbert", "veco", "xlm-roberta")
_OFFSET = ("camembert", "roberta", "veco", "xlm-roberta")


@dataclass(frozen=True, slots=True)
class PromptChoice:
    """A prompt or a prefix, and its number of vectors, which are tokens of the longest input that can no longer be."""

    kind: str = "prompt"
    tokens: int = 20


class Site(nn.ModuleDict):
    """A model's prompts by name; `active` stand before the input in their order. `kinds` has prompt or prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.active: tuple[str, ...] = ()
        self.kinds: dict[str, str] = {}

    def vectors(self, kind: str, rows: int) -> Tensor | None:
        """Return what the active ones of a kind put before each of `rows` inputs, [rows, tokens, width]; or None."""
        found = [self[name].weight for name in self.active if self.kinds[name] == kind]
        return torch.cat(found).expand(rows, -1, -1) if found else None

    def length(self, kind: str) -> int:
        """Count the vectors of the active ones of a kind."""
        return sum(int(self[name].num_embeddings) for name in self.active if self.kinds[name] == kind)


def insert(model: Any, name: str, choice: PromptChoice) -> None:
    """Add a prompt, which begins as tokens of the vocabulary, or a prefix of small numbers; inactive.

    Raises: UsageError without peft, or for a model that takes none.
    """
    require_peft()
    backbone = _backbone(model)
    _check(model, backbone, choice)
    embeddings = backbone.get_input_embeddings().weight
    if choice.kind == "prompt":
        start = embeddings[torch.randint(len(embeddings), (choice.tokens,))].detach().clone()
    else:
        width = 2 * model.config.num_hidden_layers * model.config.hidden_size
        start = torch.randn(choice.tokens, width) * 0.02
    if SITE not in dict(backbone.named_children()):
        backbone.add_module(SITE, Site())
        _hook(model, backbone)
    site = backbone.get_submodule(SITE)
    site[name] = nn.Embedding.from_pretrained(start.to(embeddings.device, embeddings.dtype), freeze=False)
    site.kinds[name] = choice.kind


def site_of(model: Any) -> Site | None:
    """Return what holds a model's prompts, None where there never was one."""
    return next((module for module in model.modules() if isinstance(module, Site)), None)


def names(model: Any) -> list[str]:
    """List a model's prompts and prefixes."""
    return list(site_of(model) or ())


def activate(model: Any, active: Sequence[str]) -> None:
    """Let these take part, in this order, and no others."""
    site = site_of(model)
    if site is not None:
        site.active = tuple(name for name in active if name in site)


def parameters(model: Any, name: str) -> list[Tensor]:
    """List the parameters of one."""
    site = site_of(model)
    return [site[name].weight] if site is not None and name in site else []


def adapter_state(model: Any, name: str) -> dict[str, Tensor]:
    """Return the vectors of one, by peft's name for them."""
    return dict.fromkeys((KEY,), parameters(model, name)[0].detach())


def load_adapter_state(model: Any, name: str, state: Mapping[str, Tensor]) -> None:
    """Fill an inserted one. Raises: UsageError where the vectors are another model's."""
    (weight,) = parameters(model, name)
    found = state.get(KEY)
    if found is None or found.shape != weight.shape:
        raise UsageError(f"the adapter does not fit {type(model).__name__}: {KEY} is not {list(weight.shape)}")
    with torch.no_grad():
        weight.copy_(found)


def peft_told(model: Any, name: str) -> dict[str, Any]:
    """Return the configuration of one in peft's words."""
    from peft import PrefixTuningConfig, PromptTuningConfig

    site = site_of(model)
    kind = site.kinds[name] if site is not None else ""
    config = model.config
    told = {
        "num_virtual_tokens": site[name].num_embeddings if site is not None else 0,
        "token_dim": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_transformer_submodules": 1,
        "task_type": _task_type(model),
    }
    if kind == "prefix":
        told["encoder_hidden_size"] = config.hidden_size
    made: dict[str, Any] = (PrefixTuningConfig if kind == "prefix" else PromptTuningConfig)(**told).to_dict()
    return made


def _task_type(model: Any) -> str | None:
    kinds = {
        "SequenceClassification": "SEQ_CLS",
        "TokenClassification": "TOKEN_CLS",
        "QuestionAnswering": "QUESTION_ANS",
    }
    if model.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return next((kind for word, kind in kinds.items() if word in type(model).__name__), None)


def _backbone(model: Any) -> Any:
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    return model.base_model if model.base_model is not model else getattr(model, "encoder", model)


def _check(model: Any, backbone: Any, choice: PromptChoice) -> None:
    fits = "inputs_embeds" in inspect.signature(backbone.forward).parameters
    fits = fits and "inputs_embeds" in inspect.signature(_prompted_module(model, backbone).forward).parameters
    if choice.kind == "prefix":
        fits = model.config.model_type in _WITH_PREFIX
    if not fits or choice.tokens < 1:
        others = "prompt, lora" if choice.kind == "prefix" else "lora, pfeiffer"
        raise UsageError(
            f"{type(model).__name__} takes no {choice.kind} of {choice.tokens} vectors", hint=f"--adapter {others}, …"
        )


def _prompted_module(model: Any, backbone: Any) -> Any:
    """Where a prompt is put in: a classifier of whole texts sees it as peft's does, a head for each token does not."""
    name = type(model).__name__
    is_whole = "SequenceClassification" in name or model.base_model is model
    return model if is_whole and not model.config.is_encoder_decoder else backbone


def _hook(model: Any, backbone: Any) -> None:
    at = _prompted_module(model, backbone)
    path = next(name for name, module in at.named_modules() if isinstance(module, Site))
    # Plain functions that find their site from the module: copies of the model keep their own.
    at.register_forward_pre_hook(partial(_put_before, path), with_kwargs=True)
    if model.config.is_encoder_decoder:
        inner = next(name for name, module in model.named_modules() if isinstance(module, Site))
        model.register_forward_pre_hook(partial(_lengthen_mask, inner), with_kwargs=True)
    elif at is backbone:
        at.register_forward_hook(_cut)
    if model.config.model_type in _WITH_PREFIX:
        backbone.register_forward_pre_hook(_give_prefix, with_kwargs=True)


def _put_before(path: str, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Put the prompts before the embedded input, and what stands beside it."""
    site = module.get_submodule(path)
    if not site.length("prompt"):
        return None
    told = _by_name(module, given, named)
    embedded = told.pop("inputs_embeds", None)
    ids = told.pop("input_ids", None)
    embedded = module.get_input_embeddings()(ids) if embedded is None else embedded
    prompts = site.vectors("prompt", len(embedded))
    length = prompts.shape[1]
    _check_length(module, embedded.shape[1] + length)
    mask = told.get("attention_mask")
    if mask is not None and mask.shape[-1] == embedded.shape[1]:
        told["attention_mask"] = _ones_before(mask, length)
    if told.get("token_type_ids") is not None:
        told["token_type_ids"] = nn.functional.pad(told["token_type_ids"], (length, 0))
    return (), {**told, "inputs_embeds": torch.cat([prompts.to(embedded.dtype), embedded], dim=1)}


def _lengthen_mask(path: str, module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Let a decoder see the prompts, too, which its encoder has got."""
    length = module.get_submodule(path).length("prompt")
    told = _by_name(module, given, named)
    if not length or told.get("attention_mask") is None:
        return None
    return (), {**told, "attention_mask": _ones_before(told["attention_mask"], length)}


def _give_prefix(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Give the layers the prefix as keys and values that were there before, [rows, heads, tokens, width] a layer."""
    told = _by_name(module, given, named)
    shown = told["input_ids"] if told.get("input_ids") is not None else told["inputs_embeds"]
    vectors = module.prompts.vectors("prefix", len(shown))
    if vectors is None:
        return None
    _check_length(module, shown.shape[1] + vectors.shape[1])
    mask = told.get("attention_mask")
    mask = torch.ones(shown.shape[:2], dtype=torch.long, device=shown.device) if mask is None else mask
    heads, layers = module.config.num_attention_heads, module.config.num_hidden_layers
    each = vectors.view(*vectors.shape[:2], 2 * layers, heads, -1).permute(2, 0, 3, 1, 4)
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(each[2 * layer], each[2 * layer + 1], layer)
    return (), {**told, "attention_mask": _ones_before(mask, vectors.shape[1]), "past_key_values": cache}


def _cut(module: Any, _given: Any, output: Any) -> Any:
    """Take the prompts out of what a head for each token gets."""
    length = module.prompts.length("prompt")
    if length:
        output.last_hidden_state = output.last_hidden_state[:, length:]
    return output


def _by_name(module: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by their names."""
    places = [one.name for one in inspect.signature(module.forward).parameters.values()]
    return {**dict(zip(places, given, strict=False)), **named}


def _ones_before(mask: Tensor, length: int) -> Tensor:
    return torch.cat([mask.new_ones(len(mask), length), mask], dim=1)


def _check_length(module: Any, length: int) -> None:
    config = module.config
    most = getattr(config, "max_position_embeddings", None)
    most = most and most - (2 if config.model_type in _OFFSET else 0)
    if most and length > most:
        raise UsageError(
            f"input and prompt are {length} tokens, {type(module).__name__} takes {most}",
            hint="shorter ones: --set max_length=N",
        )
