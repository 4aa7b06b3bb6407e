"""Texts from texts (summaries, translations, whatever was learned), which transformers 5 dropped; no chat is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.pipelines.base import Pipeline
from transformers.utils import ModelOutput

from hubcache.errors import UsageError
from hubcache.models import PalmForConditionalGeneration, TextGenerator
from hubcache.train.features.outcome import decoded_texts
from hubcache.train.pipelines.batching import ByLength
from hubcache.train.pipelines.tasks import find_task

_PALM_OPTIONS = {"num_beams": "beam_size", "min_length": "min_length", "max_length": "max_length",
                 "max_new_tokens": "max_length", "min_new_tokens": "min_length"}  # fmt: skip
_SAID = ("return_tensors", "return_text", "return_type", "clean_up_tokenization_spaces")
_READ = ("truncation", "src_lang", "tgt_lang", "prefix", "max_source_length")


class TextToText(ByLength, Pipeline):
    """Generate a text from each text: [{"generated_text"}], or the task's own name; all else is generate()'s.

    `return_tensors=True` gives the ids [seq] as "…_token_ids". PALM generates by its own beam search, as its published
    results were made, unless an option asks for what only generate() knows.
    """

    _load_tokenizer = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        told = getattr(self.model.config, "task_specific_params", None) or {}
        self._told = dict(told.get(self.task) or {})

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Return a dictionary for each text (a list of them for each, where several are wanted)."""
        if isinstance(inputs, str):
            [result] = self.stream([inputs], **options)
            return result
        if isinstance(inputs, Sequence):
            results = list(self.stream(inputs, **options))
            return [one[0] if len(one) == 1 else one for one in results]
        return super().__call__(inputs, **options)

    def _sanitize_parameters(self, **options: Any) -> Any:
        said = {name: options.pop(name) for name in _SAID if name in options}
        read = {name: options.pop(name) for name in _READ if name in options}
        return read, options, said

    def preprocess(self, input_: Any, **options: Any) -> Any:
        """Return a text's ids; a mapping with `input_ids` is taken to be encoded already."""
        if isinstance(input_, Mapping) and "input_ids" in input_:
            return {name: torch.as_tensor(value).reshape(1, -1) for name, value in input_.items()}
        if not isinstance(input_, str):
            raise UsageError(f"{self.task or 'text2text-generation'} takes texts, not {type(input_).__name__}")
        prefix = options.get("prefix", self._told.get("prefix", getattr(self.model.config, "prefix", None))) or ""
        self._set_languages(options)
        has_places = getattr(self.model.config, "max_position_embeddings", None) is not None
        limit = options.get("max_source_length") or self.tokenizer.model_max_length
        read = self.tokenizer(
            prefix + input_, return_tensors="pt", truncation=options.get("truncation", has_places), max_length=limit
        )
        return {name: read[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in read}

    def _set_languages(self, options: Mapping[str, Any]) -> None:
        for name in ("src_lang", "tgt_lang"):
            if options.get(name) is not None and hasattr(self.tokenizer, name):
                setattr(self.tokenizer, name, options[name])

    def _forward(self, input_tensors: Any, **options: Any) -> Any:
        rows = len(input_tensors["input_ids"])
        told = {name: value for name, value in self._told.items() if name != "prefix"}
        wanted = {**told, **self._language_option(), **options}
        if isinstance(self.model, PalmForConditionalGeneration) and set(wanted) <= set(_PALM_OPTIONS):
            ids = self._palm(input_tensors, wanted)
        else:
            if not isinstance(self.model, PalmForConditionalGeneration):
                input_tensors.pop("token_type_ids", None)
            ids = self.model.generate(**input_tensors, **wanted)
        return ModelOutput(output_ids=ids.reshape(rows, -1, ids.shape[-1]))

    def _language_option(self) -> dict[str, Any]:
        """Models of many languages begin with the one they translate to."""
        target = getattr(self.tokenizer, "tgt_lang", None)
        if target is None or not hasattr(self.tokenizer, "_build_translation_inputs"):
            return {}
        token = self.tokenizer.convert_tokens_to_ids(target)
        if hasattr(self.tokenizer, "get_lang_id"):
            token = self.tokenizer.get_lang_id(target)
        return {"forced_bos_token_id": token}

    def _palm(self, features: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        symbols = {"[CLS]": self.model.config.bos_token_id, "[SEP]": self.model.config.eos_token_id}
        said = {_PALM_OPTIONS[name]: value for name, value in options.items()}
        ids = features["input_ids"]
        batch = [ids, features.get("token_type_ids", torch.zeros_like(ids)), features["attention_mask"]]
        found = TextGenerator(self.model, None, symbols, **said).translate_batch(batch)
        return torch.nn.utils.rnn.pad_sequence([best for [best] in found["predictions"]], True, self._padding)

    @property
    def _padding(self) -> int:
        return int(self.model.config.pad_token_id or 0)

    def postprocess(self, model_outputs: Any, **options: Any) -> list[dict[str, Any]]:
        """Return the texts, or their ids, under the task's name."""
        name = (find_task(self.task) if self.task else find_task("text2text-generation")).result or "generated"
        rows = model_outputs["output_ids"][0]
        if options.get("return_tensors") or options.get("return_type") in (0, "tensors"):
            return [{f"{name}_token_ids": row} for row in rows]
        texts = decoded_texts([row.tolist() for row in rows], self.tokenizer)
        return [{f"{name}_text": text} for text in texts]


class Translation(TextToText):
    """Translate each text: [{"translation_text"}]; the task's name, or src_lang and tgt_lang, name the languages."""

    def _sanitize_parameters(self, **options: Any) -> Any:
        read, generation, said = super()._sanitize_parameters(**options)
        _, _, languages = self.task.partition("translation_")
        source, to, target = languages.partition("_to_")
        if to:
            read = {"src_lang": source, "tgt_lang": target, **read}
        return read, generation, said
