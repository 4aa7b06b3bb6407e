"""The tasks' names, and which models fit each by their configuration; no model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubcache.errors import UsageError

_SEQ2SEQ = ("ForConditionalGeneration", "MTModel")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_CLASSIFIED = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}


@dataclass(frozen=True, slots=True)
class PipelineTask:
    """A task: the class that loads its model, the ends of the class names that fit, and what its results are called."""

    name: str
    auto_class: str
    heads: tuple[str, ...]
    result: str = ""


TASKS = {
    task.name: task
    for task in (
        PipelineTask("feature-extraction", "AutoModel", ("Model",)),
        PipelineTask("fill-mask", "AutoModelForMaskedLM", ("ForMaskedLM", "ForPreTraining")),
        PipelineTask(
            "token-classification", "AutoModelForTokenClassification", ("ForTokenClassification", "RecognitionWithCRF")
        ),
        PipelineTask("question-answering", "AutoModelForQuestionAnswering", ("ForQuestionAnswering",)),
        PipelineTask(
            "text-classification",
            "AutoModelForSequenceClassification",
            ("ForSequenceClassification", "ClassificationSimple", "ClassificationMean"),
        ),
        PipelineTask("zero-shot-classification", "AutoModelForSequenceClassification", ("ForSequenceClassification",)),
        PipelineTask("text-generation", "AutoModelForCausalLM", _CAUSAL),
        PipelineTask("summarization", "AutoModelForSeq2SeqLM", _SEQ2SEQ, "summary"),
        PipelineTask("translation", "AutoModelForSeq2SeqLM", _SEQ2SEQ, "translation"),
        PipelineTask("text2text-generation", "AutoModelForSeq2SeqLM", _SEQ2SEQ, "generated"),
    )
}
"""Every task by its name; a translation may also name its languages, translation_en_to_fr."""

ALIASES = {"ner": "token-classification", "sentiment-analysis": "text-classification"}


def find_task(name: str) -> PipelineTask:
    """Return the task of a name or alias.

    Raises:
        UsageError: there is none; the hint lists them.
    """
    known = ALIASES.get(name, name)
    known = "translation" if known.startswith("translation_") and "_to_" in known else known
    if known not in TASKS:
        raise UsageError(f"there is no pipeline {name!r}", hint="one of: " + ", ".join(sorted((*TASKS, *ALIASES))))
    return TASKS[known]


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task that a model's config.json says it is for: the first whose head it has.

    Raises:
        UsageError: it names none.
    """
    for name in ("token-classification", "question-answering", "text-classification", "text-generation",
                 "text2text-generation", "fill-mask", "feature-extraction"):  # fmt: skip
        if fitting(name, config):
            return name
    raise UsageError("the model's config.json does not tell its task", hint="name one: " + ", ".join(TASKS))


def fitting(name: str, config: Mapping[str, Any]) -> int:
    """Return how well a model's config.json fits a task: 0 not at all, more is better."""
    task = find_task(name)
    architectures = [str(each) for each in config.get("architectures") or ()]
    labels = [str(label).lower() for label in (config.get("id2label") or {}).values()]
    entails = any(label.startswith("entail") for label in labels)
    if task.name == "feature-extraction":
        # The course's default there is a DistilBertForMaskedLM: a mask's head is what pre-training leaves.
        is_pretrained = any(each.endswith(TASKS["fill-mask"].heads) for each in architectures)
        return 2 if any(_is_bare(each) for each in architectures) else int(is_pretrained)
    if not any(each.endswith(task.heads) for each in architectures):
        return 0
    if task.name == "zero-shot-classification":
        return 2 if entails else 0
    if task.name == "text-classification":
        has_moods = any(label.startswith(("pos", "neg")) for label in labels)
        return 1 if entails else 3 if name == "sentiment-analysis" and has_moods else 2
    told = [str(each) for each in config.get("task_specific_params") or {}]
    return 3 if name in told or any(each.startswith(f"{name}_") for each in told) else 2


def other_task(task: PipelineTask, config: Mapping[str, Any]) -> str:
    """Return the task that a model was trained for, where it is not this one but has a head of the same names.

    A classifier of texts and one of tokens both have a `classifier`: weights of either load into the other.
    """
    architectures = [str(each) for each in config.get("architectures") or ()]
    if task.heads[0] not in _CLASSIFIED or any(each.endswith(task.heads) for each in architectures):
        return ""
    heads = {name: TASKS[name].heads for name in _CLASSIFIED.values()}
    return next((name for name, ends in heads.items() if any(each.endswith(ends) for each in architectures)), "")


def _is_bare(architecture: str) -> bool:
    heads = tuple(head for task in TASKS.values() for head in task.heads if head != "Model")
    return architecture.endswith("Model") and not architecture.endswith(heads)
