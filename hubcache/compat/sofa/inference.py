"""SOFA's custom pipelines: a class with preprocess, predict and postprocess, made known by a name; it has none itself.

A name given to inject_pipeline is known to `pipeline` below, to hubcache's and to transformers' own.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModel, Pipeline
from transformers import pipeline as transformers_pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from hubcache.compat.sofa.training import load_model, load_tokenizer
from hubcache.train.pipelines.build import build
from hubcache.train.pipelines.registry import custom, register


class InferenceBase(Pipeline):
    """What a custom pipeline inherits from; extra arguments of a call reach all three stages.

    A list is processed item by item and gives a list; the model is in evaluation mode, without gradients.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(
        self, model: Any, tokenizer: Any = None, task: str = "", device: Any = -1, *args: Any, **kwargs: Any
    ) -> None:
        """Take the model to `device` (-1: it stays where it is). Raises: RuntimeError where there is no model."""
        if not isinstance(model, nn.Module):
            raise RuntimeError(f"a pipeline needs a torch model, not {type(model).__name__}")
        super().__init__(model=model, tokenizer=tokenizer, task=task, device=device, **kwargs)
        self.model.eval()

    @classmethod
    def from_pretrained(cls, model: Any, env: Any = None, *args: Any, **kwargs: Any) -> InferenceBase:
        """Make a pipeline of a model; `env` is not read, which is the reference's way."""
        del env
        return cls(model, *args, **kwargs)

    def run(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Do what a call does."""
        return self(inputs, *args, **kwargs)

    @abstractmethod
    def preprocess(self, x: Any, **kwargs: Any) -> Any:
        """Turn one input into what predict takes, a mapping of tensors."""

    @abstractmethod
    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Run the model."""

    @abstractmethod
    def postprocess(self, x: Any, **kwargs: Any) -> Any:
        """Turn what predict returned into the answer."""

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return kwargs, kwargs, kwargs

    def _forward(self, x: Any, **kwargs: Any) -> Any:
        return self.predict(x, **kwargs)


def inject_pipeline(name: str, pipeline_clz: type[InferenceBase], automodel_clz: Any) -> None:
    """Make a pipeline known by `name`, its models loaded by an Auto class; a later call replaces."""
    register(name, pipeline_clz, automodel_clz)
    # transformers warns of a name that it has already, and replacing it is what is asked for.
    PIPELINE_REGISTRY.supported_tasks.pop(name, None)
    PIPELINE_REGISTRY.register_pipeline(name, pipeline_class=pipeline_clz, pt_model=automodel_clz)


def pipeline(task: str, model: Any = None, tokenizer: Any = None, device: Any = -1, **kwargs: Any) -> Any:
    """Make the pipeline of a task: an injected one, one of hubcache's over a folder, else transformers' own.

    `model` is a folder, a cached repo or a loaded model. Raises: ValueError for an injected task without a model.
    """
    made = custom(task)
    if made is None:
        if model is None or (isinstance(model, str) and not Path(model).is_dir()):
            return transformers_pipeline(task, model=model, tokenizer=tokenizer, device=device, **kwargs)
        return build(task, model, tokenizer, device=device, options=kwargs)
    if model is None:
        raise ValueError(f"{task} has no default model: name a folder or a cached repo")
    if isinstance(model, str | Path):
        tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
        model = load_model(made.auto_class or AutoModel, model, {})
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(tokenizer)
    return made.made_by(model=model, tokenizer=tokenizer, task=task, device=device, **kwargs)
