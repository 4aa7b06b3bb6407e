"""The pipelines that transformers still has, batched by length, with the arguments that it dropped; no task is new."""

from __future__ import annotations

import logging
from typing import Any

from transformers.pipelines import (
    FeatureExtractionPipeline,
    FillMaskPipeline,
    TextClassificationPipeline,
    TextGenerationPipeline,
    TokenClassificationPipeline,
    ZeroShotClassificationPipeline,
)
from transformers.pipelines.token_classification import AggregationStrategy

from hubcache.errors import UsageError
from hubcache.train.pipelines.batching import ByLength

_STRATEGIES = tuple(strategy.value for strategy in AggregationStrategy)
_log = logging.getLogger(__name__)


class FeatureExtraction(ByLength, FeatureExtractionPipeline):
    """The hidden states of each token."""

    by_token = plain = True


class FillMask(ByLength, FillMaskPipeline):
    """The likeliest tokens for a mask; truncation=True cuts long texts, and a mask behind the cut with them."""

    by_token = True

    def _sanitize_parameters(self, truncation: Any = None, **options: Any) -> Any:
        if truncation is not None:
            options["tokenizer_kwargs"] = {**(options.get("tokenizer_kwargs") or {}), "truncation": truncation}
        return super()._sanitize_parameters(**options)


class TextClassification(ByLength, TextClassificationPipeline):
    """The label of a text; return_all_scores=True gives the score of every label, in the labels' order."""

    plain = True

    def _sanitize_parameters(self, return_all_scores: bool | None = None, **options: Any) -> Any:
        parameters = super()._sanitize_parameters(**options)
        if return_all_scores is not None and "top_k" not in options:
            # transformers' own old way: all labels unsorted, or the best alone.
            parameters[2].update(top_k=None if return_all_scores else 1, _legacy=True)
        return parameters


class TokenClassification(ByLength, TokenClassificationPipeline):
    """The entities of a text; grouped_entities=True is aggregation_strategy="simple"."""

    by_token = True

    def _sanitize_parameters(
        self, grouped_entities: bool | None = None, ignore_subwords: bool | None = None, **options: Any
    ) -> Any:
        if options.get("aggregation_strategy") is None and grouped_entities is not None:
            grouped = "first" if ignore_subwords else "simple"
            options["aggregation_strategy"] = grouped if grouped_entities else "none"
        named = options.get("aggregation_strategy")
        if isinstance(named, str) and named.lower() not in _STRATEGIES:
            raise UsageError(f"there is no aggregation_strategy {named!r}", hint=f"one of: {', '.join(_STRATEGIES)}")
        return super()._sanitize_parameters(**options)


class ZeroShotClassification(ByLength, ZeroShotClassificationPipeline):
    """The likeliest of any labels, each judged by a model of entailment."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.entailment_id == -1:
            names = ", ".join(map(str, self.model.config.id2label.values()))
            _log.warning("none of the model's labels is entailment (%s): the last is taken for it", names)

    def preprocess(self, inputs: Any, candidate_labels: Any = None, **options: Any) -> Any:
        """Yield a text's pairs with each label."""
        if not candidate_labels:
            raise UsageError("there are no labels to choose from", hint="candidate_labels, or --labels a,b")
        return super().preprocess(inputs, candidate_labels, **options)


class TextGeneration(ByLength, TextGenerationPipeline):
    """What continues a text; only prompts of one length share a batch, so that none is padded."""

    same_length = True

    def get_inference_context(self) -> Any:
        """Leave it to generate(), which some models write caches in."""
        return TextGenerationPipeline.get_inference_context(self)
