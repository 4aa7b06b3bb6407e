"""A linear-chain conditional random field over scores of tags, called as pytorch-crf's; the encoder is not its affair.

Scores are added up in float64. The sum over all paths is taken in exp space, one small matrix product a step, from
both ends at once, so that its gradient (the forward-backward algorithm) needs no graph. That is exact, whatever the
emissions: the messages into two tags differ by the spread D of the transitions (max - min) at most, from the left as
from the right. With D up to 88, an eighth of the 708 that exp has room for, what underflows is below exp(-350) of the
largest and can regain exp(88). With a wider D, as when forbidden transitions score -10000, the sum is a log-sum-exp
a step under autograd instead.

On a GPU a step costs the launch of its kernels and not their work, so the sequence is cut into segments that run side
by side: first the matrix that carries a message across each segment, then the message at each segment's head, then
all segments from their heads. The same passes in the max-plus algebra find the best path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda llh, _: llh,
    "sum": lambda llh, _: llh.sum(),
    "mean": lambda llh, _: llh.mean(),
    "token_mean": lambda llh, mask: llh.sum() / mask.sum(),
}
ROOM = -math.log(torch.finfo(torch.float64).tiny)
WIDEST_SPREAD = ROOM / 8
# Sums that a step over all segments may take: 128 MiB in max-plus; more of them outweigh the launches saved.
SEGMENT_BUDGET = 1 << 24


class LinearChainCRF(nn.Module):
    """Score tag sequences and find the best one; parameters, calls and errors are those of pytorch-crf 0.7.2's CRF.

    Parameters: start_transitions [tags], end_transitions [tags], transitions [tags, tags] (from, to).

    Emissions are [batch, seq, tags], tags and mask [batch, seq]; seq comes first where batch_first is false. A mask is
    bool or uint8; it is on at every sequence's first step and has no holes, which pytorch-crf leaves undefined. Tags
    at masked steps may be anything, -100 too. It computes in float64, whatever the emissions and autocast are, and
    outside torch.compile, which would unroll the steps.

    `segments` is how many pieces a sequence is cut into; None chooses by the device.

    Raises:
        ValueError: fewer than one tag; when called, shapes that do not match, or another mask than described.
    """

    segments: int | None = None

    def __init__(self, num_tags: int, batch_first: bool = False) -> None:
        if num_tags <= 0:
            raise ValueError(f"invalid number of tags: {num_tags}")
        super().__init__()
        self.num_tags = num_tags
        self.batch_first = batch_first
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all three from U(-0.1, 0.1)."""
        for parameter in (self.start_transitions, self.end_transitions, self.transitions):
            nn.init.uniform_(parameter, -0.1, 0.1)

    def extra_repr(self) -> str:
        """Tell the number of tags."""
        return f"num_tags={self.num_tags}"

    @torch.compiler.disable
    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum") -> Tensor:
        """Return the log-likelihood of the tags: [batch] for the reduction `none`, else a scalar; never below float32.

        Reductions: none, sum, mean (over sequences), token_mean (over the steps that the mask leaves on).

        Raises:
            ValueError: an unknown reduction, or what the class names.
        """
        scores = self._scores(emissions, mask, tags)
        if reduction not in REDUCTIONS:
            raise ValueError(f"invalid reduction: {reduction}")
        tags = (tags if self.batch_first else tags.transpose(0, 1)).to(scores.mask.device, torch.long)
        llh = REDUCTIONS[reduction](self._log_likelihood(scores, tags.masked_fill(~scores.mask, 0)), scores.mask)
        return llh.to(emissions.device, _at_least_float32(emissions, self.transitions))

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """Return the best tags of every sequence, without those of masked steps; the lowest of equal ones."""
        return [[tag for tag in path if tag >= 0] for path in self.decode_padded(emissions, mask).tolist()]

    @torch.compiler.disable
    @torch.no_grad()
    def decode_padded(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the best tags, [batch, seq] also where batch_first is false, with -1 at masked steps."""
        scores = self._scores(emissions, mask)
        trellis, segments = _Trellis.of(scores), self._segments(scores)
        _, after = _run(trellis.scores.unsqueeze(1), _MaxPlus(trellis.transitions.unsqueeze(0)), segments)
        best = _walk_back(after.squeeze(1), trellis, segments)
        return best.masked_fill(~trellis.mask, -1).T.contiguous().to(emissions.device)

    @torch.compiler.disable
    @torch.no_grad()
    def max_marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return by how much the best path through each tag at each step stays behind the best path of all.

        [batch, seq, tags], also where batch_first is false: 0 on the best path and at masked steps, else negative, so
        the argmax is the best path where there is only one. float32 at least. Relative, because float32 would round
        the near-equal totals of a long sequence to equal ones.
        """
        scores = self._scores(emissions, mask)
        trellis = _Trellis.of(scores)
        before, after = _run(*trellis.both_ways(_MaxPlus), self._segments(scores))
        through = before[:, 0] + trellis.mirrored(after[:, 1])
        through = (through - through.amax(1, keepdim=True)).masked_fill(~trellis.mask.unsqueeze(1), 0)
        return through.permute(2, 0, 1).contiguous().to(emissions.device, _at_least_float32(emissions))

    def _scores(self, emissions: Tensor, mask: Tensor | None, tags: Tensor | None = None) -> _Scores:
        """Check all of it, turn it batch first, and take it to where float64 is: not Apple's GPUs."""
        self._check_shapes(emissions, tags, mask)
        if not self.batch_first:
            emissions = emissions.transpose(0, 1)
            mask = None if mask is None else mask.transpose(0, 1)
        if mask is None:
            mask = emissions.new_ones(emissions.shape[:2], dtype=torch.bool)
        else:
            mask = _checked(mask.bool())
        device = torch.device("cpu") if emissions.device.type == "mps" else emissions.device
        parameters = (self.start_transitions, self.end_transitions, self.transitions)
        start, end, transitions = (parameter.to(device, torch.float64) for parameter in parameters)
        return _Scores(emissions.to(device), start, end, transitions, mask.to(device))

    def _check_shapes(self, emissions: Tensor, tags: Tensor | None, mask: Tensor | None) -> None:
        if emissions.dim() != 3:
            raise ValueError(f"emissions must have dimension of 3, got {emissions.dim()}")
        if emissions.size(2) != self.num_tags:
            raise ValueError(f"expected last dimension of emissions is {self.num_tags}, got {emissions.size(2)}")
        for name, other in (("tags", tags), ("mask", mask)):
            if other is not None and other.shape != emissions.shape[:2]:
                raise ValueError(
                    f"the first two dimensions of emissions and {name} must match, "
                    f"got {tuple(emissions.shape[:2])} and {tuple(other.shape)}"
                )

    def _segments(self, scores: _Scores) -> int:
        """Choose the number of segments; a step over each takes batch * tags**3 sums."""
        batch, seq, tags = scores.emissions.shape
        if self.segments is not None:
            return max(1, min(self.segments, seq))
        if scores.emissions.device.type == "cpu":
            return 1
        # Two passes of seq / n steps and one of n: fewest in all at sqrt(2 seq). Under four segments save nothing.
        segments = min(round(math.sqrt(2 * seq)), SEGMENT_BUDGET // (batch * tags**3))
        return segments if segments >= 4 else 1

    def _log_likelihood(self, scores: _Scores, tags: Tensor) -> Tensor:
        low, high = scores.transitions.detach().aminmax()
        spread = (high - low).item()
        if not spread <= WIDEST_SPREAD:
            scores = scores._replace(emissions=scores.emissions.double())
            return scores.of_path(tags) - _log_partition_by_steps(scores)
        from_both_ends = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in scores)
        how = _How(spread, self._segments(scores), from_both_ends)
        return _LogLikelihood.apply(*scores, tags, how)


def _checked(mask: Tensor) -> Tensor:
    if not mask[:, 0].all():
        raise ValueError("mask of the first timestep must all be on")
    if (mask[:, 1:] > mask[:, :-1]).any():
        raise ValueError("mask must have no holes: a step is on after one that is off")
    return mask


def _at_least_float32(*tensors: Tensor) -> torch.dtype:
    kind = torch.float32
    for tensor in tensors:
        kind = torch.promote_types(kind, tensor.dtype)
    return kind


def _range(tensor: Tensor) -> Tensor:
    return torch.arange(len(tensor), device=tensor.device)


class _Scores(NamedTuple):
    """What a call is about: emissions [batch, seq, tags], the parameters in float64, mask [batch, seq]."""

    emissions: Tensor
    start: Tensor
    end: Tensor
    transitions: Tensor
    mask: Tensor

    def of_path(self, tags: Tensor) -> Tensor:
        """Add up what the tags [batch, seq] score, [batch]."""
        last = tags.gather(1, self.mask.sum(1, keepdim=True) - 1).squeeze(1)
        emitted = self.emissions.gather(2, tags.unsqueeze(2)).squeeze(2).double().masked_fill(~self.mask, 0)
        moved = self.transitions[tags[:, :-1], tags[:, 1:]].masked_fill(~self.mask[:, 1:], 0)
        return self.start[tags[:, 0]] + emitted.sum(1) + moved.sum(1) + self.end[last]


def _log_partition_by_steps(scores: _Scores) -> Tensor:
    """Sum over all paths in log space, for transitions of any spread, [batch]."""
    steps = scores.emissions.permute(1, 2, 0).contiguous().unbind(0)
    total = scores.start.unsqueeze(1) + steps[0]
    for step, is_on in zip(steps[1:], scores.mask.T[1:].unbind(0), strict=True):
        following = (total.unsqueeze(1) + scores.transitions.unsqueeze(2)).logsumexp(0) + step
        total = torch.where(is_on, following, total)
    return (total + scores.end.unsqueeze(1)).logsumexp(0)


class _SumProduct:
    """Sums over paths in exp space; kernel [directions, tags to, tags from] is at most 1."""

    one = 1.0
    times = staticmethod(torch.mul)
    total = staticmethod(torch.sum)

    def __init__(self, transitions: Tensor, spread: float) -> None:
        self.kernel = (transitions - transitions.max()).exp().transpose(1, 2).contiguous()
        # A step multiplies the largest number by exp(-2 spread) to tags: rescaled before a quarter of the room is gone.
        self.every = max(1, int(ROOM / 4 / (2 * spread + math.log(transitions.size(1)) + 1)))

    def step(self, after: Tensor, out: Tensor | None = None) -> Tensor:
        """Multiply by the kernel from the left."""
        return torch.bmm(self.kernel, after, out=out)

    def rescale(self, messages: Tensor, step: int, dims: tuple[int, ...]) -> Tensor:
        """Divide by the largest, in place, where it is time to."""
        return messages if step % self.every else messages.div_(messages.amax(dims, keepdim=True))


class _MaxPlus:
    """Best paths; kernel [directions, tags to, tags from]. float64 needs no rescaling for sums of so few."""

    one = 0.0
    times = staticmethod(torch.add)
    total = staticmethod(torch.amax)

    def __init__(self, transitions: Tensor) -> None:
        self.kernel = transitions.transpose(1, 2).contiguous()
        self.wide_kernel = self.kernel.unsqueeze(3)
        # The C library may return memory of this size to the system, and have it anew, at every step.
        self.sums = transitions.new_empty(0)

    def step(self, after: Tensor, out: Tensor | None = None) -> Tensor:
        """Multiply by the kernel from the left, in this algebra."""
        if after.size(2) != self.sums.size(-1):
            self.sums = after.new_empty(*self.kernel.shape, after.size(2))
        torch.add(self.wide_kernel, after.unsqueeze(1), out=self.sums)
        return torch.amax(self.sums, 2, out=out)

    def rescale(self, messages: Tensor, step: int, dims: tuple[int, ...]) -> Tensor:
        """Return them as they are."""
        return messages


_Algebra = _SumProduct | _MaxPlus


class _Trellis(NamedTuple):
    """What is run over: scores [seq, tags, batch], start's and end's in them, mask [seq, batch], last step [batch].

    Batch comes last so that reductions over tags take contiguous rows together: 10 times as fast on a CPU.
    """

    scores: Tensor
    transitions: Tensor
    mask: Tensor
    last: Tensor

    @classmethod
    def of(cls, scores: _Scores) -> _Trellis:
        """Put start's scores into every sequence's first step and end's into its last; masked steps score 0."""
        batch, seq, tags = scores.emissions.shape
        steps, last = scores.start.new_empty(seq, tags, batch), scores.mask.sum(1) - 1
        steps.copy_(scores.emissions.permute(1, 2, 0)).masked_fill_(~scores.mask.T.unsqueeze(1), 0)
        steps[0] += scores.start.unsqueeze(1)
        steps[last, :, _range(last)] += scores.end
        return cls(steps, scores.transitions, scores.mask.T, last)

    def both_ways(self, algebra: Callable[[Tensor], _Algebra]) -> tuple[Tensor, _Algebra]:
        """Return the scores from the left (direction 0) and, turned round, from the right, and the algebra for both."""
        scores = torch.stack([self.scores, self.mirrored(self.scores)], 1)
        return scores, algebra(torch.stack([self.transitions, self.transitions.T]))

    def mirrored(self, steps: Tensor) -> Tensor:
        """Turn every sequence of [seq, tags, batch] round in its own length; twice is the same again."""
        at = _range(steps).unsqueeze(1)
        source = torch.where(self.mask, self.last - at, at)
        return steps.gather(0, source.unsqueeze(1).expand_as(steps))


def _run(scores: Tensor, algebra: _Algebra, segments: int) -> tuple[Tensor, Tensor]:
    """Return the messages before and after every step's own score; all are [seq, directions, tags, batch].

    Past a sequence's end they mean nothing. In exp space each step has a scale of its own.
    """
    seq, batch = len(scores), scores.size(3)
    steps = _cut(scores, algebra.one, segments).flatten(3)
    befores, afters = torch.empty_like(steps), torch.empty_like(steps)
    befores[0] = algebra.one if segments == 1 else _heads(steps.unbind(0), algebra, segments)
    after = algebra.times(befores[0], steps[0], out=afters[0])
    rows = zip(steps[1:].unbind(0), befores[1:].unbind(0), afters[1:].unbind(0), strict=True)
    for number, (step, before, next_after) in enumerate(rows, 1):
        algebra.rescale(algebra.step(after, before), number, (1,))
        after = algebra.times(before, step, out=next_after)
    return _joined(befores, seq, batch), _joined(afters, seq, batch)


def _cut(steps: Tensor, filling: float, segments: int) -> Tensor:
    """Cut [seq, ..., batch] into [steps of a segment, ..., segments, batch]."""
    length = -(-len(steps) // segments)
    short = length * segments - len(steps)
    if short:
        steps = torch.cat([steps, steps.new_full((short, *steps.shape[1:]), filling)])
    return steps.unflatten(0, (segments, length)).movedim(0, -2)


def _joined(steps: Tensor, seq: int, batch: int) -> Tensor:
    """Put [steps of a segment, ..., segments * batch] together to [seq, ..., batch]."""
    return steps.unflatten(-1, (-1, batch)).movedim(-2, 0).flatten(0, 1)[:seq]


def _heads(steps: tuple[Tensor, ...], algebra: _Algebra, segments: int) -> Tensor:
    """Return the message into every segment's first step, [directions, tags, segments * batch].

    `across` [directions, tags to, segments, batch, tags from] carries a message, the first step's score added, over a
    segment. Its spread, too, is bounded by the transitions'.
    """
    across = algebra.kernel.unsqueeze(2).expand(-1, -1, steps[0].size(2), -1).contiguous()
    for number, step in enumerate(steps[1:], 1):
        after = algebra.times(across, step.unsqueeze(3)).flatten(2)
        across = algebra.rescale(algebra.step(after).view_as(across), number, (1, 3))
    across = algebra.rescale(across, 0, (1, 3)).unflatten(2, (segments, -1))
    first = steps[0].unflatten(2, (segments, -1))
    heads = [torch.full_like(first[:, :, 0], algebra.one)]
    for segment in range(segments - 1):
        after = algebra.times(heads[-1], first[:, :, segment]).transpose(1, 2).unsqueeze(1)
        message = algebra.total(algebra.times(across[:, :, segment], after), 3)
        heads.append(algebra.rescale(message, segment, (1,)))
    return algebra.rescale(torch.cat(heads, 2), 0, (1,))


class _How(NamedTuple):
    """How the sums are run: the transitions' spread, the number of segments, whether from both ends."""

    spread: float
    segments: int
    from_both_ends: bool


class _LogLikelihood(torch.autograd.Function):
    """The path's score less the log of the sum over all paths, [batch]; its gradient is had on the way."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, tags, how = arguments
        scores = _Scores(*tensors)
        trellis = _Trellis.of(scores)
        top = trellis.scores.amax(1)
        trellis.scores.sub_(top.unsqueeze(1)).exp_()
        if how.from_both_ends:
            steps, algebra = trellis.both_ways(lambda both: _SumProduct(both, how.spread))
        else:
            steps, algebra = trellis.scores.unsqueeze(1), _SumProduct(scores.transitions.unsqueeze(0), how.spread)
        before, after = _run(steps, algebra, how.segments)
        kernel = algebra.kernel[0].T
        sums = _Sums(before[:, 0].sum(1), after[:, 0].sum(1), torch.einsum("tib,i->tb", after[:, 0], kernel.sum(1)))
        if how.from_both_ends:
            tagged, pairs = _probabilities(before[:, 0], trellis.mirrored(after[:, 1]), sums, trellis.mask)
            ctx.save_for_backward(tagged, pairs, after[:, 0], kernel, tags, scores.mask)
        total = (sums.log_growth(trellis.last) + top).masked_fill_(~trellis.mask, 0).sum(0)
        return scores.of_path(tags) - total - trellis.last * scores.transitions.max() - math.log(len(kernel))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tagged, pairs, after, kernel, tags, mask = ctx.saved_tensors
        weight = grad.unsqueeze(1) * mask
        emitted = (tagged * -grad).scatter_add_(1, tags.T.unsqueeze(1), weight.T.unsqueeze(1))
        ended = emitted[mask.sum(1) - 1, :, _range(mask)].sum(0)
        moved = None
        if ctx.needs_input_grad[3]:
            moved = torch.einsum("tib,tjb->ij", after[:-1], pairs[1:] * -grad) * kernel
            moved.index_put_((tags[:, :-1], tags[:, 1:]), weight[:, 1:], accumulate=True)
        return emitted.permute(2, 0, 1), emitted[0].sum(1), ended, moved, None, None, None


class _Sums(NamedTuple):
    """What each step's messages add up to, [seq, batch]: before it, after it, and before the next in after's scale."""

    before: Tensor
    after: Tensor
    leaving: Tensor

    def log_growth(self, last: Tensor) -> Tensor:
        """Return the log of what each step multiplies the sum by, its message's scale left out."""
        is_followed = _range(self.before).unsqueeze(1) < last
        return (torch.where(is_followed, self.leaving, self.after) / self.before).log_()


def _probabilities(before: Tensor, onward: Tensor, sums: _Sums, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return how probable each tag is, and the factor that, with after and the kernel, makes it so for each transition.

    Onward are the messages from the right, the step's own score in them; they are overwritten.
    """
    tagged = before * onward
    share = tagged.sum(1).reciprocal_().masked_fill_(~mask, 0)
    # A message that was rescaled, or heads a segment, is after times kernel in another scale: both sums tell it.
    scale = torch.cat([sums.before[:1], sums.before[1:] / sums.leaving[:-1]])
    return tagged.mul_(share.unsqueeze(1)), onward.mul_((share * scale).unsqueeze(1))


def _walk_back(after: Tensor, trellis: _Trellis, segments: int) -> Tensor:
    """Follow the best path from each sequence's last step to its first, [seq, batch]; of equal tags the first is taken.

    One more tag, `stop`, follows the last step and itself. In each segment a walk begins at every tag that may follow
    it; then, from right to left, the one is chosen that begins where the next one ended.
    """
    stop, batch = after.shape[1:]
    is_past = _range(after).unsqueeze(1) > trellis.last
    past = torch.full_like(after[:, :1], -math.inf).masked_fill_(is_past.unsqueeze(1), math.inf)
    steps = torch.cat([_cut(after, 0, segments), _cut(past, math.inf, segments)], 1)
    steps = steps.flatten(2).transpose(1, 2).unsqueeze(2).contiguous()
    into = functional.pad(trellis.transitions.T, (0, 1, 0, 1))
    following = torch.arange(stop + 1, device=after.device)[0 if segments > 1 else stop :]
    walk = following.repeat(segments * batch)
    walks = walk.new_empty(len(steps), segments * batch, len(following))
    sums = after.new_empty(segments * batch, len(following), stop + 1)
    rows = sums.flatten(0, 1)
    for step, found, next_walk in reversed(list(zip(steps, walks, walks.flatten(1), strict=True))):
        torch.index_select(into, 0, walk, out=rows)
        torch.argmax(sums.add_(step), 2, out=found)
        walk = next_walk
    return _chosen(walks.unflatten(1, (segments, batch)))[: len(after)]


def _chosen(walks: Tensor) -> Tensor:
    """Join [steps, segments, batch, tag that follows] where each segment's walk begins at the first tag of the next."""
    chosen = [torch.full_like(walks[0, 0, :, :1], walks.size(3) - 1)]
    for first in reversed(walks[0, 1:].unbind(0)):
        chosen.append(first.gather(1, chosen[-1]))
    lanes = torch.stack(chosen[::-1]).expand(len(walks), -1, -1, -1)
    return walks.gather(3, lanes).squeeze(3).transpose(0, 1).flatten(0, 1)
