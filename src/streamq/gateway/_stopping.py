"""Cancels in Temporal what produces a stream.

The connection is made when it is first needed, by the settings of Temporal.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._executions import Execution
from streamq._retry import RetryPolicy
from streamq._settings import Settings

from ._log_limit import gateway_logger

if TYPE_CHECKING:
    from temporalio.client import Client

_logger = gateway_logger()

_SECONDS = 10.0
_RETRY_SECONDS = 2.0


class StopUnavailableError(StreamqError):
    """This gateway cannot cancel anything: it has no Temporal."""

    code = "cancel_unavailable"


class NotStoppableError(StreamqError):
    """There is nothing behind a stream that could be cancelled."""

    code = "not_cancellable"


class TemporalUnavailableError(StreamqError):
    """Temporal does not answer, or refuses the gateway."""

    code = "temporal_unavailable"
    retryable = True


class Stopping:
    """Cancels for one gateway, in one event loop.

    Args:
        settings: Where Temporal is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def cancel(self, execution: Execution) -> bool:
        """Request a cancellation, and return whether the execution still ran.

        Raises:
            StopUnavailableError: The gateway has no Temporal.
            NotStoppableError: Temporal does not know the execution.
            TemporalUnavailableError: Temporal does not answer, or refuses the gateway.

        Cancellation: it was requested, or not.
        """
        self._check_possible()
        from streamq.temporal._cancelling import cancel_execution

        try:
            async with asyncio.timeout(_SECONDS):
                client = await self._connected()
                retry = RetryPolicy(deadline_seconds=_RETRY_SECONDS, backend="temporal")
                return await cancel_execution(client, execution, retry)
        except StreamNotFoundError as exc:
            raise NotStoppableError(
                f"Temporal does not know {execution}, run {execution.run_id}: it ended long ago, "
                "or is in another namespace"
            ) from exc
        except (TimeoutError, StreamqError) as exc:
            _logger.warning("%s could not be cancelled: %s", execution, exc or "no answer")
            raise TemporalUnavailableError(
                "Temporal cannot be reached at the moment, or refuses the gateway, whose log says "
                "why; nothing may have been cancelled"
            ) from exc

    def _check_possible(self) -> None:
        if importlib.util.find_spec("temporalio") is None:
            raise StopUnavailableError(
                "the gateway has no client of Temporal, so it cannot cancel anything: install it "
                'with: pip install "streamq[temporal]"'
            )

    async def _connected(self) -> Client:
        from streamq.temporal import connect

        async with self._connecting:
            if self._client is None:
                self._client = await connect(self._settings)
            return self._client
