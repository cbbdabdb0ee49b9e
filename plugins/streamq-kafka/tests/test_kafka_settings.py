"""The settings of the driver: refused values, and the options for aiokafka."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from streamq.driver import ConfigurationError
from streamq_kafka import KafkaSettings
from streamq_kafka.requests._access import BrokerAccess


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bootstrap_servers": "kafka.example"}, "host:port"),
        ({"bootstrap_servers": "kafka://kafka.example:9092"}, "host:port"),
        ({"bootstrap_servers": " , "}, "at least one"),
        ({"bootstrap_servers": "user:secret@kafka.example:9092"}, "STREAMQ_KAFKA_SASL_USERNAME"),
        ({"topic": "with space"}, "letters"),
        ({"topic": "{tenant}-{tenant}"}, "one"),
        ({"topic": "x" * 240}, "characters"),
        ({"topic": "x" * 176 + "{tenant}"}, "characters"),
        ({"security_protocol": "SASL_SSL"}, "STREAMQ_KAFKA_SASL_PASSWORD"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"},
            "STREAMQ_KAFKA_SASL_TOKEN_PROVIDER",
        ),
        ({"fetch_wait_ms": 500, "operation_timeout_seconds": 0.5}, "shorter"),
        ({"compression": "rar"}, "gzip"),
    ],
)
def test_setting_that_cannot_work_is_refused(options: Mapping[str, object], said: str) -> None:
    """A mistake in a deployment is reported at its start, and not when a stream is lost."""
    with pytest.raises(ValidationError) as caught:
        KafkaSettings(**options)  # type: ignore[arg-type]
    assert said in str(caught.value)


async def test_password_is_not_shown() -> None:
    """Settings are printed and logged."""
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="user",
        sasl_password=SecretStr("s3cr3t"),
    )
    assert "s3cr3t" not in repr(settings)
    assert (await BrokerAccess(settings)._credentials())["password"] == "s3cr3t"


def test_error_of_a_missing_file_names_its_setting(tmp_path: Path) -> None:
    """A wrong path in a container is found by its variable."""
    settings = KafkaSettings(security_protocol="SSL", tls_ca_file=str(tmp_path / "no.pem"))
    with pytest.raises(ConfigurationError, match="STREAMQ_KAFKA_TLS_CA_FILE"):
        BrokerAccess(settings)


async def test_token_comes_from_a_function_of_the_application() -> None:
    """MSK and others issue tokens that expire; only the application knows how to get one."""
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_token_provider="platform:node",
    )
    provider = BrokerAccess(settings)._tokens
    assert provider is not None
    assert await provider.token()
    unknown = settings.model_copy(update={"sasl_token_provider": "platform:no_such_function"})
    with pytest.raises(ConfigurationError, match="SASL_TOKEN_PROVIDER"):
        BrokerAccess(unknown)


def test_tenants_may_have_topics_of_their_own() -> None:
    """Quotas, retention and ACLs of Kafka are per topic."""
    settings = KafkaSettings(topic="chunks-{tenant}")
    assert (settings.is_per_tenant, settings.topic_of("acme")) == (True, "chunks-acme")


def test_tenant_cannot_have_the_directory_of_another() -> None:
    """Tenants must not reach each other, and some choose their names."""
    with pytest.raises(ConfigurationError, match="directory of another"):
        KafkaSettings(topic="chunks-{tenant}").topic_of("acme.directory")
    assert KafkaSettings(topic="{tenant}-chunks").topic_of("a.directory") == "a.directory-chunks"


@pytest.mark.parametrize("name", KafkaSettings.model_fields)
def test_setting_is_in_the_readme(name: str) -> None:
    """Operators read the table, not the code."""
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    full, short = f"`STREAMQ_KAFKA_{name.upper()}`", f"`_{name.upper()}`"
    assert full in readme or short in readme
