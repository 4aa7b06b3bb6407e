"""ONNX graphs standing where a pipeline's model stands: the same calls and outputs; no weights are torch's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutput,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from hubcache.errors import BadConfig, UsageError
from hubcache.models.crf import LinearChainCRF
from hubcache.train.heads import config_of
from hubcache.train.onnx.sessions import OnnxSession
from hubcache.train.pipelines.graphs import encoder_file, graph_file
from hubcache.train.pipelines.tasks import PipelineTask

CRF_FILE = "crf.npz"
"""Where an exported repo keeps what a CRF adds to the graph's emissions, each array by its parameter's name."""

_OUTPUTS: Mapping[str, tuple[Any, str, int]] = {
    "feature-extraction": (BaseModelOutput, "last_hidden_state", 3),
    "fill-mask": (MaskedLMOutput, "logits", 3),
    "token-classification": (TokenClassifierOutput, "logits", 3),
    "text-classification": (SequenceClassifierOutput, "logits", 2),
    "zero-shot-classification": (SequenceClassifierOutput, "logits", 2),
    "question-answering": (QuestionAnsweringModelOutput, "start_logits", 2),
    "text-generation": (CausalLMOutput, "logits", 3),
}


def load_onnx(folder: Path, task: PipelineTask, backend: str) -> Any:
    """Load a folder's graph as the model of a task's pipeline, on as many CPU threads as torch has.

    Raises:
        UsageError: there is no graph, or it cannot do this task.
        BadConfig: onnxruntime cannot run it.
    """
    config, file = config_of(folder), graph_file(folder, task.name, backend)
    config.use_cache = False
    if task.auto_class == "AutoModelForSeq2SeqLM":
        if config.model_type == "palm":
            raise UsageError("PALM's own search is torch's only", hint="leave --backend out")
        return OnnxEncoderDecoder(config, OnnxSession(encoder_file(file)), _checked(file, "logits", 3, task))
    if task.name == "text-generation":
        return OnnxCausal(config, _checked(file, "logits", 3, task))
    cls, output, rank = _OUTPUTS[task.name]
    session = OnnxSession(file)
    if task.name == "token-classification" and "emissions" in session.outputs:
        return OnnxCrf(config, session, folder / CRF_FILE)
    return OnnxModel(config, _checked(file, output, rank, task, session), cls)


class OnnxModel(PreTrainedModel):
    """A graph called as the model it was made of; the outputs that `output_class` has come back in one."""

    def __init__(self, config: Any, session: OnnxSession, output_class: Any) -> None:
        super().__init__(config)
        self.session = session
        self.output_class = output_class
        # What PreTrainedModel takes its device and type from.
        self.place = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, input_ids: Tensor | None = None, **inputs: Any) -> Any:
        """Return the graph's outputs for `input_ids` [batch, seq] and what else it takes."""
        found = self.session({"input_ids": input_ids, **inputs})
        known = self.output_class.__dataclass_fields__
        return self.output_class(**{name: value for name, value in found.items() if name in known})


class OnnxCrf(OnnxModel):
    """A CRF tagger of a graph that ends at the emissions: `logits` [batch, seq, tags] whose argmax is the best path.

    Raises: BadConfig where the CRF's scores are not in the folder.
    """

    def __init__(self, config: Any, session: OnnxSession, scores: Path) -> None:
        super().__init__(config, session, TokenClassifierOutput)
        try:
            with np.load(scores, allow_pickle=False) as stored:
                told = {name: torch.from_numpy(stored[name]) for name in stored.files}
            self.crf = LinearChainCRF(len(told["start_transitions"]), batch_first=True)
            self.crf.load_state_dict(told)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BadConfig(f"{scores} has no CRF's scores: {error}", hint="export the model again") from error

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """Return by how much each tag [batch, seq, tags] stays behind the best path."""
        found = self.session({"input_ids": input_ids, "attention_mask": attention_mask, **inputs})
        mask = None if attention_mask is None else attention_mask == 1
        return TokenClassifierOutput(logits=self.crf.max_marginals(found["emissions"], mask))


class _Generating(OnnxModel, GenerationMixin):
    """What generate() asks of a model; every step reads the whole text again, since no past is kept."""

    _is_stateful = False

    def __init__(self, config: Any, session: OnnxSession, output_class: Any) -> None:
        super().__init__(config, session, output_class)
        self.generation_config = _generation(config)

    @classmethod
    def can_generate(cls) -> bool:
        """Generate."""
        return True


class OnnxCausal(_Generating):
    """A graph that continues texts, its past always empty."""

    def __init__(self, config: Any, session: OnnxSession) -> None:
        super().__init__(config, session, CausalLMOutput)

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any) -> Any:
        """Return logits [batch, seq, vocab] for `input_ids` [batch, seq]."""
        assert input_ids is not None
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs = {"input_ids": input_ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        found = self.session({**inputs, **self.session.empty_past(len(input_ids))})
        return CausalLMOutput(logits=found["logits"])

    def prepare_inputs_for_generation(self, input_ids: Tensor, attention_mask: Any = None, **_: Any) -> dict[str, Any]:
        """Return what forward() takes."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}


class OnnxEncoder(OnnxModel):
    """The first half of an encoder-decoder: `last_hidden_state` [batch, seq, hidden]."""

    def __init__(self, config: Any, session: OnnxSession) -> None:
        super().__init__(config, session, BaseModelOutput)

    # generate() hands on only what is named here.
    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        """Return the hidden states of `input_ids` [batch, seq]."""
        return super().forward(input_ids, attention_mask=attention_mask, **inputs)


class OnnxEncoderDecoder(_Generating):
    """An encoder's graph and a decoder's as one model that generates."""

    def __init__(self, config: Any, encoder: OnnxSession, decoder: OnnxSession) -> None:
        super().__init__(config, decoder, Seq2SeqLMOutput)
        self.encoder = OnnxEncoder(config, encoder)

    def get_encoder(self, *_: Any, **__: Any) -> Any:
        """Return the first half."""
        return self.encoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        **_: Any,
    ) -> Any:
        """Return logits [batch, target, vocab] for `decoder_input_ids` [batch, target]."""
        assert decoder_input_ids is not None
        states = encoder_outputs or self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states = states[0]
        mask = torch.ones(states.shape[:2], dtype=torch.long) if attention_mask is None else attention_mask
        inputs = {"encoder_attention_mask": mask, "input_ids": decoder_input_ids, "encoder_hidden_states": states}
        found = self.session({**inputs, **self.session.empty_past(len(decoder_input_ids))})
        return Seq2SeqLMOutput(logits=found["logits"], encoder_last_hidden_state=states)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Any = None, encoder_outputs: Any = None, **_: Any
    ) -> dict[str, Any]:
        """Return what forward() takes, the text so far as the decoder's."""
        return {
            "decoder_input_ids": input_ids, "attention_mask": attention_mask, "encoder_outputs": encoder_outputs
        }  # fmt: skip


def _checked(file: Path, output: str, rank: int, task: PipelineTask, session: OnnxSession | None = None) -> OnnxSession:
    session = session or OnnxSession(file)
    if session.ranks.get(output) != rank:
        raise UsageError(
            f"{file.name} answers with {', '.join(session.outputs)}, which is no {task.name}",
            hint=f"hubcache export REF --format onnx --task {task.name}",
        )
    return session


def _generation(config: Any) -> Any:
    """As the folder says, where it does, but without a cache."""
    try:
        found = GenerationConfig.from_pretrained(config._name_or_path, local_files_only=True)
    except OSError:
        found = GenerationConfig.from_model_config(config)
    found.use_cache = False
    return found
