"""Opens gateways to read from, in place of the configured backend.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

from functools import partial

from streamq._errors import ConfigurationError, ThrottledError
from streamq._events import StreamId
from streamq._retry import RetryPolicy
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.over_http._address import GatewayAddress, check_is_name, is_gateway_url
from streamq.over_http._queue import GatewayQueue, connect
from streamq.over_http._token import Token

from ._opening import Opening


def open_gateway(
    url: str, *, token: Token | None = None, settings: Settings | None = None
) -> Opening[ChunkQueue]:
    """Connect to a gateway, to read from it without credentials of its backend.

    The result is a queue for :func:`open_reader`, :func:`describe` and all else that reads, with
    one pool of connections. Names of streams are names within the tenant of the address or, if it
    names none, of the token. Proxies and certificates of the environment are used
    (``HTTPS_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE``). Redirects are not followed.

    Args:
        url: Address of the gateway, or of anything on it, such as
            ``https://streams.example.org/t/acme``.
        token: The token, or a function that returns one: it is called when the first one is needed,
            and again when that has ended or is refused. It may be a coroutine function; any other
            runs in a thread. Nothing else is ever sent a token.
        settings: Limits; by default those that are configured.

    Raises:
        ConfigurationError: The address cannot be used; a token would be sent in clear text to
            another network; or ``httpx`` is not installed (extra ``http``).
        AccessDeniedError: The gateway refuses the token, or the function has failed.
        ThrottledError: It accepted no requests for ``STREAMQ_RETRY_SECONDS``.
        BackendUnavailableError: It cannot be reached.
        BackendError: It is no gateway.
    """

    async def opener() -> ChunkQueue:
        chosen = settings or load_settings()
        address = GatewayAddress.parse(url)
        policy = RetryPolicy(deadline_seconds=chosen.retry_seconds)
        return await policy.run(partial(connect, address, token), only=ThrottledError)

    return Opening(opener, close=calling.close)


def stream_at(url: str, queue: GatewayQueue) -> StreamId:
    """Return the stream that an address on a gateway names.

    Raises:
        ConfigurationError: It names none, or one of another gateway.
    """
    address = GatewayAddress.parse(url)
    if address.name is None:
        raise ConfigurationError(
            f"{url[:200]!r} names no stream; give one such as {address.root}/events/NAME"
        )
    if address.root != queue.address.root:
        raise ConfigurationError(
            f"{url[:200]!r} is not on the gateway {queue.address.root}, which is open"
        )
    return StreamId(address.tenant or queue.tenant, address.name)


def names_gateway(stream: str, queue: ChunkQueue | None) -> bool:
    """Whether a stream is read through a gateway that has to be opened for it.

    Raises:
        ConfigurationError: It looks like an address, and is none.
    """
    if queue is not None:
        return False
    if is_gateway_url(stream):
        return True
    check_is_name(stream)
    return False


def refuse_token(token: Token | None) -> None:
    """Refuse a token that nothing would be sent.

    Raises:
        ConfigurationError: There is one.
    """
    if token is not None:
        raise ConfigurationError(
            "the argument token is for the address of a stream on a gateway, such as "
            "https://streams.example.org/events/NAME; a queue from open_gateway() has its own"
        )
