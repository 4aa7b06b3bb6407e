"""`hubcache recipe`: what a sparse-transfer recipe would do, epoch by epoch, and whether it can be read at all."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hubcache_cli.options import AsJson, CacheDir, make_local_app
from hubcache_cli.output import counted, plain, print_json, print_labelled

if TYPE_CHECKING:
    from hubcache.train.sparse.recipe import Modifier, Recipe

app = typer.Typer(help="Show or check a sparse-transfer recipe.", no_args_is_help=True, rich_markup_mode=None)

WIDTH = 80
BAR = 24
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**4, 10**5, 10**6)

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="A .yaml or .md file, a cached model, or zoo:...[?recipe=X].")
]
Arguments = Annotated[
    list[str] | None, typer.Option("--recipe-arg", metavar="K=V", help="Set a variable; may be given again.")
]


@app.command("show", short_help="Print what a recipe does, as a timeline by epoch.")
def run_show(
    reference: Reference, recipe_arg: Arguments = None, as_json: AsJson = False, cache_dir: CacheDir = None
) -> None:
    """Print what a recipe does: a bar over the epochs for each modifier, in the order applied; variables, metadata.

    In a bar, `|` is what is set once and `=` what goes on.
    """
    recipe = _read(reference, recipe_arg, cache_dir)
    if as_json:
        print_json(_facts(recipe))
        return
    for line in _timeline(recipe):
        print(line)
    shown = [f"{name} {_short(value)}" for name, value in recipe.variables.items() if name != "version"]
    notes = [f"{name} {_short(value)}" for name, value in recipe.metadata.items() if value is not None]
    for label, told in (("variables", shown), ("metadata", notes)):
        if told:
            print_labelled(f"{label:<10}", plain(", ".join(told)))


@app.command("check", short_help="Say whether a recipe can be read, and what is wrong with it.")
def run_check(
    reference: Reference, recipe_arg: Arguments = None, as_json: AsJson = False, cache_dir: CacheDir = None
) -> None:
    """Say whether a recipe can be read; exit code 2 and the line where it cannot."""
    recipe = _read(reference, recipe_arg, cache_dir)
    if as_json:
        print_json({"ok": True, "modifiers": len(recipe.modifiers), "max_epochs": recipe.max_epochs})
        return
    print(plain(f"{reference}: {_summary(recipe)}"))


def _read(reference: str, given: list[str] | None, cache_dir: Any) -> Recipe:
    from hubcache.app.recipes import find_recipe
    from hubcache.train.sparse.recipe import parse_arguments

    arguments = {name: value for text in given or [] for name, value in parse_arguments(text).items()}
    return find_recipe(make_local_app(cache_dir), reference, arguments=arguments)


def _summary(recipe: Recipe) -> str:
    stages = f", {counted(len(recipe.stages), 'stage')}" if recipe.stages else ""
    return f"{counted(max(recipe.max_epochs, 0), 'epoch')}, {counted(len(recipe.modifiers), 'modifier')}{stages}"


def _timeline(recipe: Recipe) -> Iterator[str]:
    """Draw a ruler of epochs and a bar for each modifier, what it does beside it."""
    from hubcache.train.sparse.recipe.words import describe

    epochs = max(1, recipe.max_epochs)
    yield from _ruler(epochs)
    for name, modifiers in _stages(recipe):
        if name:
            yield plain(f"{name}:")[:WIDTH]
        for modifier in modifiers:
            told = plain(f"{describe(modifier)} ({_window(modifier)})")
            lines = textwrap.wrap(told, WIDTH - BAR - 3, break_on_hyphens=False)
            yield f"{_bar(modifier, epochs)}  {lines[0]}"
            yield from (f"{'':{BAR + 3}}{line}" for line in lines[1:])


def _stages(recipe: Recipe) -> list[tuple[str, tuple[Modifier, ...]]]:
    return [(stage.name, stage.modifiers) for stage in recipe.stages] or [("", recipe.modifiers)]


def _ruler(epochs: int) -> Iterator[str]:
    step = next((step for step in STEPS if step * BAR / epochs >= 4), epochs)
    numbers, ticks = [" "] * (BAR + 8), ["-"] * (BAR + 1)
    for epoch in range(0, epochs + 1, step):
        at = round(epoch * BAR / epochs)
        ticks[at] = "+"
        numbers[at : at + len(str(epoch))] = list(str(epoch))
    yield f"{''.join(numbers).rstrip()}"
    yield f"{''.join(ticks)}  epochs"


def _bar(modifier: Modifier, epochs: int) -> str:
    start = max(0.0, modifier.start_epoch)
    end = epochs if modifier.end_epoch == -1 else modifier.end_epoch
    begin = min(BAR, int(start * BAR / epochs))
    stop = max(begin + 1, min(BAR, round(end * BAR / epochs)))
    once = type(modifier).__name__.startswith("Set")
    body = "|" if once else "=" * (stop - begin)
    return f"{' ' * begin}{body}".ljust(BAR + 1)


def _window(modifier: Modifier) -> str:
    start = f"{max(0.0, modifier.start_epoch):g}"
    if type(modifier).__name__.startswith("Set"):
        return f"from {start}"
    return f"from {start}" if modifier.end_epoch == -1 else f"{start} to {modifier.end_epoch:g}"


def _facts(recipe: Recipe) -> dict[str, Any]:
    return {
        "max_epochs": recipe.max_epochs,
        "min_epochs": recipe.min_epochs,
        "modifiers": [
            {"modifier": type(each).yaml_tag(), "stage": name or None, "arguments": _named(each.arguments())}
            for name, modifiers in _stages(recipe)
            for each in modifiers
        ],
        "variables": _named(recipe.variables),
        "metadata": _named(recipe.metadata),
    }


def _named(value: Any) -> Any:
    """Make a value JSON's: names are texts, and what JSON lacks (a date) is written out."""
    if isinstance(value, dict):
        return {str(key): _named(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(held) for held in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(_named(value))
    return text if len(text) <= 200 else text[:197] + "..."
