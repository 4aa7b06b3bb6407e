"""`hubcache demo` does what it says, within a minute, on this machine alone."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from tests.support.commandline import CommandLine, Ran, files_of

pytestmark = [pytest.mark.slow, pytest.mark.train]

# Python imports it at every start, in the demo's own child processes too.
WATCH = """
import os, sys

def watch(event, arguments):
    if event == "socket.connect":
        text = repr(arguments[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        text = repr(arguments[0])
    else:
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(text + chr(10))

sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Demo:
    """The demo after its run, and every address that was asked for or connected to."""

    hubcache: CommandLine
    ran: Ran
    seconds: float
    addresses: list[str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    hubcache = CommandLine(folder)
    (folder / "watch").mkdir()
    (folder / "watch/sitecustomize.py").write_text(WATCH)
    watched = folder / "addresses"
    began = time.monotonic()
    ran = hubcache("demo", PYTHONPATH=str(folder / "watch"), WATCHED=str(watched))
    return Demo(hubcache, ran, time.monotonic() - began, watched.read_text().splitlines())


def test_the_demo_succeeds(demo: Demo) -> None:
    assert demo.ran.code == 0, demo.ran.err


def test_the_demo_takes_less_than_a_minute(demo: Demo) -> None:
    assert demo.seconds < 60


def test_the_demo_says_that_all_three_loaded(demo: Demo) -> None:
    assert "all three loaded by an unmodified from_pretrained with the network off" in demo.ran.out
    assert demo.ran.out.count("\nload ") == 3


def test_the_demo_leaves_nothing_in_the_users_home_and_cache(demo: Demo) -> None:
    assert (files_of(demo.hubcache.home), demo.hubcache.cache.exists()) == ({}, False)


def test_the_demo_contacts_this_machine_alone(demo: Demo) -> None:
    assert demo.addresses
    assert [
        text for text in demo.addresses if not text.startswith(("('127.0.0.1'", "('::1'", "'localhost'", "'127."))
    ] == []
