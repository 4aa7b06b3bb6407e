"""The pipelines that transformers still has, batched by length, with the arguments that it dropped; no task is new."""

from __future__ import annotations

from typing import Any

from transformers.pipelines import (
    FeatureExtractionPipeline,
    FillMaskPipeline,
    TextClassificationPipeline,
    TextGenerationPipeline,
    TokenClassificationPipeline,
    ZeroShotClassificationPipeline,
)

from hubcache.train.pipelines.batching import ByLength


class FeatureExtraction(ByLength, FeatureExtractionPipeline):
    """The hidden states of each token."""

    by_token = plain = True


class FillMask(ByLength, FillMaskPipeline):
    """The likeliest tokens for a mask."""

    by_token = True


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
        parameters = super()._sanitize_parameters(**options)
        return parameters


class ZeroShotClassification(ByLength, ZeroShotClassificationPipeline):
    """The likeliest of any labels, each judged by a model of entailment."""


class TextGeneration(ByLength, TextGenerationPipeline):
    """What continues a text; only prompts of one length share a batch, so that none is padded."""

    same_length = True

    def get_inference_context(self) -> Any:
        """Leave it to generate(), which some models write caches in."""
        return TextGenerationPipeline.get_inference_context(self)
