"""docs/clients.md names what the suite runs: no more, no less."""

from __future__ import annotations

import pytest

from tests.support import clients
from tests.support.clients import OFFLINE, PULLING, Case, Passed

CASE = Case("curl", "a file")
BOTH = [Passed("curl", "a file", mode, "8.1") for mode in CASE.modes]


@pytest.fixture(autouse=True)
def results_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HUBCACHE_TESTS_CACHE", str(tmp_path))


def test_the_table_names_the_cases_of_the_suite() -> None:
    assert clients.parse(clients.TABLE.read_text()) == clients.names(clients.suite())


def test_no_case_is_listed_twice() -> None:
    cases = clients.suite()
    assert len({(case.client, case.did) for case in cases}) == len(cases)


def test_a_table_names_what_it_was_made_of() -> None:
    assert clients.parse(clients.render([CASE], BOTH)) == {("curl", "a file", OFFLINE), ("curl", "a file", PULLING)}


def test_a_case_that_did_not_pass_in_a_mode_makes_no_table() -> None:
    with pytest.raises(LookupError, match="curl / a file / pull-through"):
        clients.render([CASE], BOTH[:1])


def test_a_case_that_passes_is_recorded() -> None:
    with clients.recorded(CASE, OFFLINE, "8.1"):
        pass
    assert clients.passed() == BOTH[:1]


def test_a_case_that_fails_takes_back_what_an_earlier_run_recorded() -> None:
    with clients.recorded(CASE, OFFLINE, "8.1"):
        pass
    with pytest.raises(AssertionError), clients.recorded(CASE, OFFLINE, "8.1"):
        raise AssertionError
    assert clients.passed() == []
