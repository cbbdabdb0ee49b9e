"""Decides who sends a request, by the tokens, settings and functions that the gateway has, too.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from typing import TypeVar

from a2a.server.context import ServerCallContext
from a2a.utils.errors import A2AError, InvalidParamsError
from starlette.requests import Request

from streamq.access import Action, Rights
from streamq.driver import close_all
from streamq.gateway._authority import Authority
from streamq.gateway._authorize import Authorize, Authorizer, note_token
from streamq.gateway._options import GatewayOptions
from streamq.gateway._request_rights import RequestRights
from streamq.gateway._revocations import Revocations

from ._access_caller import Caller, refusing
from ._access_request import is_trusted, request_of
from ._resources import Resources, server_logger
from ._scope import Scope

T = TypeVar("T")

OPEN = (Action.READ, Action.LIST, Action.CANCEL, Action.WRITE)
"""What everybody may do where neither tokens nor settings say otherwise."""

_LONGEST_TENANT = 256
_RIGHTS, _CALLER = "streamq.a2a.rights", "streamq.a2a.caller"

_logger = server_logger()


class Access:
    """Decides for one replica, in one event loop, who its callers are.

    Args:
        agent_name: The agent.
        resources: Have the settings, and the queue with the revocations.
        authorize: A function of the application, as for the gateway's ``create_app``.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    def __init__(
        self, agent_name: str, resources: Resources, authorize: Authorize | None = None
    ) -> None:
        self._agent_name, self._settings = agent_name, resources.settings
        settings = self._settings
        seconds = GatewayOptions.from_settings(settings).authorize_seconds
        authorizer = None if authorize is None else Authorizer(authorize, seconds)
        self.authority = Authority(settings, authorizer, OPEN)
        """Verifies tokens."""
        self._revocations = Revocations(resources, settings, self.authority.needs_tokens)

    def warn_if_open(self) -> None:
        """Warn if whoever reaches the agent may do everything, and no setting says so."""
        if self.authority.is_open and not self._settings.gateway_anonymous.strip():
            _logger.warning(
                "no issuer of tokens is configured: whoever reaches agent %s sends it messages, "
                "and reads and cancels its tasks. Set STREAMQ_TOKEN_KEY_FILE or "
                "STREAMQ_TOKEN_ISSUERS; if something in front authenticates, say so by "
                "STREAMQ_GATEWAY_ANONYMOUS=%s; with nothing as its value the agent stays closed",
                self._agent_name,
                ",".join(OPEN),
            )

    def start(self) -> None:
        """Begin to read which tokens were revoked; otherwise the first token does."""
        self._revocations.start()

    async def aclose(self) -> None:
        """Stop reading revocations, and release connections to issuers. Idempotent."""
        await close_all(self._revocations.aclose, self.authority.aclose)

    async def admit(self, request: Request) -> A2AError | None:
        """Verify the token of a request, and return why it is refused, if it is."""
        try:
            await self._rights(request)
        except A2AError as exc:
            return exc
        return None

    async def caller(self, tenant: str, context: ServerCallContext) -> Caller:
        """Return who sends a request.

        Args:
            tenant: The tenant that its body names; empty without one.
            context: Its context.

        Raises:
            InvalidParamsError: Path and body name different tenants, or a name is too long.
            AccessError: It is not permitted, or that cannot be decided now.
        """
        if tenant and context.tenant and tenant != context.tenant:
            raise InvalidParamsError("The path and the request name different tenants")
        named = context.tenant or tenant
        if len(named) > _LONGEST_TENANT:
            raise InvalidParamsError(
                f"The tenant has {len(named)} characters, and at most {_LONGEST_TENANT} are taken"
            )
        known: tuple[str, Caller] | None = context.state.get(_CALLER)
        if known is None or known[0] != named:
            known = named, await self._caller(named, context)
            context.state[_CALLER] = known
        return known[1]

    async def _caller(self, named: str, context: ServerCallContext) -> Caller:
        request, authority = request_of(context), self.authority
        is_open = authority.is_open or is_trusted(context)
        if is_trusted(context):
            base = Rights.of_everybody(self._settings.tenant, OPEN)
        else:
            base = await self._rights(request)
        note_token(request, base)
        asked = RequestRights(
            request,
            base,
            None if is_open else authority.authorizer,
            takes_tokens=authority.needs_tokens,
        )
        with refusing(request):
            rights = await asked.in_all()
        user = context.user.user_name if context.user.is_authenticated else ""
        scope = Scope(
            self._agent_name,
            named if is_open else rights.tenant,
            user if rights.subject is None else rights.subject,
            rights.issuer or "",
        )
        return Caller(
            scope,
            rights,
            request,
            asked,
            self._revocations,
            names_own_tenant=named in ("", scope.tenant),
            is_known=bool(scope.user),
        )

    async def _rights(self, request: Request) -> Rights:
        """Return what the token of a request permits, or what is permitted without one."""
        found: Rights | None = request.scope.get(_RIGHTS)
        if found is None:
            with refusing(request):
                found = await self.authority.rights_by_header(request)
                await self._revocations.check(found)
            request.scope[_RIGHTS] = found
        return found
