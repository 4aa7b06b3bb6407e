"""SOFA's module of registrations, by its name there; hubcache's own models are registered on import."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, AutoTokenizer

from hubcache.compat.sofa.inference import inject_pipeline

__all__ = ["inject_model_backend", "inject_pipeline"]


def inject_model_backend(
    name: str, full_name: str, config: Any, tokenizer: Any = None, tokenizer_fast: Any = None, **models: Any
) -> None:
    """Tell transformers' Auto classes of a model family; `models` has the classes by the Auto class's name.

    `full_name` is not read: transformers 5 keeps no such name.
    """
    del full_name
    AutoConfig.register(name, config, exist_ok=True)
    if tokenizer_fast or tokenizer:
        AutoTokenizer.register(config, tokenizer_class=tokenizer_fast or tokenizer, exist_ok=True)
    for auto, model in models.items():
        getattr(transformers, auto).register(config, model, exist_ok=True)
