"""What the server may do with a repo by its name: who gets it, who is asked for it; nothing here asks or answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache, partial
from typing import Literal, get_args

from hubcache.core.artifact import KINDS, RepoId

Access = Literal["allow", "deny"]
Upstream = Literal["store", "pass", "never"]
ACCESS: tuple[Access, ...] = get_args(Access)
UPSTREAM: tuple[Upstream, ...] = get_args(Upstream)
FRESH = 60.0

REMEMBERED = 4096
"""Repos whose rule is not looked for again; a stranger who asks for more names than that only makes it slower."""

_SET = re.compile(r"\[!?[A-Za-z0-9_.-]+\]", re.ASCII)
_KINDS = tuple(f"{kind}s" for kind in KINDS)
_PART = re.compile(r"[A-Za-z0-9_.*?-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """How the repos of some names are served.

    Attributes:
        names: orgs, or org/name, as shell patterns, each perhaps with a kind before it (`datasets/org`).
        access: "deny" answers as for a repo that does not exist.
        upstream: "store" keeps what upstream sends, "pass" hands it on and keeps nothing, "never" asks nobody outside.
        fresh: seconds for which a branch is believed before upstream is asked again; 0 asks every time.
        grant: whether gated and private repos may go to whoever reaches the server.
    """

    names: tuple[str, ...]
    access: Access = "allow"
    upstream: Upstream = "store"
    fresh: float = FRESH
    grant: bool = False


DEFAULT = Rule(("*",))


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in their order: the first that names a repo decides all about it, and later ones add nothing to it."""

    rules: tuple[Rule, ...] = ()
    _found: Callable[[RepoId], Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = tuple((_pattern(rule.names), rule) for rule in self.rules)
        object.__setattr__(self, "_found", lru_cache(REMEMBERED)(partial(_first, compiled)))

    def of(self, repo: RepoId) -> Rule:
        """Return the first rule that names the repo, in upper or lower case; DEFAULT where none does."""
        return self._found(repo)


def can_name(pattern: str) -> bool:
    """Tell whether some repo or org could have a name of this pattern; a rule that names nothing protects nothing."""
    first, *rest = parts = _SET.sub("?", pattern).split("/")
    if not all(map(_PART.fullmatch, parts)) or len(parts) > 3:
        return False
    if not rest:
        # All datasets are `datasets/*`; an org of that name there is not.
        return first.lower() not in _KINDS
    return len(rest) == 1 or any(map(re.compile(translate(first.lower())).fullmatch, _KINDS))


def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(name.casefold()) for name in names) or r"(?!)")


def _first(rules: tuple[tuple[re.Pattern[str], Rule], ...], repo: RepoId) -> Rule:
    # A hub takes Secret-Org for secret-org, so a rule that minded the case would be walked around.
    name = repo.name.casefold()
    org, slash, _ = name.partition("/")
    texts = [name, f"{repo.kind}s/{name}", *([org, f"{repo.kind}s/{org}"] if slash else [])]
    return next((rule for pattern, rule in rules if any(map(pattern.fullmatch, texts))), DEFAULT)
