"""Which of a hub's mirrors would be asked first, and why: pure, the order by health is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubcache.mirrors.config import Mirror
from hubcache.mirrors.health import Choice

Ranked = Sequence[tuple[Mirror, Choice]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The mirror that would be asked, and why."""

    mirror: Mirror
    why: str


def decide(mirrors: Sequence[Mirror], choices: Sequence[Choice]) -> tuple[Chosen | None, Chosen | None]:
    """Tell who would be asked for metadata and who for bytes, with nothing else going on; None for nobody.

    `mirrors` stand in the user's order, `choices` (by URL) in that of their health.
    """
    by_url = {mirror.url: mirror for mirror in mirrors}
    ranked = [(by_url[choice.name], choice) for choice in choices]
    trusted = [pair for pair in ranked if "metadata" in pair[0].trust]
    awake = [pair for pair in ranked if not pair[1].is_resting]
    content = [pair for pair in awake if not pair[0].is_fallback] or awake or ranked
    return (
        _first(mirrors, ranked, trusted, "is trusted for bytes alone"),
        _first(mirrors, ranked, content, "only stands in"),
    )


def _first(mirrors: Sequence[Mirror], ranked: Ranked, fit: Ranked, unfit: str) -> Chosen | None:
    """Choose the first that is fit, with what is against those that the user has before it."""
    if not fit:
        return None
    mirror, choice = fit[0]
    resting = {other.name for other, its in ranked if its.is_resting}
    usable = {other.name for other, _ in fit}
    against = []
    for other in mirrors[: mirrors.index(mirror)]:
        if other.name not in usable - resting:
            against.append(f"{other.name} {'rests' if other.name in resting else unfit}")
        else:
            against.append(f"more than twice as fast as {other.name}")
    return Chosen(mirror, "; ".join([choice.why, *(against or ["the first in your order"])]))
