"""Finds what one request may do with the streams that it asks for.

Its token decides, and the application's own code, where there is any.

Design: docs/design/access.md.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

from starlette.requests import Request

from streamq._events import StreamId
from streamq.access import Action, Permission, Rights, StreamMatch

from ._authorize import Authorizer, narrowed, note_token
from ._error_responses import AuthorizeTimeoutError
from ._loops import gateway_of
from ._parameters import stream_of, tenant_of

_AT_ONCE = 8
_LISTING = Permission(frozenset({Action.LIST}), StreamMatch("all"))


class RequestRights:
    """What a request may do; made by :func:`rights_of_request`.

    Args:
        request: The request.
        base: What its token permits, or what is permitted without one.
        authorizer: Asks the application's code; ``None`` if it has none.
        takes_tokens: Whether the gateway takes tokens.
    """

    def __init__(
        self, request: Request, base: Rights, authorizer: Authorizer | None, *, takes_tokens: bool
    ) -> None:
        self._request = request
        self._base = base
        self._authorizer = authorizer
        self._takes_tokens = takes_tokens

    async def on(self, name: str) -> tuple[StreamId, Rights]:
        """Return a stream that the request asks for, and what it may do with that one.

        The rights may not be used for another stream.

        Raises:
            BadRequestError: No stream can have this name.
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        rights = await self.on_found(stream_of(self._request, self._base, name))
        return stream_of(self._request, rights, name), rights

    async def on_found(self, stream: StreamId) -> Rights:
        """Return what the request may do with a stream that the gateway knows of.

        Raises:
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        if self._authorizer is None:
            return self._base
        grant = await self._authorizer.ask(self._request, stream)
        return narrowed(self._base, grant, stream, takes_tokens=self._takes_tokens)

    async def in_all(self) -> Rights:
        """Return what the request may do where it names no stream.

        Raises:
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        return (await self._in_all())[0]

    async def search(self) -> Search:
        """Return what the request may find: in a list, or below a prefix.

        Raises:
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        rights, asks_each = await self._in_all()
        tenant = tenant_of(self._request, rights)
        if not asks_each:
            return Search(self, rights, tenant, None)
        # Beyond finding, each stream is a question of its own.
        return Search(self, replace(rights, within=(_LISTING,)), tenant, self._authorizer)

    async def _in_all(self) -> tuple[Rights, bool]:
        if self._authorizer is None:
            return self._base, False
        grant = await self._authorizer.ask(self._request, None)
        rights = narrowed(self._base, grant, None, takes_tokens=self._takes_tokens)
        return rights, grant.permissions is True


class Search:
    """What a request may find where it does not name a stream.

    Args:
        request_rights: Those of the request.
        rights: What narrows the search. They permit nothing else where each stream is asked for.
        tenant: The tenant that the request asks for.
        authorizer: Asks for each stream; ``None`` if the rights say all.
    """

    def __init__(
        self,
        request_rights: RequestRights,
        rights: Rights,
        tenant: str,
        authorizer: Authorizer | None,
    ) -> None:
        self.rights = rights
        """What narrows the search."""
        self.tenant = tenant
        """The tenant that the request asks for."""
        self._request_rights = request_rights
        self._authorizer = authorizer

    async def on(self, stream: StreamId) -> Rights:
        """Return what the request may do with a stream that was found.

        Raises:
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        if self._authorizer is None:
            return self.rights
        return await self._request_rights.on_found(stream)

    async def permitted(
        self, action: Action, streams: Iterable[StreamId]
    ) -> AsyncGenerator[StreamId, None]:
        """Yield those of some streams with which the request may do something, in their order.

        Raises:
            AuthorizeTimeoutError: The application took too long for all together.
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        if self._authorizer is None:
            for stream in streams:
                if self.rights.allow(action, stream):
                    yield stream
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + self._authorizer.seconds
        remaining = iter(streams)
        while some := list(itertools.islice(remaining, _AT_ONCE)):
            try:
                async with asyncio.timeout_at(until), asyncio.TaskGroup() as group:
                    asked = [group.create_task(self.on(stream)) for stream in some]
            except TimeoutError:
                raise AuthorizeTimeoutError(
                    f"the application has not said within {self._authorizer.seconds:g} s which of "
                    "these streams the request may see; ask for fewer"
                ) from None
            except ExceptionGroup as exc:
                raise exc.exceptions[0] from None
            for stream, task in zip(some, asked, strict=True):
                if task.result().allow(action, stream):
                    yield stream


async def rights_of_request(request: Request, *, takes_ticket: bool = False) -> RequestRights:
    """Return what a request may do, by its token, unless that was revoked, and the application.

    Args:
        request: The request.
        takes_ticket: Whether a ticket is accepted for it.

    Raises:
        StreamqError: As for :meth:`Gateway.rights_of_token`.
    """
    gateway = gateway_of(request)
    base = await gateway.rights_of_token(request, takes_ticket=takes_ticket)
    authority = gateway.authority
    note_token(request, base)
    return RequestRights(request, base, authority.authorizer, takes_tokens=authority.needs_tokens)
