"""Decides who sends a request, by the tokens, settings and functions that the gateway has, too.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from a2a.server.context import ServerCallContext
from a2a.utils.errors import A2AError, InvalidParamsError, TaskNotFoundError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.driver import close_all
from streamq.gateway._authority import Authority, refusal
from streamq.gateway._authorize import Authorize, Authorizer, note_token
from streamq.gateway._error_responses import InsufficientScopeError, MissingTokenError
from streamq.gateway._options import GatewayOptions
from streamq.gateway._request_rights import RequestRights
from streamq.gateway._revocations import Revocations

from ._access_errors import AccessError, access_error
from ._access_lease import Lease
from ._access_request import is_trusted, note_refusal, request_of
from ._directory import TaskPlace
from ._resources import Resources, server_logger
from ._scope import Scope

T = TypeVar("T")

OPEN = (Action.READ, Action.LIST, Action.CANCEL, Action.WRITE)
"""What everybody may do where neither tokens nor settings say otherwise."""

_NEW_TASK = f"{uuid.uuid4().hex}/new"  # a permission for it covers every stream
_RIGHTS, _CALLER = "streamq.a2a.rights", "streamq.a2a.caller"

_logger = server_logger()


class Caller:
    """Who sends one request, and what it may do with which tasks.

    Args:
        scope: Whose tasks it may see.
        rights: What it may do where it names no task.
        request: The request.
        request_rights: What it may do with certain tasks.
        revocations: Say when its token is revoked.
        names_own_tenant: Whether the tenant that it names is its own.
        is_known: Whether it is known who it is.
    """

    def __init__(
        self,
        scope: Scope,
        rights: Rights,
        request: Request,
        request_rights: RequestRights,
        revocations: Revocations,
        *,
        names_own_tenant: bool,
        is_known: bool,
    ) -> None:
        self.scope, self.rights = scope, rights
        self.names_own_tenant = names_own_tenant
        self._request, self._request_rights = request, request_rights
        self._revocations, self._is_known = revocations, is_known

    async def check(self, place: TaskPlace, *actions: Action) -> None:
        """Check that the caller may do something with a task of its own.

        Raises:
            TaskNotFoundError: It may not know of it.
            AccessError: It may know of it, and not do this.
        """
        stream = StreamId(self.rights.tenant, place.stream)
        with _refusing(self._request):
            rights = await self._request_rights.on_found(stream)
        if not rights.know(stream):
            raise TaskNotFoundError(f"Task {place.task_id} not found")
        for action in actions:
            if not rights.allow(action, stream):
                raise self._refused(rights, f"{action} task {place.task_id}")

    def check_may_start(self) -> None:
        """Check that the caller may start a task, and read what comes of it.

        Raises:
            AccessError: It may not.
        """
        if not self.names_own_tenant:
            error = InsufficientScopeError("the request names a tenant that is not the caller's")
            raise _refused(self._request, error)
        for action in (Action.WRITE, Action.READ):
            if not self.rights.allow(action, StreamId(self.rights.tenant, _NEW_TASK)):
                raise self._refused(self.rights, f"start a task, for which it has to {action} all")

    def check_may_list(self) -> None:
        """Check that the caller may list tasks.

        Raises:
            AccessError: It may not.
        """
        if not self.rights.allow_some(Action.LIST):
            raise self._refused(self.rights, "list tasks")

    def check_is_known(self) -> None:
        """Check that it is known who the caller is.

        Raises:
            AccessError: It is not.
        """
        if not self._is_known:
            raise _refused(self._request, MissingTokenError("this needs a caller that is known"))

    async def listed(self, places: list[TaskPlace]) -> list[TaskPlace]:
        """Return those of some tasks of the caller that it may list and read.

        Raises:
            AccessError: The application does not say so in time.
        """
        tenant, found = self.rights.tenant, []
        streams = [StreamId(tenant, place.stream) for place in places]
        with _refusing(self._request):
            answers = [each async for each in self._request_rights.on_each_found(streams)]
        for place, stream, rights in zip(places, streams, answers, strict=True):
            if rights.allow(Action.LIST, stream) and rights.allow(Action.READ, stream):
                found.append(place)
        return found

    async def while_permitted(self, events: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield events until the last one, and no longer than the caller's token is good.

        Raises:
            AccessError: It has ended, or was revoked.
        """
        async with aclosing(events):
            with self._lease() as lease:
                while (event := await lease.run(_next(events))) is not None:
                    yield event[0]

    async def permitted(self, answer: Coroutine[Any, Any, T]) -> T:
        """Return an answer, unless the caller's token ends or is revoked before.

        Raises:
            AccessError: It has.
        """
        with self._lease() as lease:
            return await lease.run(answer)

    @contextmanager
    def _lease(self) -> Iterator[Lease]:
        try:
            with Lease(self.rights) as lease, self._revocations.holding(self.rights, lease):
                yield lease
        except AccessError as exc:
            note_refusal(self._request, exc)
            raise

    def _refused(self, rights: Rights, what: str) -> A2AError:
        return _refused(self._request, refusal(rights, what))


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
            InvalidParamsError: Path and body name different tenants.
            AccessError: It is not permitted, or that cannot be decided now.
        """
        if tenant and context.tenant and tenant != context.tenant:
            raise InvalidParamsError("The path and the request name different tenants")
        named = context.tenant or tenant
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
        with _refusing(request):
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
            with _refusing(request):
                found = await self.authority.rights_by_header(request)
                await self._revocations.check(found)
            request.scope[_RIGHTS] = found
        return found


async def _next(events: AsyncGenerator[T]) -> tuple[T] | None:
    async for event in events:
        return (event,)
    return None


@contextmanager
def _refusing(request: Request) -> Iterator[None]:
    """Turn errors of the gateway's rules into those of A2A, and note them for the answer."""
    try:
        yield
    except A2AError as exc:
        note_refusal(request, exc)
        raise
    except (StreamqError, HTTPException) as exc:
        raise _refused(request, exc) from None


def _refused(request: Request, exc: StreamqError | HTTPException) -> A2AError:
    error = access_error(exc)
    note_refusal(request, error)
    if isinstance(exc, StreamqError) and getattr(error, "http_status", 500) >= 500:
        _logger.warning("%s: %s", exc.code, exc, exc_info=exc.__cause__)
    return error
