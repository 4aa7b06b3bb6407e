"""What of a recipe would fail or surprise in a run, found before it; no weights are loaded and nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from hubcache.errors import HubcacheError
from hubcache.train.features import Finding
from hubcache.train.heads import class_of
from hubcache.train.sparse import quantization
from hubcache.train.sparse.distillation import SELF
from hubcache.train.sparse.loading import drawn
from hubcache.train.sparse.matching import matching
from hubcache.train.sparse.recipe import Recipe, TrainableParamsModifier
from hubcache.train.sparse.tuning import changed_until, distillers, epochs_of, resulting
from hubcache.train.tasks import Task, head_of

if TYPE_CHECKING:
    from hubcache.train.setup import FinetuneRequest

CURE = "change the recipe: hubcache recipe show RECIPE tells what it asks for"


def recipe_findings(request: FinetuneRequest, task: Task, config: Any) -> Iterator[Finding]:
    """Hold a request's recipe, and the one that its model carries, against the model, the teacher and the settings."""
    yield from _refused(
        lambda: resulting(request.model, request.recipe), "take the model's recipe.yaml away, or mend it"
    )
    recipe = request.recipe
    if recipe is None:
        return
    with torch.device("meta"):
        model = drawn(class_of(head_of(task, config.model_type)), config)
    for modifier in recipe.modifiers:
        yield from _params(model, modifier)
    yield from _refused(lambda: quantization.check(model, recipe), CURE)
    yield from _teacher(request, task)
    yield from _epochs(request, recipe)


def _params(model: Any, modifier: Any) -> Iterator[Finding]:
    where = type(modifier).__name__
    sparsity = getattr(modifier, "final_sparsity", None)
    names = [name for group in sparsity.values() for name in group] if isinstance(sparsity, Mapping) else []
    wanted = names or getattr(modifier, "params", None)
    if wanted and (not isinstance(modifier, TrainableParamsModifier) or modifier.params_strict):
        yield from _refused(lambda: matching(model, wanted, where=where), CURE)


def _teacher(request: FinetuneRequest, task: Task) -> Iterator[Finding]:
    distilling = distillers(request.recipe) if request.recipe is not None else ()
    if distilling and request.teacher is None and not request.teacher_word:
        yield Finding(
            "the recipe distils, and there is no teacher",
            "--teacher MODEL, --teacher self for the model as it is, --teacher disable to go without",
        )
    if distilling and task.kind == "regression":
        yield Finding("the recipe distils, and a number has no distribution to learn from", "--teacher disable")
    if request.teacher_word and not distilling:
        yield Finding(f"the recipe does not distil: --teacher {request.teacher_word} has no effect", CURE, fatal=False)
    if request.teacher_word == SELF:
        yield Finding("the model is its own teacher", "worth it where the model knows the task already", fatal=False)


def _epochs(request: FinetuneRequest, recipe: Recipe) -> Iterator[Finding]:
    wanted, settings = epochs_of(recipe), request.settings
    if settings.max_steps or settings.epochs >= wanted:
        return
    last = changed_until(recipe)
    unfinished = " before pruning or quantisation is complete" if settings.epochs <= last else ""
    yield Finding(
        f"the recipe has {wanted:g} epochs and the run {settings.epochs:g}: it ends{unfinished or ' early'}",
        f"leave epochs to the recipe, or --set epochs={wanted:g}",
        fatal=False,
    )


def _refused(attempt: Callable[[], object], cure: str) -> Iterator[Finding]:
    try:
        attempt()
    except HubcacheError as error:
        yield Finding(error.message, error.hint or cure)
