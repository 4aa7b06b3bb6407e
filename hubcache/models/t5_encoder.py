"""The eleven classification heads of KE-T5 over a T5 encoder, under their reference names and with its keys.

Generation is not here: those tasks run on transformers' own T5ForConditionalGeneration.

What the checkpoints were trained with stays as it is: the plain mean and the softmaxes of the relation heads count
padding, so their scores change with the length that a batch is padded to (the reference always pads to full length).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config, T5EncoderModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import can_return_tuple

from .crf import LinearChainCRF

IGNORED = -100


class FirstTokenPooler(nn.Module):
    """Two dense layers over the first token."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dense1 = nn.Linear(config.d_model, config.d_model)
        self.dense2 = nn.Linear(config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool [batch, seq, d] into [batch, d]."""
        return self.dense2(self.dropout(functional.relu(self.dense1(self.sentence(hidden, mask)))))

    def sentence(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the vector that stands for each sequence, [batch, d]."""
        return hidden[:, 0]


class MeanPooler(FirstTokenPooler):
    """Two dense layers over the sum of the tokens, divided by the square root of their number."""

    def sentence(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the scaled sum of the tokens that `mask` [batch, seq] keeps, all without one."""
        kept = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden)
        number = kept.sum(dim=1, keepdim=True).clamp(min=1)
        return (kept.unsqueeze(1) @ hidden).squeeze(1) / number.sqrt()


def span_means(hidden: Tensor, spans: Tensor, *, empty_is_nan: bool) -> tuple[Tensor, Tensor]:
    """Average `hidden` [batch, seq, d] over each sequence's subject and object: two of [batch, d].

    `spans` [batch, 2, 2] holds (start, end) of both, end exclusive. A span without tokens is read at its start, or at
    the last position where truncation cut it off; NaN with `empty_is_nan`.
    """
    starts, ends = spans.unbind(-1)
    if not empty_is_nan:
        starts = starts.clamp(max=hidden.shape[1] - 1)
        ends = torch.maximum(ends, starts + 1)
    places = torch.arange(hidden.shape[1], device=hidden.device)
    inside = ((places >= starts.unsqueeze(-1)) & (places < ends.unsqueeze(-1))).to(hidden.dtype)
    subject, object_ = (inside @ hidden / inside.sum(dim=-1, keepdim=True)).unbind(1)
    return subject, object_


def likeness(hidden: Tensor, vector: Tensor) -> Tensor:
    """Return the dot product of every token [batch, seq, d] with its sequence's `vector` [batch, d]: [batch, seq]."""
    return (hidden @ vector.unsqueeze(2)).squeeze(2)


def weighted_sum(weights: Tensor, hidden: Tensor) -> Tensor:
    """Sum `hidden` [batch, seq, d] by `weights` [batch, seq]: [batch, 1, d]."""
    return weights.unsqueeze(1) @ hidden


def set_switch(config: T5Config, name: str, value: bool | None) -> None:
    """Write a switch into the configuration: as given, else as it stands there, else off."""
    setattr(config, name, getattr(config, name, False) if value is None else value)


def inferred_problem(num_labels: int, labels: Tensor) -> str:
    """Name the problem that these labels pose, as transformers' problem_type."""
    if num_labels == 1:
        return "regression"
    return "single_label_classification" if labels.dtype in (torch.long, torch.int) else "multi_label_classification"


def sequence_loss(logits: Tensor, labels: Tensor, problem: str) -> Tensor:
    """Return the mean loss of `logits` [batch, labels] or [batch, 1, labels]; squared and binary errors in float32."""
    logits = logits.flatten(0, -2)
    if problem == "single_label_classification":
        return functional.cross_entropy(logits, labels.flatten().long())
    wanted = labels.reshape(logits.shape).float()
    if problem == "regression":
        return functional.mse_loss(logits.float(), wanted)
    return functional.binary_cross_entropy_with_logits(logits.float(), wanted)


class T5EncoderConfig(T5Config):
    """T5's configuration, of a type of its own: transformers alone then says that it does not know the heads.

    T5's own files, and the reference's, have the type t5, and are read as well.

    empty_span_is_nan: an entity whose start equals its end is read at its start; True gives the NaN scores that the
        reference gives. Its published relation figures come from runs whose data had no such entity: with one, their
        loss is NaN.
    crf_scores: what `logits` of the CRF tagger is, see there.
    """

    model_type = "t5_encoder"

    empty_span_is_nan: bool = False
    crf_scores: bool = False

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict[str, Any], Any]:
        """Read a config.json, T5's own type taken as this one."""
        told, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if told.get("model_type") == T5Config.model_type:
            told["model_type"] = cls.model_type
        return told, unused


class T5EncoderHead(T5EncoderModel):
    """A T5 encoder with layers on top that no T5 checkpoint has; loads from any, whose decoder is passed over."""

    config_class = T5EncoderConfig
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^decoder\.", r"^lm_head\."]
    # forward takes **kwargs for transformers' sake, but the loss is a mean: Trainer has to scale it itself.
    accepts_loss_kwargs = False

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.dropout = nn.Dropout(config.dropout_rate)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw new layers as the reference does: PyTorch's own nn.Linear, the CRF from U(-0.1, 0.1).

        The encoder draws its own. transformers 5 would give the head a deviation of 1 and the CRF whatever the memory
        held.
        """
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, LinearChainCRF):
            for parameter in module.parameters(recurse=False):
                init.uniform_(parameter, -0.1, 0.1)
        else:
            super()._init_weights(module)

    def encoded(self, inputs: dict[str, Any], **kwargs: Any) -> BaseModelOutput:
        """Run the encoder alone."""
        return self.encoder(**inputs, **(kwargs | {"return_dict": True}))


class T5EncoderSequenceHead(T5EncoderHead):
    """What the sequence classifiers share; `scores` is what each of them is."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        entity_token_idx: Tensor | Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify `input_ids` [batch, seq]; `labels` [batch], or [batch, labels] where several may hold.

        The relation heads need `entity_token_idx` [batch, 2, 2]: (start, end) of subject and object, end exclusive.
        The first loss writes `config.problem_type` where it is None, as the reference does.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        outputs = self.encoded(inputs, **kwargs)
        hidden = outputs.last_hidden_state
        spans = None if entity_token_idx is None else torch.as_tensor(entity_token_idx, device=hidden.device)
        logits = self.scores(hidden, attention_mask, spans)
        loss = None
        if labels is not None:
            self.config.problem_type = self.config.problem_type or inferred_problem(self.num_labels, labels)
            loss = sequence_loss(logits, labels.to(logits.device), self.config.problem_type)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return the logits of `hidden` [batch, seq, d]."""
        raise NotImplementedError


class T5EncoderForSequenceClassificationSimple(T5EncoderSequenceHead):
    """Classify by the first token."""

    pooler_class: ClassVar[type[FirstTokenPooler]] = FirstTokenPooler

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.pooler = self.pooler_class(config)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return [batch, labels]."""
        return self.classifier(self.dropout(self.pooler(hidden, mask)))


class T5EncoderForSequenceClassificationMean(T5EncoderForSequenceClassificationSimple):
    """Classify by the mean of the tokens; without a mask all count (the reference fails)."""

    pooler_class = MeanPooler


class T5EncoderRelationHead(T5EncoderSequenceHead):
    """What the relation classifiers share: `vectors` of d_model each go into the classifier.

    `fc_layer` stands in every checkpoint, also in those of the attention heads, which do not use it.
    """

    vectors: ClassVar[int] = 3
    pooler_class: ClassVar[type[FirstTokenPooler] | None] = None

    def __init__(self, config: T5Config, empty_span_is_nan: bool | None = None) -> None:
        super().__init__(config)
        set_switch(config, "empty_span_is_nan", empty_span_is_nan)
        if self.pooler_class is not None:
            self.pooler = self.pooler_class(config)
        self.fc_layer = nn.Sequential(nn.Linear(config.d_model, config.d_model))
        self.classifier = nn.Sequential(nn.Linear(self.vectors * config.d_model, config.num_labels))
        self.post_init()

    def sentence(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return the pooled sequence after dropout, or the mean over all positions where there is no pooler."""
        return hidden.mean(dim=1) if self.pooler_class is None else self.dropout(self.pooler(hidden, mask))

    def entities(self, hidden: Tensor, spans: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return subject and object, each [batch, d]. Raises ValueError without spans."""
        if spans is None:
            raise ValueError(f"{type(self).__name__} needs entity_token_idx: [batch, (subject, object), (start, end)]")
        return span_means(hidden, spans, empty_is_nan=self.config.empty_span_is_nan)

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return [batch, labels]."""
        subject, object_ = (self.fc_layer(entity) for entity in self.entities(hidden, spans))
        return self.classifier(torch.cat([self.sentence(hidden, mask), subject, object_], dim=-1))


class T5EncoderForSequenceClassificationRE(T5EncoderRelationHead):
    """Name a relation by the plain mean over all positions and the means of both entities."""


class T5EncoderForSequenceClassificationMeanSubmeanObjmean(T5EncoderRelationHead):
    """Name a relation by the pooled mean and the means of both entities."""

    pooler_class = MeanPooler


class T5EncoderForSequenceClassificationFirstSubmeanObjmean(T5EncoderRelationHead):
    """Name a relation by the pooled first token and the means of both entities, dropout on all three."""

    pooler_class = FirstTokenPooler

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return [batch, labels]."""
        subject, object_ = (self.dropout(self.fc_layer(entity)) for entity in self.entities(hidden, spans))
        return self.classifier(torch.cat([self.sentence(hidden, mask), subject, object_], dim=-1))


class T5EncoderForSequenceClassificationREStartToken(T5EncoderRelationHead):
    """Name a relation by the plain mean over all positions and the first token of both entities."""

    def entities(self, hidden: Tensor, spans: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the tokens at both starts, each [batch, d]."""
        starts = None if spans is None else torch.stack([spans[..., 0], spans[..., 0] + 1], dim=-1)
        return super().entities(hidden, starts)


class T5EncoderForSequenceClassificationREAttention(T5EncoderRelationHead):
    """Name a relation by the tokens that resemble both entities; `logits` keep the reference's [batch, 1, labels]."""

    vectors = 1

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return [batch, 1, labels]."""
        subject, object_ = (likeness(hidden, entity).softmax(dim=1) for entity in self.entities(hidden, spans))
        return self.classifier(weighted_sum((subject * object_).softmax(dim=1), hidden))


class T5EncoderForSequenceClassificationREMeanAttention(T5EncoderRelationHead):
    """Name a relation by the pooled mean and the tokens that resemble both entities."""

    vectors = 2
    pooler_class = MeanPooler

    def attended(self, hidden: Tensor, spans: Tensor | None) -> Tensor:
        """Return the tokens summed by the softmax of the product of their two likenesses, [batch, 1, d]."""
        subject, object_ = (likeness(hidden, entity) for entity in self.entities(hidden, spans))
        return weighted_sum((subject * object_).softmax(dim=1), hidden)

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return [batch, labels]."""
        attended = self.attended(hidden, spans).squeeze(1)
        return self.classifier(torch.cat([self.sentence(hidden, mask), attended], dim=-1))


class T5EncoderForSequenceClassificationREAttentionAlone(T5EncoderForSequenceClassificationREMeanAttention):
    """Name a relation by the tokens that resemble both entities alone; its pooler and fc_layer are unused.

    `logits` keep the reference's [batch, 1, labels].
    """

    vectors = 1

    def scores(self, hidden: Tensor, mask: Tensor | None, spans: Tensor | None) -> Tensor:
        """Return [batch, 1, labels]."""
        return self.classifier(self.dropout(functional.relu(self.attended(hidden, spans))))


@dataclass
class CrfTokenClassifierOutput(TokenClassifierOutput):
    """A tagger's output with the `emissions` [batch, seq, labels] that its CRF decoded."""

    emissions: Tensor | None = None


def unlabelled_last(emissions: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move the tokens labelled -100 or masked out behind the others: a CRF knows no holes."""
    kept = mask & (labels != IGNORED)
    order = kept.long().argsort(dim=1, descending=True, stable=True)
    moved = emissions.gather(1, order.unsqueeze(-1).expand_as(emissions))
    return moved, labels.gather(1, order), kept.gather(1, order)


class T5EncoderForTokenClassification(T5EncoderHead):
    """Tag every token by itself."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Score `input_ids` [batch, seq]: `logits` [batch, seq, labels].

        The loss is the mean over the tokens of the mask whose label in `labels` [batch, seq] is not -100.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        outputs = self.encoded(inputs, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            labels = labels.to(logits.device)
            if attention_mask is not None:
                labels = labels.masked_fill(attention_mask.to(logits.device) != 1, IGNORED)
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), ignore_index=IGNORED)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class T5EncoderForEntityRecognitionWithCRF(T5EncoderHead):
    """Tag all tokens of a sequence together, by a linear-chain CRF (pytorch-crf 0.7.2's parameters).

    `logits` are the best tag paths, a list of lists of each sequence's true length, as the reference's scripts expect,
    and `emissions` stands beside them. `config.crf_scores = True` makes `logits` a tensor [batch, seq, labels] whose
    argmax is that path, and leaves `emissions` out, for Trainer and the token-classification pipeline.
    """

    def __init__(self, config: T5Config, crf_scores: bool | None = None) -> None:
        super().__init__(config)
        set_switch(config, "crf_scores", crf_scores)
        self.position_wise_ff = nn.Linear(config.d_model, config.num_labels)
        self.crf = LinearChainCRF(config.num_labels, batch_first=True)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CrfTokenClassifierOutput:
        """Tag `input_ids` [batch, seq]; without a mask all tokens count (the reference fails).

        The loss is the negative log-likelihood of `labels` [batch, seq], summed over the batch and not averaged; a
        token labelled -100 is left out of the chain.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
        outputs = self.encoded(inputs, **kwargs)
        emissions = self.position_wise_ff(self.dropout(outputs.last_hidden_state))
        if attention_mask is None:
            attention_mask = emissions.new_ones(emissions.shape[:2])
        mask = attention_mask.to(emissions.device) == 1
        loss = None
        if labels is not None:
            loss = -self.crf(*unlabelled_last(emissions, labels.to(emissions.device), mask))
        scored = self.config.crf_scores
        return CrfTokenClassifierOutput(
            loss=loss,
            logits=self.crf.max_marginals(emissions, mask) if scored else self.crf.decode(emissions, mask),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            emissions=None if scored else emissions,
        )


SEQUENCE_CLASSIFIERS = (
    T5EncoderForSequenceClassificationSimple,
    T5EncoderForSequenceClassificationMean,
    T5EncoderForSequenceClassificationRE,
    T5EncoderForSequenceClassificationMeanSubmeanObjmean,
    T5EncoderForSequenceClassificationFirstSubmeanObjmean,
    T5EncoderForSequenceClassificationREAttention,
    T5EncoderForSequenceClassificationREMeanAttention,
    T5EncoderForSequenceClassificationREAttentionAlone,
    T5EncoderForSequenceClassificationREStartToken,
)
TOKEN_CLASSIFIERS = (T5EncoderForTokenClassification, T5EncoderForEntityRecognitionWithCRF)
