"""Refuses requests that pages of other sites make a browser send.

A page can point a name of its own to 127.0.0.1 (DNS rebinding), and would then read the streams of
a gateway on the reader's machine as its own. The browser still sends that name as ``Host``. It also
says from which site a request comes (``Origin``, ``Sec-Fetch-Site``). Other clients than browsers
send neither, and are not concerned.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from streamq._errors import ConfigurationError
from streamq._events import shown
from streamq._loopback import RESERVED_SUFFIXES

from ._error_responses import HEADERS

MOUNTED = "streamq.mounted"
"""Key of the scope that says whether another application has mounted this one."""

_ANY = "*"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class SiteRules:
    """Which hosts and origins are served.

    Attributes:
        hosts: Names by which clients reach the gateway, in lower case; ``*.example.org`` is every
            name below ``example.org``, ``*`` any name.
        origins: Origins whose pages may read streams, ``https://chat.example.org``; ``*`` any.
        checks_mounted: Whether the host is checked where another application has mounted this one;
            otherwise hosts are that application's business.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    checks_mounted: bool

    @classmethod
    def of(cls, hosts: Collection[str], origins: Collection[str], bound: str) -> SiteRules:
        """Return the rules for configured values.

        Args:
            hosts: Configured names, besides this machine's own.
            origins: Configured origins.
            bound: Address or name that the server listens on.

        Raises:
            ConfigurationError: A value is no host, or no origin.
        """
        names = [_host_name(name) for name in hosts]
        own = (bound, socket.gethostname())
        return cls(
            frozenset([*names, *(name.lower() for name in own if name)]),
            frozenset(_origin(origin) for origin in origins),
            bool(names),
        )

    @property
    def named_origins(self) -> frozenset[str]:
        """Origins whose pages may bring cookies: those that are named, one by one."""
        return self.origins - {_ANY, "null"}

    def allows_host(self, host: str) -> bool:
        """Whether a request may name this host.

        An IP address is allowed: no name leads to it, so nobody can point it elsewhere. So are
        names that nobody can register: those without a dot, which only a network of one's own
        resolves, and those below a name that is reserved for such networks.
        """
        name = host_of(host)
        if name is None:
            return False
        if "." not in name or name.endswith(RESERVED_SUFFIXES) or _is_address(name):
            return True
        parts = name.split(".")
        above = {"*." + ".".join(parts[i:]) for i in range(1, len(parts))}
        return not self.hosts.isdisjoint({name, _ANY} | above)

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may read what a request to this host gets."""
        if not self.origins.isdisjoint({origin.lower(), _ANY}):
            return True
        name = _split(origin).hostname
        return name is not None and name == host_of(host)

    def is_own_page(self, headers: Headers) -> bool:
        """Whether a browser says that a page of this host, or of a named origin, sends this.

        Names are not enough here: another port of the same machine may be another application, and
        the browser sends it the same cookies.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.lower() in self.named_origins:
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in ("same-origin", "none")
        return origin is not None and origin.lower().partition("://")[2] == host.lower()


class SiteGuard:
    """Middleware that refuses what :class:`SiteRules` does not allow, with 421 or 403.

    Args:
        app: The application.
        rules: What is allowed.
        needs_tokens: Whether the application verifies the token of each request that has one.
        host_option: Where code gives a host, for the message.
        origin_option: Where code gives an origin; empty without such a place.
    """

    def __init__(
        self,
        app: ASGIApp,
        rules: SiteRules,
        *,
        needs_tokens: bool,
        host_option: str = "create_app(hosts=...)",
        origin_option: str = "create_app(origins=...)",
    ) -> None:
        self._app = app
        self._host_option = host_option
        self._origin_option = f", or {origin_option}" if origin_option else ""
        self._rules = rules
        self._needs_tokens = needs_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        rules, headers = self._rules, Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        is_mounted = scope.get(MOUNTED, False)
        if host and (rules.checks_mounted or not is_mounted) and not rules.allows_host(host):
            return _refused(
                421,
                "host_not_allowed",
                f"this server does not answer to the host {_quoted(host)}: a page of another site "
                "may have pointed that name here. If the name is yours, give it as "
                f"STREAMQ_GATEWAY_HOSTS, or {self._host_option}",
            )
        if origin is not None:
            leaves_cors = is_mounted and not rules.origins
            is_allowed = leaves_cors or rules.allows_origin(origin, host)
            if is_allowed and self._may_change(scope["method"], headers):
                return None
            return _refused(
                403,
                "origin_not_allowed",
                f"pages of {_quoted(origin)} may not do this here. If they may, give their "
                f"origin as STREAMQ_GATEWAY_ORIGINS{self._origin_option}",
            )
        is_foreign = _is_foreign(headers, is_page=_path(scope) == "/")
        if is_foreign or not self._may_change(scope["method"], headers):
            return _refused(
                403,
                "cross_site",
                "a page of another site asks for this, and not by CORS: open it from a page of "
                "this server, or give the origin of that site as STREAMQ_GATEWAY_ORIGINS and fetch "
                "it by CORS",
            )
        return None

    def _may_change(self, method: str, headers: Headers) -> bool:
        """Whether a page may send this method, also where the parent decides who may read.

        A browser asks nobody before it sends a POST. It adds the login of a proxy by itself, but
        never a token: one in the header, which the application verifies, shows who sends it.
        """
        if method in ("GET", "HEAD", "OPTIONS"):
            return True
        if self._needs_tokens and any(map(is_bearer, headers.getlist("authorization"))):
            return True
        is_of_browser = "origin" in headers or "sec-fetch-site" in headers
        return not is_of_browser or self._rules.is_own_page(headers)


def is_bearer(authorization: str) -> bool:
    """Whether the value of a header ``Authorization`` has the scheme of tokens."""
    return authorization.strip().partition(" ")[0].lower() == "bearer"


def host_of(host: str) -> str | None:
    """Return the host of a ``Host`` header without its port, in lower case, if it is one."""
    found = _HOST.fullmatch(host)
    return None if found is None else found[1].lower().rstrip(".").strip("[]") or None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_foreign(headers: Headers, *, is_page: bool) -> bool:
    """Whether a browser says that another site's page wants this, other than by a link to a page.

    A link opens the gateway's page by itself; nothing of it can be read from where the link was.
    """
    site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    if site not in ("cross-site", "same-site"):
        return False
    if mode == "navigate":
        is_link = headers.get("sec-fetch-dest", "document") == "document"
        return site == "cross-site" and not (is_page and is_link)
    return True


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _refused(status: int, code: str, message: str) -> JSONResponse:
    headers = {**HEADERS, "Vary": "Host, Origin, Sec-Fetch-Site"}
    return JSONResponse({"error": code, "message": message}, status, headers=headers)


def _quoted(text: str) -> str:
    return f"'{shown(text[:_MAX_SHOWN])}'"


def _host_name(name: str) -> str:
    wanted = name.strip().lower()
    plain = wanted.removeprefix("*.")
    if wanted != _ANY and (host_of(plain) is None or plain != host_of(plain)):
        bare = host_of(name.strip())
        if bare is not None and _is_address(bare):
            return bare
        raise ConfigurationError(
            f"STREAMQ_GATEWAY_HOSTS has {_quoted(name)}; give names without scheme and port, for "
            "example chat.example.org, or *.example.org"
        )
    return wanted


def _split(origin: str) -> SplitResult:
    """Return the parts of an origin; none of one that is malformed."""
    try:
        return urlsplit(origin)
    except ValueError:  # a bracket that is not closed, say
        return urlsplit("")


def _origin(origin: str) -> str:
    wanted = origin.strip().lower()
    parts = _split(wanted)
    if wanted not in (_ANY, "null") and wanted != f"{parts.scheme}://{parts.netloc}":
        raise ConfigurationError(
            f"STREAMQ_GATEWAY_ORIGINS has {_quoted(origin)}; give origins as browsers send them, "
            "for example https://chat.example.org or http://localhost:3000, without a path"
        )
    return wanted
