"""How a hub's repos, revisions and files are written: names, hf:// paths, pages; the other forms are ids.py's."""

from __future__ import annotations

import re
from urllib.parse import quote

from hubcache.core.artifact import KINDS, Kind, RepoId, parse_path, parse_revision
from hubcache.core.reference import Reference
from hubcache.core.urls import UNFIT, decode, escape
from hubcache.errors import BadReference

TYPES: dict[str, Kind] = {f"{kind}s": kind for kind in KINDS}

_FILE_VERBS = ("resolve", "blob", "raw")
_VERBS = ("tree", *_FILE_VERBS)
_NO_REPO = re.compile(
    "api|blog|chat|collections|docs|enterprise|join|learn|login|logout|new|notifications|organizations|papers"
    "|posts|pricing|search|settings|tasks"
)
_API = re.compile(r"api/((?:model|dataset|space)s(?:/[^/]+){1,2})")
_PULL_OR_CONVERT = re.compile(r"(refs/(?:pr/[0-9]+|convert/[^/]+))(?:/|\Z)", re.ASCII)


def read_name(text: str, kind: Kind | None, *, typed_from: int) -> Reference:
    """Read `[datasets/]org/name[@revision]`; of `typed_from` parts on, the first may be a type."""
    name, at, revision = text.partition("@")
    if at and not revision:
        raise BadReference("no revision follows the '@'")
    stated = None
    if name.count("/") >= typed_from - 1:
        stated, name = _split_type(name)
    return _hub(name, _settle(kind, stated, name), revision or "main", "")


def read_file(text: str, kind: Kind | None) -> Reference:
    """Read what follows `hf://` as huggingface_hub's file system does; the path may be percent-encoded, too."""
    stated, text = _split_type(text)
    if not text or text in TYPES:
        raise BadReference("no repo is named", hint="hf:org/name")
    name = "/".join(text.split("/", 2)[:2])
    if "@" in name:
        name, _, tail = text.partition("@")
        revision, path = _split_revision(tail)
    else:
        revision, path = "main", decode(text[len(name) + 1 :])
    if not path:
        name = name.removesuffix("/")
    return _hub(name, _settle(kind, stated or "model", name), revision, path)


def read_page(page: str, kind: Kind | None) -> Reference:
    """Read the path of a hub's page: a repo, a revision of it, a folder or a file."""
    stated, name, rest = _split_page(page)
    settled = _settle(kind, stated, name)
    if not rest:
        return _hub(name, settled, "main", "")
    near = f"hf:{_typed(settled, name)}"
    verb, *tail = rest
    if verb not in _VERBS:
        raise BadReference(f"/{verb} is no revision, folder or file (these are /{', /'.join(_VERBS)})", hint=near)
    if not tail:
        raise BadReference(f"no revision follows /{verb}", hint=near)
    revision, path = _split_revision("/".join(tail))
    if verb in _FILE_VERBS and not path:
        raise BadReference(f"no file follows /{verb}/{revision}", hint=f"{near}@{revision}")
    return _hub(name, settled, revision, f"{path}/" if verb == "tree" and path else path)


def _split_page(page: str) -> tuple[Kind, str, list[str]]:
    """Split a page's path into the repo's type, its name, and what follows."""
    stated, rest = _split_type(page)
    segments = rest.split("/")
    if not rest or rest in TYPES or (stated is None and _NO_REPO.fullmatch(segments[0])):
        near = _API.match(page)
        name = near[1].removeprefix("models/") if near else "org/name"
        raise BadReference("no repo is named", hint=f"hf:{name}")
    # A repo of the oldest kind has a name of one segment: /gpt2/tree/main.
    short = len(segments) > 2 and segments[1] in _VERBS and segments[2] not in _VERBS
    length = 1 if short else 2
    return stated or "model", decode("/".join(segments[:length])), segments[length:]


def hub_text(reference: Reference) -> str:
    """Write a reference of scheme hf so that it reads back."""
    name, revision, path = _typed(reference.repo.kind, reference.address), reference.revision, reference.path
    if path is not None:
        return f"hf://{name}@{quote(revision, safe='')}/{escape(path)}"
    return f"hf:{name}" if revision == "main" else f"hf:{name}@{revision}"


def _typed(kind: Kind, name: str) -> str:
    # A model whose org is named like a type needs its own: hf:models/datasets/x.
    return f"{kind}s/{name}" if kind != "model" or name.partition("/")[0] in TYPES else name


def _hub(name: str, kind: Kind, revision: str, path: str) -> Reference:
    repo = RepoId.parse(name, kind=kind)
    try:
        if UNFIT.search(revision):
            raise BadReference(f"not a revision: {revision[:80]!r}")
        parse_revision(revision)
        if path:
            parse_path(path.removesuffix("/"))
    except BadReference as error:
        raise BadReference(error.message, hint=f"hf:{_typed(kind, name)}") from error
    return Reference("hf", name, repo, revision, path or None)


def _split_type(name: str) -> tuple[Kind | None, str]:
    first, slash, rest = name.partition("/")
    return (TYPES[first], rest) if slash and first in TYPES else (None, name)


def _split_revision(text: str) -> tuple[str, str]:
    match = _PULL_OR_CONVERT.match(text)
    if match:
        return decode(match[1]), decode(text[match.end() :])
    revision, _, path = text.partition("/")
    return decode(revision), decode(path)


def _settle(asked: Kind | None, stated: Kind | None, name: str) -> Kind:
    """Return the type asked for or stated, "model" where neither is.

    Raises:
        BadReference: they differ.
    """
    if asked and stated and asked != stated:
        raise BadReference(f"it names a {stated}, the type asked for is {asked}", hint=f"hf:{_typed(asked, name)}")
    return stated or asked or "model"
