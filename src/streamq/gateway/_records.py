"""Adds clients to streams whose stored records they follow, within the bounds of all clients.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

from contextlib import ExitStack

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.calling import _calls as calling
from streamq.opening._open import retry_policy

from ._catch_up import CatchUp
from ._client_bounds import ClientBounds
from ._clients import Client
from ._options import GatewayOptions
from ._questions import Questions
from ._queues import Queues
from ._record_follower import RecordFollower, RecordFollowers
from ._record_reads import RecordReads


class Records:
    """The stored records of streams, for clients that decode them by themselves.

    Args:
        queues: Opens the queues.
        questions: Asks whether a stream exists.
        catch_up: Whose turns and whose pace bound the reads of what is not live.
        bounds: What clients may hold.
        settings: How calls are retried while a client waits.
        options: How long a client waits for its turn.
    """

    def __init__(
        self,
        queues: Queues,
        questions: Questions,
        catch_up: CatchUp,
        bounds: ClientBounds,
        settings: Settings,
        options: GatewayOptions,
    ) -> None:
        self.reads = RecordReads(
            queues.open, queues.open_for_the_past, catch_up.turns, catch_up.pacer, settings
        )
        """Reads records."""
        self.pacer = catch_up.pacer
        """Shares the time of the event loop."""
        self._questions = questions
        self._quotas = bounds.quotas
        self._bounds = bounds
        self._settings = settings
        self._options = options
        self._followers = RecordFollowers()

    async def follow(
        self, stream: StreamId, after: str, *, client: Client, may_be_missing: bool = False
    ) -> RecordFollower:
        """Add a client to a stream; pass the result to :meth:`leave` at the end.

        Args:
            stream: The stream.
            after: The position that the client has.
            client: The client.
            may_be_missing: Accept a stream that does not exist yet.

        Raises:
            ClientLimitError: The client follows too many streams.
            GatewayLimitError: All clients together do, or its turn to read did not come in time.
            QuotaError: Its tenant, or the holder of its token, does.
            StreamNotFoundError: The stream does not exist.
            CursorError: No driver has returned the position.
            CapabilityError: The backend has no replay.
            StreamqError: The backend cannot be queried.

        Cancellation: leaves nothing behind.
        """
        with ExitStack() as held:
            held.callback(self._bounds.connections.take(client).release)
            held.callback(self._quotas.follow(client, stream).release)
            first = await self.reads.page(
                stream, after, client, max_wait=self._options.queue_seconds
            )
            waiting = None
            if first is None and not await self._exists(stream, client):
                if not may_be_missing:
                    raise StreamNotFoundError(f"there is no stream {stream}", stream=str(stream))
                waiting = self._bounds.awaited.take(client)
            follower = RecordFollower(
                stream,
                after,
                first,
                self.reads,
                client,
                self._quotas.throttles(client),
                held.pop_all(),
                waiting,
            )
        self._followers.add(follower)
        return follower

    async def exists(self, follower: RecordFollower) -> bool:
        """Return whether the stream of a client exists by now."""
        return await self._exists(follower.stream, follower.client)

    def leave(self, follower: RecordFollower) -> None:
        """Remove a client. Idempotent."""
        self._followers.leave(follower)

    def cut(self, stream: StreamId) -> None:
        """Report to all clients of a stream that it was deleted."""
        self._followers.cut(stream)

    async def aclose(self) -> None:
        """Stop all reads; their clients have been stopped before."""
        await self.reads.aclose()

    async def _exists(self, stream: StreamId, client: Client) -> bool:
        async with self._questions.ask(client) as queue:
            retry = retry_policy(self._settings, queue, stream)
            try:
                await retry.run(lambda: calling.describe(queue, stream))
            except StreamNotFoundError:
                return False
            return True
