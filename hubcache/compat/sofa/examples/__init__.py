"""SOFA's fine-tuning functions, under the names it exported them by; they are written in examples/finetune."""

from hubcache.compat.sofa.examples.finetune.generation import run_generation_hf
from hubcache.compat.sofa.examples.finetune.sequence_classification import run_classification_hf
from hubcache.compat.sofa.examples.finetune.sequence_labeling import run_sequence_labeling_hf

__all__ = ["run_classification_hf", "run_generation_hf", "run_sequence_labeling_hf"]
