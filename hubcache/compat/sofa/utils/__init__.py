"""What `sofa.utils` exported, SOFA's own and what it passed on of transformers; nothing is computed here."""

import transformers.modeling_outputs as _outputs
from transformers import (
    AddedToken,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.activations import ACT2FN
from transformers.pytorch_utils import apply_chunking_to_forward, prune_linear_layer
from transformers.tokenization_python import _is_control, _is_punctuation, _is_whitespace
from transformers.utils import (
    ModelOutput,
    add_code_sample_docstrings,
    add_start_docstrings,
    add_start_docstrings_to_model_forward,
    logging,
    replace_return_docstrings,
)
from transformers.utils.doc import add_end_docstrings

from hubcache.compat.sofa.inference import InferenceBase
from hubcache.compat.sofa.utils.compat import inject_model_backend, inject_pipeline
from hubcache.compat.sofa.utils.dureader_eval import compute_bleu_rouge, normalize
from hubcache.compat.sofa.utils.optimizer_utils import (
    ChildTuningAdamW,
    apply_child_tuning,
    apply_child_tuning_to_trainer,
)
from hubcache.compat.sofa.utils.pruning import find_pruneable_heads_and_indices
from hubcache.compat.sofa.utils.tasks import DatasetOutput, SpanClassifierOutput, TaskType

Application = PreTrainedModel
OnnxConfig = object
BaseModelOutputWithPastAndCrossAttentions = _outputs.BaseModelOutputWithPastAndCrossAttentions
BaseModelOutputWithPoolingAndCrossAttentions = _outputs.BaseModelOutputWithPoolingAndCrossAttentions
CausalLMOutputWithCrossAttentions = _outputs.CausalLMOutputWithCrossAttentions
MaskedLMOutput = _outputs.MaskedLMOutput
MultipleChoiceModelOutput = _outputs.MultipleChoiceModelOutput
NextSentencePredictorOutput = _outputs.NextSentencePredictorOutput
QuestionAnsweringModelOutput = _outputs.QuestionAnsweringModelOutput
SequenceClassifierOutput = _outputs.SequenceClassifierOutput
TokenClassifierOutput = _outputs.TokenClassifierOutput

__all__ = [
    "ACT2FN",
    "AddedToken",
    "Application",
    "BaseModelOutputWithPastAndCrossAttentions",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "CausalLMOutputWithCrossAttentions",
    "ChildTuningAdamW",
    "DatasetOutput",
    "InferenceBase",
    "MaskedLMOutput",
    "ModelOutput",
    "MultipleChoiceModelOutput",
    "NextSentencePredictorOutput",
    "OnnxConfig",
    "PreTrainedModel",
    "PreTrainedTokenizer",
    "PreTrainedTokenizerFast",
    "PretrainedConfig",
    "QuestionAnsweringModelOutput",
    "SequenceClassifierOutput",
    "SpanClassifierOutput",
    "TaskType",
    "TokenClassifierOutput",
    "_is_control",
    "_is_punctuation",
    "_is_whitespace",
    "add_code_sample_docstrings",
    "add_end_docstrings",
    "add_start_docstrings",
    "add_start_docstrings_to_model_forward",
    "apply_child_tuning",
    "apply_child_tuning_to_trainer",
    "apply_chunking_to_forward",
    "compute_bleu_rouge",
    "find_pruneable_heads_and_indices",
    "inject_model_backend",
    "inject_pipeline",
    "logging",
    "normalize",
    "prune_linear_layer",
    "replace_return_docstrings",
]
