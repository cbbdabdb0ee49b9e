"""The proxy that breaks connections, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamq.devserver import free_port
from streamq.testing import Direction, FaultProxy

_PATIENCE_SECONDS = 10.0
_UNTIL_SURE_SECONDS = 0.1  # there is no event for "nothing arrives"


class Echo(asyncio.Protocol):
    """Echoes and records all data; closes when the client has ended."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connected.append(self)

    def data_received(self, data: bytes) -> None:
        self._server.received += data
        self._server.changed.set()
        if not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> bool:
        self._server.ended += 1
        self._server.changed.set()
        return self._server.stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.lost.append(exc)
        self._server.changed.set()


class Server:
    """A server that records its data."""

    def __init__(self) -> None:
        self.port = 0
        self.received = b""
        self.ended = 0
        self.stays_open = False
        self.connected: list[Echo] = []
        self.lost: list[Exception | None] = []
        self.changed = asyncio.Event()

    async def until(self, what: str) -> None:
        """Wait until an attribute is not empty."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not getattr(self, what):
                self.changed.clear()
                await self.changed.wait()


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, proxy: FaultProxy) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, count: int) -> bytes:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self.reader.read()

    async def is_silent(self) -> bool:
        try:
            async with asyncio.timeout(_UNTIL_SURE_SECONDS):
                return not await self.reader.read(1)
        except TimeoutError:
            return True

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    seen = Server()
    listening = await asyncio.get_running_loop().create_server(lambda: Echo(seen), "127.0.0.1", 0)
    seen.port = listening.sockets[0].getsockname()[1]
    yield seen
    listening.close()
    for echo in seen.connected:
        echo.transport.abort()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", server.port) as opened:
        yield opened


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    """A connection that has echoed data once, so that both ends are connected."""
    connected = await Client.connect(proxy)
    await connected.send(b"hello")
    assert await connected.get(5) == b"hello"
    yield connected
    connected.writer.transport.abort()  # held data would never be flushed
    await connected.close()


async def test_without_a_fault_bytes_pass_unchanged_and_the_end_as_well(client: Client) -> None:
    """A fault of the proxy itself would be blamed on the driver."""
    data = bytes(range(256)) * 8_192
    sending = asyncio.create_task(client.send(data))
    assert await client.get(len(data)) == data
    await sending
    client.writer.write_eof()
    assert await client.rest() == b""


async def test_cut_resets_both_ends_of_every_connection(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """A firewall may forget its connections; clients have to notice at once."""
    other = await Client.connect(proxy)
    await other.send(b"x")
    await other.get(1)
    assert proxy.cut() == 2
    for cut in (client, other):
        with pytest.raises(ConnectionResetError):
            await cut.rest()
    await server.until("lost")
    assert isinstance(server.lost[0], ConnectionResetError)
    await other.close()


async def test_cut_reaches_a_connection_that_is_held(proxy: FaultProxy, client: Client) -> None:
    """Faults overlap, and each has to end on its own."""
    proxy.hold()
    await client.send(b"never heard")
    assert await client.is_silent()
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await client.rest()


async def test_idle_connections_are_reset_and_busy_ones_are_not(
    proxy: FaultProxy, client: Client
) -> None:
    """An ingress cuts long polls, and no short request."""
    busy = await Client.connect(proxy)
    proxy.idle_seconds = 0.3
    resting = asyncio.ensure_future(client.rest())
    while not resting.done():
        await busy.send(b"x")
        assert await busy.get(1) == b"x"
        await asyncio.wait([resting], timeout=0.01)
    with pytest.raises(ConnectionResetError):
        await resting
    proxy.heal()
    await busy.send(b"y")
    assert await busy.get(1) == b"y"
    await busy.close()


async def test_refused_connections_are_refused_by_the_system_and_accepted_again_later(
    proxy: FaultProxy, client: Client
) -> None:
    """A server that restarts is unreachable for a while and returns at the same address."""
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(proxy)
    await client.send(b"still here")
    assert await client.get(10) == b"still here"
    proxy.accept()
    again = await Client.connect(proxy)
    await again.send(b"back")
    assert await again.get(4) == b"back"
    await again.close()


async def test_hold_is_silence_and_release_gives_everything_in_order(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """A network may lose packets for a while: no error, no data, then all of it."""
    proxy.hold()
    await client.send(b"one")
    await client.send(b"two")
    assert await client.is_silent()
    assert server.received == b"hello"
    proxy.release()
    assert await client.get(6) == b"onetwo"


async def test_hold_of_one_direction_lets_the_other_pass(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """The hardest case for a writer is a stored record whose acknowledgement is lost."""
    proxy.hold(Direction.TO_CLIENT)
    server.received = b""
    await client.send(b"stored")
    await server.until("received")
    assert server.received == b"stored"
    assert await client.is_silent()
    proxy.release(Direction.TO_CLIENT)
    assert await client.get(6) == b"stored"


async def test_the_end_of_a_held_connection_is_not_passed_on(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """A connection can be half-open: the client has gone, and the server does not know it."""
    proxy.hold()
    await client.close()
    await asyncio.sleep(_UNTIL_SURE_SECONDS)
    assert not server.ended
    assert not server.lost
    proxy.release()
    await server.until("lost")


async def test_a_held_sender_feels_backpressure(proxy: FaultProxy, client: Client) -> None:
    """Otherwise a long hold would keep all data that is sent in memory."""
    proxy.hold()
    sending = asyncio.create_task(client.send(bytes(64 * 1_048_576)))
    done, _ = await asyncio.wait({sending}, timeout=1.0)
    assert not done
    sending.cancel()


async def test_delay_keeps_pieces_back_and_in_order(proxy: FaultProxy, client: Client) -> None:
    """Over a distance, everything arrives later."""
    clock = asyncio.get_running_loop().time
    proxy.delay_seconds = 0.1
    started = clock()
    await client.send(b"there and back")
    assert await client.get(14) == b"there and back"
    assert clock() - started >= 0.2


async def test_cut_after_lets_exactly_so_many_bytes_pass(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """Parsers and retries fail most easily on a message that is cut in two."""
    server.received = b""
    proxy.cut_after(4)
    await client.send(b"torn in two")
    with pytest.raises(ConnectionResetError):
        await client.rest()
    await server.until("lost")
    assert server.received == b"torn"
    again = await Client.connect(proxy)
    await again.send(b"once only")
    assert await again.get(9) == b"once only"
    await again.close()


async def test_half_close_ends_one_direction_only(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """A peer that has finished sending may still receive; code must not take it for dead."""
    server.stays_open = True
    assert proxy.half_close(Direction.TO_SERVER) == 1
    await server.until("ended")
    await client.send(b"thrown away")
    server.connected[0].transport.write(b"still sent")
    assert await client.get(10) == b"still sent"
    assert server.received == b"hello"


async def test_a_server_that_is_not_there_is_a_reset(server: Server) -> None:
    """The proxy stays while the server behind it is restarted."""
    async with FaultProxy("127.0.0.1", free_port()) as proxy:
        client = await Client.connect(proxy)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await client.close()


async def test_heal_takes_every_lasting_fault_away(proxy: FaultProxy, client: Client) -> None:
    """One call at the end of a run ends all faults."""
    proxy.refuse()
    proxy.hold()
    proxy.delay_seconds = 60.0
    proxy.cut_after(1)
    proxy.heal()
    for healed in (client, await Client.connect(proxy)):
        await healed.send(b"whole")
        assert await healed.get(5) == b"whole"
        await healed.close()


async def test_closing_ends_everything_and_may_be_repeated(
    proxy: FaultProxy, client: Client, server: Server
) -> None:
    """Nothing may remain for the next test, above all no held connection."""
    proxy.hold()
    await client.send(b"on its way")
    await proxy.aclose()
    await proxy.aclose()
    with pytest.raises(ConnectionResetError):
        await client.rest()
    await server.until("lost")
    assert proxy.connections == 0
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(proxy)


async def test_a_cut_after_nothing_is_refused(proxy: FaultProxy) -> None:
    """A schedule that computes 0 has to get an error, or it would wait for ever."""
    with pytest.raises(ValueError, match="cut\\(\\) resets at once"):
        proxy.cut_after(0)
