"""Says what one caller may do with which tasks, and for how long.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from a2a.utils.errors import A2AError, TaskNotFoundError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import refusal
from streamq.gateway._error_responses import InsufficientScopeError, MissingTokenError
from streamq.gateway._request_rights import RequestRights
from streamq.gateway._revocations import Revocations

from ._access_errors import AccessError, access_error
from ._access_lease import Lease
from ._access_request import note_refusal
from ._directory import TaskPlace
from ._resources import server_logger
from ._scope import Scope

T = TypeVar("T")

_NEW_TASK = f"{uuid.uuid4().hex}/new"  # a permission for it covers every stream

_logger = server_logger()


class Caller:
    """The sender of one request, and its rights on tasks.

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
        with refusing(self._request):
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
            raise _refuse(self._request, error)
        for action in (Action.WRITE, Action.READ):
            if not self.rights.allow(action, StreamId(self.rights.tenant, _NEW_TASK)):
                needed = f"{Action.READ} and {Action.WRITE} on all streams of the tenant"
                raise self._refused(self.rights, f"start a task (this takes {needed})")

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
            raise _refuse(self._request, MissingTokenError("this needs a caller that is known"))

    async def listed(self, places: list[TaskPlace]) -> list[TaskPlace]:
        """Return those of some tasks of the caller that it may list and read.

        Raises:
            AccessError: The application does not say so in time.
        """
        tenant, found = self.rights.tenant, []
        streams = [StreamId(tenant, place.stream) for place in places]
        with refusing(self._request):
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
            if self.rights.token_id is None and self.rights.expires_at is None:  # nothing ends it
                async for event in events:
                    yield event
                return
            with self._lease() as lease:
                while True:
                    found: tuple[T] | None = await lease.run(_next(events))
                    if found is None:
                        return
                    yield found[0]

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
        return _refuse(self._request, refusal(rights, what))


async def _next(events: AsyncGenerator[T]) -> tuple[T] | None:
    async for event in events:
        return (event,)
    return None


@contextmanager
def refusing(request: Request) -> Iterator[None]:
    """Turn errors of the gateway's rules into those of A2A, and note them for the answer."""
    try:
        yield
    except A2AError as exc:
        note_refusal(request, exc)
        raise
    except (StreamqError, HTTPException) as exc:
        raise _refuse(request, exc) from None


def _refuse(request: Request, exc: StreamqError | HTTPException) -> A2AError:
    error = access_error(exc)
    note_refusal(request, error)
    if isinstance(exc, StreamqError) and getattr(error, "http_status", 500) >= 500:
        _logger.warning("%s: %s", exc.code, exc, exc_info=exc.__cause__)
    return error
