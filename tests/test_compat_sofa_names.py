"""SOFA's exported names and arguments, written down from its release: each is there, in the same order."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

sofa = pytest.importorskip("hubcache.compat.sofa")

from hubcache.compat.sofa.examples.finetune.generation import TextGenerator  # noqa: E402  # after the skip

pytestmark = pytest.mark.train

SBERT = ["Config", "Tokenizer", "TokenizerFast", "Model", "ForSequenceClassification", "ForQuestionAnswering",
         "ForTokenClassification", "ForMultipleChoice", "ForPreTraining", "ForMaskedLM",
         "ForNextSentencePrediction"]  # fmt: skip
VECO = ["Config", "Model", "ForSequenceClassification", "ForMultipleChoice", "ForQuestionAnswering",
        "ForTokenClassification", "Tokenizer", "TokenizerFast"]  # fmt: skip
PALM = ["Config", "Model", "Tokenizer", "TokenizerFast", "ForConditionalGeneration"]
UTILS = ["ChildTuningAdamW", "apply_child_tuning_to_trainer", "apply_child_tuning", "PretrainedConfig", "TaskType",
         "ACT2FN", "InferenceBase", "PreTrainedModel", "Application", "OnnxConfig", "apply_chunking_to_forward",
         "find_pruneable_heads_and_indices", "prune_linear_layer", "ModelOutput", "logging", "DatasetOutput",
         "SpanClassifierOutput", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "_is_control", "_is_punctuation",
         "_is_whitespace", "AddedToken", "inject_model_backend", "inject_pipeline"]  # fmt: skip
TOP = ["environ", "__version__", "check_update", "sbert", "veco", "palm", "run_sequence_labeling_hf",
       "run_classification_hf", "run_generation_hf", *(f"Sbert{end}" for end in SBERT),
       *(f"Veco{end}" for end in VECO), *(f"Palm{end}" for end in PALM), *UTILS]  # fmt: skip

CLASSIFICATION = """pretrain_model_path, output_dir, task_type, first_sequence, label, train_file_path=None,
dataset_name='text', train_dataset_config=None, eval_dataset_config=None, second_sequence=None, dev_file_path=None,
child_tuning_type=None, reserve_p=0.2, label_enumerate_values=None, sequence_length=128, map_function=None,
filter_function=None, load_best_model_at_end=True, save_strategy='steps', save_total_limit=1,
evaluation_strategy='steps', seed=42, config_args=None, **kwargs"""
LABELLING = """pretrain_model_path, first_sequence, label, train_file_path, dev_file_path=None,
child_tuning_type=None, reserve_p=0.2, label_enumerate_values=None, data_format='text', sequence_length=128,
map_function=None, filter_function=None, label_all_tokens=True, load_best_model_at_end=True, save_strategy='steps',
save_total_limit=1, evaluation_strategy='steps', return_entity_level_metrics=False, seed=42, config_args=None,
**kwargs"""
GENERATION = """pretrain_model_path, output_dir, task_type, train_file_path=None, dataset_name='text',
dev_file_path=None, child_tuning_type=None, reserve_p=0.2, sequence_length=128, target_length=100, map_function=None,
filter_function=None, save_strategy='steps', save_total_limit=1, seed=42, config_args=None, num_train_epochs=3,
**kwargs"""
ADAMW = """params, lr=0.001, betas=(0.9, 0.999), eps=1e-06, weight_decay=0.0, correct_bias=True, reserve_p=0.2,
mode='ChildTuning-F'"""
GENERATOR = """model, vocab, symbols, beam_size=5, min_length=0, max_length=100, global_scorer=None, logger=None,
dump_beam=''"""

SIGNATURES = [
    (sofa.run_classification_hf, CLASSIFICATION),
    (sofa.run_sequence_labeling_hf, LABELLING),
    (sofa.run_generation_hf, GENERATION),
    (sofa.ChildTuningAdamW, ADAMW),
    (TextGenerator, GENERATOR),
    (sofa.apply_child_tuning, "mode='ChildTuning-F', reserve_p=0.2"),
    (sofa.inject_pipeline, "name, pipeline_clz, automodel_clz"),
    (sofa.environ, "backend"),
    (sofa.InferenceBase, "model, tokenizer=None, task='', device=-1, *args, **kwargs"),
    (sofa.InferenceBase.from_pretrained, "model, env=None, *args, **kwargs"),
    (sofa.utils.compute_bleu_rouge, "pred_dict, ref_dict, bleu_order=4"),
    (TextGenerator.translate_batch, "self, batch, fast=False"),
]


def arguments(function: Any) -> str:
    """Write a function's arguments without their types."""
    found = [one.replace(annotation=inspect.Parameter.empty) for one in inspect.signature(function).parameters.values()]
    return ", ".join(map(str, found))


@pytest.mark.parametrize("name", TOP)
def test_a_name_that_sofa_exports_is_there(name: str) -> None:
    assert hasattr(sofa, name)


@pytest.mark.parametrize("name", [*UTILS, "compute_bleu_rouge", "normalize"])
def test_a_name_of_sofas_utils_is_there(name: str) -> None:
    assert hasattr(sofa.utils, name)


def test_a_name_that_sofa_did_not_have_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="VecoForMaskedLM"):
        _ = sofa.VecoForMaskedLM


@pytest.mark.parametrize(("function", "wanted"), SIGNATURES, ids=lambda each: getattr(each, "__qualname__", ""))
def test_a_function_takes_the_references_arguments_in_their_order(function: Any, wanted: str) -> None:
    assert arguments(function) == " ".join(wanted.split())


def test_child_tuning_of_a_trainer_takes_the_references_arguments_first() -> None:
    wanted = "trainer, mode='ChildTuning-F', reserve_p=0.2"
    assert arguments(sofa.apply_child_tuning_to_trainer).startswith(wanted)


def test_everything_can_be_imported_at_once_where_the_reference_crashed() -> None:
    script = "from hubcache.compat.sofa import *; print(environ.__name__, check_update(), SbertModel.__name__)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert told.stdout == "environ None SbertModel\n", told.stderr
