"""Chooses the data converter of each tenant's streams.

A data converter does not learn the tenant: Temporal gives it the workflow and the namespace. A
gateway that serves several tenants therefore has one for each, so that no tenant's keys decrypt the
streams of another.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from streamq._comma_lists import listed
from streamq._errors import ConfigurationError
from streamq._events import StreamId
from streamq._settings import Settings

_VARIABLE = "STREAMQ_GATEWAY_DATA_CONVERTERS"


def settings_of_tenant(settings: Settings, tenant: str) -> Settings:
    """Return the settings with which the streams of a tenant are read.

    Raises:
        ConfigurationError: The setting is wrong; the message says why.
    """
    converters = _by_tenant(settings.gateway_data_converters)
    if tenant not in converters:
        return settings
    return settings.model_copy(update={"data_converter": converters[tenant]})


def _by_tenant(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in listed(text):
        tenant, _, converter = (each.strip() for each in part.partition("="))
        module, _, name = converter.partition(":")
        if not module or not name:
            raise ConfigurationError(f"{_VARIABLE}: {part!r} is not tenant=module:name")
        try:
            StreamId(tenant, "any")
        except ValueError as exc:
            raise ConfigurationError(f"{_VARIABLE}: {exc}") from None
        if tenant in found:
            raise ConfigurationError(f"{_VARIABLE}: tenant {tenant!r} is there twice; remove one")
        found[tenant] = converter
    return found
