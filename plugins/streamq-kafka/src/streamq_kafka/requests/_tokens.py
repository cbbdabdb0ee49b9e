"""Gets tokens for OAUTHBEARER from a function of the application."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable

from aiokafka.abc import AbstractTokenProvider

from streamq.driver import ConfigurationError, OneThread, importing_named_code
from streamq_kafka._errors import TokenUnavailable
from streamq_kafka._naming import BACKEND

_SETTING = "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER"


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Calls a function for a token whenever aiokafka connects.

    Args:
        path: The function, as ``module:function``. A function that is not a coroutine function runs
            in a thread, since it may block on a request.
        timeout_seconds: Longest time to wait for it.

    Raises:
        ConfigurationError: The function cannot be imported.
    """

    def __init__(self, path: str, timeout_seconds: float) -> None:
        module, _, name = path.partition(":")
        try:
            with importing_named_code():
                found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as exc:
            raise ConfigurationError(
                f"{_SETTING}={path!r} cannot be imported: {exc}", backend=BACKEND
            ) from exc
        self._function: Callable[[], str | Awaitable[str]] = found
        self._path = path
        self._thread = OneThread()
        self._timeout_seconds = timeout_seconds

    async def token(self) -> str:
        """Return a token.

        Raises:
            TokenUnavailable: The function failed, took too long, or returned something else. Its
                exception is the cause. Its text is not in the message, since it may contain
                secrets.
        """
        try:
            token = await self._call()
        except Exception as exc:  # an application may raise anything
            raise TokenUnavailable(f"{self._path} raised {type(exc).__name__}") from exc
        if not isinstance(token, str) or not token:
            raise TokenUnavailable(f"{self._path} returned {type(token).__name__}")
        return token

    async def _call(self) -> object:
        function = self._function
        async with asyncio.timeout(self._timeout_seconds):
            if inspect.iscoroutinefunction(function):
                return await function()
            return await self._thread.call(function)
