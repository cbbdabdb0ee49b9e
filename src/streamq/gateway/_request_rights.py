"""Finds what one request may do with the streams that it asks for.

Its token decides, and the application's own code, where there is any.

Design: docs/design/access.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace

from starlette.requests import Request

from streamq._events import StreamId
from streamq.access import Action, Permission, Rights, StreamMatch

from ._authorize import Authorizer, narrowed, note_token
from ._error_responses import AuthorizeTimeoutError, InsufficientScopeError
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

    async def on_all(self, names: Sequence[str]) -> tuple[list[StreamId], Rights]:
        """Return streams that the request asks for, and what it may do with these.

        The application is asked for each of them. The rights may not be used for other streams.
        They have one tenant: streams of other ones that the application names are not there.

        Args:
            names: At least one.

        Raises:
            BadRequestError: No stream can have one of these names.
            AuthorizeTimeoutError: The application took too long for all together.
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        streams = [stream_of(self._request, self._base, name) for name in names]
        if self._authorizer is None:
            return streams, self._base
        answers = [each async for each in self.on_each_found(streams)]
        tenants = [each.tenant for each in answers if each.permissions]
        rights = united(streams, answers, tenants[0] if tenants else self._base.tenant)
        return [stream_of(self._request, rights, name) for name in names], rights

    async def on_each_found(self, streams: Iterable[StreamId]) -> AsyncGenerator[Rights, None]:
        """Yield what the request may do with each of some streams, in their order.

        Raises:
            AuthorizeTimeoutError: The application took too long for all together.
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        if self._authorizer is None:
            for _ in streams:
                yield self._base
            return
        until = asyncio.get_running_loop().time() + self._authorizer.seconds
        remaining = iter(streams)
        while some := list(itertools.islice(remaining, _AT_ONCE)):
            try:
                async with asyncio.timeout_at(until), asyncio.TaskGroup() as group:
                    asked = [group.create_task(self.on_found(stream)) for stream in some]
            except TimeoutError:
                raise AuthorizeTimeoutError(
                    f"the application has not said within {self._authorizer.seconds:g} s what this "
                    "request may do with all these streams; ask for fewer"
                ) from None
            except ExceptionGroup as exc:
                raise exc.exceptions[0] from None
            for task in asked:
                yield task.result()

    async def in_all(self) -> Rights:
        """Return what the request may do where it names no stream.

        Raises:
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        return (await self._in_all())[0]

    async def below(self) -> Rights:
        """Return what the request may do with streams that a prefix finds, now and later.

        Raises:
            InsufficientScopeError: The application would have to be asked for each of them.
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        rights, asks_each = await self._in_all()
        if asks_each:
            raise InsufficientScopeError(
                "the application does not say which streams of a prefix this request may read: "
                "name the streams; or let its authorize function return permissions for None"
            )
        return rights

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

    async def each(
        self, streams: Iterable[StreamId]
    ) -> AsyncGenerator[tuple[StreamId, Rights], None]:
        """Yield some streams in their order, each with what the request may do with it.

        Raises:
            AuthorizeTimeoutError: The application took too long for all together.
            HTTPException: As for :meth:`Authorizer.ask`, with its other errors.
        """
        if self._authorizer is None:
            for stream in streams:
                yield stream, self.rights
            return
        found = list(streams)
        async with contextlib.aclosing(self._request_rights.on_each_found(found)) as answers:
            remaining = iter(found)
            async for rights in answers:
                yield next(remaining), rights


def united(streams: Sequence[StreamId], answers: Sequence[Rights], tenant: str) -> Rights:
    """Return rights that permit on each stream what its own answer permits.

    Args:
        streams: The streams, at least one.
        answers: What the request may do with each of them.
        tenant: The tenant of the result.
    """
    ends = [each.expires_at for each in answers if each.expires_at is not None]
    endless = [replace(each, expires_at=None) for each in answers]
    first = replace(answers[0], expires_at=min(ends, default=None))
    if all(each == endless[0] for each in endless):  # the function does not look at the stream
        return first
    found = []
    for stream, rights in zip(streams, answers, strict=True):
        own = StreamId(rights.tenant, stream.name)
        permitted = frozenset(each for each in Action if rights.allow(each, own))
        if permitted and rights.tenant == tenant:
            found.append(Permission(permitted, StreamMatch("exact", stream.name)))
    return replace(first, tenant=tenant, permissions=tuple(found), within=None)


async def rights_of_request(
    request: Request, *, takes_ticket: bool = False, reads: bool = False
) -> RequestRights:
    """Return what a request may do, by its token, unless that was revoked, and the application.

    Args:
        request: The request.
        takes_ticket: Whether a ticket is accepted for it.
        reads: Whether it only reads, whatever its method is.

    Raises:
        StreamqError: As for :meth:`Gateway.rights_of_token`.
    """
    gateway = gateway_of(request)
    base = await gateway.rights_of_token(request, takes_ticket=takes_ticket, reads=reads)
    authority = gateway.authority
    note_token(request, base)
    return RequestRights(request, base, authority.authorizer, takes_tokens=authority.needs_tokens)
