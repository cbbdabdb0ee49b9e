"""Temporary."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from streamq.driver import BackendUnavailableError, Calls, closed_error, translated_errors


class Guard:
    def __init__(self, backend, errors, *, seconds):
        self._calls = Calls(backend)
        self._errors = errors
        self._seconds = seconds
        self._backend = backend

    def check(self, stream=None):
        if self._calls.is_closed:
            raise closed_error(self._backend, stream)

    @asynccontextmanager
    async def __call__(self, stream=None, *, seconds=None):
        with self._calls.one(stream), translated_errors(self._errors, stream):
            try:
                async with asyncio.timeout(seconds or self._seconds):
                    yield
            except TimeoutError:
                raise BackendUnavailableError(
                    "no answer in time", backend=self._backend, stream=str(stream)
                ) from None

    def close(self):
        self._calls.close()

    @property
    def is_closed(self):
        return self._calls.is_closed
