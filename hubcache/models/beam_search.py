"""The beam search that PALM's published results were generated with; it is not transformers' and gives other texts.

It reproduces sofa's TextGenerator (examples/finetune/generation.py) result for result, but runs the decoder on one
token a step over a key-value cache, where the reference runs it again on all there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from .palm import PalmForConditionalGeneration

ALPHA = 0.6
"""The exponent of the length penalty, ((5 + length) / 6) ** ALPHA."""

NEVER = -1e20
"""The log probability of an end that would come too soon."""


@dataclass(slots=True)
class Source:
    """What the decoder reads of the inputs that are still running, and what it remembers of its own output.

    The encoder's hidden states [inputs, source, hidden] are read at the first step only; of mask [rows, 1, 1, source]
    and cache there is a row for each beam.
    """

    hidden_states: Tensor
    mask: Tensor
    cache: EncoderDecoderCache

    def tile(self, beams: int) -> None:
        """Turn every row into as many equal ones."""
        self.mask = self.mask.repeat_interleave(beams, 0)
        self.cache.batch_repeat_interleave(beams)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order.

        As long as no input has ended, rows move only within one, and all of an input's rows read the same source:
        then what is remembered of the source needs no moving.
        """
        self.cache.self_attention_cache.reorder_cache(rows)
        if len(rows) < len(self.mask):
            self.mask = self.mask[rows]
            self.cache.cross_attention_cache.reorder_cache(rows)


@dataclass(slots=True)
class Beams:
    """The beams of the inputs that are still running.

    `inputs` [running] tells which ones they are; tokens [running, beams, seq] begin with the start token; the log
    probabilities and the penalised scores are [running, beams].
    """

    inputs: Tensor
    tokens: Tensor
    log_probs: Tensor
    scores: Tensor

    @classmethod
    def start(cls, count: int, beams: int, token: int, device: torch.device) -> Beams:
        """Begin with one beam that counts: the others are copies of it and would fill the first step with its twins."""
        log_probs = torch.full((count, beams), float("-inf"), device=device)
        log_probs[:, 0] = 0.0
        tokens = torch.full((count, beams, 1), token, dtype=torch.long, device=device)
        return cls(torch.arange(count, device=device), tokens, log_probs, log_probs)

    def extend(self, log_probs: Tensor) -> Tensor:
        """Take the best continuations by [running * beams, vocab]; return the rows [running, beams] they come from.

        A beam that has ended goes on like any other, which is the reference's way.
        """
        running, beams, length = self.tokens.shape
        vocab = log_probs.shape[-1]
        penalty = ((5.0 + length) / 6.0) ** ALPHA
        scores = (log_probs + self.log_probs.view(-1, 1)) / penalty
        self.scores, best = scores.view(running, beams * vocab).topk(beams, dim=-1)
        self.log_probs = self.scores * penalty
        rows = best // vocab + torch.arange(running, device=best.device)[:, None] * beams
        before = self.tokens.flatten(0, 1)[rows]
        self.tokens = torch.cat([before, (best % vocab)[:, :, None]], dim=-1)
        return rows

    def keep(self, running: Tensor) -> None:
        """Drop all inputs but these."""
        self.inputs, self.tokens = self.inputs[running], self.tokens[running]
        self.log_probs, self.scores = self.log_probs[running], self.scores[running]


class Hypotheses:
    """The best ended beam of each input, by penalised score; of equal ones the first."""

    def __init__(self, count: int) -> None:
        self.best: list[tuple[Tensor, Tensor] | None] = [None] * count

    def record(self, beams: Beams, ended: Tensor) -> None:
        """Consider the ended beams, a boolean [running, beams]."""
        numbers = beams.inputs.tolist()
        for row, beam in ended.nonzero().tolist():
            number, score = numbers[row], beams.scores[row, beam]
            best = self.best[number]
            if best is None or score > best[0]:
                self.best[number] = score, beams.tokens[row, beam, 1:]


class TextGenerator:
    """Generate with PALM as the reference does.

    `symbols` maps "[CLS]", which a text starts with, and "[SEP]", which ends it, to their ids. An input ends when its
    best beam does, or at `max_length` tokens; before `min_length` no beam ends. `vocab`, `global_scorer`, `logger`
    and `dump_beam` are the reference's arguments and are not read.

    Raises:
        ValueError: `max_length` is less than 1.
    """

    def __init__(
        self,
        model: PalmForConditionalGeneration,
        vocab: Any,
        symbols: Mapping[str, int],
        beam_size: int = 5,
        min_length: int = 0,
        max_length: int = 100,
        global_scorer: Any = None,
        logger: Any = None,
        dump_beam: str = "",
    ) -> None:
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}: a text has at least one token")
        self.model = model
        self.vocab = vocab
        self.start_token = symbols["[CLS]"]
        self.end_token = symbols["[SEP]"]
        self.beam_size = beam_size
        self.min_length = min_length
        self.max_length = max_length

    @torch.no_grad()
    def translate_batch(self, batch: Sequence[Tensor], fast: bool = False) -> dict[str, Any]:
        """Generate for [tokens, types, padding mask], each [batch, source]; `fast` is not read.

        Returns a dict: `predictions` has for each input a list of the one best text, a LongTensor without the start
        token and with the end token if it came to that; `scores` its penalised log probability likewise;
        `gold_score` zeros; `batch` what was given.
        """
        with evaluating(self.model):
            best = self._search(*batch)
        return {
            "predictions": [[tokens] for _, tokens in best],
            "scores": [[score] for score, _ in best],
            "gold_score": [0] * len(best),
            "batch": batch,
        }

    def _search(self, tokens: Tensor, types: Tensor, padding_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        source = self._encode(tokens, types, padding_mask)
        beams = Beams.start(len(tokens), self.beam_size, self.start_token, tokens.device)
        hypotheses = Hypotheses(len(tokens))
        for step in range(self.max_length):
            rows = beams.extend(self._log_probs(beams, source, step))
            ended = beams.tokens[:, :, -1] == self.end_token
            if step + 1 == self.max_length:
                ended = torch.ones_like(ended)
            over = ended[:, 0]
            if ended.any():
                hypotheses.record(beams, ended | over[:, None])
                if over.all():
                    break
                running = (~over).nonzero().flatten()
                beams.keep(running)
                rows = rows[running]
            source.select(rows.flatten())
        return [best for best in hypotheses.best if best is not None]

    def _encode(self, tokens: Tensor, types: Tensor, padding_mask: Tensor) -> Source:
        encoded = self.model.get_encoder()(tokens, padding_mask, types).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        return Source(encoded, padding_mask.bool()[:, None, None, :], cache)

    def _log_probs(self, beams: Beams, source: Source, step: int) -> Tensor:
        """Return what may come next [running * beams, vocab]; at the first step the beams of an input are one row."""
        last = beams.tokens[:, :1, -1] if step == 0 else beams.tokens[:, :, -1].reshape(-1, 1)
        decoded = self.model.model.decode(last, source.hidden_states, source.mask, past_key_values=source.cache)
        logits = self.model.model.project(decoded.last_hidden_state)[:, -1]
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        if step < self.min_length:
            log_probs[:, self.end_token] = NEVER
        if step == 0:
            source.tile(self.beam_size)
            log_probs = log_probs.repeat_interleave(self.beam_size, 0)
        return log_probs


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


__all__ = ["TextGenerator"]
