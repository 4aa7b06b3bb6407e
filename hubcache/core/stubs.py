"""SparseZoo stubs as parsed values; what the zoo answers about one is not known here."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass
from typing import NoReturn

from hubcache.core.urls import Url, decode, repo_part
from hubcache.errors import BadReference

Pairs = tuple[tuple[str, str], ...]

ZOO_HOST = "sparsezoo.neuralmagic.com"
# None: any value.
PARAMETERS: dict[str, tuple[str, ...] | None] = {
    "recipe": None,
    "recipe_type": None,
    "checkpoint": ("prepruning", "postpruning", "preqat", "postqat"),
    "deployment": ("default",),
}

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.]*"
_V1 = re.compile(
    rf"(?P<domain>{_WORD})/(?P<sub_domain>{_WORD})"
    rf"/(?P<architecture>{_WORD})(?:-(?P<sub_architecture>{_WORD}))?"
    rf"/(?P<framework>{_WORD})/(?P<repo>{_WORD})"
    rf"/(?P<dataset>{_WORD})(?:-(?P<training_scheme>{_WORD}))?"
    r"/(?P<sparse_tag>[A-Za-z0-9_][A-Za-z0-9_.-]*)"
)
_V2 = re.compile(rf"{_WORD}(?:-{_WORD}){{2,4}}")
_VALUE = re.compile(r"[^\s&=?\x00-\x1f\x7f-\x9f]+")
_V1_EXAMPLE = ("nlp", "sentiment_analysis", "obert-base", "pytorch", "huggingface", "sst2", "base-none")
_V2_EXAMPLE = ("bert", "base", "wikipedia_bookcorpus", "pruned90")


@dataclass(frozen=True, slots=True)
class Stub:
    """One model of the zoo; a V2 stub is its `base` alone, the named parts are V1's.

    Attributes:
        base: the stub without `zoo:` and without arguments.
        arguments: the `?recipe=…` pairs, in the order given.
    """

    base: str
    arguments: Pairs = ()
    domain: str | None = None
    sub_domain: str | None = None
    architecture: str | None = None
    sub_architecture: str | None = None
    framework: str | None = None
    repo: str | None = None
    dataset: str | None = None
    training_scheme: str | None = None
    sparse_tag: str | None = None

    def graphql_arguments(self) -> Pairs:
        """Name the model to the zoo's API: its argument names and order; `training_scheme` is not among them."""
        if self.domain is None:
            return (("repoName", self.base),)
        pairs = (
            ("domain", self.domain),
            ("task", self.sub_domain),
            ("architecture", self.architecture),
            ("subArchitecture", self.sub_architecture),
            ("framework", self.framework),
            ("repo", self.repo),
            ("sourceDataset", self.dataset),
            ("sparseTag", self.sparse_tag),
        )
        return tuple((name, value) for name, value in pairs if value is not None)

    def repo_name(self) -> str:
        """Return the name of the repo it becomes: `sparsezoo/` and the stub in one readable part."""
        parts = self.base.split("/")
        if (self.domain, self.framework, self.repo) == ("nlp", "pytorch", "huggingface"):
            parts = [parts[1], parts[2], parts[5], parts[6]]
        readable = ".".join(parts)
        if repo_part(readable, "") == readable:
            return f"sparsezoo/{readable}"
        digest = hashlib.sha256(self.base.encode()).hexdigest()[:8]
        return f"sparsezoo/{repo_part(readable, 'stub', limit=87)}-{digest}"


def parse_stub(text: str) -> Stub:
    """Parse a V1 or V2 stub, with or without `zoo:`, with or without arguments.

    Without the prefix a V2 stub looks like a hub name: ids.parse reads it as one.

    Raises:
        BadReference: neither form, or an argument the zoo does not have; the hint is the nearest stub.
    """
    base, question, query = text.removeprefix("zoo:").partition("?")
    v1 = _V1.fullmatch(base)
    if v1 is None and not _V2.fullmatch(base):
        _refuse(base)
    arguments = _parse_arguments(base, query) if question else ()
    return Stub(base, arguments, **v1.groupdict()) if v1 else Stub(base, arguments)


def stub_in_url(url: Url) -> str | None:
    """Return the stub in a model page's URL of the zoo's site; None for any other URL."""
    if url.authority != ZOO_HOST or not url.path.startswith("/models/"):
        return None
    return decode(url.path.removeprefix("/models/").rstrip("/"))


def _parse_arguments(base: str, query: str) -> Pairs:
    pairs: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if not _VALUE.fullmatch(key) or not _VALUE.fullmatch(value):
            raise BadReference(f"a stub's arguments are key=value, joined by '&': {query[:200]!r}", hint=f"zoo:{base}")
        if key in pairs:
            raise BadReference(f"{key!r} is given twice", hint=f"zoo:{base}?{key}={pairs[key]}")
        _check_argument(base, key, value)
        pairs[key] = value
    return tuple(pairs.items())


def _check_argument(base: str, key: str, value: str) -> None:
    if key not in PARAMETERS:
        near = _nearest(key, tuple(PARAMETERS))
        allowed = PARAMETERS[near]
        value = value if allowed is None else _nearest(value, allowed)
        raise BadReference(
            f"a stub has no argument {key[:80]!r} (there are {', '.join(PARAMETERS)})",
            hint=f"zoo:{base}?{near}={value}",
        )
    allowed = PARAMETERS[key]
    if allowed is not None and value not in allowed:
        raise BadReference(
            f"{key} is not {value[:80]!r} (there are {', '.join(allowed)})",
            hint=f"zoo:{base}?{key}={_nearest(value, allowed)}",
        )


def _nearest(text: str, allowed: tuple[str, ...]) -> str:
    return (difflib.get_close_matches(text[:80], allowed, 1) or allowed)[0]


def _refuse(base: str) -> NoReturn:
    parts = base.split("/")
    extra = parts[7] if len(parts) > 7 and _V1.fullmatch("/".join(parts[:7])) else ""
    if extra:
        reason = f"a V1 stub ends with its 7th part, what follows is an argument: {base[:200]!r}"
    elif len(parts) == 7:
        reason = f"not the parts of a V1 stub (letters, digits, '_', '.', and '-' where it has one): {base[:200]!r}"
    elif len(parts) > 1:
        reason = f"a V1 stub has 7 parts between slashes, not {len(parts)}: {base[:200]!r}"
    elif 2 <= base.count("-") <= 4:
        reason = f"not the parts of a V2 stub (letters, digits, '_' and '.'): {base[:200]!r}"
    else:
        count = len(base.split("-")) if base else 0
        reason = f"a V2 stub has 3 to 5 parts between hyphens, not {count}: {base[:200]!r}"
    argument = f"?recipe_type={extra}" if _VALUE.fullmatch(extra) else ""
    raise BadReference(reason, hint=f"zoo:{_fit(parts)}{argument}")


def _fit(parts: list[str]) -> str:
    """Return the nearest base: odd characters replaced, hyphens beyond the allowed replaced, missing parts filled."""
    if len(parts) == 1:
        pieces = _pieces(parts[0])
        pieces += _V2_EXAMPLE[len(pieces) :] if len(pieces) < 3 else ()
        return _join(pieces, 5)
    fitted = [pieces for pieces in map(_pieces, parts) if pieces][:7]
    fitted += [[example] for example in _V1_EXAMPLE[len(fitted) :]]
    hyphened = (1, 1, 2, 1, 1, 2, len(fitted[6]))
    return "/".join(_join(pieces, most) for pieces, most in zip(fitted, hyphened, strict=True))


def _pieces(part: str) -> list[str]:
    words = (word.lstrip(".") for word in re.sub(r"[^A-Za-z0-9_.-]+", "_", part).split("-"))
    return [word for word in words if word]


def _join(pieces: list[str], most: int) -> str:
    if len(pieces) <= most:
        return "-".join(pieces)
    return "-".join([*pieces[: most - 1], "_".join(pieces[most - 1 :])])
