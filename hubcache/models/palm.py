"""PALM, AliceMind's encoder-decoder for generation, for transformers 5; it imports nothing but torch and transformers.

It neither converts checkpoints nor ranks beams as the reference does: beam_search.py has the second.

The names in a state_dict are the original ones (sofa, models/palm), so that converted files keep them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertTokenizer, GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple

IGNORED = -100
"""The label that the loss leaves out."""

SPECIAL_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
"""What generate() must know; the old config.json files have null for all of them."""


class PalmConfig(PreTrainedConfig):
    """Describe a PALM model; the defaults are the published Chinese base model of 217 million parameters.

    `layer_norm_eps` is another name of `layernorm_epsilon`. `pre_ln` and `attn_separate` shape the encoder only: the
    decoder is always pre-LN with fused projections. `lr_decay_style`, `weight_decay`, `clip_grad` and `warmup` are
    what the published model was trained with; nothing here reads them.

    `loss_over_padding=True` brings back the reference's loss, the mean over all positions with the padding; the
    published PALM fine-tuning results (DuReaderQG, DuReader-robust, LCSTS) were obtained with it. By default padding
    is left out.
    """

    model_type = "palm"
    attribute_map = {"layer_norm_eps": "layernorm_epsilon"}  # noqa: RUF012  transformers reads a plain class attribute
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vocab_size: int = 21504
    hidden_size: int = 768
    num_hidden_layers: int = 12
    dec_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 2048
    type_vocab_size: int = 3
    initializer_range: float = 0.00707
    layernorm_epsilon: float = 1e-12
    pre_ln: bool = True
    attn_separate: bool = False
    lr_decay_style: str = "linear"
    weight_decay: float = 0.01
    clip_grad: float = 1.0
    warmup: float = 0.01
    loss_over_padding: bool = False
    use_cache: bool = True
    tie_word_embeddings: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 101
    eos_token_id: int | list[int] | None = 102
    decoder_start_token_id: int | None = 101

    def __post_init__(self, **kwargs: Any) -> None:
        # The old files say false and null here: the reference's own generator never asked.
        self.is_encoder_decoder = True
        for name in SPECIAL_TOKENS:
            if getattr(self, name) is None:
                setattr(self, name, getattr(type(self), name))
        super().__post_init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the config of one side; the decoder's has the decoder's number of layers, which sizes a cache."""
        config = super().get_text_config(decoder=decoder, encoder=encoder)
        if decoder and not encoder and config is not self:
            config.num_hidden_layers = self.dec_hidden_layers
        return config


class PalmTokenizer(BertTokenizer):
    """Split text as BERT does, from a folder with a vocab.txt or a tokenizer.json."""

    def __init__(
        self,
        vocab: str | dict[str, int] | None = None,
        *args: Any,
        clean_up_tokenization_spaces: bool = True,
        **kwargs: Any,
    ) -> None:
        # BertTokenizer takes `vocab_file=` in silence and goes on with five tokens. Decoded text has no blank before a
        # full stop, as it had none before transformers 5.
        vocab = vocab if vocab is not None else kwargs.get("vocab_file")
        super().__init__(vocab, *args, clean_up_tokenization_spaces=clean_up_tokenization_spaces, **kwargs)


PalmTokenizerFast = PalmTokenizer


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend step by step: [batch, heads, seq, head_dim] -> [batch, seq, heads, head_dim], weights [.., query, key].

    The mask is boolean (True is seen) or additive.
    """
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def layer_norm(config: PalmConfig) -> nn.LayerNorm:
    """Make a normalisation over the hidden size."""
    return nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)


def wanted_outputs(config: PalmConfig, attentions: bool | None, hidden_states: bool | None) -> tuple[bool, bool]:
    """Tell whether attention weights and hidden states are asked for, by the caller or else by the config.

    Raises:
        ValueError: weights are wanted of an attention that has none to give.
    """
    attentions = config.output_attentions if attentions is None else attentions
    hidden_states = config.output_hidden_states if hidden_states is None else hidden_states
    if attentions and config._attn_implementation != "eager":
        raise ValueError("output_attentions needs the attention step by step: load with attn_implementation='eager'")
    return bool(attentions), bool(hidden_states)


class PalmEmbeddings(nn.Module):
    """Word, learned absolute position and token type, shared by encoder and decoder."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = layer_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None, offset: int | Tensor = 0) -> Tensor:
        """Embed [batch, seq], the first token at position `offset`, into [batch, seq, hidden]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device) + offset
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        embedded = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(embedded + self.token_type_embeddings(token_type_ids)))


class PalmAttention(nn.Module):
    """What the three kinds of attention share: heads, and the choice of kernel."""

    is_causal = False

    def __init__(self, config: PalmConfig, layer_idx: int | None = None) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(f"{config.num_attention_heads} heads do not divide a hidden size of {config.hidden_size}")
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5

    def heads(self, states: Tensor) -> Tensor:
        """Split [batch, seq, hidden] into [batch, heads, seq, head_dim]."""
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with the chosen kernel: heads in, [batch, seq, hidden] out."""
        kernel = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        context, weights = kernel(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, is_causal=self.is_causal
        )
        return context.flatten(2), weights


class PalmEncoderSelfAttention(PalmAttention):
    """The encoder's attention, its projections fused or separate."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        if config.attn_separate:
            self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        else:
            self.query_key_value = nn.Linear(size, 3 * size)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attend over [batch, seq, hidden]."""
        query, key, value = map(self.heads, self._projected(hidden_states))
        return self.attend(query, key, value, attention_mask)

    def _projected(self, hidden_states: Tensor) -> Sequence[Tensor]:
        if self.config.attn_separate:
            return self.query(hidden_states), self.key(hidden_states), self.value(hidden_states)
        return self.query_key_value(hidden_states).chunk(3, dim=-1)


class PalmOutput(nn.Module):
    """Project back to the hidden size and add the residual; in a post-LN encoder the normalisation follows."""

    def __init__(self, config: PalmConfig, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = None if config.pre_ln else layer_norm(config)

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """Return [batch, seq, hidden]."""
        added = residual + self.dropout(self.dense(hidden_states))
        return added if self.LayerNorm is None else self.LayerNorm(added)


class PalmEncoderAttention(nn.Module):
    """Attention with its residual."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.LayerNorm = layer_norm(config) if config.pre_ln else None
        self.self = PalmEncoderSelfAttention(config)
        self.output = PalmOutput(config, config.hidden_size)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return [batch, seq, hidden] and the weights where the kernel has them."""
        normed = hidden_states if self.LayerNorm is None else self.LayerNorm(hidden_states)
        context, weights = self.self(normed, attention_mask)
        return self.output(context, hidden_states), weights


class PalmIntermediate(nn.Module):
    """The wide half of the feed-forward network."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return [batch, seq, intermediate]."""
        return self.activation(self.dense(hidden_states))


class PalmEncoderLayer(GradientCheckpointingLayer):
    """One layer of the encoder, pre-LN or post-LN."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.attention = PalmEncoderAttention(config)
        self.LayerNorm = layer_norm(config) if config.pre_ln else None
        self.intermediate = PalmIntermediate(config)
        self.output = PalmOutput(config, config.intermediate_size)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return [batch, seq, hidden] and the weights where the kernel has them."""
        attended, weights = self.attention(hidden_states, attention_mask)
        normed = attended if self.LayerNorm is None else self.LayerNorm(attended)
        return self.output(self.intermediate(normed), attended), weights


class PalmEncoderStack(nn.Module):
    """The encoder's layers, and for pre-LN the final normalisation."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(PalmEncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.LayerNorm = layer_norm(config) if config.pre_ln else None

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, attentions: bool = False, states: bool = False
    ) -> BaseModelOutput:
        """Run the layers over [batch, seq, hidden]; the hidden states are the embeddings and each layer's output."""
        weights: list[Tensor | None] = []
        kept = [hidden_states]
        for layer in self.layer:
            hidden_states, weight = layer(hidden_states, attention_mask)
            weights += [weight] if attentions else []
            kept += [hidden_states] if states else []
        if self.LayerNorm is not None:
            # Twice: so did the reference, and the checkpoints were trained with it.
            hidden_states = self.LayerNorm(self.LayerNorm(hidden_states))
        return BaseModelOutput(hidden_states, tuple(kept) if states else None, tuple(weights) if attentions else None)


class PalmPooler(nn.Module):
    """A layer that the checkpoints have and no forward pass uses."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)


class PalmEncoder(nn.Module):
    """Embeddings and encoder: what get_encoder() returns."""

    main_input_name = "input_ids"

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = PalmEmbeddings(config)
        self.encoder = PalmEncoderStack(config)
        self.pooler = PalmPooler(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput:
        """Encode [batch, seq]; the mask [batch, seq] is 1 for what is seen. `return_dict` is not read: it is a dict."""
        wanted = wanted_outputs(self.config, output_attentions, output_hidden_states)
        embedded = self.embeddings(input_ids, token_type_ids)
        mask = create_bidirectional_mask(self.config, inputs_embeds=embedded, attention_mask=attention_mask)
        return self.encoder(embedded, mask, *wanted)


class PalmDecoderSelfAttention(PalmAttention):
    """The decoder's causal attention over what was generated."""

    is_causal = True

    def __init__(self, config: PalmConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, cache: EncoderDecoderCache | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over [batch, seq, hidden] and what the cache has of the tokens before."""
        query, key, value = map(self.heads, self.query_key_value(hidden_states).chunk(3, dim=-1))
        if cache is not None:
            key, value = cache.self_attention_cache.update(key, value, self.layer_idx)
        context, weights = self.attend(query, key, value, attention_mask)
        return self.dense(context), weights


class PalmCrossAttention(PalmAttention):
    """The decoder's attention over the encoder's output."""

    def __init__(self, config: PalmConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None,
        cache: EncoderDecoderCache | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from [batch, seq, hidden] over [batch, source, hidden]."""
        key, value = self._key_value(encoder_hidden_states, cache)
        context, weights = self.attend(self.heads(self.query(hidden_states)), key, value, attention_mask)
        return self.dense(context), weights

    def _key_value(self, encoder_hidden_states: Tensor, cache: EncoderDecoderCache | None) -> tuple[Tensor, Tensor]:
        """Project the encoder's output, once for as long as a cache lives."""
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        key, value = map(self.heads, self.key_value(encoder_hidden_states).chunk(2, dim=-1))
        if cache is not None:
            key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
            cache.is_updated[self.layer_idx] = True
        return key, value


class PalmDecoderLayer(GradientCheckpointingLayer):
    """One layer of the decoder, always pre-LN."""

    def __init__(self, config: PalmConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = layer_norm(config)
        self.attention = PalmDecoderSelfAttention(config, layer_idx)
        self.post_attention_layernorm = layer_norm(config)
        self.cross_attention = PalmCrossAttention(config, layer_idx)
        self.post_cross_attention_layernorm = layer_norm(config)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return [batch, seq, hidden], and both attentions' weights where the kernel has them."""
        normed = self.input_layernorm(hidden_states)
        context, weights = self.attention(normed, attention_mask, past_key_values)
        hidden_states = hidden_states + self.dropout(context)
        normed = self.post_attention_layernorm(hidden_states)
        context, cross_weights = self.cross_attention(
            normed, encoder_hidden_states, encoder_attention_mask, past_key_values
        )
        hidden_states = hidden_states + self.dropout(context)
        wide = self.activation(self.intermediate(self.post_cross_attention_layernorm(hidden_states)))
        return hidden_states + self.dropout(self.output(wide)), weights, cross_weights


class PalmDecoderStack(nn.Module):
    """The decoder's layers and the final normalisation."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(PalmDecoderLayer(config, index) for index in range(config.dec_hidden_layers))
        self.final_layernorm = layer_norm(config)

    def forward(
        self,
        hidden_states: Tensor,
        inputs: tuple[Tensor | None, ...],
        past_key_values: EncoderDecoderCache | None,
        attentions: bool = False,
        states: bool = False,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Run the layers over [batch, seq, hidden]; `inputs` are what every layer is given besides.

        The hidden states are the embeddings and each layer's output.
        """
        weights: list[tuple[Tensor | None, ...]] = []
        kept = [hidden_states]
        for layer in self.layer:
            hidden_states, *both = layer(hidden_states, *inputs, past_key_values=past_key_values)
            weights += [tuple(both)] if attentions else []
            kept += [hidden_states] if states else []
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.final_layernorm(hidden_states),
            past_key_values=past_key_values,
            hidden_states=tuple(kept) if states else None,
            attentions=tuple(own for own, _ in weights) if attentions else None,
            cross_attentions=tuple(cross for _, cross in weights) if attentions else None,
        )


class PalmDecoder(nn.Module):
    """The decoder without the embeddings, which are the encoder's."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = PalmDecoderStack(config)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        past_key_values: EncoderDecoderCache | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode [batch, seq, hidden]; the masks are [batch, seq so far] and [batch, source], or ready ones of 4-D."""
        wanted = wanted_outputs(self.config, output_attentions, output_hidden_states)
        mask = create_causal_mask(
            self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=None if past_key_values is None else past_key_values.self_attention_cache,
        )
        encoder_mask = create_bidirectional_mask(
            self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        return self.decoder(inputs_embeds, (mask, encoder_hidden_states, encoder_mask), past_key_values, *wanted)


class PalmTransform(nn.Module):
    """The layer before the masked-language-model scores."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = layer_norm(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return [batch, seq, hidden]."""
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class PalmPredictions(nn.Module):
    """Scores over the vocabulary, by the word embeddings."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.transform = PalmTransform(config)
        self.decoder_weight = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.bias = nn.Parameter(torch.empty(config.vocab_size))

    def forward(self, hidden_states: Tensor, masked_lm: bool = True) -> Tensor:
        """Score [batch, seq, hidden] as the encoder's masked-language-model head, or plainly as the decoder's output.

        Both stand in one forward, because accelerate brings a module's parameters to its device only there.
        """
        if masked_lm:
            return F.linear(self.transform(hidden_states), self.decoder_weight, self.bias)
        return F.linear(hidden_states, self.decoder_weight)


class PalmHeads(nn.Module):
    """The pre-training heads; the sequence relationship is kept for the checkpoints' sake and not computed."""

    def __init__(self, config: PalmConfig) -> None:
        super().__init__()
        self.predictions = PalmPredictions(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 3)


class PalmPreTrainedModel(PreTrainedModel):
    """Loading, saving, initialisation and resizing; it computes nothing."""

    config_class = PalmConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("PalmEmbeddings", "PalmEncoderLayer", "PalmDecoderLayer")

    def get_encoder(self, modality: str | None = None) -> PalmEncoder:
        """Return embeddings and encoder as one module."""
        return self.base_model.bert

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.base_model.bert.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings; tie_weights() must follow."""
        self.base_model.bert.embeddings.word_embeddings = value

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Give the vocabulary another size; the scores' bias follows, new entries are 0."""
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        predictions = self.base_model.cls.predictions
        missing = embeddings.num_embeddings - predictions.bias.shape[0]
        if missing:
            predictions.bias = nn.Parameter(F.pad(predictions.bias.data, (0, missing)))
        return embeddings

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PalmPredictions):
            init.normal_(module.decoder_weight, mean=0.0, std=self.config.initializer_range)
            init.zeros_(module.bias)

    @contextmanager
    def _checkpointing(self, wanted: bool) -> Iterator[None]:
        """Save memory inside the block; a model that does so already is left as it is."""
        if not wanted or self._checkpoints():
            yield
            return
        # The public method would also hook the embeddings, once more each time.
        self._set_gradient_checkpointing(True, partial(checkpoint, use_reentrant=False))
        try:
            yield
        finally:
            self._set_gradient_checkpointing(False)

    def _checkpoints(self) -> bool:
        # transformers' own property has one name in 5.17 and another in 5.23.
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())


class PalmModel(PalmPreTrainedModel):
    """Encoder, decoder and pre-training heads, called as the reference's PalmModel."""

    _tied_weights_keys = {  # noqa: RUF012  transformers reads a plain class attribute
        "cls.predictions.decoder_weight": "bert.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: PalmConfig) -> None:
        super().__init__(config)
        self.bert = PalmEncoder(config)
        self.cls = PalmHeads(config)
        self.decoder = PalmDecoder(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decode_input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        decode_attention_mask: Tensor | None = None,
        lm_labels: Tensor | None = None,
        checkpoint_activations: bool = False,
        is_infer: bool = False,
        sequence_output: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Return the encoder's masked-language-model scores [batch, source, vocab] and the decoder's logits.

        The logits are [batch, seq, vocab]; with `is_infer` the encoder's output [batch, source, hidden] is a third.
        Where that is given as `sequence_output`, the encoder does not run and the scores are None.
        `decode_attention_mask` [1, 1, seq, seq] is causal if left out; `position_ids` and `lm_labels` are not read,
        which is the reference's way.

        Raises:
            ValueError: there is nothing to decode.
        """
        if decode_input_ids is None:
            raise ValueError(
                "PalmModel needs decode_input_ids (target_tokens); for the encoder alone use get_encoder()"
            )
        with self._checkpointing(checkpoint_activations):
            prediction_scores = None
            if sequence_output is None:
                sequence_output = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
                prediction_scores = self.cls.predictions(sequence_output)
            logits = self.teacher_forced(decode_input_ids, decode_attention_mask, sequence_output, attention_mask)
        return (prediction_scores, logits, sequence_output) if is_infer else (prediction_scores, logits)

    def teacher_forced(
        self,
        decode_input_ids: Tensor,
        decode_attention_mask: Tensor | None,
        sequence_output: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """Return the logits [batch, seq, vocab] of whole targets; their mask is the reference's, 1 for what is seen."""
        seen = None if decode_attention_mask is None else decode_attention_mask.bool()
        decoded = self.decode(decode_input_ids, sequence_output, attention_mask, decoder_attention_mask=seen)
        return self.project(decoded.last_hidden_state)

    def decode(
        self,
        input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode [batch, seq], the tokens that follow those in the cache."""
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        return self.decoder(
            self.bert.embeddings(input_ids, offset=past),
            decoder_attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )

    def project(self, hidden_states: Tensor) -> Tensor:
        """Return the decoder's logits [batch, seq, vocab]: the word embeddings alone, no bias."""
        return self.cls.predictions(hidden_states, masked_lm=False)


class PalmForConditionalGeneration(PalmPreTrainedModel, GenerationMixin):
    """PALM to fine-tune and to generate with, called as transformers' models are or as the reference is."""

    # The loss is a mean already: the Trainer must not divide it by a number of items of its own.
    accepts_loss_kwargs = False

    def __init__(self, config: PalmConfig) -> None:
        super().__init__(config)
        self.model = PalmModel(config)
        self.post_init()

    @property
    def generation_config(self) -> GenerationConfig:
        """What generate() does unless told otherwise; it always has the special tokens.

        from_pretrained() reads it from the raw config.json where there is no generation_config.json, and would bring
        the old files' nulls back.
        """
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        for name in SPECIAL_TOKENS:
            if getattr(value, name) is None:
                setattr(value, name, getattr(self.config, name))
        self._generation_config = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: EncoderDecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        input_tokens: Tensor | None = None,
        target_tokens: Tensor | None = None,
        position_ids: Tensor | None = None,
        decode_attention_mask: Tensor | None = None,
        checkpoint_activations: bool = False,
        is_infer: bool = False,
        sequence_output: Tensor | None = None,
        dec_loss_mask: Tensor | None = None,
    ) -> Seq2SeqLMOutput | tuple[Tensor | None, ...]:
        """Return logits [batch, seq, vocab] for [batch, source] and decoder_input_ids [batch, seq], and the loss.

        `labels` [batch, seq] stand at the decoder input's positions; without decoder_input_ids these are made of them.
        -100 and the padding token are left out of the loss. With `input_tokens` or `target_tokens`, as palm_batchify
        names them, everything is taken and returned as the reference does: see reference_forward().
        """
        if input_tokens is not None or target_tokens is not None:
            return self.reference_forward(
                input_tokens=input_tokens,
                token_type_ids=token_type_ids,
                attention_mask=attention_mask,
                target_tokens=target_tokens,
                decode_attention_mask=decode_attention_mask,
                checkpoint_activations=checkpoint_activations,
                is_infer=is_infer,
                sequence_output=sequence_output,
                labels=labels,
                dec_loss_mask=dec_loss_mask,
            )
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if encoder_outputs is None:
            encoder_outputs = self.model.bert(input_ids, attention_mask, token_type_ids, **flags)
        elif not isinstance(encoder_outputs, Mapping):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoded = self.model.decode(
            self._decoder_input(decoder_input_ids, labels),
            encoder_outputs.last_hidden_state,
            attention_mask,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=self._cache(past_key_values, use_cache, labels),
            **flags,
        )
        logits = self.model.project(decoded.last_hidden_state)
        return Seq2SeqLMOutput(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )

    def reference_forward(
        self,
        input_tokens: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        target_tokens: Tensor | None = None,
        position_ids: Tensor | None = None,
        decode_attention_mask: Tensor | None = None,
        checkpoint_activations: bool = False,
        is_infer: bool = False,
        sequence_output: Tensor | None = None,
        labels: Tensor | None = None,
        dec_loss_mask: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """Return (loss, logits), or with `is_infer` what PalmModel returns: (scores, logits, encoder's output).

        `dec_loss_mask` [batch, seq] is 1 for what the loss counts; the reference meant so and did not, which
        config.loss_over_padding brings back. `position_ids` are not read.

        Raises:
            ValueError: there is nothing to decode.
        """
        if is_infer or target_tokens is None:
            return self.model(
                input_ids=input_tokens,
                token_type_ids=token_type_ids,
                attention_mask=attention_mask,
                decode_input_ids=target_tokens,
                decode_attention_mask=decode_attention_mask,
                checkpoint_activations=checkpoint_activations,
                is_infer=is_infer,
                sequence_output=sequence_output,
            )
        with self._checkpointing(checkpoint_activations):
            if sequence_output is None:
                sequence_output = self.model.bert(input_tokens, attention_mask, token_type_ids).last_hidden_state
            logits = self.model.teacher_forced(target_tokens, decode_attention_mask, sequence_output, attention_mask)
        return None if labels is None else self.loss(logits, labels, dec_loss_mask), logits

    def loss(self, logits: Tensor, labels: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the mean cross entropy of [batch, seq, vocab] over the positions that count.

        `counted` [batch, seq] says which; without it all but the padding token do. -100 never counts.
        """
        labels = labels.to(logits.device)
        weights = labels != IGNORED
        if not self.config.loss_over_padding:
            weights = weights * (labels != self.config.pad_token_id if counted is None else counted.to(logits.device))
        losses = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        weights = weights.flatten().to(losses.dtype)
        return (losses * weights).sum() / weights.sum().clamp(min=1)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift [batch, seq] right behind the start token; -100 becomes padding."""
        shifted = labels.new_full(labels.shape, self.config.decoder_start_token_id)
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self.config.pad_token_id)
        return shifted

    @staticmethod
    def palm_batchify(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate rows of input_ids, input_mask, segment_ids and target_ids into a batch in the reference's names.

        The rows are padded with 0, all to the same lengths; the targets, one token shorter than given, are what the
        decoder reads, the labels what it is to say.
        """
        names = ("input_ids", "input_mask", "segment_ids", "target_ids")
        tokens, mask, types, targets = (
            torch.stack([torch.as_tensor(row[name], dtype=torch.long) for row in rows]) for name in names
        )
        count, length = targets.shape[0], targets.shape[1] - 1
        read = targets[:, :-1].contiguous()
        return {
            "input_tokens": tokens,
            "token_type_ids": types,
            "attention_mask": mask.to(torch.uint8),
            "target_tokens": read,
            "position_ids": torch.arange(length).repeat(count, 1),
            "decode_attention_mask": torch.ones(length, length).tril()[None, None],
            "labels": targets[:, 1:].contiguous(),
            "dec_loss_mask": (read != 0).float(),
        }

    def _decoder_input(self, decoder_input_ids: Tensor | None, labels: Tensor | None) -> Tensor:
        if decoder_input_ids is not None:
            return decoder_input_ids
        if labels is None:
            raise ValueError("PalmForConditionalGeneration needs decoder_input_ids or labels")
        return self.prepare_decoder_input_ids_from_labels(labels)

    def _cache(
        self, given: EncoderDecoderCache | None, use_cache: bool | None, labels: Tensor | None
    ) -> EncoderDecoderCache | None:
        """Return the cache to write to, or None; a checkpointed layer runs twice and would write twice."""
        wanted = self.config.use_cache and labels is None if use_cache is None else use_cache
        if given is None and not wanted:
            return None
        if self.training and self._checkpoints():
            return None
        return EncoderDecoderCache(DynamicCache(), DynamicCache()) if given is None else given


__all__ = [
    "PalmConfig",
    "PalmForConditionalGeneration",
    "PalmModel",
    "PalmPreTrainedModel",
    "PalmTokenizer",
    "PalmTokenizerFast",
]
