"""Addresses of streams, as people copy them."""

from __future__ import annotations

import pytest

from streamq import ConfigurationError
from streamq.over_http._address import GatewayAddress, check_is_name

HOST = "https://streams.example.org"


@pytest.mark.parametrize(
    ("url", "root", "tenant", "name"),
    [
        ("/?stream=a", "", None, "a"),
        ("/?stream=chat-7%2Frun%2Fdefault&theme=dark#end", "", None, "chat-7/run/default"),
        ("/events/a", "", None, "a"),
        ("/events/chat-7/run/default", "", None, "chat-7/run/default"),
        ("/events/a%2Fb%20%0A%25", "", None, "a/b \n%"),
        ("/streams/a", "", None, "a"),
        ("/streams/a/events", "", None, "a"),
        ("/streams/a%2Fevents", "", None, "a/events"),
        ("/story/a", "", None, "a"),
        ("/records/a", "", None, "a"),
        ("/t/acme/events/a", "", "acme", "a"),
        ("/in/it/events/a", "/in/it", None, "a"),
        ("/in/it/t/acme/events/a", "/in/it", "acme", "a"),
        ("/in/it/?stream=a", "/in/it", None, "a"),
        ("/streams/events/a", "/streams", None, "a"),
        ("/streams/t/acme/events/a", "/streams", "acme", "a"),
        ("/in/it/streams/streams/a/events", "/in/it/streams", None, "a"),
        ("/streams/?stream=a", "/streams", None, "a"),
        ("/streams/events", "", None, "events"),
        ("/streams/a/streams/events/b", "", None, "a/streams/events/b"),
        ("/events/a/streams/events/b", "", None, "a/streams/events/b"),
        ("/events/events/events/a", "", None, "events/events/a"),
        ("/events/t/acme/events/a", "", None, "t/acme/events/a"),
        ("", "", None, None),
        ("/", "", None, None),
        ("/in/it/", "/in/it", None, None),
        ("/t/acme", "", "acme", None),
    ],
)
def test_address_names_gateway_tenant_and_stream(
    url: str, root: str, tenant: str | None, name: str | None
) -> None:
    """What the browser shows can be pasted into a terminal."""
    assert GatewayAddress.parse(HOST + url) == GatewayAddress(HOST + root, tenant, name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a", "a"),
        ("a/b", "a/b"),  # some proxies refuse an encoded slash
        ("a/../b", "a%2F..%2Fb"),  # and all resolve this
        ("a//b", "a%2F%2Fb"),
        ("/a", "%2Fa"),
        ("..", "%2E%2E"),
        ("ü %", "%C3%BC%20%25"),
        ("a?b#c", "a%3Fb%23c"),
    ],
)
def test_name_survives_the_way_through_proxies(name: str, path: str) -> None:
    """Another name in the gateway would be another stream."""
    address = GatewayAddress(HOST)
    assert address.url("acme", "records", name) == f"{HOST}/t/acme/records/{path}"
    assert GatewayAddress.parse(address.url(None, "events", name)).name == name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://", "no address of a gateway"),
        ("https://[::1", "no address of a gateway"),
        ("https://host:port/events/a", "no address of a gateway"),
        ("https://me:hunter2@host/events/a", "a user or a password"),
        ("https://host/events/a?ticket=hunter2", "a ticket or a token"),
        ("https://host/events/a?access_token=hunter2", "a ticket or a token"),
        ("https://host/events/a?from=tail", "leave it out"),
        ("https://host/events/%ff", "not UTF-8"),
        ("https://host/t/a%2Cb/events/a", "tenant"),
        ("https://host/events/" + "x" * 2_000, "1536"),
    ],
)
def test_address_that_cannot_be_used_says_why(url: str, expected: str) -> None:
    """The message is read by whoever has pasted it, and has no secret."""
    with pytest.raises(ConfigurationError, match=expected) as refused:
        GatewayAddress.parse(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("origin", "is_safe"),
    [
        ("https://streams.example.org", True),
        ("http://127.0.0.1:8330", True),
        ("http://[::1]:8330", True),
        ("http://localhost", True),
        ("http://gateway:8330", True),
        ("http://gateway.default.svc.cluster.local", True),
        ("http://10.1.2.3", True),
        ("http://streams.example.org", False),
        ("http://8.8.8.8", False),
        ("http://localhost.example.org", False),
        ("http://10.1.2.3.example.org", False),
    ],
)
def test_token_is_not_sent_in_clear_text_over_the_internet(origin: str, is_safe: bool) -> None:
    """Whoever is on the way could use it."""
    address = GatewayAddress.parse(f"{origin}/events/a")
    if is_safe:
        address.check_token_is_safe()
    else:
        with pytest.raises(ConfigurationError, match="has no TLS"):
            address.check_token_is_safe()


@pytest.mark.parametrize(
    "text",
    [
        "http:/streams.example.org/events/x",
        "https:streams.example.org/events/x",
        "ftp://streams.example.org/events/x",
        "wss://streams.example.org/events/x",
        "127.0.0.1:8330/events/x",
        "localhost/t/acme/story/x",
    ],
)
def test_name_that_looks_like_an_address_is_refused(text: str) -> None:
    """A reader of a mistyped address would wait for minutes for a stream of that name."""
    with pytest.raises(ConfigurationError, match="looks like an address"):
        check_is_name(text)


@pytest.mark.parametrize("name", ["chat-7/run/answer", "a:8330/x", "app.log/events/x", "https"])
def test_other_names_are_names(name: str) -> None:
    """Names of streams have colons, dots, and parts that are called as a route is."""
    check_is_name(name)
