"""Host and Origin headers are taken or refused by the name in them, whatever else a stranger writes there."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.hosts import allowed_host, origin_is_near

NAMES = ("hub.example.com", "Box.")
OWN = ("https://app.example.com", "http://team.example:8080/", "null")

# -- Host


@pytest.mark.parametrize(
    "header",
    ["localhost", "LOCALHOST:8090", "localhost.", "localhost:", "datasets-server.localhost:8090", "127.0.0.1",
     "127.0.0.1:8090", "10.1.2.3:80", "[::1]", "[::1]:8090", "[FE80::1%eth0]:8090", "[::ffff:127.0.0.1]"],
)  # fmt: skip
def test_this_machine_and_every_address_are_allowed(header: str) -> None:
    assert allowed_host(header, ())


@pytest.mark.parametrize("header", ["hub.example.com", "HUB.Example.com:8090", "hub.example.com.:1", "box", "box.:80"])
def test_our_names_are_allowed(header: str) -> None:
    assert allowed_host(header, NAMES)


@pytest.mark.parametrize(
    "header",
    ["evil.example", "evil.example:8090", "xhub.example.com", "hub.example.com.evil.example", "notlocalhost",
     "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io", "[::1].evil.example", "*"],
)  # fmt: skip
def test_another_name_is_refused(header: str) -> None:
    assert not allowed_host(header, NAMES)


@pytest.mark.parametrize(
    "header",
    [None, "", " ", ".", ":", ":8090", ".localhost", "..localhost", "localhost..", " localhost", "localhost ",
     "localhost\n", "localhost\x00", "localhost,evil.example", "localhost:80:80", "localhost:x", "localhost:123456",
     "localhost/", "u@localhost", "localhost@evil.example", "http://localhost", "[]", "[::1", "::1", "[::1]]", "[::g]",
     "[127.0.0.1]", "[::1%]", "[::1%a b]", "256.0.0.1", "127.1", "0x7f.0.0.1", "١٢٧.0.0.1", "ℓocalhost", "lοcalhost",
     "a" * 300 + ".localhost", ".".join(["a" * 60] * 5) + ".localhost"],
)  # fmt: skip
def test_what_is_no_host_is_refused(header: str | None) -> None:
    assert not allowed_host(header, NAMES)


def test_a_name_that_is_no_host_allows_nothing() -> None:
    assert not allowed_host("b c", ["b c", "", "*"])


text = st.text(max_size=60) | st.text("localhost.evil:[]127%@/ \n", max_size=40)


@given(header=text)
def test_whatever_is_sent_is_told_apart_and_only_a_plain_header_gets_in(header: str) -> None:
    is_allowed = allowed_host(header, NAMES)
    assert not is_allowed or (header.isascii() and header.isprintable() and not set(header) & set(" /@,\\"))


@given(label=st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), prefix=text)
def test_no_prefix_brings_a_strangers_domain_in(label: str, prefix: str) -> None:
    assert not allowed_host(f"{prefix}.{label}.example", NAMES)


@given(address=st.ip_addresses(), port=st.integers(0, 65535))
def test_every_address_is_allowed_with_and_without_a_port(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert (allowed_host(host, ()), allowed_host(f"{host}:{port}", ())) == (True, True)


# -- Origin


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://LOCALHOST", "http://app.localhost:5173", "http://127.0.0.1",
     "http://127.8.8.8:1", "http://[::1]:3000", "https://[::ffff:127.0.0.1]"],
)  # fmt: skip
def test_a_page_of_this_machines_is_near(origin: str) -> None:
    assert origin_is_near(origin, ())


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com", "https://APP.example.com:443", "http://team.example:8080", "null"],
)
def test_our_own_origins_are_near(origin: str) -> None:
    assert origin_is_near(origin, OWN)


@pytest.mark.parametrize(
    "origin",
    ["http://app.example.com", "https://app.example.com:8443", "https://app.example.com.evil.example",
     "http://team.example", "https://evil.example", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.evil.example",
     "http://127.0.0.1.evil.example", "http://[2001:db8::1]"],
)  # fmt: skip
def test_another_origin_is_far(origin: str) -> None:
    assert not origin_is_near(origin, OWN)


@pytest.mark.parametrize(
    "origin",
    ["", "null", "*", "localhost", "//localhost", "http:localhost", "http://", "http://localhost/", "http://u@localhost",
     "http://localhost:x", "http://localhost http://evil.example", "file://localhost", "ftp://127.0.0.1",
     "chrome-extension://localhost", "http://localhost\n", "http://localhost.."],
)  # fmt: skip
def test_what_no_browser_sends_for_a_page_of_this_machines_is_far(origin: str) -> None:
    assert not origin_is_near(origin, ())


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost"])
def test_a_star_means_every_origin(origin: str) -> None:
    assert origin_is_near(origin, ["*"])


@given(origin=text | text.map("http://{}".format))
def test_only_what_parses_as_a_near_origin_is_near(origin: str) -> None:
    is_near = origin_is_near(origin, ())
    assert not is_near or (origin.lower().startswith(("http://", "https://")) and not set(origin[8:]) & set("/@ \n"))


@given(prefix=text, label=st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True))
def test_no_prefix_makes_a_strangers_origin_near(prefix: str, label: str) -> None:
    assert not origin_is_near(f"http://{prefix}.{label}.example", OWN)
