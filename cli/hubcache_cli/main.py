"""The entry point: builds the command line, loading only the module of the command that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

from hubcache import __version__
from hubcache.app.settings import is_completing
from hubcache.errors import HubcacheError
from hubcache_cli.errors import INTERRUPTED, report

COMMANDS = {
    "pull": "Bring models, datasets or spaces into the cache, verified.",
    "convert": "Turn a cached original checkpoint into what from_pretrained loads.",
    "path": "Print where a cached reference stands.",
    "ls": "List what the cache holds.",
    "info": "Show a cached repo's files, digests and origin.",
    "du": "Sum up the cache by hub, organisation, type or format.",
    "diff": "Compare two cached revisions or repos, files and tensors.",
    "history": "Show what was done to the cache.",
    "adopt": "Take models that are on this disk already into the cache, by hash.",
    "verify": "Check the cache against its digests, offline.",
    "gc": "Keep the cache within bounds, every line explained.",
    "pin": "Keep a repo or revision whatever a budget says.",
    "unpin": "Take a pin back.",
    "rm": "Remove repos, revisions or files from the cache.",
    "serve": "Serve the cache as a Hub, offline or filled from upstream.",
    "finetune": "Fine-tune a cached model on a task, offline, into the cache.",
    "recipe": "Show or check a sparse-transfer recipe, epoch by epoch.",
    "evaluate": "Score cached models on a task's split, offline.",
    "export": "Make another form of a cached model: ONNX, pruned, merged.",
    "predict": "Let a cached model answer: pipelines by task, offline.",
    "runs": "List and compare the fine-tuned models in the cache.",
    "env": "Print what makes other tools use this cache or mirror.",
    "exec": "Run a command under that environment, offline if asked.",
    "demo": "Pull from three kinds of source and load offline, without any network.",
    "mirror": "List, test and choose the mirrors of the hubs.",
    "doctor": "Find out what is wrong with this machine's set-up.",
}
"""Every command and its one line in `hubcache --help`."""

RESUMED = ("pull", "finetune")
"""The commands that a later run of the same line goes on with."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that docs and README list."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(build(arguments))
    try:
        command(args=arguments, prog_name="hubcache")
    except HubcacheError as error:
        sys.exit(report(error, as_json="--json" in arguments))
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            resumed = "; it goes on where it stopped when it is run again" if _called(arguments) in RESUMED else ""
            print(f"interrupted{resumed}", file=sys.stderr)
        raise


def build(arguments: list[str]) -> typer.Typer:
    """Build the command line; commands that are not called are placeholders, so their modules are not imported."""
    app = typer.Typer(
        name="hubcache",
        help="Pull models from any hub, verified, into the Hugging Face cache, and load them offline.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    called = _called(arguments)
    for name, line in COMMANDS.items():
        command = load(name) if name == called or is_completing() else _placeholder
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, short_help=line)
        else:
            app.command(name, short_help=line)(command)
    return app


def _called(arguments: list[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def load(name: str) -> Callable[..., Any] | typer.Typer:
    """Import a command's module and return its function, or its `app` where it has commands of its own."""
    module = import_module(f"hubcache_cli.commands.{name}")
    command: Callable[..., Any] | typer.Typer = getattr(module, "app", None) or module.run
    return command


def _placeholder() -> None:
    """Stand for a command that is listed and not called."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hubcache {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before the command."""


if __name__ == "__main__":
    main()
