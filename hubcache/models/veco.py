"""VECO, the multilingual encoder of AliceMind (NLU) and its encoder-decoder for translation and summarisation (NLG).

Nothing is converted here: hubcache/convert turns the released archives into the folders that these classes load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Regex, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AddedToken, BartConfig, GenerationMixin, RobertaConfig, XLMRobertaTokenizer
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.convert_slow_tokenizer import XLMRobertaConverter
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.models.bart.modeling_bart import (
    BartAttention,
    BartDecoderLayer,
    BartEncoderLayer,
    BartPreTrainedModel,
    BartScaledWordEmbedding,
)
from transformers.models.roberta.modeling_roberta import (
    RobertaForMaskedLM,
    RobertaForMultipleChoice,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
    RobertaModel,
    RobertaPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

IGNORED_LABEL = -100


class VecoConfig(RobertaConfig):
    """Describe a VECO encoder; the defaults are the reference's, which are StructBERT's and fit no released VECO.

    The released checkpoint's own config.json holds XLM-R large's sizes. `adv_grad_factor`, `sigma` and `adv_bound`
    (2 * sigma unless given) are carried because the reference's files hold them; no VECO class reads them.
    """

    model_type = "veco"

    vocab_size: int = 30522
    adv_grad_factor: float | None = 5e-5
    sigma: float = 5e-6
    adv_bound: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive what was left open."""
        if self.adv_bound is None:
            self.adv_bound = 2 * self.sigma
        super().__post_init__(**kwargs)


class VecoTokenizer(XLMRobertaTokenizer):
    """Split text as the reference's fast tokenizer did: `<s> A </s>` and `<s> A </s></s> B </s>`, ids of XLM-R.

    Loads from a folder that holds nothing but sentencepiece.bpe.model. It differs from today's XLMRobertaTokenizer as
    the reference's does: blanks at the end of a text and before a special token make a `▁`, `<mask>` swallows the
    blank before it, and decoding takes the blanks before punctuation away.
    """

    def __init__(
        self,
        vocab: Any = None,
        mask_token: str | AddedToken = "<mask>",  # noqa: S107 a token of the vocabulary
        clean_up_tokenization_spaces: bool = True,
        _spm_precompiled_charsmap: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(mask_token, AddedToken):
            mask_token = AddedToken(mask_token, lstrip=True, special=True)
        # Code that comes with a snapshot is handed the whole backend, which has been through the lines below before.
        rebuilt = not kwargs.keys() & {"tokenizer_file", "tokenizer_object"}
        super().__init__(
            vocab=vocab,
            mask_token=mask_token,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )
        if rebuilt:
            self._tokenizer.normalizer = _sentencepiece_normalizer(_spm_precompiled_charsmap)
            self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")

    @classmethod
    def convert_from_spm_model(cls, **kwargs: Any) -> dict[str, Any]:
        """Reorder sentencepiece's vocabulary as fairseq did: `<s>`, `<pad>`, `</s>`, `<unk>`, pieces, `<mask>`."""
        return XLMRobertaConverter.convert_from_spm(**kwargs)


VecoTokenizerFast = VecoTokenizer


def _sentencepiece_normalizer(charsmap: bytes | None) -> Any:
    rules = [normalizers.Precompiled(charsmap)] if charsmap else []
    return normalizers.Sequence([*rules, normalizers.Replace(Regex(" {2,}"), " ")])


class VecoPreTrainedModel(RobertaPreTrainedModel):
    """The base of all VECO encoders; its checkpoints load with the prefix `roberta.` and without."""

    config_class = VecoConfig
    # The heads' losses are means over the batch: a trainer that accumulates gradients has to divide by its steps.
    accepts_loss_kwargs = False


class VecoModel(VecoPreTrainedModel, RobertaModel):
    """Encode text: input_ids [batch, seq] to last_hidden_state [batch, seq, hidden] and pooler_output [batch, hidden].

    Positions count the tokens that are not padding, from 2 on; inputs_embeds get plain 2, 3, ...
    """


class VecoForSequenceClassification(VecoPreTrainedModel, RobertaForSequenceClassification):
    """Classify texts from the first token: logits [batch, num_labels]."""


class VecoForTokenClassification(VecoPreTrainedModel, RobertaForTokenClassification):
    """Tag tokens: logits [batch, seq, num_labels].

    Labels where attention_mask is 0 are left out of the loss, as in the reference and unlike today's RoBERTa.
    """

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return logits [batch, seq, num_labels], and the loss over the attended tokens where labels are given."""
        if labels is not None and attention_mask is not None:
            labels = labels.masked_fill(attention_mask.to(labels.device) == 0, IGNORED_LABEL)
        return super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            **kwargs,
        )


class VecoForQuestionAnswering(VecoPreTrainedModel, RobertaForQuestionAnswering):
    """Find answers: start_logits and end_logits [batch, seq]."""


class VecoForMultipleChoice(VecoPreTrainedModel, RobertaForMultipleChoice):
    """Choose among texts: input_ids [batch, choices, seq] to logits [batch, choices]."""


class VecoForMaskedLM(VecoPreTrainedModel, RobertaForMaskedLM):
    """Fill masks: logits [batch, seq, vocab].

    The reference has no such class; it is here because checkpoints of XLM-R's layout carry the `lm_head` it needs.
    """


class VecoNlgConfig(BartConfig):
    """Describe a VECO encoder-decoder; the defaults are fairseq's `veco_large` with all 24 decoder layers.

    `max_position_embeddings` counts tokens; the table has pad_token_id + 1 rows more. There is no start token: the
    decoder starts with the target's language token, `generate(..., decoder_start_token_id=tokenizer.lang_id("de"))`.
    """

    model_type = "veco_nlg"

    vocab_size: int = 250001
    max_position_embeddings: int = 512
    encoder_layers: int = 24
    decoder_layers: int = 24
    attention_dropout: float | int | None = 0.1
    scale_embedding: bool | None = True
    # generate() would start from bos_token_id without a word where nobody named the target's language.
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None


def make_positions(is_token: Tensor, padding_idx: int, past: int | Tensor = 0) -> Tensor:
    """Number tokens as fairseq does: padding_idx for padding, else padding_idx + 1, 2, ... counted without padding.

    `is_token` [batch, seq] is false at padding; `past` tokens came before. Returns int64 [batch, seq].
    """
    is_token = is_token.long()
    return (is_token.cumsum(dim=1) + past) * is_token + padding_idx


def start_with_language(target: Tensor, pad_token_id: int) -> Tensor:
    """Move each target's last token to its front: `pieces </s> [de]` is decoded from `[de] pieces </s>`.

    `target` [batch, seq] is padded on the right with pad_token_id or -100; the result is padded with pad_token_id.
    """
    target = target.masked_fill(target == IGNORED_LABEL, pad_token_id)
    last = (target.ne(pad_token_id).sum(dim=1, keepdim=True) - 1).clamp(min=0)
    shifted = target.scatter(1, last, pad_token_id).roll(1, dims=1)
    shifted[:, :1] = target.gather(1, last)
    return shifted


class VecoNlgPreTrainedModel(BartPreTrainedModel):
    """The base of the VECO encoder-decoders; parameters are called as in fairseq."""

    config_class = VecoNlgConfig


class VecoNlgStack(VecoNlgPreTrainedModel):
    """What encoder and decoder share: embeddings, their LayerNorm and a list of post-norm layers."""

    def __init__(self, config: VecoNlgConfig, layers: Sequence[nn.Module]) -> None:
        super().__init__(config)
        width, padding = config.d_model, config.pad_token_id
        scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.embed_tokens = BartScaledWordEmbedding(config.vocab_size, width, padding, embed_scale=scale)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + padding + 1, width, padding)
        self.layernorm_embedding = nn.LayerNorm(width)
        self.layers = nn.ModuleList(layers)
        self.gradient_checkpointing = False
        self.post_init()

    def read(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scaled embeddings [batch, seq, d_model] and which of them [batch, seq] are no padding.

        Embeddings that are given directly count as tokens, all of them. Raises ValueError unless one of both is given.
        """
        if input_ids is not None and inputs_embeds is None:
            return self.embed_tokens(input_ids), input_ids.ne(self.config.pad_token_id)
        if inputs_embeds is not None and input_ids is None:
            return inputs_embeds, torch.ones_like(inputs_embeds[..., 0], dtype=torch.bool)
        raise ValueError("token ids or their embeddings have to be given, and not both")

    def embed(self, inputs_embeds: Tensor, positions: Tensor) -> Tensor:
        """Add positions [batch, seq] to scaled token embeddings [batch, seq, d_model], normalise and drop out."""
        hidden = self.layernorm_embedding(inputs_embeds + self.embed_positions(positions))
        return nn.functional.dropout(hidden, p=self.config.dropout, training=self.training)


class VecoNlgEncoder(VecoNlgStack):
    """Encode the source."""

    _can_record_outputs: ClassVar[dict[str, Any]] = {"hidden_states": BartEncoderLayer, "attentions": BartAttention}

    def __init__(self, config: VecoNlgConfig) -> None:
        super().__init__(config, [BartEncoderLayer(config, layer_idx=i) for i in range(config.encoder_layers)])

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Return last_hidden_state [batch, seq, d_model]; padding is masked by attention_mask, else by input_ids."""
        inputs_embeds, is_token = self.read(input_ids, inputs_embeds)
        mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=is_token if attention_mask is None else attention_mask,
        )
        hidden = self.embed(inputs_embeds, make_positions(is_token, self.config.pad_token_id))
        for layer in self.layers:
            hidden = layer(hidden, mask, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden)


class VecoNlgDecoder(VecoNlgStack):
    """Decode the target, which begins with its language token."""

    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": BartDecoderLayer,
        "attentions": OutputRecorder(BartAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(BartAttention, index=1, layer_name="encoder_attn"),
    }

    def __init__(self, config: VecoNlgConfig) -> None:
        super().__init__(config, [BartDecoderLayer(config, layer_idx=i) for i in range(config.decoder_layers)])

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Return last_hidden_state [batch, seq, d_model] of the tokens given, and the cache that now holds them."""
        inputs_embeds, is_token = self.read(input_ids, inputs_embeds)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        self_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=getattr(past_key_values, "self_attention_cache", past_key_values),
        )
        cross_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        hidden = self.embed(inputs_embeds, self.positions(is_token, attention_mask, past_key_values))
        for layer in self.layers:
            hidden = layer(
                hidden,
                self_mask,
                encoder_hidden_states,
                encoder_attention_mask=cross_mask,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden, past_key_values=past_key_values)

    def positions(self, is_token: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """Number the new tokens [batch, seq]; a mask over past and new tokens tells which of them are padding."""
        padding = self.config.pad_token_id
        if mask is not None and mask.dim() == 2:
            return make_positions(mask, padding)[:, -is_token.shape[1] :]
        return make_positions(is_token, padding, 0 if cache is None else cache.get_seq_length())


class VecoNlgModel(VecoNlgPreTrainedModel):
    """Encode a source and decode a target: last_hidden_state [batch, target, d_model]."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: VecoNlgConfig) -> None:
        super().__init__(config)
        self.encoder = VecoNlgEncoder(config)
        self.decoder = VecoNlgDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the source's embeddings, which the target shares."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put other embeddings in the place of the shared ones."""
        self.encoder.embed_tokens = value
        self.decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Return the decoder's states [batch, target, d_model]; the source's padding is masked even without a mask."""
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(self.config.pad_token_id)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, **kwargs)
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class VecoForConditionalGeneration(VecoNlgPreTrainedModel, GenerationMixin):
    """Write a target text from a source text: logits [batch, target, vocab].

    A source ends in `</s> [en]`, a target in `</s> [de]`, which is decoded from `[de] ...` (VecoNlgTokenizer does
    both). generate() needs `decoder_start_token_id`, the target language's id, and stops at `</s>`; fairseq stops one
    token later, at the language token: `eos_token_id=[that id]` does the same.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.encoder.embed_tokens.weight"}

    def __init__(self, config: VecoNlgConfig) -> None:
        super().__init__(config)
        self.model = VecoNlgModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def keep_decoder_layers(self, indices: Sequence[int]) -> None:
        """Keep these decoder layers, renumbered in the order given; VECO's recipe fine-tunes 18 to 23 of 24.

        Raises IndexError where there is no such layer.
        """
        decoder = self.model.decoder
        decoder.layers = nn.ModuleList([decoder.layers[index] for index in indices])
        for index, layer in enumerate(decoder.layers):
            # The cache is addressed by these.
            layer.self_attn.layer_idx = layer.encoder_attn.layer_idx = index
        self.config.decoder_layers = len(decoder.layers)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return what the decoder reads to predict the labels [batch, target]."""
        return start_with_language(labels, self.config.pad_token_id)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Return logits [batch, target, vocab], and the mean cross entropy where labels [batch, target] are given.

        Labels that are -100 or padding do not count. The decoder's input is made of the labels unless it is given.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None if labels is None else self.token_loss(logits, labels, num_items_in_batch)
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def token_loss(self, logits: Tensor, labels: Tensor, count: int | Tensor | None) -> Tensor:
        """Return the cross entropy per token: over this batch's tokens, or over `count` of an accumulated batch."""
        labels = labels.to(logits.device)
        labels = labels.masked_fill(labels == self.config.pad_token_id, IGNORED_LABEL)
        reduction = "mean" if count is None else "sum"
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL, reduction=reduction
        )
        return loss if count is None else loss / count


class VecoNlgTokenizer(XLMRobertaTokenizer):
    """Split text with sentencepiece and number the pieces by fairseq's dict.txt: 4 + the piece's line.

    Loads from a folder with sentencepiece.bpe.model and dict.txt. A text becomes `pieces </s> [en]`, and a target
    (`text_target=`) `pieces </s> [de]`, as `src_lang` and `tgt_lang` say; without them no language token is added.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": "sentencepiece.bpe.model",
        "dict_file": "dict.txt",
        "tokenizer_file": "tokenizer.json",
    }

    def __init__(
        self, vocab: Any = None, src_lang: str | None = None, tgt_lang: str | None = None, **kwargs: Any
    ) -> None:
        # fairseq's dictionary has no <mask>, and the default would add one behind it.
        kwargs["mask_token"] = None
        super().__init__(vocab=vocab, src_lang=src_lang, tgt_lang=tgt_lang, **kwargs)
        self._src_lang, self._tgt_lang = src_lang, tgt_lang
        self._end_with(src_lang)

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> dict[str, Any]:
        """Read the vocabulary from the folder's files.

        Raises FileNotFoundError where there is a sentencepiece model without dict.txt: the ids would be made up.
        """
        if kwargs.get("tokenizer_file") is None and kwargs.get("dict_file") is None:
            raise FileNotFoundError("dict.txt is not beside sentencepiece.bpe.model: it holds fairseq's token ids")
        return super().convert_to_native_format(**kwargs)

    @classmethod
    def convert_from_spm_model(cls, vocab: list[tuple[str, float]], dict_file: str, **kwargs: Any) -> dict[str, Any]:
        """Put sentencepiece's pieces into the dictionary's order; what only the dictionary has is a language token."""
        scores = dict(vocab)
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *read_fairseq_dict(Path(dict_file))]
        languages = [token for token in tokens[4:] if token not in scores]
        ranked = [(token, 0.0 if place < 4 else scores.get(token, 0.0)) for place, token in enumerate(tokens)]
        return {**kwargs, "dict_file": dict_file, "vocab": ranked, "additional_special_tokens": languages}

    @property
    def src_lang(self) -> str | None:
        """The language of sources, as in `[en]` without its brackets."""
        return self._src_lang

    @src_lang.setter
    def src_lang(self, lang: str | None) -> None:
        self._src_lang = self.init_kwargs["src_lang"] = lang
        self._end_with(lang)

    @property
    def tgt_lang(self) -> str | None:
        """The language of targets."""
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, lang: str | None) -> None:
        self._tgt_lang = self.init_kwargs["tgt_lang"] = lang

    def lang_id(self, lang: str) -> int:
        """Return the id of a language's token, the decoder_start_token_id of its targets.

        Raises ValueError where the dictionary has no such language.
        """
        token_id = self._tokenizer.token_to_id(f"[{lang}]")
        if token_id is None:
            known = ", ".join(token[1:-1] for token in self.get_added_vocab() if token.startswith("["))
            raise ValueError(f"[{lang}] is not in this tokenizer's dictionary; it has: {known}")
        return int(token_id)

    def _switch_to_input_mode(self) -> None:
        self._end_with(self.src_lang)

    def _switch_to_target_mode(self) -> None:
        self._end_with(self.tgt_lang)

    def _end_with(self, lang: str | None) -> None:
        ends = [("</s>", self.eos_token_id)]
        if lang is not None:
            ends.append((f"[{lang}]", self.lang_id(lang)))
        suffix = [token for token, _ in ends]
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=["$A", *suffix], pair=["$A", "$B", *suffix], special_tokens=ends
        )


def read_fairseq_dict(path: Path) -> list[str]:
    """Return a fairseq dictionary's tokens in the order of their lines, `token count` each."""
    with path.open(encoding="utf-8") as lines:
        return [line.rstrip("\n").removesuffix(" #fairseq:overwrite").rsplit(" ", 1)[0] for line in lines]
