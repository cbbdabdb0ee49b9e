"""Answers requests that an application's own routes have received.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId, user_stream
from streamq._settings import Settings
from streamq.access import Action, Grant, Permission, Rights, StreamMatch, permit
from streamq.driver import ChunkQueue

from ._app import build_app
from ._authority import absent
from ._authorize import narrowed
from ._error_handlers import answer_error
from ._error_responses import HEADERS, BadRequestError
from ._handlers._cancellation import stop_producer
from ._handlers._deletion import delete_stream
from ._handlers._events import send_events
from ._handlers._listing import list_streams
from ._handlers._many_events import follow_many
from ._handlers._status import send_status
from ._handlers._story import send_story
from ._loops import LoopGateways
from ._many._asked import Among, Asked, asked_by_address, asked_by_body
from ._opening import CLIENT_GONE, ClientGoneError, enter_unless_gone
from ._options import GatewayOptions
from ._request_rights import RequestRights, Search

StreamName: TypeAlias = str | StreamId
"""A stream: its name, of the configured tenant, or its identity."""

_Handler = Callable[[Request, StreamId, Rights], Awaitable[Response]]


class StreamResponses:
    """Answers requests of routes of your own, as the gateway would.

    Nothing is asked about the user: the route has decided, and names the stream. All else is that
    of the gateway: a client comes back with ``Last-Event-ID`` or ``?after=``, begins with
    ``?from=``, waits with ``?wait=``; readers of a stream share it; values, bounds and the ends of
    connections are the same. An error is a response, too: JSON with its status.

    Each method returns a response for the route to return. A client that disconnects meanwhile
    ends the call; cancelling it leaves nothing behind.

    The queue is opened by :meth:`lifespan`, or by the first request, and closed by
    :meth:`lifespan`, :meth:`aclose`, or with the event loop. It can be used by several event loops.

    Args:
        app: What :func:`create_app` returned, to share its connections; by default there is a
            gateway for these responses only.
        queue: As for :func:`create_app`; not beside ``app``.
        settings: As for :func:`create_app`; not beside ``app``.
        options: As for :func:`create_app`; not beside ``app``.

    Raises:
        TypeError: ``app`` is something else, or there is a further argument beside it.
        ConfigurationError: A setting is invalid.
    """

    def __init__(
        self,
        app: Starlette | None = None,
        *,
        queue: ChunkQueue | None = None,
        settings: Settings | None = None,
        options: GatewayOptions | None = None,
    ) -> None:
        if app is None:
            app = build_app(queue, settings, options=options)
        elif any(each is not None for each in (queue, settings, options)):
            raise TypeError("queue, settings and options are those of app: give them to create_app")
        gateways = getattr(getattr(app, "state", None), "gateways", None)
        if not isinstance(gateways, LoopGateways):
            raise TypeError(
                f"app is {type(app).__name__}, and not what create_app() returned: keep that in a "
                "variable, mount it, and give it here"
            )
        self._app = app
        self._gateways = gateways

    async def events(
        self,
        request: Request,
        streams: StreamName | Iterable[StreamName] = (),
        *,
        prefixes: str | Iterable[str] = (),
        tenant: str | None = None,
        subject: str | None = None,
        expires_at: float | None = None,
    ) -> Response:
        """Return the events of a stream, or of several on one connection, as they come.

        Args:
            request: The request of the route.
            streams: The stream. Of several, each event says which one it is of, as with ``GET
                /events?stream=``; for ``POST`` the body has ``from``, ``wait`` and ``after``, as
                that of ``POST /events``.
            prefixes: Also the streams of these names, and all whose names continue them after a
                slash, now and later.
            tenant: Whose streams, if they are given by name; by default the configured tenant.
            subject: Whom the request counts for, in quotas.
            expires_at: When the connection ends at the latest, in seconds since the epoch; the
                client then comes back, and the route decides anew.

        Raises:
            TypeError: An argument is no request, or no stream.
            ConfigurationError: ``tenant``, ``subject`` or ``expires_at`` cannot be used.
        """
        below = [prefixes] if isinstance(prefixes, str) else [*prefixes]
        if isinstance(streams, str | StreamId) and not below:
            return await self._one(
                request, streams, Action.READ, send_events, tenant, subject, expires_at
            )
        _check_request(request)
        if not isinstance(streams, Iterable):
            raise TypeError(f"streams is {streams!r}; give a name, a StreamId or a list of them")
        given = [streams] if isinstance(streams, str | StreamId) else streams
        names = [_named(each, tenant) for each in given]
        tenants = {each for each, _ in names}
        if len(tenants) > 1:
            raise TypeError("the streams of one connection have one tenant")
        read = frozenset({Action.READ})
        permissions = [Permission(read, StreamMatch("exact", name)) for _, name in names if name]
        grant = Grant(permissions, subject, expires_at, tenants.pop() if tenants else tenant)
        found = [permit("read", "list", prefix=each) for each in below]
        among = Among(tuple(name for _, name in names), tuple(below))
        if not names and not below:
            return Response(status_code=204, headers=HEADERS)  # nothing will come
        of_body: Asked | None = None
        if request.method == "POST":  # before the request waits for its turn, which reads from it
            try:
                of_body = await asked_by_body(request, among)
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            except StreamqError as exc:
                return answer_error(self._own(request), exc, challenges=False)

        async def answer(own: Request, rights: Rights) -> Response:
            asked = of_body or asked_by_address(own, among)
            named = [_stream(rights.tenant, name) for name in asked.names]
            of_prefixes = replace(rights, permissions=tuple(found))
            return await follow_many(own, asked, named, rights, of_prefixes)

        return await self._answer(request, grant, answer)

    async def story(
        self,
        request: Request,
        stream: StreamName,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        expires_at: float | None = None,
    ) -> Response:
        """Return what is stored of a stream until now, as ``GET /story/NAME`` does.

        Args:
            request: The request of the route.
            stream: The stream.
            tenant: As for :meth:`events`.
            subject: As for :meth:`events`.
            expires_at: As for :meth:`events`.

        Raises:
            TypeError: As for :meth:`events`.
            ConfigurationError: As for :meth:`events`.
        """
        return await self._one(
            request, stream, Action.READ, send_story, tenant, subject, expires_at
        )

    async def status(
        self,
        request: Request,
        stream: StreamName,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        expires_at: float | None = None,
    ) -> Response:
        """Return where a stream stands, as ``GET /streams/NAME`` does.

        Args:
            request: The request of the route.
            stream: The stream.
            tenant: As for :meth:`events`.
            subject: As for :meth:`events`.
            expires_at: As for :meth:`events`.

        Raises:
            TypeError: As for :meth:`events`.
            ConfigurationError: As for :meth:`events`.
        """
        # The answer says what its reader may do, and whoever sees this may read.
        return await self._one(
            request, stream, Action.READ, send_status, tenant, subject, expires_at
        )

    async def cancel(
        self,
        request: Request,
        stream: StreamName,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        expires_at: float | None = None,
    ) -> Response:
        """Cancel what a stream is named after, as ``POST /cancel/NAME`` does, for any tenant.

        The name states the workflow, so make sure that the stream is the user's: a name that comes
        from the client can state the workflow of somebody else.

        Args:
            request: The request of the route.
            stream: The stream.
            tenant: As for :meth:`events`.
            subject: As for :meth:`events`.
            expires_at: As for :meth:`events`.

        Raises:
            TypeError: As for :meth:`events`.
            ConfigurationError: As for :meth:`events`.
        """

        async def stop(own: Request, asked: StreamId, rights: Rights) -> Response:
            return await stop_producer(own, asked, rights, has_to_exist=False)

        return await self._one(request, stream, Action.CANCEL, stop, tenant, subject, expires_at)

    async def delete(
        self,
        request: Request,
        stream: StreamName,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        expires_at: float | None = None,
    ) -> Response:
        """Delete a stream, as ``DELETE /streams/NAME`` does.

        Args:
            request: The request of the route.
            stream: The stream.
            tenant: As for :meth:`events`.
            subject: As for :meth:`events`.
            expires_at: As for :meth:`events`.

        Raises:
            TypeError: As for :meth:`events`.
            ConfigurationError: As for :meth:`events`.
        """
        return await self._one(
            request, stream, Action.DELETE, delete_stream, tenant, subject, expires_at
        )

    async def list(
        self,
        request: Request,
        *,
        prefix: str | None = None,
        every: bool = False,
        tenant: str | None = None,
        subject: str | None = None,
        expires_at: float | None = None,
    ) -> Response:
        """Return a list of streams, as ``GET /streams`` does; the client's ``?prefix=`` narrows it.

        Args:
            request: The request of the route.
            prefix: The stream of this name, and all whose names continue it after a slash.
            every: All streams of the tenant.
            tenant: As for :meth:`events`.
            subject: As for :meth:`events`.
            expires_at: As for :meth:`events`.

        Raises:
            TypeError: As for :meth:`events`.
            ConfigurationError: As for :meth:`events`, or it is not one of prefix and every.
        """
        _check_request(request)
        listed = permit("list", "describe", prefix=prefix, every=every)  # for ``?details=``
        grant = Grant([listed], subject, expires_at, tenant)

        async def answer(own: Request, rights: Rights) -> Response:
            of_request = RequestRights(own, rights, None, takes_tokens=False)
            return await list_streams(own, Search(of_request, rights, rights.tenant, None))

        return await self._answer(request, grant, answer)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Open the queue on entry, and close everything on exit.

        It can be the ``lifespan`` of FastAPI or Starlette, or be entered in one. It also runs the
        gateway of a mounted application, whose own lifespan no parent runs.
        """
        async with self._gateways.current().running():
            yield

    async def aclose(self) -> None:
        """End every connection, and close the queue if it was opened here. Idempotent."""
        await self._gateways.current().aclose()

    async def _one(
        self,
        request: Request,
        stream: StreamName,
        action: Action,
        handler: _Handler,
        tenant: str | None,
        subject: str | None,
        expires_at: float | None,
    ) -> Response:
        _check_request(request)
        of_tenant, name = _named(stream, tenant)
        permissions = [Permission(frozenset({action}), StreamMatch("exact", name))] if name else []
        grant = Grant(permissions, subject, expires_at, of_tenant)

        async def answer(own: Request, rights: Rights) -> Response:
            asked = _stream(rights.tenant, name)
            try:
                return await handler(own, asked, rights)
            except StreamNotFoundError as exc:
                raise absent(asked) from exc

        return await self._answer(request, grant, answer)

    async def _answer(
        self,
        request: Request,
        grant: Grant,
        answer: Callable[[Request, Rights], Awaitable[Response]],
    ) -> Response:
        """Answer as the gateway's own application does, with what the route permits."""
        gateway = self._gateways.current()
        own = self._own(request)
        try:
            receive = await enter_unless_gone(gateway, own.scope, request.receive)
            own = Request(own.scope, receive)
            nothing = Rights(tenant=gateway.settings.tenant, permissions=())
            return await answer(own, narrowed(nothing, grant, None, takes_tokens=False))
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        except StreamqError as exc:
            return answer_error(own, exc, challenges=False)

    def _own(self, request: Request) -> Request:
        """Return the request as one of the gateway's, without parameters of the route."""
        return Request({**request.scope, "app": self._app, "path_params": {}}, request.receive)


def _check_request(request: object) -> None:
    if not isinstance(request, Request):
        raise TypeError(
            f"request is {type(request).__name__}; give the request of the route: a parameter of "
            "type starlette.requests.Request, which FastAPI fills in"
        )


def _named(stream: object, tenant: str | None) -> tuple[str | None, str]:
    """Return tenant and name of a stream.

    Raises:
        TypeError: It is none.
    """
    if isinstance(stream, StreamId):
        if tenant not in (None, stream.tenant):
            raise TypeError(f"the stream is of tenant {stream.tenant}, and tenant is {tenant!r}")
        return stream.tenant, stream.name
    if isinstance(stream, str):
        return tenant, stream
    raise TypeError(f"a stream is {type(stream).__name__}; give its name, or a StreamId")


def _stream(tenant: str, name: str) -> StreamId:
    try:
        return user_stream(tenant, name)
    except ValueError as exc:
        raise BadRequestError(str(exc)) from None
