"""Reads the addresses of gateways, and of streams on them, as people copy them.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from streamq._errors import ConfigurationError
from streamq._events import user_stream
from streamq._loopback import is_loopback, is_own_network

_SCHEMES = ("https://", "http://")
_ROUTE = r"/(?:events|records|story|streams)/"
# An application often mounts the gateway at /streams, which is one of its routes as well.
_MOUNTED = rf"(?:(?!{_ROUTE}).)*/streams(?=(?:/t/[^/]+)?{_ROUTE}.)"
_STREAM = re.compile(
    rf"(?P<prefix>{_MOUNTED}|.*?)(?:/t/(?P<tenant>[^/]+))?{_ROUTE}(?P<name>.+)", re.DOTALL
)
_ROOT = re.compile(r"(?P<prefix>.*?)(?:/t/(?P<tenant>[^/]+))?/?")
_MISTYPED = re.compile(
    rf"https?:(?!//)|(?:ftp|wss?)://|(?:localhost|[\w.-]+:\d+)(?:/t/[^/]+)?{_ROUTE}",
    re.IGNORECASE,
)
_PLACES = {"after", "last_event_id", "from", "wait", "last", "follow"}
_SECRETS = {"ticket", "token", "access_token"}
_GIVE = "give a token as the argument token, by --token-file or by STREAMQ_GATEWAY_TOKEN"
_UNSAFE_PARTS = ("", ".", "..")


def is_gateway_url(text: str) -> bool:
    """Whether a text is the address of a gateway or of a stream on one, and not a stream's name."""
    return text.lower().startswith(_SCHEMES)


def check_is_name(text: str) -> None:
    """Refuse a name that is most likely an address with a slip of the pen.

    Its reader would wait for a stream of that name on the configured backend.

    Raises:
        ConfigurationError: It looks like one.
    """
    if _MISTYPED.match(text) is not None:
        raise ConfigurationError(
            f"{text[:200]!r} looks like an address, and does not begin with http:// "
            "or https://. A stream that is called so is StreamId(tenant, name)"
        )


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a gateway is, and what an address names there.

    Attributes:
        root: Scheme, host and the path before the routes, without a slash at the end.
        tenant: The tenant that the address names; ``None`` for the token's own.
        name: The stream that it names, if it does.
    """

    root: str
    tenant: str | None = None
    name: str | None = None

    @classmethod
    def parse(cls, url: str) -> GatewayAddress:
        """Read an address: of the page, of a stream, or of the gateway itself.

        What follows ``/streams`` and looks like a route is one, of a gateway that is mounted there.

        Raises:
            ConfigurationError: It cannot be used.
        """
        split = _split(url)
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        found = _STREAM.fullmatch(split.path)
        if found is None:
            found = _ROOT.fullmatch(split.path)
            assert found is not None
            tenant, name = query.get("tenant"), query.get("stream")
        else:
            tenant, name = None, found["name"]
            if f"/streams/{name}" in split.path:
                name = name.removesuffix("/events")
            name = _decoded(name)
            if places := sorted(_PLACES & query.keys()):
                raise ConfigurationError(
                    f"the address has {places[0]}=, which is for clients of server-sent events; "
                    "leave it out, and say where to begin by from_= or --from"
                )
        if found["tenant"] is not None:
            tenant = _decoded(found["tenant"])
        root = f"{split.scheme}://{split.netloc}{found['prefix'].rstrip('/')}"
        try:
            user_stream(tenant or "x", "x" if name is None else name)
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        return cls(root, tenant or None, name)

    @property
    def origin(self) -> str:
        """Scheme, host and port, for messages."""
        split = urlsplit(self.root)
        return f"{split.scheme}://{split.netloc}"

    def url(self, tenant: str | None, route: str, name: str | None = None) -> str:
        """Return the address of a route.

        Args:
            tenant: The tenant in the path; ``None`` for none.
            route: Such as ``records``.
            name: The stream.
        """
        before = "" if tenant is None else f"/t/{quote(tenant, safe='')}"
        after = "" if name is None else f"/{_in_path(name)}"
        return f"{self.root}{before}/{route}{after}"

    def check_token_is_safe(self) -> None:
        """Refuse to send a token in clear text over a network of others.

        Raises:
            ConfigurationError: The scheme is ``http``, and the host may be on the Internet.
        """
        split = urlsplit(self.root)
        host = split.hostname or ""
        if split.scheme == "https" or is_loopback(host) or is_own_network(host):
            return
        raise ConfigurationError(
            f"{self.origin} has no TLS: whoever is on the way would get the token; give an address "
            "that begins with https://"
        )


def _split(url: str) -> SplitResult:
    try:
        split = urlsplit(url.strip())
        host, _ = split.hostname, split.port
    except ValueError:
        split, host = urlsplit(""), None
    if split.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            f"{url[:200]!r} is no address of a gateway; give one such as "
            "https://streams.example.org/events/NAME"
        )
    # Not shown: these are secrets.
    if "@" in split.netloc:
        raise ConfigurationError(
            f"the address has a user or a password, which a gateway does not take; {_GIVE}"
        )
    if _SECRETS & dict(parse_qsl(split.query, keep_blank_values=True)).keys():
        raise ConfigurationError(
            f"the address has a ticket or a token, which only an EventSource needs there; {_GIVE}"
        )
    return split


def _decoded(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ConfigurationError("the address is not UTF-8, percent-encoded") from None


def _in_path(name: str) -> str:
    """Return a name as a part of a path: with its slashes, unless somebody would resolve them.

    Some proxies refuse an encoded slash.
    """
    parts = name.split("/")
    if len(parts) > 1 and not any(part in _UNSAFE_PARTS for part in parts):
        return quote(name, safe="/")
    return name.replace(".", "%2E") if name in _UNSAFE_PARTS else quote(name, safe="")
