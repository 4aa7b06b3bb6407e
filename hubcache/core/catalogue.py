"""Which repos a list or a search finds, in what order, and what of them is answered; nothing here knows a cache.

Source: the queries of huggingface_hub 2.4's list_models, list_datasets and list_spaces, and @huggingface/hub 2.17's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hubcache.core.about import About
from hubcache.core.answers import author_of, card_list, record
from hubcache.core.artifact import Artifact, Kind
from hubcache.core.paging import Row, page, parse_limit
from hubcache.errors import BadReference

Query = Mapping[str, Sequence[str]]

_BRIEF: Mapping[Kind, tuple[str, ...]] = {
    "model": (
        *("modelId", "author", "createdAt", "lastModified", "private", "gated", "downloads", "likes", "tags"),
        *("pipeline_tag", "library_name", "trendingScore"),
    ),
    "dataset": (
        *("author", "createdAt", "lastModified", "private", "gated", "disabled", "downloads", "likes", "tags", "sha"),
        "trendingScore",
    ),
    "space": ("author", "createdAt", "lastModified", "private", "likes", "tags", "sdk", "trendingScore"),
}
_FULL: Mapping[Kind, tuple[str, ...]] = {
    "model": ("sha", "disabled", "siblings"),
    "dataset": ("cardData", "siblings"),
    "space": ("sha", "gated", "disabled", "cardData", "siblings", "models", "datasets"),
}

# Other names that a filter goes by, and what its tag begins with.
_FILTERS = {"filter": "", "tags": "", "library": "", "language": "language:", "license": "license:"}
# A tag's beginning that may be left out.
_OPTIONAL = ("language:", "library:", "task_categories:", "task_ids:")
# What is asked of providers, apps and parameters is known of no repo here.
_UNKNOWABLE = ("apps", "inference", "inference_provider", "num_parameters")


@dataclass(frozen=True, slots=True)
class Listed:
    """A repo that may be found: its main revision and what is known of it."""

    artifact: Artifact
    about: About


@dataclass(frozen=True, slots=True)
class Search:
    """What a list asks for; every condition must hold.

    Attributes:
        filters: tags, tasks, libraries.
        words: parts of the name, in any case.
        linked: of a Space, the models and datasets that its card names, as (field, name).
        is_hopeless: it asks for what is known of no repo here.
        fields: what to answer of each repo.
    """

    kind: Kind
    fields: tuple[str, ...]
    filters: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    author: str | None = None
    task: str | None = None
    gated: bool | None = None
    linked: tuple[tuple[str, str], ...] = ()
    is_hopeless: bool = False
    sort: str = "trendingScore"
    is_ascending: bool = False
    limit: int | None = None
    cursor: str | None = None


def parse_search(kind: Kind, query: Query) -> Search:
    """Read a list's query; names that are none are ignored.

    Raises:
        BadReference: a limit that is no count, or an order that is none.
    """
    sort = _SORTS.get(asked := _last(query, "sort") or "trendingScore")
    if sort is None:
        raise BadReference(f"no such order: {asked[:80]!r}", hint=f"one of: {', '.join(_KEYS)}")
    direction = _last(query, "direction")
    gated = _last(query, "gated")
    return Search(
        kind,
        _fields(kind, query),
        filters=tuple(
            start + tag.removeprefix(start) for name, start in _FILTERS.items() for tag in _many(query, name)
        ),
        words=tuple(word.casefold() for text in query.get("search", ()) for word in text.split()),
        author=_last(query, "author"),
        task=_last(query, "pipeline_tag"),
        gated=None if gated is None else gated.lower() in {"true", "1"},
        linked=tuple((name, each) for name in ("models", "datasets") for each in _many(query, name)),
        is_hopeless=any(name in query for name in _UNKNOWABLE),
        sort=sort,
        is_ascending=sort == "id" if direction is None else direction != "-1",
        limit=parse_limit(_last(query, "limit")),
        cursor=_last(query, "cursor"),
    )


def matches(listed: Listed, search: Search) -> bool:
    """Tell whether the repo is what the search asks for."""
    repo, about = listed.artifact.repo, listed.about
    name = repo.name.casefold()
    return (
        repo.kind == search.kind
        and not search.is_hopeless
        and all(word in name for word in search.words)
        and (search.author is None or search.author.casefold() == (author_of(listed.artifact) or "").casefold())
        and (search.task is None or search.task == about.pipeline_tag)
        and (search.gated is None or search.gated == bool(about.gated))
        and (not search.filters or _facets(about).issuperset(search.filters))
        and all(each in card_list(about, field) for field, each in search.linked)
    )


def list_rows(repos: Iterable[Listed], search: Search) -> tuple[list[Row], str | None]:
    """Answer one page of the repos that match, and the next page's cursor.

    Raises:
        BadReference: a cursor that nobody was given.
    """
    found = sorted((each for each in repos if matches(each, search)), key=_name)
    found.sort(key=_KEYS[search.sort], reverse=not search.is_ascending)
    by_name = {_name(each): each for each in found}
    rows, cursor = page([{"id": name} for name in by_name], limit=search.limit, cursor=search.cursor, key="id")
    chosen = [by_name[row["id"]] for row in rows]
    return [record(each.artifact, each.about, search.fields) for each in chosen], cursor


def _name(listed: Listed) -> str:
    return listed.artifact.repo.name


_KEYS: Mapping[str, Callable[[Listed], float | str]] = MappingProxyType(
    {
        "createdAt": lambda listed: listed.about.created or 0.0,
        "lastModified": lambda listed: listed.about.modified or 0.0,
        "downloads": lambda listed: listed.about.downloads,
        "likes": lambda listed: listed.about.likes,
        "mainSize": lambda listed: listed.artifact.manifest.size,
        "trendingScore": lambda _: 0,
        "id": _name,
    }
)
_SORTS = {
    **{name: name for name in _KEYS},
    "created_at": "createdAt",
    "last_modified": "lastModified",
    "modified": "lastModified",
    "trending": "trendingScore",
    "trending_score": "trendingScore",
    "likes30d": "likes",
    "num_parameters": "trendingScore",
}


def _fields(kind: Kind, query: Query) -> tuple[str, ...]:
    if expand := _many(query, "expand"):
        return expand
    full = _FULL[kind] if _is_on(query, "full") else ()
    further = tuple(name for name in ("config", "cardData") if _is_on(query, name))
    return (*_BRIEF[kind], *full, *further)


def _facets(about: About) -> frozenset[str]:
    """Return every text that a filter may name the repo by."""
    bare = {tag.removeprefix(start) for tag in about.tags for start in _OPTIONAL if tag.startswith(start)}
    # A model's languages stand bare among its tags, and are asked for either way.
    languages = {f"language:{tag}" for tag in about.tags if ":" not in tag}
    return frozenset({*about.tags, *bare, *languages, about.pipeline_tag or "", about.library or ""})


def _many(query: Query, name: str) -> tuple[str, ...]:
    return tuple(part for text in query.get(name, ()) for part in text.split(",") if part)


def _last(query: Query, name: str) -> str | None:
    return values[-1] if (values := query.get(name)) and values[-1] else None


def _is_on(query: Query, name: str) -> bool:
    return (_last(query, name) or "").lower() in {"true", "1"}
