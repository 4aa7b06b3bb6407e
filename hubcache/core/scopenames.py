"""How ModelScope's repos, revisions and files are written: names, ms:// paths, pages; what is there is its source's."""

from __future__ import annotations

import re
from dataclasses import replace

from hubcache.core.artifact import Kind, RepoId
from hubcache.core.hubnames import hub_text, read_file, read_name, read_page
from hubcache.core.reference import Reference
from hubcache.core.urls import path_on_hub
from hubcache.errors import BadReference

DEFAULT_BRANCH = "master"

_SITES = ("https://modelscope.cn", "https://www.modelscope.cn", "https://modelscope.ai", "https://www.modelscope.ai")
_KINDS = ("models", "datasets")
# Tabs of a repo's page that show all of it.
_TABS = ("summary", "files", "quickstart")
_COMMIT = re.compile(r"[0-9a-f]{7,40}", re.ASCII)


def read_scope(text: str, kind: Kind | None) -> Reference:
    """Read what follows `ms:`, `[datasets/]org/name[@revision]` or `//[datasets/]org/name[@revision]/path`."""
    try:
        return _scoped(read_file(text[2:], kind) if text.startswith("//") else read_name(text, kind, typed_from=2))
    except BadReference as error:
        raise _renamed(error) from error


def read_scope_page(text: str, kind: Kind | None) -> Reference | None:
    """Read a URL of ModelScope, of a repo, a revision of it, a folder or a file; None for any other text."""
    page = path_on_hub(text, _SITES)
    if page is None or page.partition("/")[0] not in _KINDS:
        return None
    repo, rest = page.split("/")[:3], page.split("/")[3:]
    if rest[:2] == ["file", "view"]:
        rest = ["blob", *rest[2:]]
    if len(rest) == 1 and rest[0] in _TABS:
        rest = []
    try:
        return _scoped(read_page("/".join([*repo, *rest]), kind))
    except BadReference as error:
        raise _renamed(error) from error


def scope_text(reference: Reference) -> str:
    """Write a reference of scheme ms so that it reads back."""
    return "ms:" + hub_text(reference).removeprefix("hf:")


def branch_of(revision: str) -> str:
    """Return what ModelScope calls a revision: the branch that people call main is its master."""
    return DEFAULT_BRANCH if revision == "main" else revision


def branch_ref(revision: str) -> str:
    """Return the ref that always holds what a revision was there, whatever else of that name the cache keeps."""
    return f"modelscope/{branch_of(revision)}"


def cached_revision(reference: Reference) -> str:
    """Return the name under which the cache has what a reference asks for: a branch of ModelScope's is its own ref.

    Its plain name may be another hub's: `main` is the Hub's where that is cached, too.
    """
    is_branch = reference.scheme == "ms" and not _COMMIT.fullmatch(reference.revision)
    return branch_ref(reference.revision) if is_branch else reference.revision


def _scoped(reference: Reference) -> Reference:
    name, kind = reference.address, reference.repo.kind
    if "/" not in name:
        raise BadReference(f"a ModelScope repo has an org: {name!r}", hint=f"ms:org/{name}")
    if kind == "space":
        raise BadReference("a studio of ModelScope is no model and no dataset", hint=f"ms:{name}")
    revision = "main" if reference.revision == DEFAULT_BRANCH else reference.revision
    return replace(reference, scheme="ms", repo=RepoId.parse(name, hub="ms", kind=kind), revision=revision)


def _renamed(error: BadReference) -> BadReference:
    """Turn the Hub's form in an error's hint into ModelScope's."""
    hint = f"ms:{error.hint[3:]}" if error.hint.startswith("hf:") else error.hint
    return BadReference(error.message, hint=hint)
