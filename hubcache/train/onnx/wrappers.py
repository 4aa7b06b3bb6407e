"""Models as modules of tensors in and tensors out, which an exporter can follow; no model is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput


class Plain(nn.Module):
    """A model called by its inputs' names; the outputs that are named come back, in that order."""

    def __init__(self, model: Any, inputs: Sequence[str], outputs: Sequence[str], fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.fixed = dict(fixed)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `tensors`, one for each of the inputs."""
        told = self.model(**dict(zip(self.inputs, tensors, strict=True)), **self.fixed)
        return tuple(told[name] for name in self.outputs)


class Emissions(nn.Module):
    """A CRF tagger up to its emissions [batch, seq, tags]: the best path is no graph's business."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        """Return the emissions of [batch, seq]."""
        encoded = self.model.encoded({"input_ids": input_ids, "attention_mask": attention_mask})
        return (self.model.position_wise_ff(encoded.last_hidden_state),)


class Decoder(nn.Module):
    """An encoder-decoder's second half over whole targets: the mask and states of the source, the target's tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoder_attention_mask: Tensor, input_ids: Tensor, states: Tensor) -> tuple[Tensor]:
        """Return logits [batch, target, vocab] for [batch, source], [batch, target], [batch, source, hidden]."""
        told = self.model(
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            use_cache=False,
            return_dict=True,
        )
        return (told.logits,)


class DecoderWithPast(Decoder):
    """The same over the tokens that follow a past, whose keys and values [batch, heads, past, size] may be empty.

    The source's keys and values are computed anew at each call: they are no inputs.
    """

    def forward(
        self, encoder_attention_mask: Tensor, input_ids: Tensor, states: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Return logits [batch, target, vocab], then each layer's keys and values with the new tokens'."""
        own = cache_of(past)
        told = self.model(
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            past_key_values=EncoderDecoderCache(own, DynamicCache()),
            use_cache=True,
            return_dict=True,
        )
        return (told.logits, *held_by(own))


class CausalWithPast(nn.Module):
    """A causal model over the tokens that follow a past, which may be empty; the mask is the past's, too."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Return logits [batch, seq, vocab], then each layer's keys and values [batch, heads, past + seq, size]."""
        cache = cache_of(past)
        told = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        return (told.logits, *held_by(cache))


def cache_of(past: Sequence[Tensor]) -> Any:
    """Make a cache of each layer's keys and values."""
    cache = DynamicCache()
    for layer in range(len(past) // 2):
        cache.update(past[2 * layer], past[2 * layer + 1], layer)
    return cache


def held_by(cache: Any) -> list[Tensor]:
    """List each layer's keys and values."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
