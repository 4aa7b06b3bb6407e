"""How mirrors look, listed and measured: for people in columns, for programs as facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubcache_cli.output import plain, print_labelled, print_table, shorten, size_text, terminal_width

if TYPE_CHECKING:
    from hubcache.app.mirroring import Listed
    from hubcache.app.probing import Tested
    from hubcache.mirrors.chosen import Chosen
    from hubcache.mirrors.config import Mirror
    from hubcache.mirrors.probe import Probe

TELLERS = {"user": "your file", "project": "the project"}
"""Who names a mirror; a variable and `shipped` speak for themselves."""


def print_mirrors(listed: Sequence[Listed]) -> None:
    """Print a hub's mirrors, two lines each: what they are, and how they did."""
    name_width = min(max(len(plain(each.mirror.name)) for each in listed), 20)
    teller_width = max(len(_teller(each)) for each in listed)
    url_width = terminal_width() - name_width - teller_width - 16
    for each in listed:
        name = shorten(plain(each.mirror.name), name_width)
        url = shorten(plain(each.mirror.url), url_width)
        trust = "metadata" if "metadata" in each.mirror.trust else "bytes"
        print(f"  {name:<{name_width}}  {url:<{url_width}}  {trust:<8}  {_teller(each)}")
        remarks = [each.choice.why]
        if each.mirror.namespaces:
            remarks.append(f"for {', '.join(each.mirror.namespaces)} alone")
        print_labelled(" " * (name_width + 4), "; ".join(remarks))


def _teller(listed: Listed) -> str:
    return TELLERS.get(listed.told_by, listed.told_by)


def print_probes(tested: Tested) -> None:
    """Print a line for each mirror, and below what has to be said in words."""
    said = {None: "-", True: "yes", False: "no"}
    rows = [
        (
            shorten(plain(probe.mirror.name), 22),
            "no" if probe.status is None else str(probe.status),
            "-" if probe.latency is None else f"{probe.latency * 1000:.0f} ms",
            said[probe.ranges],
            "-" if probe.throughput is None else f"{size_text(probe.throughput)}/s",
            {**said, True: "agree", False: "DIFFER"}[probe.bytes_agree],
            "trusted"
            if probe.mirror == tested.judge
            else {**said, True: "agrees", False: "DIFFERS"}[probe.listing_agrees],
        )
        for probe in tested.probes
    ]
    print_table(("MIRROR", "ANSWER", "LATENCY", "RANGES", "SPEED", "HASHES", "LISTING"), rows, right=(2, 4))
    for probe in tested.probes:
        for text in [probe.failure] * bool(probe.failure) + list(probe.remarks):
            print_labelled(f"{plain(probe.mirror.name)}: ", text)


def print_conclusion(tested: Tested) -> None:
    """Print what was fetched, and who would be chosen, and why."""
    if tested.sample:
        listed = f", as {tested.judge.name} lists it" if tested.judge else ""
        print_labelled("sample: ", f"{tested.sample}, {size_text(tested.size)}{listed}")
    for remark in tested.remarks:
        print_labelled("", remark)
    for what, chosen in (("commits and listings: ", tested.metadata), ("bytes: ", tested.content)):
        print_labelled(what, f"{chosen.mirror.name}: {chosen.why}" if chosen else "nobody")


def mirror_facts(mirror: Mirror) -> dict[str, Any]:
    """Return a mirror's entry, but for what may be secret; `rate` is in bytes per second."""
    return {
        "name": mirror.name,
        "hub": mirror.hub,
        "url": mirror.url,
        "trust": list(mirror.trust),
        "connections": mirror.connections,
        "rate": mirror.rate,
        "namespaces": list(mirror.namespaces),
    }


def listed_facts(listed: Listed) -> dict[str, Any]:
    """Return a mirror, who named it, and how it did; times in seconds, `throughput` in bytes per second."""
    health = listed.health
    return mirror_facts(listed.mirror) | {
        "token": listed.mirror.token,
        "from": listed.told_by,
        "latency": health.latency,
        "throughput": health.throughput,
        "failures": health.failures,
        "is_resting": listed.choice.is_resting,
        "rests_until": health.rests_until or None,
        "reason": health.reason or None,
        "why": listed.choice.why,
    }


def tested_facts(tested: Tested) -> dict[str, Any]:
    """Return all that a test showed; times in seconds, sizes in bytes."""
    return {
        "hub": tested.hub,
        "sample": tested.sample or None,
        "size": tested.size or None,
        "judge": tested.judge.name if tested.judge else None,
        "mirrors": [_probe_facts(probe) for probe in tested.probes],
        "remarks": list(tested.remarks),
        "metadata": _chosen_facts(tested.metadata),
        "bytes": _chosen_facts(tested.content),
    }


def _probe_facts(probe: Probe) -> dict[str, Any]:
    return {
        "name": probe.mirror.name,
        "url": probe.mirror.url,
        "reachable": probe.status is not None,
        "status": probe.status,
        "latency": probe.latency,
        "ranges": probe.ranges,
        "size": probe.size,
        "seconds": probe.seconds,
        "throughput": probe.throughput,
        "bytes_agree": probe.bytes_agree,
        "listing_agrees": probe.listing_agrees,
        "failure": probe.failure or None,
        "remarks": list(probe.remarks),
    }


def _chosen_facts(chosen: Chosen | None) -> dict[str, Any] | None:
    return None if chosen is None else {"name": chosen.mirror.name, "url": chosen.mirror.url, "why": chosen.why}
