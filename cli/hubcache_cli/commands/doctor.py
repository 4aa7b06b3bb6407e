"""`hubcache doctor`: what is wrong with this machine's set-up."""

from __future__ import annotations

from dataclasses import asdict

from hubcache.app.doctor import checks
from hubcache.app.machine import Check
from hubcache_cli.options import AsJson, CacheDir, make_settings
from hubcache_cli.output import counted, note, print_json, print_labelled

_LABEL = 27  # "problem  unfinished files  "


def run(as_json: AsJson = False, cache_dir: CacheDir = None) -> None:
    """Check Python, cache, disk, settings and network, and say what to do about what is not as it should be.

    Asks the Hub and the SparseZoo one question each, unless HF_HUB_OFFLINE is set. Exit code 1 if there is a
    problem; warnings do not count. A token is never shown.
    """
    made = checks(make_settings(cache_dir))
    found = list(made) if as_json else [_shown(check) for check in made]
    if as_json:
        print_json([asdict(check) for check in found])
    problems = sum(check.status == "problem" for check in found)
    warnings = sum(check.status == "warning" for check in found)
    if not as_json:
        note(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
    if problems:
        raise SystemExit(1)


def _shown(check: Check) -> Check:
    """Print a check as soon as it is made, its text beside its name."""
    print_labelled(f"{check.status:<9}{check.name:<18}", check.message)
    if check.cure:
        print_labelled(" " * _LABEL + "cure: ", check.cure)
    return check
