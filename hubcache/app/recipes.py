"""Which recipe a reference means: a file, a zoo model's, or one that lies in a cached repo; not what a recipe holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubcache.app.local import LocalApp, PullRequest, parse_request
from hubcache.core.reference import Reference
from hubcache.errors import EntryNotFound, OfflineError, UsageError
from hubcache.train.sparse.recipe import Recipe, read_recipe

SUFFIXES = (".yaml", ".yml", ".md")


def find_recipe(app: LocalApp, text: str, *, arguments: Mapping[str, Any] | str | None = None) -> Recipe:
    """Read the recipe a reference means, its variables set to `arguments`.

    Raises:
        BadConfig: it is no recipe; the line is named.
        EntryNotFound: the model has no such recipe; those it has are listed.
        OfflineError: the model is not in the cache.
        UsageError: there is no such file.
    """
    return read_recipe(locate_recipe(app, text), arguments=arguments)


def locate_recipe(app: LocalApp, text: str) -> Path:
    """Find the file of the recipe that a path, a stub (`zoo:…?recipe=X`) or a cached repo means.

    Raises: as find_recipe, without BadConfig.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if text.lower().endswith(SUFFIXES) and ("/" not in text or text.startswith((".", "/", "~"))):
        raise UsageError(f"there is no recipe file {text}")
    reference = parse_request(app, PullRequest(text), notify=lambda _: None)
    if reference.scheme == "file":
        folder = Path(reference.address)
        if not folder.is_dir():
            raise UsageError(f"there is no {folder} on this machine")
    else:
        folder = _snapshot(app, reference, text)
    if reference.path is not None and (folder / reference.path).is_file():
        return folder / reference.path
    return _choose(recipe_files(folder), reference, text, folder)


def recipe_files(folder: Path) -> list[Path]:
    """List the recipe files of a model's folder: recipe*.yaml|yml|md, there and in recipes/."""
    found = [path for place in (folder, folder / "recipes") if place.is_dir() for path in place.iterdir()]
    return sorted(
        (path for path in found if path.name.startswith("recipe") and path.suffix.lower() in SUFFIXES),
        key=lambda path: (path.parent != folder, path.name),
    )


def _snapshot(app: LocalApp, reference: Reference, text: str) -> Path:
    try:
        artifact = app.cache.resolve(reference)
    except OfflineError as error:
        raise OfflineError(error.message, hint=f"online, run: hubcache pull {text}") from error
    return app.cache.folder(artifact.repo).snapshot_path(artifact.revision.commit)


def _choose(files: list[Path], reference: Reference, text: str, folder: Path) -> Path:
    """Choose by the zoo client's rules: `?recipe=X` is the one named recipe_X…, else recipe.md, else the first.

    What stands at the root of a zoo model (recipe.yaml) made the model, and is asked for by the repo's name.
    """
    is_zoo = reference.scheme == "zoo"
    offered = [path for path in files if path.parent != folder] if is_zoo else files
    asked = reference.argument("recipe")
    if asked is not None:
        offered = [path for path in offered if path.name.startswith(f"recipe_{asked}")]
    if not offered or (asked is not None and len(offered) > 1):
        problem = "several recipes" if offered else "no recipe"
        names = ", ".join(_shown(path, folder) for path in files)
        raise EntryNotFound(f"{text} has {problem}{f' {asked!r}' if asked else ''}", hint=f"it has {names or 'none'}")
    kind = reference.argument("recipe_type")
    starts = [f"recipe_{kind}"] * (kind is not None) + ["recipe.md"] * is_zoo + ["recipe.yaml", "recipe.md"]
    return next((path for start in starts for path in offered if path.name.startswith(start)), offered[0])


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
