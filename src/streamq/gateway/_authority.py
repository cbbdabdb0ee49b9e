"""Decides what a request may do, by the token that it brings.

Design: docs/design/access.md.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import secrets
from collections.abc import Collection

from starlette.requests import Request

from streamq._comma_lists import listed
from streamq._errors import ConfigurationError, StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.access import (
    DETAIL_TYPE,
    Action,
    InvalidTokenError,
    Issuer,
    Rights,
    TicketOffice,
    TokenVerifier,
    configured_issuers,
)

from ._authorize import Authorizer
from ._credentials import HTTPS, Credential, brought_credential, header_credential
from ._error_responses import InsufficientScopeError, MissingTokenError

METADATA_PATH = "/.well-known/oauth-protected-resource"
"""Where the gateway says which issuers it accepts."""

OF_EVERYBODY = (Action.READ, Action.LIST)
"""What everybody may do at a gateway that takes no tokens, unless a setting says otherwise."""

_HIDDEN = f"streamq-hidden-{secrets.token_hex(16)}/"
_NOTHING = "nothing"
_SEND = "send it in the header Authorization, after the word Bearer"


class Authority:
    """Decides for one gateway, in one event loop.

    Without any issuer in the settings, every request may read and list, and more only if a setting
    says so; tokens are not looked at, since a proxy in front may have its own.

    Args:
        settings: The tenant, the issuers, and what is permitted without a token.
        authorizer: Asks the application's own code, too.
        of_everybody: What everybody may do where neither tokens nor settings say otherwise.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        authorizer: Authorizer | None = None,
        of_everybody: tuple[Action, ...] = OF_EVERYBODY,
    ) -> None:
        self.authorizer = authorizer
        """Asks the application's own code; ``None`` if it has none."""
        issuers = configured_issuers(settings)
        self._verifier = TokenVerifier(issuers) if issuers else None
        actions = actions_without_token(
            settings, needs_tokens=bool(issuers), of_everybody=of_everybody
        )
        self._actions = actions
        self._anonymous = Rights.of_everybody(settings.tenant, actions, takes_tokens=bool(issuers))
        self._trusts_tenants = settings.gateway_trust_tenants
        if issuers and self._trusts_tenants:
            raise ConfigurationError(
                "STREAMQ_GATEWAY_TRUST_TENANTS and tokens exclude each other: a token has its own "
                "tenant; unset the one that is not meant"
            )
        if authorizer is not None and self._trusts_tenants:
            raise ConfigurationError(
                "STREAMQ_GATEWAY_TRUST_TENANTS and create_app(authorize=...) exclude each other: "
                "the function names the tenant, as Grant(tenant=...); unset the variable"
            )
        key = settings.gateway_ticket_key
        self.tickets = None if key is None else TicketOffice(key.get_secret_value())
        """Issues and accepts tickets, if that is wanted."""
        self._names = [issuer.issuer for issuer in issuers]

    @property
    def needs_tokens(self) -> bool:
        """Whether tokens are accepted at all; otherwise everybody may do the same."""
        return self._verifier is not None

    @property
    def permitted_without_token(self) -> tuple[Action, ...]:
        """What a request without a token may do, as far as settings say."""
        return self._actions

    @property
    def is_open(self) -> bool:
        """Whether nothing decides who a request is from."""
        return self._verifier is None and self.authorizer is None

    @property
    def issuers(self) -> Collection[Issuer]:
        """The issuers whose tokens are accepted."""
        return () if self._verifier is None else self._verifier.issuers

    async def rights(
        self, request: Request, *, takes_ticket: bool = False, reads: bool = False
    ) -> Rights:
        """Return what a request may do, as far as tokens and settings say.

        A token that is refused never counts as none. The tenant is the token's; without tokens it
        is the configured one, or that of the path where a setting says so.

        Args:
            request: The request.
            takes_ticket: Whether a ticket is accepted for it.
            reads: Whether it only reads, whatever its method is.

        Raises:
            MissingTokenError: There is no token, and nothing is permitted without one.
            InsufficientScopeError: Nothing is permitted, and no tokens are accepted.
            InvalidTokenError: The token is refused.
            IssuerUnavailableError: It cannot be verified at the moment.
        """
        if self._verifier is None:
            rights = self._rights_of_everybody()
            named = request.path_params.get("tenant")
            if named is not None and self._trusts_tenants:
                return dataclasses.replace(rights, tenant=named)
            return rights
        brought = brought_credential(request, reads=reads)
        if brought is None or brought.kind != "ticket":
            return await self._rights_by(self._verifier, brought)
        if self.tickets is None or not takes_ticket:
            raise InvalidTokenError("a ticket is not accepted here")
        return self.tickets.accept(brought.text)  # it names the token that it was given for

    async def rights_by_header(self, request: Request) -> Rights:
        """Return what a request may do by the token in its header; nothing else of it counts.

        Raises:
            StreamqError: As for :meth:`rights`.
        """
        if self._verifier is None:
            return self._rights_of_everybody()
        return await self._rights_by(self._verifier, header_credential(request))

    def _rights_of_everybody(self) -> Rights:
        """Return what a request may do where no tokens are accepted."""
        if not self._anonymous.permissions and self.authorizer is None:
            raise InsufficientScopeError(
                "this server is closed: it takes no tokens, and STREAMQ_GATEWAY_ANONYMOUS "
                "permits nothing; its operator has to configure an issuer of tokens"
            )
        return self._anonymous

    async def _rights_by(self, verifier: TokenVerifier, brought: Credential | None) -> Rights:
        if brought is not None:
            return await verifier.verify(brought.text)
        if not self._anonymous.permissions:
            raise MissingTokenError(f"this needs a token: {_SEND}")
        return self._anonymous

    def metadata(self, resource: str) -> dict[str, object]:
        """Return which issuers' tokens are accepted, by RFC 9728: those that have an address.

        Args:
            resource: Address of what accepts them.
        """
        servers = [name for name in self._names if name.startswith(("https://", "http://"))]
        return {
            "resource": resource,
            **({"authorization_servers": servers} if servers else {}),
            "bearer_methods_supported": ["header"],
            "authorization_details_types_supported": [DETAIL_TYPE],
        }

    def twin(self) -> Authority:
        """Return another one for another event loop.

        It reads no file, since that may not be usable now, and the gateway has to go on.
        """
        other = copy.copy(self)
        other._verifier = None if self._verifier is None else self._verifier.twin()
        other.authorizer = None if self.authorizer is None else self.authorizer.twin()
        return other

    async def aclose(self) -> None:
        """Release the connections to issuers, and threads. Idempotent."""
        if self.authorizer is not None:
            self.authorizer.close()
        if self._verifier is not None:
            await self._verifier.aclose()


def metadata_url(request: Request) -> str:
    """Return where the gateway says which issuers it accepts."""
    return own_url(request).rstrip("/") + METADATA_PATH


def own_url(request: Request) -> str:
    """Return the address of the gateway; it may be below that of what has mounted it."""
    own = {**request.scope, "app_root_path": request.scope.get("root_path", "")}
    if own.get(HTTPS):
        own["scheme"] = "https"
    return str(Request(own).base_url)


def check_visible(rights: Rights, action: Action, stream: StreamId) -> None:
    """Check that a request may do something with a stream, which need not exist.

    Raises:
        StreamNotFoundError: The request may not know of it.
        MissingTokenError: It may know of it, and a token may permit this.
        InsufficientScopeError: It may know of it, and may not do this with it.
    """
    if visible_stream(rights, action, stream) != stream:
        raise absent(stream)


def absent(stream: StreamId) -> StreamNotFoundError:
    """Return the error of a stream that is not there; a driver's may have hosts or paths."""
    return StreamNotFoundError(f"there is no stream {stream}", stream=str(stream))


def visible_stream(rights: Rights, action: Action, stream: StreamId) -> StreamId:
    """Return the stream that a request gets when it asks for ``stream``.

    One that the request may not know of is replaced by one that does not exist, under a name that
    nobody can guess: what follows then is that of a stream that is not there, in body, status and
    time.

    Raises:
        MissingTokenError: The request may know of it, and a token may permit this.
        InsufficientScopeError: The request may know of it, and may not do this with it.
    """
    if rights.allow(action, stream):
        return stream
    if rights.know(stream):
        raise refusal(rights, f"{action} stream {stream}", stream=str(stream))
    return _hidden(rights, stream)


def refusal(rights: Rights, what: str, **context: str) -> StreamqError:
    """Return the error of a request that may not do something, with what to do next.

    Args:
        rights: What it may do.
        what: What it may not do, as an infinitive.
        context: As for :class:`streamq.StreamqError`.
    """
    if rights.by_application and not rights.lacks_token:
        who = "the application does" if rights.token_id is None else "token and application do"
        return InsufficientScopeError(f"{who} not permit this request to {what}", **context)
    if rights.subject is not None:
        return InsufficientScopeError(f"the token does not permit to {what}", **context)
    if rights.lacks_token:
        return MissingTokenError(f"without a token nobody may {what} here: {_SEND}", **context)
    return InsufficientScopeError(
        f"nobody may {what} here: the server takes no tokens, and STREAMQ_GATEWAY_ANONYMOUS lists "
        "what all requests may do",
        **context,
    )


def visible_prefix(rights: Rights, tenant: str, prefix: str) -> str:
    """Return the prefix that is searched when a request asks for the streams of a tenant.

    The streams of another tenant are not there: nothing begins with the prefix that replaces it.
    """
    if tenant == rights.tenant:
        return prefix
    return _hidden_name(tenant, prefix)


def _hidden(rights: Rights, stream: StreamId) -> StreamId:
    """Return a stream that does not exist, under a name that nobody can guess."""
    return StreamId(rights.tenant, _hidden_name(stream.tenant, stream.name))


def _hidden_name(tenant: str, name: str) -> str:
    """Return what stands for a name, or for the beginning of names: it may have any length."""
    text = f"{_HIDDEN}{tenant}/{name}"
    return _HIDDEN + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def actions_without_token(
    settings: Settings, *, needs_tokens: bool, of_everybody: tuple[Action, ...] = OF_EVERYBODY
) -> tuple[Action, ...]:
    """Return what requests without a token may do.

    Raises:
        ConfigurationError: The setting has an unknown action.
    """
    if not needs_tokens and not settings.gateway_anonymous.strip():
        return of_everybody
    return anonymous_actions(settings.gateway_anonymous)


def anonymous_actions(text: str) -> tuple[Action, ...]:
    """Return the actions that a setting lists.

    Raises:
        ConfigurationError: One is unknown.
    """
    if text.strip().lower() == _NOTHING:
        return ()
    found = []
    for name in listed(text.lower()):
        try:
            found.append(Action(name))
        except ValueError:
            raise ConfigurationError(
                f"STREAMQ_GATEWAY_ANONYMOUS has {name!r}; it lists actions: "
                f"{', '.join(Action)}; or it is {_NOTHING!r}"
            ) from None
    return tuple(found)
