"""Connects to Temporal as it is configured.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import Client

from streamq._settings import Settings, load_settings


async def connect(settings: Settings | None = None, **options: Any) -> Client:
    """Connect to Temporal as streamq's commands do: by settings alone, Temporal Cloud too.

    Each value comes from the first of these that states it: the settings
    (``STREAMQ_TEMPORAL_...``, ``.env``, ``streamq.toml``), the variables ``TEMPORAL_...``, the
    profile in ``temporal.toml`` where ``temporalio.envconfig`` looks for it, the default. If the
    settings state another address than that profile, nothing comes from ``temporal.toml``. Files of
    certificates and keys are read once, now: connect anew after they were renewed.

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
    return await (settings or load_settings()).temporal_target.resolve().connect(**options)
