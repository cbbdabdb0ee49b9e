"""Connects to Temporal as it is configured.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Any

from temporalio.client import Client

from streamq._errors import ConfigurationError
from streamq._settings import Settings, load_settings
from streamq.driver_parts._temporal_target import TemporalTarget

_KEY_SECONDS = 5.0

_following: set[asyncio.Task[None]] = set()  # a loop keeps weak references to its tasks


async def connect(settings: Settings | None = None, **options: Any) -> Client:
    """Connect to Temporal as streamq's commands do: by settings alone, Temporal Cloud too.

    Each value comes from the first of these that states it: the settings
    (``STREAMQ_TEMPORAL_...``, ``.env``, ``streamq.toml``), the variables ``TEMPORAL_...``, the
    profile in ``temporal.toml`` where ``temporalio.envconfig`` looks for it, the default. If the
    settings state another address than that profile, nothing comes from ``temporal.toml``.

    The file of the API key (``STREAMQ_TEMPORAL_API_KEY_FILE``) is read again every few seconds
    while the client is in use, so that workers, too, go on with a rotated key. Certificates are
    read once, now: after they were renewed connect anew, and give a worker the new client
    (``worker.client = ...``).

    Args:
        settings: Settings to use; by default those that are configured.
        options: Further arguments of ``Client.connect``, such as ``plugins=[StreamqPlugin()]`` and
            ``data_converter``.

    Raises:
        ConfigurationError: A file, or Temporal's own configuration, cannot be used; or the settings
            give an API key and turn TLS off.
        AccessDeniedError: Temporal refuses the API key.
        BackendUnavailableError: Temporal cannot be reached; the message names the likely cause.
    """
    target = (settings or load_settings()).temporal_target
    client = await target.resolve().connect(**options)
    if target.api_key_file is not None:
        following = asyncio.create_task(_follow_key(weakref.ref(client), target))
        _following.add(following)
        following.add_done_callback(_following.discard)
    return client


async def _follow_key(client: weakref.ref[Client], target: TemporalTarget) -> None:
    """Give a client the key that its file has, until nobody uses the client any more."""
    while True:
        await asyncio.sleep(_KEY_SECONDS)
        if (used := client()) is None:
            return
        with contextlib.suppress(ConfigurationError):  # the file is being replaced
            key = target.resolve().api_key
            if key != used.api_key:
                used.api_key = key
        del used
