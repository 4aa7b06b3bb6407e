"""StructBERT: transformers' BERT with the raw word embeddings in its output and an adversarial fine-tuning loss.

It neither registers itself with transformers' auto classes nor reads archives; it needs no other file of hubcache.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertTokenizer
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    ModelOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForPreTrainingOutput,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
    BertOnlyMLMHead,
    BertOnlyNSPHead,
    BertPreTrainedModel,
    BertPreTrainingHeads,
)
from transformers.utils.generic import can_return_tuple

Logits = tuple[Tensor, ...]
"""One pass's: one tensor, or two where the answer is a span."""

Predict = Callable[[Tensor], Logits]
"""From word embeddings [..., seq, hidden] to the logits."""


class SbertConfig(BertConfig):
    """BERT's configuration with the adversarial loss's numbers.

    adv_grad_factor: how far the attack steps along the gradient; None switches the adversarial loss off. Published
        fine-tuning results depend on it being on.
    adv_bound: the most one embedding value moves by that step; None is 2 * sigma.
    sigma: the standard deviation of the attack's starting noise.
    seq_relationship_size: classes of the pre-training head on the pair of sentences: 2 as in the original code,
        3 in checkpoints that tell next, previous and foreign sentences apart.
    """

    model_type = "sbert"

    adv_grad_factor: float | None = 5e-5
    adv_bound: float | None = None
    sigma: float = 5e-6
    seq_relationship_size: int = 2


class SbertTokenizer(BertTokenizer):
    """BERT's WordPiece over a vocab.txt, in lower case unless do_lower_case=False, for Chinese also."""

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


SbertTokenizerFast = SbertTokenizer


@dataclass
class SbertModelOutput(BaseModelOutputWithPoolingAndCrossAttentions):
    """What SbertModel returns; embedding_output is the bare word lookup [batch, seq, hidden], last in the tuple."""

    embedding_output: Tensor | None = None


class SbertPreTrainedModel(BertPreTrainedModel):
    """What all StructBERT classes share: the configuration, the checkpoint's `bert.` prefix, initial weights."""

    config_class = SbertConfig
    base_model_prefix = "bert"
    _keys_to_ignore_on_load_unexpected = (r"embeddings\.position_ids$",)
    # The heads' losses are means over the batch: a trainer that accumulates gradients has to divide by its steps.
    accepts_loss_kwargs = False


class SbertModel(SbertPreTrainedModel, BertModel):
    """The encoder without a head."""

    def __init__(self, config: SbertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer=add_pooling_layer)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> SbertModelOutput | tuple[Tensor, ...]:
        """Encode input_ids [batch, seq] or inputs_embeds [batch, seq, hidden].

        Raises:
            ValueError: both or neither of them are given.
        """
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds, input_ids = self.embeddings.word_embeddings(input_ids), None
        outputs = super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        return SbertModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            pooler_output=outputs.pooler_output,
            hidden_states=outputs.hidden_states,
            past_key_values=outputs.past_key_values,
            attentions=outputs.attentions,
            # BERT hands an encoder's as (), which would take a place in the tuple.
            cross_attentions=outputs.cross_attentions or None,
            embedding_output=inputs_embeds,
        )


def symmetric_kl(first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute KL(first, second) + KL(second, first) over the last dimension and divide it by that dimension's size.

    Logits [..., classes] and weights [...]: the mean over the other dimensions, weighted where weights are given.
    Half precision is computed in float32.
    """
    first, second = (functional.log_softmax(_wide(logits), dim=-1) for logits in (first, second))
    # Both sums in one: no small number is the difference of two large ones, which matters when sigma is 5e-6.
    each = ((first.exp() - second.exp()) * (first - second)).mean(-1)
    if weights is None:
        return each.mean()
    weights = weights.to(each)
    return (each * weights).sum() / weights.sum()


def divergence(first: Logits, second: Logits, weights: Tensor | None = None) -> Tensor:
    """Sum symmetric_kl over the pairs of logits."""
    return torch.stack([symmetric_kl(*pair, weights) for pair in zip(first, second, strict=True)]).sum()


def find_perturbation(
    embeds: Tensor, clean: Logits, predict: Predict, config: SbertConfig, weights: Tensor | None = None
) -> Tensor | None:
    """Search what to add to the word embeddings [..., seq, hidden] so that predict() moves away from the clean logits.

    Noise of config.sigma, then one step along the divergence's gradient, whose largest value in each sequence is made
    1, times config.adv_grad_factor, no further than config.adv_bound. The result is a constant: nothing is
    differentiated through the search. None, with a warning, where the gradient is not finite. A sequence without a
    gradient keeps its noise; the original divides by zero there.
    """
    bound = 2 * config.sigma if config.adv_bound is None else config.adv_bound
    noise = torch.empty_like(embeds, requires_grad=False).normal_(0, config.sigma)
    gradient = _attack_gradient(embeds.detach() + noise, clean, predict, weights)
    largest = gradient.abs().amax(dim=(-2, -1), keepdim=True)
    if not torch.isfinite(largest).all():
        warnings.warn("the adversarial gradient is not finite: this step has the plain loss", stacklevel=2)
        return None
    return noise + (config.adv_grad_factor * _divided(gradient, largest)).clamp(-bound, bound)


def _attack_gradient(embeds: Tensor, clean: Logits, predict: Predict, weights: Tensor | None) -> Tensor:
    """Differentiate the divergence from the clean logits by the embeddings, up to one positive factor."""
    with torch.enable_grad():
        logits = predict(embeds.requires_grad_())
        # Only the direction is wanted: the logits' own gradient is taken in float32 and its largest value made 1
        # before it enters the encoder, for in float16 numbers as small as these are zero.
        leaves = tuple(_wide(each.detach()).requires_grad_() for each in logits)
        parts = torch.autograd.grad(divergence(tuple(each.detach() for each in clean), leaves, weights), leaves)
        largest = torch.stack([part.abs().max() for part in parts]).max()
        scaled = tuple(_divided(part, largest).to(each.dtype) for part, each in zip(parts, logits, strict=True))
        gradient: Tensor = torch.autograd.grad(logits, embeds, scaled)[0]
    return gradient


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _divided(values: Tensor, largest: Tensor) -> Tensor:
    """Divide, with 0 for 0 / 0."""
    return values / largest.clamp_min(torch.finfo(values.dtype).tiny)


class SbertAdversarialModel(SbertPreTrainedModel):
    """A head whose training loss may also ask for the same answer on slightly moved word embeddings.

    In training mode, with labels and with config.adv_grad_factor, a step has three forward passes: the plain one, the
    search (find_perturbation) and the one on the embeddings found; the loss is the plain loss + the divergence of the
    first and the last. Otherwise there is one pass and the head is BERT's. Gradient checkpointing has to be of the
    non-reentrant kind (transformers' default): the other cannot differentiate by embeddings alone.
    """

    attacked_logits: tuple[str, ...] = ("logits",)

    def _is_attacked(self) -> bool:
        return bool(self.training and self.config.adv_grad_factor is not None)

    def _run(
        self,
        forward: Callable[..., ModelOutput],
        words: dict[str, Tensor | None],
        inputs: dict[str, Any],
        targets: dict[str, Tensor | None],
        weights: Tensor | None = None,
    ) -> ModelOutput:
        """Run BERT's head on words (input_ids or inputs_embeds); add the adversarial loss where it is wanted."""
        wanted = self._is_attacked() and all(target is not None for target in targets.values())
        if wanted and words["inputs_embeds"] is None and words["input_ids"] is not None:
            words = {"inputs_embeds": self.get_input_embeddings()(words["input_ids"])}
        output = forward(**words, **inputs, **targets)
        # Asked again: the forward pass has settled what kind of problem it is.
        if wanted and self._is_attacked():
            moved = self._moved(forward, words["inputs_embeds"], inputs, output, weights)
            output.loss = output.loss if moved is None else output.loss + moved
        return output

    def _moved(
        self,
        forward: Callable[..., ModelOutput],
        embeds: Tensor,
        inputs: dict[str, Any],
        output: ModelOutput,
        weights: Tensor | None,
    ) -> Tensor | None:
        """Compute how far the attack moves the logits; None where there is no attack to be found."""
        inputs = inputs | {"output_hidden_states": False, "output_attentions": False}

        def predict(embeds: Tensor) -> Logits:
            return self._logits(forward(inputs_embeds=embeds, **inputs))

        clean = self._logits(output)
        found = find_perturbation(embeds, clean, predict, self.config, weights)
        return None if found is None else divergence(clean, predict(embeds + found), weights)

    def _logits(self, output: ModelOutput) -> Logits:
        return tuple(output[name] for name in self.attacked_logits)


def _classifier_dropout(config: SbertConfig) -> nn.Dropout:
    rate = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if rate is None else rate)


class SbertForSequenceClassification(SbertAdversarialModel, BertForSequenceClassification):
    """A class, a set of classes or a number for a text; the adversarial loss is for one class only."""

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.bert = SbertModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def _is_attacked(self) -> bool:
        return super()._is_attacked() and self.config.problem_type in (None, "single_label_classification")

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Return logits [batch, num_labels] of input_ids [batch, seq], and a loss for labels [batch]."""
        words = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        inputs = _inputs(attention_mask, token_type_ids, position_ids, kwargs)
        return self._run(super().forward, words, inputs, {"labels": labels})


class SbertForTokenClassification(SbertAdversarialModel, BertForTokenClassification):
    """A class for each token."""

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.bert = SbertModel(config, add_pooling_layer=False)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Return logits [batch, seq, num_labels], and a loss for labels [batch, seq] where attention_mask is 1."""
        # A mask of another shape is about pairs of tokens and says nothing of single ones.
        weights = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
        if labels is not None and weights is not None:
            labels = labels.masked_fill(weights != 1, -100)
        words = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        inputs = _inputs(attention_mask, token_type_ids, position_ids, kwargs)
        return self._run(super().forward, words, inputs, {"labels": labels}, weights)


class SbertForQuestionAnswering(SbertAdversarialModel, BertForQuestionAnswering):
    """The first and the last token of the answer."""

    attacked_logits = ("start_logits", "end_logits")

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.bert = SbertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
        """Return start_logits and end_logits [batch, seq], and a loss for positions [batch], where seq is no answer."""
        words = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        inputs = _inputs(attention_mask, token_type_ids, position_ids, kwargs)
        targets = {"start_positions": start_positions, "end_positions": end_positions}
        return self._run(super().forward, words, inputs, targets)


class SbertForMultipleChoice(SbertAdversarialModel, BertForMultipleChoice):
    """One of several texts."""

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.bert = SbertModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput | tuple[Tensor, ...]:
        """Return logits [batch, choices] of input_ids [batch, choices, seq], and a loss for labels [batch]."""
        words = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        inputs = _inputs(attention_mask, token_type_ids, position_ids, kwargs)
        return self._run(super().forward, words, inputs, {"labels": labels})


def _inputs(
    attention_mask: Tensor | None, token_type_ids: Tensor | None, position_ids: Tensor | None, others: dict[str, Any]
) -> dict[str, Any]:
    """Gather what every pass of a step is given besides the words."""
    named = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
    return {**named, "return_dict": True, **others}


class SbertForMaskedLM(SbertPreTrainedModel, BertForMaskedLM):
    """The masked words."""

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.bert = SbertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()


class SbertLMHeadModel(SbertPreTrainedModel, BertLMHeadModel):
    """The next word; config.is_decoder=True hides the words after it."""

    accepts_loss_kwargs = True

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.loss_type = "ForCausalLM"
        self.bert = SbertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()


class SbertForPreTraining(SbertPreTrainedModel, BertForPreTraining):
    """Both pre-training heads: the masked words, and how two sentences belong together."""

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.bert = SbertModel(config)
        self.cls = BertPreTrainingHeads(config)
        self.cls.seq_relationship = nn.Linear(config.hidden_size, config.seq_relationship_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **kwargs: Any,
    ) -> BertForPreTrainingOutput | tuple[Tensor, ...]:
        """Return prediction_logits [batch, seq, vocab] and seq_relationship_logits [batch, seq_relationship_size].

        The loss needs both labels [batch, seq], -100 where no word is masked, and next_sentence_label [batch].
        """
        inputs = _inputs(attention_mask, token_type_ids, position_ids, kwargs)
        output = super().forward(input_ids, inputs_embeds=inputs_embeds, **inputs)
        if labels is None or next_sentence_label is None:
            return output
        words = functional.cross_entropy(output.prediction_logits.flatten(0, 1), labels.flatten())
        order = functional.cross_entropy(output.seq_relationship_logits, next_sentence_label.flatten())
        return BertForPreTrainingOutput(loss=words + order, **output)


class SbertForNextSentencePrediction(SbertPreTrainedModel, BertForNextSentencePrediction):
    """How two sentences belong together."""

    def __init__(self, config: SbertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.bert = SbertModel(config)
        self.cls = BertOnlyNSPHead(config)
        self.cls.seq_relationship = nn.Linear(config.hidden_size, config.seq_relationship_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> NextSentencePredictorOutput | tuple[Tensor, ...]:
        """Return logits [batch, seq_relationship_size] of input_ids [batch, seq], and a loss for labels [batch]."""
        inputs = _inputs(attention_mask, token_type_ids, position_ids, kwargs)
        output = super().forward(input_ids, inputs_embeds=inputs_embeds, **inputs)
        if labels is None:
            return output
        return NextSentencePredictorOutput(loss=functional.cross_entropy(output.logits, labels.flatten()), **output)
