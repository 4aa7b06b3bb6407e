"""What is exported of a model: graphs with their inputs' and outputs' names, axes and example tensors; it writes none.

Names are those that transformers.js and optimum look for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubcache.errors import UsageError
from hubcache.models.t5_encoder import T5EncoderForEntityRecognitionWithCRF, T5EncoderRelationHead
from hubcache.train.onnx.wrappers import CausalWithPast, Decoder, DecoderWithPast, Emissions, Plain, held_by

BATCH, SEQUENCE, SOURCE, TARGET = "batch_size", "sequence_length", "encoder_sequence_length", "decoder_sequence_length"
PAST, TOTAL, CHOICES = "past_sequence_length", "total_sequence_length", "num_choices"
_OUTPUTS = (("start_logits", "end_logits"), ("logits",), ("last_hidden_state",))

Axes = dict[str, dict[int, str]]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large an example is: rows, tokens of each, and of an encoder-decoder's target or a causal model's past."""

    batch: int
    length: int
    other: int = 3

    def __str__(self) -> str:
        return f"batch {self.batch}, length {self.length}, {self.other} more"


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph to export: its file's stem, the module, what goes in and out, the axes that vary, and examples."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: Axes
    example: Callable[[Shape], tuple[Tensor, ...]]


def graphs_of(model: Any, tokenizer: Any = None) -> list[Graph]:
    """Plan the graphs of a model.

    One `model`; of an encoder-decoder `encoder_model`, `decoder_model` and `decoder_model_merged`, which has a past.
    """
    maker = Examples(model)
    if getattr(model.config, "is_encoder_decoder", False) and hasattr(model, "generate"):
        return _two_halves(model, tokenizer, maker)
    if isinstance(model, T5EncoderForEntityRecognitionWithCRF):
        names = ("input_ids", "attention_mask")
        axes = _text_axes((*names, "emissions"))
        return [Graph("model", Emissions(model), names, ("emissions",), axes, maker.texts(names))]
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        return [_causal(model, maker)]
    return [_plain(model, tokenizer, maker)]


class Examples:
    """Makes example tensors for a model: ids that are no special tokens, rows of unequal length, padded."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self.config = config
        self.vocabulary = int(config.vocab_size)
        self.padding = int(getattr(config, "pad_token_id", None) or 0)
        self.longest = _longest(model)

    def tokens(self, shape: Shape, seed: int = 0) -> Tensor:
        """Draw ids [batch, length], of equal shapes the same."""
        drawn = torch.Generator().manual_seed(1000 * seed + 31 * shape.batch + shape.length)
        low = min(self.vocabulary // 2, 5)
        return torch.randint(low, self.vocabulary, (shape.batch, self.length(shape)), generator=drawn)

    def length(self, shape: Shape) -> int:
        """Return the shape's length, or the most that the model takes."""
        return min(shape.length, self.longest)

    def mask(self, shape: Shape) -> Tensor:
        """Return a mask [batch, length] whose every row but the first is padded, the last by half."""
        length = self.length(shape)
        ends = [max(1, length - length * row // (2 * max(1, shape.batch - 1))) for row in range(shape.batch)]
        return (torch.arange(length) < torch.tensor(ends).unsqueeze(1)).long()

    def text(self, shape: Shape, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Return a text's tensors by their names."""
        mask = self.mask(shape)
        ids = self.tokens(shape).masked_fill(mask == 0, self.padding)
        types = (torch.arange(ids.shape[1]) >= ids.shape[1] // 2).long().expand_as(ids) * mask
        start = max(0, ids.shape[1] // 2 - 1)
        spans = torch.tensor([[[0, 1], [start, start + 1]]]).expand(shape.batch, -1, -1).contiguous()
        made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "entity_token_idx": spans}
        return tuple(made[name] for name in names)

    def texts(self, names: tuple[str, ...]) -> Callable[[Shape], tuple[Tensor, ...]]:
        """Return what makes a text's tensors."""
        return lambda shape: self.text(shape, names)


def text_inputs(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """Name a text's inputs: token types where the model tells them apart and the tokenizer, if any, makes them."""
    taken = inspect.signature(model.forward).parameters
    made = getattr(tokenizer, "model_input_names", None) or ("token_type_ids",)
    has_types = "token_type_ids" in taken and (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    return ("input_ids", "attention_mask", *(("token_type_ids",) if has_types and "token_type_ids" in made else ()))


def _plain(model: Any, tokenizer: Any, maker: Examples) -> Graph:
    names = text_inputs(model, tokenizer)
    if isinstance(model, T5EncoderRelationHead):
        names = (*names, "entity_token_idx")
    example = maker.texts(names)
    axes = _text_axes(names)
    if type(model).__name__.endswith("ForMultipleChoice"):
        # [batch, choices, seq]: the same text twice over would hide a mixed-up axis.
        example = _two_choices(example)
        axes = {name: {0: BATCH, 1: CHOICES, 2: SEQUENCE} for name in names}
    fixed = {"return_dict": True}
    if "use_cache" in inspect.signature(model.forward).parameters:
        fixed["use_cache"] = False
    with torch.no_grad():
        told = model(**dict(zip(names, example(Shape(2, 7)), strict=True)), **fixed)
    found = [outputs for outputs in _OUTPUTS if all(isinstance(told.get(name), Tensor) for name in outputs)]
    if not found:
        raise UsageError(f"{type(model).__name__} cannot be exported: it answers with {', '.join(told)}")
    return Graph("model", Plain(model, names, found[0], fixed), names, found[0], axes, example)


def _two_choices(example: Callable[[Shape], tuple[Tensor, ...]]) -> Callable[[Shape], tuple[Tensor, ...]]:
    def both(shape: Shape) -> tuple[Tensor, ...]:
        return tuple(torch.stack([tensor, tensor.flip(0)], dim=1) for tensor in example(shape))

    return both


def _causal(model: Any, maker: Examples) -> Graph:
    with torch.no_grad():
        told = model(input_ids=maker.tokens(Shape(1, 2)), use_cache=True, return_dict=True)
    sizes = [(tensor.shape[1], tensor.shape[3]) for tensor in held_by(told.past_key_values)]
    past, present = _past_names(len(sizes) // 2, "")
    names, outputs = ("input_ids", "attention_mask", *past), ("logits", *present)
    axes: Axes = {"input_ids": {0: BATCH, 1: SEQUENCE}, "attention_mask": {0: BATCH, 1: TOTAL}}
    axes |= {name: {0: BATCH, 2: PAST} for name in past}

    def example(shape: Shape) -> tuple[Tensor, ...]:
        shape = Shape(shape.batch, min(shape.length, maker.longest - shape.other), shape.other)
        mask = torch.cat([torch.ones(shape.batch, shape.other, dtype=torch.long), maker.mask(shape)], dim=1)
        return (maker.tokens(shape), mask, *_drawn_past(sizes, shape.batch, shape.other))

    return Graph("model", CausalWithPast(model), names, outputs, axes, example)


def _two_halves(model: Any, tokenizer: Any, maker: Examples) -> list[Graph]:
    encoder = model.get_encoder()
    names = text_inputs(encoder, tokenizer)
    first = Plain(encoder, names, ("last_hidden_state",), {"return_dict": True})

    def example(shape: Shape) -> tuple[Tensor, ...]:
        text = maker.text(shape, names)
        with torch.no_grad():
            states = first(*text)[0]
        target = maker.tokens(Shape(shape.batch, shape.other), seed=1)
        return text[1], target, states

    with torch.no_grad():
        mask, target, states = example(Shape(1, 2))
        told = model(attention_mask=mask, decoder_input_ids=target, encoder_outputs=(states,), use_cache=True)
    own = told.past_key_values.self_attention_cache
    sizes = [(tensor.shape[1], tensor.shape[3]) for tensor in held_by(own)]
    past, present = _past_names(len(sizes) // 2, "decoder.")

    def example_with_past(shape: Shape) -> tuple[Tensor, ...]:
        before = shape.length % 5
        return (*example(shape), *_drawn_past(sizes, shape.batch, before))

    second = ("encoder_attention_mask", "input_ids", "encoder_hidden_states")
    axes: Axes = {
        "encoder_attention_mask": {0: BATCH, 1: SOURCE},
        "input_ids": {0: BATCH, 1: TARGET},
        "encoder_hidden_states": {0: BATCH, 1: SOURCE},
    }
    with_past = axes | {name: {0: BATCH, 2: PAST} for name in past}
    merged = DecoderWithPast(model)
    return [
        Graph("encoder_model", first, names, ("last_hidden_state",), _text_axes(names), maker.texts(names)),
        Graph("decoder_model", Decoder(model), second, ("logits",), axes, example),
        Graph("decoder_model_merged", merged, (*second, *past), ("logits", *present), with_past, example_with_past),
    ]


def _past_names(layers: int, half: str) -> tuple[list[str], list[str]]:
    kinds = [f"{layer}.{half}{kind}" for layer in range(layers) for kind in ("key", "value")]
    return [f"past_key_values.{kind}" for kind in kinds], [f"present.{kind}" for kind in kinds]


def _drawn_past(sizes: list[tuple[int, int]], batch: int, past: int) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(past)
    return [torch.randn(batch, heads, past, size, generator=drawn) for heads, size in sizes]


def _text_axes(names: tuple[str, ...]) -> Axes:
    return {name: {0: BATCH} if name == "entity_token_idx" else {0: BATCH, 1: SEQUENCE} for name in names}


def _longest(model: Any) -> int:
    """Return how many tokens the model takes; RoBERTa's first places are never used."""
    places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    embeddings = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    padding = getattr(embeddings[0], "padding_idx", None) if embeddings else None
    return int(places) - (padding + 1 if padding is not None else 0) if isinstance(places, int) else 4096
