"""How well each mirror has served, as facts, and the order that follows from them: pure, clock and facts are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

FIRST_REST = 5.0
LONGEST_REST = 600.0
LONGEST_ASKED_REST = 3600.0
"""A mirror may ask to be left in peace for this long; a rest beyond it comes of a clock that was set back."""
WEIGHT = 0.3
"""How much the newest measurement counts against the mean so far."""
SMALLEST_SAMPLE = 256 * 1024
"""Bytes below which a transfer measures the round trip and not the line."""
MUCH_FASTER = 2.0
"""A mirror goes before one that the user put first only if it is this many times faster."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one mirror: seconds to an answer, bytes per second and connection, failures in a row,
    and until when (unix seconds) it is left in peace."""

    latency: float | None = None
    throughput: float | None = None
    failures: int = 0
    rests_until: float = 0.0
    reason: str = ""


UNKNOWN = Health()


@dataclass(frozen=True, slots=True)
class Choice:
    """A mirror's place in the order, and why it has it."""

    name: str
    is_resting: bool
    why: str


def answered(health: Health, latency: float) -> Health:
    """Record an answer that took `latency` seconds; it ends a row of failures."""
    return replace(health, latency=_mean(health.latency, latency), failures=0, rests_until=0.0, reason="")


def served(health: Health, size: int, seconds: float) -> Health:
    """Record `size` bytes that one connection brought in `seconds`."""
    if size <= 0:
        return health
    is_sample = size >= SMALLEST_SAMPLE and seconds > 0
    throughput = _mean(health.throughput, size / seconds) if is_sample else health.throughput
    return replace(health, throughput=throughput, failures=0, rests_until=0.0, reason="")


def failed(health: Health, reason: str, *, now: float, retry_after: float | None = None) -> Health:
    """Record a failure: the mirror rests as long as it asks, else 5, 10, 20… seconds, at most ten minutes."""
    rest = min(retry_after, LONGEST_ASKED_REST) if retry_after is not None else _rest(health.failures)
    return replace(health, failures=health.failures + 1, rests_until=now + rest, reason=reason)


def rank(names: Sequence[str], facts: Mapping[str, Health], *, now: float) -> list[Choice]:
    """Order the mirrors: those at rest last; else as the user has them, unless a later one is much faster."""
    order: list[str] = []
    for name in names:
        at = len(order)
        while at and _goes_before(facts.get(name, UNKNOWN), facts.get(order[at - 1], UNKNOWN), now):
            at -= 1
        order.insert(at, name)
    return [_choice(name, facts.get(name, UNKNOWN), now) for name in order]


def _goes_before(later: Health, earlier: Health, now: float) -> bool:
    later_rests, earlier_rests = _is_resting(later, now), _is_resting(earlier, now)
    if later_rests or earlier_rests:
        return earlier_rests and (not later_rests or later.rests_until < earlier.rests_until)
    if later.throughput is None or earlier.throughput is None:
        return False
    return later.throughput > MUCH_FASTER * earlier.throughput


def _choice(name: str, health: Health, now: float) -> Choice:
    if _is_resting(health, now):
        return Choice(name, True, f"rests for {health.rests_until - now:.0f} s: {health.reason}")
    known = []
    if health.latency is not None:
        known.append(f"answers in {health.latency * 1000:.0f} ms")
    if health.throughput is not None:
        known.append(f"{health.throughput / 1e6:.1f} MB/s a connection")
    return Choice(name, False, ", ".join(known) or "not measured yet")


def _is_resting(health: Health, now: float) -> bool:
    return now < health.rests_until <= now + LONGEST_ASKED_REST


def _rest(failures: int) -> float:
    # Bounded before the power is taken: a mirror may have failed thousands of times in a row.
    return min(FIRST_REST * 2.0 ** min(failures, 10), LONGEST_REST)


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else (1 - WEIGHT) * before + WEIGHT * newest
