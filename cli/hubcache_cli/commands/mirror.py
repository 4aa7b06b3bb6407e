"""`hubcache mirror`: the mirrors of the hubs, listed, measured, and chosen in the user's mirrors.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hubcache.errors import IntegrityError, SourceUnavailable
from hubcache_cli.mirrorviews import (
    TELLERS,
    listed_facts,
    mirror_facts,
    print_conclusion,
    print_mirrors,
    print_probes,
    tested_facts,
)
from hubcache_cli.options import AsJson, make_app, make_settings
from hubcache_cli.output import note, print_json

if TYPE_CHECKING:
    from hubcache.app.mirroring import Changed
    from hubcache.mirrors.config import Mirror
    from hubcache.mirrors.probe import Probe

app = typer.Typer(help="List, test and choose the mirrors of the hubs.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The mirror's name.")]
HubOption = Annotated[
    str | None, typer.Option("--hub", help="huggingface (by default), modelscope, sparsezoo or http.")
]


@app.command("ls", short_help="List the mirrors in the order in which they would be asked.")
def run_ls(as_json: AsJson = False) -> None:
    """List every hub's mirrors, in the order in which they would be asked now.

    With each: its address, what is believed of it, who named it, and how it did so far.
    """
    from hubcache.app.mirroring import list_mirrors, wire

    found = list_mirrors(wire(make_settings(None)))
    if as_json:
        print_json([listed_facts(each) for each in found])
        return
    for number, hub in enumerate(dict.fromkeys(each.mirror.hub for each in found)):
        print(f"\n{hub}" if number else hub)
        print_mirrors([each for each in found if each.mirror.hub == hub])


@app.command("test", short_help="Measure mirrors, and say which would be chosen, and why.")
def run_test(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these mirrors.")] = None,
    hub: HubOption = None,
    file: Annotated[str | None, typer.Option(help="Fetch this: org/name/path. Else a small public file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure mirrors, and say which of them would be chosen, and why.

    Each is asked for next to nothing, for a range and for a small file, whose digest is held against the listing of a
    mirror that is trusted for metadata. What is measured counts from now on. Exit code 5 where no mirror is of use,
    6 where one sent wrong bytes.
    """
    from hubcache.app.mirroring import find_mirrors
    from hubcache.app.probing import probe_mirrors

    wired = make_app(None)
    tested = probe_mirrors(wired, find_mirrors(wired, names or [], hub), file)
    if as_json:
        print_json(tested_facts(tested))
    else:
        print_probes(tested)
        print()
        print_conclusion(tested)
    _end(tested.probes)


@app.command("use", short_help="Make a mirror the first of its hub.")
def run_use(
    name: Name,
    trust: Annotated[
        Literal["metadata", "bytes"] | None,
        typer.Option(help="Believe its commits, listings and digests, or only bytes that are checked against others'."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a mirror the first of its hub, in your mirrors.yaml; print that file's path.

    A mirror that is trusted for bytes stays so unless --trust says otherwise.
    """
    from hubcache.app.mirroring import use

    changed = use(make_settings(None), name, trust)
    _report(changed, as_json=as_json)
    _tell_trust(changed.mirror)


@app.command("add", short_help="Add a mirror to your mirrors.yaml.")
def run_add(
    name: Name,
    url: Annotated[str, typer.Argument(metavar="URL", help="Its address.")],
    hub: HubOption = None,
    trust: Annotated[
        Literal["metadata", "bytes"] | None,
        typer.Option(help="Believe its listings and digests (by default), or only checked bytes."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="The NAME of the variable with its token, or file:PATH.")
    ] = None,
    connections: Annotated[int | None, typer.Option(help="At once, at most.")] = None,
    rate: Annotated[float | None, typer.Option(metavar="MB/S", help="At most, over all connections.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(metavar="ORG", help="Asked for this org, and for no other. May be repeated.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust for it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a mirror to your mirrors.yaml, behind those that stand there; print that file's path.

    It is asked before the mirrors that came with hubcache; `hubcache mirror use` puts it before your others, too.
    """
    from hubcache.app.mirroring import TRUSTED, add

    fields = {
        "name": name, "url": url, "hub": hub or "huggingface", "trust": TRUSTED[trust] if trust else None,
        "token": token, "connections": connections, "rate": rate, "namespaces": namespace or None,
        "ca": str(ca.absolute()) if ca else None,
    }  # fmt: skip
    settings = make_settings(None)
    changed = add(settings, {key: value for key, value in fields.items() if value is not None})
    _report(changed, as_json=as_json)
    _tell_trust(changed.mirror)
    if token and not token.startswith("file:") and not settings.environ.get(token):
        # Not repeated: it may be a token in capital letters.
        note(f"{name}: the variable of its token is not set; until it is, no token is sent")


@app.command("remove", short_help="Take a mirror out of your mirrors.yaml.")
def run_remove(name: Name, as_json: AsJson = False) -> None:
    """Take a mirror out of your mirrors.yaml; print that file's path.

    Where it stood for one that came with hubcache, that one counts again. Comments above it stay.
    """
    from hubcache.app.mirroring import remove

    _report(remove(make_settings(None), name), as_json=as_json)


def _report(changed: Changed, *, as_json: bool) -> None:
    """Print where the change was made, and who comes first for all that."""
    if as_json:
        first = changed.first.name if changed.first else None
        print_json({"path": str(changed.path), "mirror": mirror_facts(changed.mirror), "first": first})
    else:
        print(changed.path)
    if changed.first is not None:
        teller = TELLERS.get(changed.first_told_by, changed.first_told_by)
        note(f"the first mirror of {changed.first.hub} is {changed.first.name} (from {teller})")


def _tell_trust(mirror: Mirror) -> None:
    if "metadata" in mirror.trust:
        note(f"{mirror.name}: its commits, listings and digests are believed")
    else:
        note(f"{mirror.name}: its bytes are checked against the digests of a mirror that is trusted;")
        note("commits and listings are not asked of it")


def _end(probes: Sequence[Probe]) -> None:
    """Leave with what a pull would have left with.

    Raises:
        IntegrityError: one sent wrong bytes.
        SourceUnavailable: none is of use.
    """
    if wrong := [probe.mirror.name for probe in probes if probe.bytes_agree is False]:
        raise IntegrityError(
            f"wrong bytes from {', '.join(wrong)}", hint="a pull refuses them, and goes on with another mirror"
        )
    if all(probe.failure for probe in probes):
        raise SourceUnavailable("no mirror is of use now")
