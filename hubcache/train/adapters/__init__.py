"""Adapters: a few weights that are trained over a frozen base, several on one base, each with its head.

They are used as the `adapters` package's: `init(model)`, or an Auto class imported from here. The base's weights are
never changed here but by merging.
"""

from typing import Any

from hubcache.train.adapters.adapted import choice_of
from hubcache.train.adapters.base import AdapterFile, Base, is_adapter
from hubcache.train.adapters.bottleneck import BottleneckConfig
from hubcache.train.adapters.lora import PeftChoice, merge
from hubcache.train.adapters.prompts import PromptChoice
from hubcache.train.adapters.switching import FLEXIBLE, AdapterMethods, auto_class, init
from hubcache.train.adapters.switching import houlsby_config as DoubleSeqBnConfig
from hubcache.train.adapters.switching import houlsby_config as HoulsbyConfig
from hubcache.train.adapters.switching import pfeiffer_config as PfeifferConfig
from hubcache.train.adapters.switching import pfeiffer_config as SeqBnConfig

__all__ = [
    "AdapterFile",
    "AdapterMethods",
    "Base",
    "BottleneckConfig",
    "DoubleSeqBnConfig",
    "HoulsbyConfig",
    "PeftChoice",
    "PfeifferConfig",
    "PromptChoice",
    "SeqBnConfig",
    "choice_of",
    "init",
    "is_adapter",
    "merge",
]


def __getattr__(name: str) -> Any:
    if name == "AdapterTrainer":
        from transformers import Trainer

        return Trainer
    if name.startswith("AutoModel") or name in FLEXIBLE:
        return auto_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
