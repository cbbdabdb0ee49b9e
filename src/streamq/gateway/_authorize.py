"""Asks the application's own code what a request may do.

Design: docs/design/access.md.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request

from streamq._errors import ConfigurationError
from streamq._events import StreamId
from streamq.access import Action, Grant, InvalidTokenError, Permission, Rights, StreamMatch

from ._error_responses import AuthorizeFailedError, AuthorizeTimeoutError

Answer: TypeAlias = bool | Permission | Iterable[Permission] | Grant
"""What :data:`Authorize` returns."""

Authorize: TypeAlias = Callable[[Request, StreamId | None], Answer | Awaitable[Answer]]
"""A function of the application that says what a request may do; see :func:`create_app`."""

_TOKEN = "streamq.token"
_MAX_THREADS = 16
_EVERY_ACTION = frozenset(Action)


def token_rights(request: Request) -> Rights | None:
    """Return what the token of a request permits; ``None`` without a token.

    For the ``authorize`` function of :func:`create_app` beside tokens: the token may have come in
    the header, in a cookie, or by a ticket. ``subject`` is its holder.

    Args:
        request: The one that ``authorize`` was called with.
    """
    found: Rights | None = request.scope.get(_TOKEN)
    return found


class Authorizer:
    """Calls the function of the application, and narrows rights by its answer.

    A function that is not asynchronous runs in one of a few threads.

    Args:
        function: That of the application.
        seconds: How long it may take.

    Raises:
        ConfigurationError: It cannot be called.
    """

    def __init__(self, function: Authorize, seconds: float) -> None:
        if not callable(function):
            raise ConfigurationError(
                f"authorize is {type(function).__name__}; give a function of a request and a "
                "stream, as create_app describes it"
            )
        self.seconds = seconds
        """How long the function may take."""
        self._function = function
        self._threads: ThreadPoolExecutor | None = None

    async def ask(self, request: Request, stream: StreamId | None) -> Grant:
        """Return the answer of the function.

        Raises:
            HTTPException: The function raised it.
            AuthorizeFailedError: It raised something else, or returned what is no answer.
            AuthorizeTimeoutError: It did not answer in time.

        Cancellation: an asynchronous function is cancelled; a thread goes on by itself.
        """
        try:
            async with asyncio.timeout(self.seconds) as limit:
                answer = await self._call(request, stream)
        except HTTPException:
            raise
        except Exception as exc:
            if limit.expired():
                raise AuthorizeTimeoutError(
                    f"the application has not said within {self.seconds:g} s what this request may "
                    "do; try again later"
                ) from None
            raise AuthorizeFailedError(
                f"the function given as create_app(authorize=...) raised {type(exc).__name__}"
            ) from exc
        return _grant(answer)

    def twin(self) -> Authorizer:
        """Return another one for another event loop."""
        return Authorizer(self._function, self.seconds)

    def close(self) -> None:
        """Release the threads. Idempotent; it can be used again."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, request: Request, stream: StreamId | None) -> Any:
        if _is_asynchronous(self._function):
            answer: Any = self._function(request, stream)
        else:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_MAX_THREADS, "streamq-authorize")
            call = partial(contextvars.copy_context().run, self._function, request, stream)
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        return await answer if inspect.isawaitable(answer) else answer


def note_token(request: Request, rights: Rights) -> None:
    """Keep what a token permits for :func:`token_rights`."""
    request.scope[_TOKEN] = None if rights.token_id is None else rights


def narrowed(base: Rights, grant: Grant, stream: StreamId | None, *, takes_tokens: bool) -> Rights:
    """Return what a request may do: with tokens, what both permit; else what the grant says.

    Args:
        base: What the gateway permits without the application's code.
        grant: The answer of that code.
        stream: Which stream it was asked for; its ``True`` is for that one only.
        takes_tokens: Whether the gateway takes tokens.

    Raises:
        InvalidTokenError: The grant has ended.
    """
    if grant.expires_at is not None and grant.expires_at <= time.time():
        raise InvalidTokenError("what the application permitted has ended: log in again")
    ends = [each for each in (base.expires_at, grant.expires_at) if each is not None]
    rights = replace(
        base,
        subject=grant.subject if base.subject is None else base.subject,
        expires_at=min(ends, default=None),
        by_application=True,
        is_tenant_granted=grant.tenant is not None,
    )
    permissions = grant.permissions
    if permissions is False or (takes_tokens and grant.tenant not in (None, base.tenant)):
        return replace(rights, permissions=())
    if grant.tenant is not None:
        rights = replace(rights, tenant=grant.tenant)
    if permissions is True:
        return rights if stream is None else replace(rights, within=(everything_on(stream.name),))
    assert isinstance(permissions, tuple)
    if takes_tokens:
        return replace(rights, within=permissions)
    return replace(rights, permissions=permissions)


def everything_on(name: str) -> Permission:
    """Return the permission for every action on one stream."""
    return Permission(_EVERY_ACTION, StreamMatch("exact", name))


def _grant(answer: Any) -> Grant:
    if isinstance(answer, Grant):
        return answer
    try:
        return Grant([answer] if isinstance(answer, Permission) else answer)
    except ConfigurationError:
        raise AuthorizeFailedError(
            f"the function given as create_app(authorize=...) returned {type(answer).__name__}; it "
            "returns True, False, permissions (streamq.access.permit) or a Grant"
        ) from None


def _is_asynchronous(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
