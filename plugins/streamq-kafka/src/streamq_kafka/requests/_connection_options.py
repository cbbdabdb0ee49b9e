"""Turns the settings into the options that every aiokafka client is created with."""

from __future__ import annotations

import ssl
from typing import Any

from streamq.driver import ConfigurationError
from streamq_kafka._naming import BACKEND
from streamq_kafka._settings import KafkaSettings

from ._tokens import TokenProvider


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options for an aiokafka client.

    Raises:
        ConfigurationError: A file or the token provider cannot be used. The message never contains
            a secret.
    """
    password = settings.sasl_password
    provider = settings.sasl_token_provider
    tokens = None
    if provider is not None:
        # Half of the caller's own timeout, so that the caller gets the reason and not a timeout.
        timeout = min(settings.connect_timeout_seconds, settings.operation_timeout_seconds) / 2
        tokens = TokenProvider(provider, timeout)
    is_encrypted = settings.security_protocol in ("SSL", "SASL_SSL")
    return {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "client_id": settings.client_id,
        "request_timeout_ms": max(1, int(settings.operation_timeout_seconds * 1000)),
        "security_protocol": settings.security_protocol,
        "ssl_context": _tls_context(settings) if is_encrypted else None,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": None if password is None else password.get_secret_value(),
        "sasl_oauth_token_provider": tokens,
    }


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file:
            key_password = settings.tls_key_password
            context.load_cert_chain(
                settings.tls_cert_file,
                settings.tls_key_file,
                # Never None: with None, OpenSSL prompts for the password on the terminal.
                "" if key_password is None else key_password.get_secret_value(),
            )
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise ConfigurationError(
            f"the files in STREAMQ_KAFKA_TLS_CA_FILE, _CERT_FILE and _KEY_FILE cannot be used: "
            f"{reason}",
            backend=BACKEND,
        ) from None
    return context
