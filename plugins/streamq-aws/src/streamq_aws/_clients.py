"""Opens the clients of a queue in one session, and closes them with it.

Design: docs/design/aws.md.
"""

from __future__ import annotations

import functools
import io
import os
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader

from streamq.driver import ConfigurationError, CredentialSource, close_all

from ._answers import AnswerCheck
from ._connections import RESOLVED_SECONDS, ServiceConnections
from ._credentials import NAMES, REQUIRED, QueueCredentials
from ._errors import aws_errors, why
from ._settings import AwsSettings

_LARGE_BYTES = 2**20


@functools.cache
def _loader(data_path: str | None) -> Loader:
    # One for the whole process: it caches the services' models, which take a tenth of a second to
    # read.
    return create_loader(data_path)


class AwsClients:
    """The clients of one queue. Safe to use from many tasks of one event loop.

    They never retry, because streamq does, within its own deadline.

    Args:
        settings: Addresses, credentials and limits.
        backend: The driver's name, for messages.
    """

    def __init__(self, settings: AwsSettings, *, backend: str) -> None:
        self._settings = settings
        self._backend = backend
        self._stack = AsyncExitStack()
        self._session: aioboto3.Session | None = None
        self._connections = ServiceConnections()
        self._credentials = QueueCredentials(self._open_core, _source(settings), backend=backend)

    async def client(
        self, service: str, *, poll_seconds: float = 0.0, signature: str | None = None
    ) -> Any:
        """Open a client of a service; it is closed by :meth:`aclose`.

        Args:
            service: Its name, such as ``sqs``.
            poll_seconds: How much longer than usual an answer may take, for long polls.
            signature: Signature version, where the service's default does not fit.

        Raises:
            AccessDeniedError: There are no credentials.
            ConfigurationError: The profile does not exist, no region is known, or the endpoint is
                not a URL.
        """
        settings = self._settings
        config = AioConfig(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.operation_timeout_seconds + poll_seconds,
            max_pool_connections=settings.max_connections,
            signature_version=signature,
            connector_args={"ttl_dns_cache": RESOLVED_SECONDS},
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        with aws_errors(self._backend):
            session = self._session = self._session or self._open_session()
            opening = session.client(service, endpoint_url=settings.endpoint_url, config=config)
            try:
                client = await self._stack.enter_async_context(opening)
            except ValueError as exc:
                if isinstance(exc, BotoCoreError):
                    raise
                # botocore raises this for endpoints without a scheme, such as "localhost:4566".
                raise ConfigurationError(
                    f"the AWS configuration cannot be used: {why(exc)}; an endpoint is a URL such "
                    "as http://127.0.0.1:4566 (AWS_ENDPOINT_URL, or the driver's ..._ENDPOINT_URL)",
                    backend=self._backend,
                ) from exc
            client.meta.events.register_last("before-call", _send_without_asking)
            client.meta.events.register("before-send", _send_in_pieces)
            self._connections.watch(client)
            AnswerCheck(self._connections.leave).watch(client)
            self._credentials.watch(client)
            return client

    @property
    def region(self) -> str | None:
        """The region in use, once a client is open."""
        return self._session.region_name if self._session is not None else None

    async def aclose(self) -> None:
        """Close every client; calls that are under way fail. Idempotent."""
        await close_all(self._stack.aclose, self._credentials.aclose)

    def _open_session(self) -> aioboto3.Session:
        core = self._open_core()
        self._credentials.take_over(core)
        return aioboto3.Session(botocore_session=core)

    def _open_core(self) -> AioSession:
        core = AioSession()
        loader = _loader(core.get_config_variable("data_path"))
        core.register_component("data_loader", loader)
        if self._settings.profile is not None:
            core.set_config_variable("profile", self._settings.profile)
        region = self._settings.region or core.get_config_variable("region")
        core.set_config_variable("region", region or os.environ.get("AWS_REGION"))
        # Every session adds its own directory to the shared loader.
        loader.search_paths[:] = dict.fromkeys(loader.search_paths)
        return core


def _source(settings: AwsSettings) -> CredentialSource | None:
    if settings.credentials is None:
        return None
    prefix = str(settings.model_config["env_prefix"])
    return CredentialSource(prefix, NAMES, call=settings.credentials, required=REQUIRED)


def _send_without_asking(params: Any, **_: object) -> None:
    """Remove ``Expect: 100-continue``.

    It doubles the latency of each upload, and a server or proxy that never answers it makes the
    client wait.
    """
    params["headers"].pop("Expect", None)


def _send_in_pieces(request: Any, **_: object) -> None:
    """Make the client write a large body in pieces: in one piece it would block the event loop."""
    if isinstance(request.body, bytes) and len(request.body) >= _LARGE_BYTES:
        request.body = io.BytesIO(request.body)
