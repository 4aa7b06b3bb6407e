"""The CRF: its goldens, all paths counted one by one, pytorch-crf itself, and every number of segments; no encoder."""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from hubcache.models import crf as module
from hubcache.models.crf import LinearChainCRF
from tests.support.goldens import golden

torchcrf = pytest.importorskip("torchcrf")

pytestmark = pytest.mark.train

NAMES = ("start_transitions", "end_transitions", "transitions")
SEGMENTS = (None, 2, 3, 5)
SIZES = [(3, 5, 3), (4, 6, 2), (2, 4, 4), (1, 3, 5), (3, 1, 4), (2, 6, 1), (1, 1, 1)]


class Problem(NamedTuple):
    """Emissions [batch, seq, tags], and what else a call takes."""

    crf: LinearChainCRF
    emissions: Tensor
    tags: Tensor
    mask: Tensor


def problem(
    batch: int, seq: int, tags: int, *, seed: int = 0, kind: torch.dtype = torch.float64, scale: float = 1.0
) -> Problem:
    """Draw a ragged batch, of which the first sequence is full, and a CRF whose scores are N(0, scale)."""
    draw = torch.Generator().manual_seed(seed)
    crf = LinearChainCRF(tags, batch_first=True).to(kind)
    for parameter in crf.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64).mul(scale).to(kind)
    lengths = torch.randint(1, seq + 1, (batch, 1), generator=draw)
    lengths[0] = seq
    emissions = torch.randn(batch, seq, tags, generator=draw, dtype=torch.float64).mul(scale).to(kind)
    chosen = torch.randint(0, tags, (batch, seq), generator=draw)
    return Problem(crf, emissions.requires_grad_(), chosen, torch.arange(seq) < lengths)


def from_golden(name: str) -> tuple[Problem, dict[str, Tensor]]:
    file = golden(f"ket5/crf/{name}.npz")
    arrays = {key: torch.from_numpy(array) for key, array in np.load(file).items()}
    crf = LinearChainCRF(arrays["emissions"].shape[2], batch_first=True)
    crf.load_state_dict({key: arrays[key] for key in NAMES})
    return Problem(crf, arrays["emissions"].requires_grad_(), arrays["tags"], arrays["mask"]), arrays


def meta() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(golden("ket5/crf/meta.json").read_text())
    return found


def gradients(crf: torch.nn.Module, drawn: Problem, reduction: str = "sum") -> list[Tensor]:
    """Return the gradient for the emissions and for the three parameters."""
    loss = crf(drawn.emissions, drawn.tags, drawn.mask, reduction=reduction)
    return list(torch.autograd.grad(loss, [drawn.emissions, *crf.parameters()], materialize_grads=True))


def scores_of_all_paths(drawn: Problem, row: int) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Enumerate the paths of one sequence; the scores have a graph."""
    crf, emissions = drawn.crf, drawn.emissions[row]
    length = int(drawn.mask[row].sum())
    paths = list(itertools.product(range(crf.num_tags), repeat=length))
    found = []
    for path in paths:
        score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
        score = score + sum(emissions[step, tag] for step, tag in enumerate(path))
        found.append(score + sum(crf.transitions[pair] for pair in itertools.pairwise(path)))
    return torch.stack(found), paths


def log_likelihood_of_all_paths(drawn: Problem) -> Tensor:
    rows = []
    for row, tags in enumerate(drawn.tags):
        scores, paths = scores_of_all_paths(drawn, row)
        rows.append(scores[paths.index(tuple(tags[drawn.mask[row]].tolist()))] - scores.logsumexp(0))
    return torch.stack(rows)


def close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


# float32 has steps of 6e-5 at large_scores' log-likelihoods of some -500.
@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize(("name", "atol"), [("small", 2e-6), ("nomask", 2e-6), ("large_scores", 1e-4)])
class TestGoldens:
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean", "token_mean"])
    def test_log_likelihood(self, name: str, atol: float, segments: int | None, reduction: str) -> None:
        drawn, arrays = from_golden(name)
        drawn.crf.segments = segments
        mask = None if name == "nomask" else drawn.mask
        llh = drawn.crf(drawn.emissions, drawn.tags, mask, reduction=reduction)
        close(llh.detach(), arrays[f"llh_{reduction}"], atol)

    def test_gradients(self, name: str, atol: float, segments: int | None) -> None:
        drawn, arrays = from_golden(name)
        drawn.crf.segments = segments
        for key, gradient in zip(("emissions", *NAMES), gradients(drawn.crf, drawn), strict=True):
            close(-gradient, arrays[f"grad_{key}_of_neg_sum"], atol / 10 if atol > 1e-5 else atol)

    def test_decode(self, name: str, atol: float, segments: int | None) -> None:
        drawn, arrays = from_golden(name)
        drawn.crf.segments = segments
        assert drawn.crf.decode(drawn.emissions, drawn.mask) == meta()[name]["decode"]
        assert drawn.crf.decode_padded(drawn.emissions, drawn.mask).equal(arrays["decode_padded_minus1"])


def test_the_golden_of_all_paths() -> None:
    drawn, _ = from_golden("small")
    llh = drawn.crf(drawn.emissions, drawn.tags, drawn.mask, reduction="none")
    close(llh.detach(), torch.tensor(meta()["small"]["brute_force_llh"]), 2e-6)
    assert drawn.crf.decode(drawn.emissions, drawn.mask) == meta()["small"]["brute_force_best"]


@pytest.mark.parametrize("segments", SEGMENTS)
def test_of_equal_paths_the_lowest_tags_are_taken(segments: int | None) -> None:
    crf = LinearChainCRF(3, batch_first=True)
    crf.segments = segments
    for parameter in crf.parameters():
        torch.nn.init.zeros_(parameter)
    tie = meta()["tie_all_zero"]
    assert crf.decode(torch.zeros(1, 4, 3)) == tie["decode"]
    assert crf(torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.long)).item() == pytest.approx(tie["llh_sum"])


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("seed", range(20))
def test_equal_paths_are_resolved_as_by_pytorch_crf(seed: int, segments: int | None) -> None:
    drawn = problem(8, 9, 3, seed=seed, kind=torch.float32)
    with torch.no_grad():
        for scores in (drawn.emissions, *drawn.crf.parameters()):
            scores.copy_(scores.sign())
    drawn.crf.segments = segments
    assert drawn.crf.decode(drawn.emissions, drawn.mask) == peer(drawn.crf).decode(drawn.emissions, drawn.mask)


ONES = torch.ones(1, 2, dtype=torch.long)
WRONG = {
    "emissions_2d": lambda crf: crf.decode(torch.zeros(1, 2)),
    "wrong_num_tags": lambda crf: crf.decode(torch.zeros(1, 2, 4)),
    "tags_shape": lambda crf: crf(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long)),
    "mask_shape": lambda crf: crf(torch.zeros(1, 2, 3), ONES, torch.ones(1, 3, dtype=torch.bool)),
    "mask_first_off": lambda crf: crf(torch.zeros(1, 2, 3), ONES, torch.tensor([[False, True]])),
    "bad_reduction": lambda crf: crf(torch.zeros(1, 2, 3), ONES, reduction="x"),
    "num_tags_0": lambda crf: LinearChainCRF(0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_read_as_pytorch_crfs(wrong: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        WRONG[wrong](LinearChainCRF(3, batch_first=True))
    assert f"ValueError: {caught.value}" == meta()["errors"][wrong]


def test_a_mask_with_holes_is_refused() -> None:
    crf = LinearChainCRF(3, batch_first=True)
    with pytest.raises(ValueError, match="no holes"):
        crf.decode(torch.zeros(1, 4, 3), torch.tensor([[True, False, True, False]]))


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(2))
class TestAllPaths:
    def test_log_likelihood_and_gradients(self, size: tuple[int, int, int], seed: int, segments: int | None) -> None:
        drawn = problem(*size, seed=seed)
        drawn.crf.segments = segments
        llh = drawn.crf(drawn.emissions, drawn.tags, drawn.mask, reduction="none")
        counted = log_likelihood_of_all_paths(drawn)
        close(llh, counted, 1e-12)
        inputs = [drawn.emissions, *drawn.crf.parameters()]
        weights = torch.arange(1.0, len(llh) + 1, dtype=llh.dtype)
        theirs = torch.autograd.grad(counted @ weights, inputs, materialize_grads=True)
        for ours, other in zip(torch.autograd.grad(llh @ weights, inputs), theirs, strict=True):
            close(ours, other, 1e-12)

    def test_best_path(self, size: tuple[int, int, int], seed: int, segments: int | None) -> None:
        drawn = problem(*size, seed=seed)
        drawn.crf.segments = segments
        best = []
        for row in range(len(drawn.tags)):
            scores, paths = scores_of_all_paths(drawn, row)
            best.append(list(paths[int(scores.argmax())]))
        assert drawn.crf.decode(drawn.emissions, drawn.mask) == best

    def test_max_marginals(self, size: tuple[int, int, int], seed: int, segments: int | None) -> None:
        drawn = problem(*size, seed=seed)
        drawn.crf.segments = segments
        found = drawn.crf.max_marginals(drawn.emissions, drawn.mask)
        for row, step in drawn.mask.nonzero().tolist():
            scores, paths = scores_of_all_paths(drawn, row)
            at = torch.tensor([path[step] for path in paths])
            through = torch.stack([scores[at == tag].max() for tag in range(drawn.crf.num_tags)])
            close(found[row, step], (through - scores.max()).detach(), 1e-12)
        assert not found[~drawn.mask].any()


def peer(crf: LinearChainCRF) -> torch.nn.Module:
    """Return pytorch-crf's with the same parameters."""
    other = torchcrf.CRF(crf.num_tags, batch_first=crf.batch_first).to(crf.transitions.dtype)
    other.load_state_dict(crf.state_dict())
    return other


# pytorch-crf adds up in the emissions' own kind: in float32 that is where the difference comes from.
@pytest.mark.parametrize(("kind", "atol"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("reduction", ["sum", "mean", "token_mean"])
@pytest.mark.parametrize("size", [(5, 23, 7), (8, 64, 31), (1, 17, 2), (4, 1, 5), (3, 9, 1)])
def test_it_equals_pytorch_crf_gradients_included(
    size: tuple[int, int, int], reduction: str, kind: torch.dtype, atol: float
) -> None:
    drawn = problem(*size, kind=kind)
    theirs = peer(drawn.crf)
    llh = [crf(*drawn[1:], reduction=reduction) for crf in (drawn.crf, theirs)]
    torch.testing.assert_close(*llh, rtol=torch.finfo(kind).eps * 8, atol=atol)
    for ours, other in zip(gradients(drawn.crf, drawn, reduction), gradients(theirs, drawn, reduction), strict=True):
        close(ours, other, atol)
    assert drawn.crf.decode(drawn.emissions, drawn.mask) == theirs.decode(drawn.emissions, drawn.mask)


def test_seq_may_come_first_as_in_pytorch_crf() -> None:
    drawn = problem(4, 9, 5, kind=torch.float32)
    crf = LinearChainCRF(5)
    crf.load_state_dict(drawn.crf.state_dict())
    arguments = drawn.emissions.transpose(0, 1), drawn.tags.T, drawn.mask.T
    close(crf(*arguments, reduction="none"), peer(crf)(*arguments, reduction="none"), 1e-5)
    assert crf.decode(arguments[0], arguments[2]) == peer(crf).decode(arguments[0], arguments[2])
    assert crf.decode_padded(arguments[0], arguments[2]).equal(drawn.crf.decode_padded(drawn.emissions, drawn.mask))
    ours = crf.max_marginals(arguments[0], arguments[2])
    assert ours.equal(drawn.crf.max_marginals(drawn.emissions, drawn.mask))


def test_parameters_are_pytorch_crfs_and_drawn_alike() -> None:
    theirs = torchcrf.CRF(40)
    ours = LinearChainCRF(40)
    assert {name: p.shape for name, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    ours.load_state_dict(theirs.state_dict())
    ours.reset_parameters()
    assert all(0.05 < parameter.abs().max() <= 0.1 for parameter in ours.parameters())


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("size", [(2, 5, 3), (1, 1, 2), (2, 4, 1), (1, 7, 4)])
def test_gradients_are_those_of_small_differences(size: tuple[int, int, int], segments: int | None) -> None:
    drawn = problem(*size)
    drawn.crf.segments = segments

    def llh(emissions: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(NAMES, parameters, strict=True))
        return torch.func.functional_call(drawn.crf, named, (emissions, drawn.tags, drawn.mask, "none"))

    assert torch.autograd.gradcheck(llh, (drawn.emissions, *drawn.crf.parameters()))


@pytest.mark.parametrize("segments", [None, 7])
def test_a_small_difference_in_every_direction_at_once_is_the_gradients(segments: int | None) -> None:
    drawn = problem(4, 60, 9)
    drawn.crf.segments = segments
    inputs = [drawn.emissions, *drawn.crf.parameters()]
    found = gradients(drawn.crf, drawn)
    steps = [torch.randn_like(tensor) for tensor in inputs]
    llh = []
    with torch.no_grad():
        for sign in (1, -2):
            for tensor, step in zip(inputs, steps, strict=True):
                tensor += sign * 1e-5 * step
            llh.append(drawn.crf(drawn.emissions, drawn.tags, drawn.mask).item())
    expected = sum((gradient * step).sum().item() for gradient, step in zip(found, steps, strict=True))
    assert (llh[0] - llh[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)


def test_it_is_differentiable_only_once() -> None:
    drawn = problem(2, 4, 3)
    weight = torch.ones((), requires_grad=True)
    llh = drawn.crf(*drawn[1:]) * weight
    [first] = torch.autograd.grad(llh, drawn.emissions, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("segments", [2, 3, 4, 8, 16, 29, 30, 100])
@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_any_number_of_segments_gives_the_same(segments: int, scale: float) -> None:
    drawn = problem(5, 30, 6, scale=scale)
    ours = problem(5, 30, 6, scale=scale)
    ours.crf.segments = segments
    close(ours.crf(*ours[1:], reduction="none"), drawn.crf(*drawn[1:], reduction="none"), 1e-11)
    for one, other in zip(gradients(ours.crf, ours), gradients(drawn.crf, drawn), strict=True):
        close(one, other, 1e-12)
    assert ours.crf.decode(ours.emissions, ours.mask) == drawn.crf.decode(drawn.emissions, drawn.mask)
    rest = [each.crf.max_marginals(each.emissions, each.mask) for each in (ours, drawn)]
    close(*rest, 1e-11)


@pytest.mark.parametrize("wanted", ["emissions", *NAMES])
def test_a_gradient_may_be_wanted_of_one_input_alone(wanted: str) -> None:
    drawn = problem(3, 8, 4)
    whole = dict(zip(("emissions", *NAMES), gradients(drawn.crf, drawn), strict=True))
    emissions = drawn.emissions.detach().requires_grad_(wanted == "emissions")
    for name, parameter in drawn.crf.named_parameters():
        parameter.requires_grad_(name == wanted)
    drawn.crf(emissions, drawn.tags, drawn.mask).backward()
    found = {"emissions": emissions.grad, **{name: p.grad for name, p in drawn.crf.named_parameters()}}
    assert {name for name, gradient in found.items() if gradient is not None} == {wanted}
    close(found[wanted], whole[wanted], 0)


def test_without_gradients_the_log_likelihood_is_the_same() -> None:
    drawn = problem(3, 8, 4)
    with torch.no_grad():
        close(drawn.crf(*drawn[1:]), gradless := drawn.crf(drawn.emissions.detach(), *drawn[2:]), 0)
    assert not gradless.requires_grad
    close(gradless, drawn.crf(*drawn[1:]).detach(), 1e-12)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_more_and_its_gradients_come_back_in_half(kind: torch.dtype) -> None:
    drawn = problem(4, 50, 9, kind=kind)
    exact = Problem(LinearChainCRF(9, batch_first=True), drawn.emissions.detach().float().requires_grad_(), *drawn[2:])
    exact.crf.load_state_dict(drawn.crf.state_dict())
    llh = drawn.crf(*drawn[1:])
    assert llh.dtype == torch.float32
    close(llh, exact.crf(*exact[1:]), 0)
    for ours, theirs in zip(gradients(drawn.crf, drawn), gradients(exact.crf, exact), strict=True):
        assert ours.equal(theirs.to(kind))
    assert drawn.crf.decode(drawn.emissions) == exact.crf.decode(exact.emissions)
    assert drawn.crf.max_marginals(drawn.emissions).dtype == torch.float32


@pytest.mark.parametrize("segments", [None, 4])
def test_autocast_changes_nothing(segments: int | None) -> None:
    drawn = problem(4, 20, 9, kind=torch.float32)
    drawn.crf.segments = segments
    plain = gradients(drawn.crf, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = gradients(drawn.crf, drawn)
    for ours, theirs in zip(cast, plain, strict=True):
        close(ours, theirs, 0)


def test_a_mask_of_ones_is_as_no_mask_and_uint8_as_bool() -> None:
    drawn = problem(3, 7, 4)
    ones = torch.ones(3, 7, dtype=torch.uint8)
    close(drawn.crf(drawn.emissions, drawn.tags, ones), drawn.crf(drawn.emissions, drawn.tags), 0)
    assert drawn.crf.decode(drawn.emissions, drawn.mask.byte()) == drawn.crf.decode(drawn.emissions, drawn.mask)


@pytest.mark.parametrize("segments", [None, 3])
def test_what_stands_at_masked_steps_does_not_matter(segments: int | None) -> None:
    drawn = problem(4, 9, 5)
    drawn.crf.segments = segments
    plain = gradients(drawn.crf, drawn)
    emissions = torch.where(drawn.mask.unsqueeze(2), drawn.emissions.detach(), torch.nan).requires_grad_()
    other = drawn._replace(emissions=emissions, tags=drawn.tags.masked_fill(~drawn.mask, -100))
    for ours, theirs in zip(gradients(drawn.crf, other), plain, strict=True):
        close(ours, theirs, 0)
    assert drawn.crf.decode(emissions, drawn.mask) == drawn.crf.decode(drawn.emissions, drawn.mask)


@pytest.mark.parametrize("segments", [None, 3])
def test_a_sequence_scores_in_a_batch_as_alone(segments: int | None) -> None:
    drawn = problem(5, 12, 4)
    drawn.crf.segments = segments
    together = drawn.crf(*drawn[1:], reduction="none")
    for row, length in enumerate(drawn.mask.sum(1).tolist()):
        alone = drawn.crf(drawn.emissions[row : row + 1, :length], drawn.tags[row : row + 1, :length])
        close(alone, together[row], 1e-12)


def test_inputs_are_left_as_they_are() -> None:
    drawn = problem(3, 8, 4)
    before = [tensor.detach().clone() for tensor in (*drawn[1:], *drawn.crf.parameters())]
    gradients(drawn.crf, drawn)
    drawn.crf.decode(drawn.emissions, drawn.mask)
    drawn.crf.max_marginals(drawn.emissions, drawn.mask)
    after = (*drawn[1:], *drawn.crf.parameters())
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("segments", [None, 64])
def test_4096_steps_are_summed_without_drift(segments: int | None) -> None:
    crf = LinearChainCRF(31, batch_first=True)
    crf.segments = segments
    for parameter in crf.parameters():
        torch.nn.init.zeros_(parameter)
    emissions = torch.zeros(1, 4096, 31, dtype=torch.float64, requires_grad=True)
    llh = crf.double()(emissions, torch.zeros(1, 4096, dtype=torch.long))
    assert llh.item() == pytest.approx(-4096 * np.log(31), rel=1e-13)
    llh.backward()
    close(emissions.grad.sum(2), torch.zeros(1, 4096, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_emissions_10000_apart_are_summed_exactly(segments: int | None) -> None:
    drawn = problem(3, 6, 3)
    drawn.crf.segments = segments
    wide = drawn._replace(emissions=(drawn.emissions * 1e4).detach().requires_grad_())
    counted = log_likelihood_of_all_paths(wide)
    torch.testing.assert_close(drawn.crf(*wide[1:], reduction="none"), counted, rtol=1e-14, atol=1e-9)
    theirs = torch.autograd.grad(counted.sum(), [wide.emissions, *drawn.crf.parameters()])
    for ours, other in zip(gradients(drawn.crf, wide), theirs, strict=True):
        close(ours, other, 1e-11)


@pytest.mark.parametrize("segments", SEGMENTS)
@pytest.mark.parametrize("scale", [25.0, 1e4])
def test_all_scores_10000_apart_are_summed_exactly(segments: int | None, scale: float) -> None:
    drawn = problem(3, 6, 3, scale=scale)
    drawn.crf.segments = segments
    counted = log_likelihood_of_all_paths(drawn)
    torch.testing.assert_close(drawn.crf(*drawn[1:], reduction="none"), counted, rtol=1e-14, atol=1e-9)
    theirs = torch.autograd.grad(counted.sum(), [drawn.emissions, *drawn.crf.parameters()])
    for ours, other in zip(gradients(drawn.crf, drawn), theirs, strict=True):
        close(ours, other, 1e-11)


@pytest.mark.parametrize("segments", [None, 2, 9, 40])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_transitions_as_wide_as_exp_space_takes_are_summed_as_in_log_space(
    monkeypatch: pytest.MonkeyPatch, segments: int | None, scale: float
) -> None:
    drawn = problem(6, 120, 4)
    with torch.no_grad():
        drawn.emissions.mul_(scale)
        low, high = drawn.crf.transitions.aminmax()
        drawn.crf.transitions.sub_(low).mul_(module.WIDEST_SPREAD * 0.999 / (high - low))
    drawn.crf.segments = segments
    fast = drawn.crf(*drawn[1:], reduction="none"), gradients(drawn.crf, drawn)
    monkeypatch.setattr(module, "WIDEST_SPREAD", -1.0)
    slow = drawn.crf(*drawn[1:], reduction="none"), gradients(drawn.crf, drawn)
    torch.testing.assert_close(fast[0], slow[0], rtol=1e-13, atol=1e-9)
    for ours, theirs in zip(fast[1], slow[1], strict=True):
        close(ours, theirs, 1e-9)


@pytest.mark.parametrize("forbidden", [-1e4, -torch.inf])
@pytest.mark.parametrize("segments", [None, 3])
def test_a_forbidden_transition_is_never_decoded_nor_counted(forbidden: float, segments: int | None) -> None:
    drawn = problem(3, 6, 3)
    drawn.crf.segments = segments
    with torch.no_grad():
        drawn.crf.transitions[0, 1] = forbidden
        drawn.crf.start_transitions[1] = forbidden
        drawn.tags.fill_(2)
    paths = drawn.crf.decode(drawn.emissions, drawn.mask)
    assert not any((0, 1) in itertools.pairwise(path) or path[0] == 1 for path in paths)
    counted = log_likelihood_of_all_paths(drawn)
    close(drawn.crf(*drawn[1:], reduction="none"), counted, 1e-12)


def test_nan_emissions_show() -> None:
    drawn = problem(2, 5, 3)
    assert drawn.crf(drawn.emissions * torch.nan, *drawn[2:]).isnan()


def test_the_argmax_of_max_marginals_is_the_best_path_of_a_long_float32_batch() -> None:
    drawn = problem(16, 256, 13, kind=torch.float32)
    marginals = drawn.crf.max_marginals(drawn.emissions, drawn.mask)
    best = drawn.crf.decode_padded(drawn.emissions, drawn.mask)
    assert marginals.argmax(2)[drawn.mask].equal(best[drawn.mask])
    assert not marginals.gather(2, best.clamp(min=0).unsqueeze(2)).any()


@pytest.mark.parametrize(
    ("shape", "segments"), [((32, 128, 31), 16), ((64, 128, 31), 8), ((512, 128, 31), 1), ((32, 512, 301), 1)]
)
def test_segments_stay_within_a_budget_on_another_device(shape: tuple[int, int, int], segments: int) -> None:
    crf = LinearChainCRF(shape[2], batch_first=True).to("meta")
    assert crf._segments(crf._scores(torch.empty(shape, device="meta"), None)) == segments


def test_under_torch_compile_it_is_the_same() -> None:
    drawn = problem(3, 12, 4)

    def both(emissions: Tensor) -> tuple[Tensor, Tensor]:
        emissions = emissions * 2
        return drawn.crf(emissions, *drawn[2:]) + 1, drawn.crf.decode_padded(emissions, drawn.mask)

    compiled = torch.compile(both, backend="eager")
    for ours, theirs in zip(compiled(drawn.emissions), both(drawn.emissions), strict=True):
        close(ours, theirs, 0)
    [gradient] = torch.autograd.grad(compiled(drawn.emissions)[0], drawn.emissions)
    close(gradient, torch.autograd.grad(both(drawn.emissions)[0], drawn.emissions)[0], 0)
