"""Who may hear of a name: namespaces and private repos kept from mirrors that have no business with them; pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from hubcache.core.artifact import RepoId
from hubcache.mirrors.config import Mirror


def permitted(
    mirrors: Sequence[Mirror], repo: RepoId, *, is_public: bool = True, origin: str = ""
) -> tuple[Mirror, ...]:
    """Keep the mirrors of one hub that may be asked for a repo.

    A name in a namespace that some mirror claims is asked of the claimants only. A repo that is not public is
    asked of the mirror that told of it (`origin`, its URL), and of those that have a token of their own.
    """
    claimants = [mirror for mirror in mirrors if claims(mirror, repo)]
    return tuple(
        mirror
        for mirror in mirrors
        if (mirror in claimants if claimants else not mirror.namespaces)
        and (is_public or mirror.url == origin or mirror.token)
    )


def claims(mirror: Mirror, repo: RepoId) -> bool:
    """Tell whether one of the mirror's namespaces is the repo's."""
    namespace = repo.name.partition("/")[0] if "/" in repo.name else ""
    return any(fnmatchcase(namespace, pattern) or fnmatchcase(repo.name, pattern) for pattern in mirror.namespaces)
