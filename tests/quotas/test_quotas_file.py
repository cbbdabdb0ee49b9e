"""The file of quotas: values, defaults of single tenants, and errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamq import ConfigurationError, load_settings
from streamq.quotas import Quotas, load_quotas

FILE = """
[tenant]
connections = 100
bytes_per_second = 1_000_000
writers = 50

[tenants.acme]
connections = 5
attempt_bytes = 2_000

[subject]
connections = 3

[tenants.acme.subjects."ada@example.org"]
lists = 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "quotas.toml"
    path.write_text(FILE)
    return path


def load(path: Path) -> Quotas:
    return load_quotas(load_settings(quotas=path))


def test_a_single_tenant_has_the_rest_of_all_tenants(path: Path) -> None:
    quotas = load(path)
    acme, other = quotas.of_tenant("acme"), quotas.of_tenant("other")
    assert (acme.connections, acme.writers, acme.attempt_bytes) == (5, 50, 2_000)
    assert (other.connections, other.writers, other.attempt_bytes) == (100, 50, None)
    ada, bob = (quotas.of_subject("acme", each) for each in ("ada@example.org", "bob"))
    assert (ada.connections, ada.lists) == (3, 1)
    assert (bob.connections, bob.lists) == (3, None)
    theirs = quotas.of_subject("other", "ada@example.org")  # another tenant may name anybody so
    assert (theirs.connections, theirs.lists) == (3, None)


def test_without_a_file_nothing_is_bounded() -> None:
    quotas = load_quotas(load_settings())
    assert not any(quotas.of_tenant("a").model_dump().values())
    assert set(quotas.of_subject("a", "a").model_dump().values()) == {None}


def test_a_file_that_was_replaced_is_read_again(path: Path) -> None:
    assert load(path).of_tenant("acme").connections == 5
    path.write_text("[tenants.acme]\nconnections = 6\n")
    os.utime(path, ns=(1, 1))  # however coarse the clock of the file system is
    assert load(path).of_tenant("acme").connections == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenant]\nconnection = 1", "tenant.connection: .*not permitted.*value seen: '?1'?"),
        ("[tenant]\nconnections = 0", "tenant.connections: .*greater than 0.*value seen: '?0'?"),
        ("[tenant]\nconnections = -3", "tenant.connections: .*greater than 0"),
        ("[tenant]\nconnections = true", "tenant.connections: .*valid integer"),
        ("[tenant]\nconnections = '5'", "tenant.connections: .*valid integer"),
        ("[tenants]\nacme = 5", "tenants.acme: "),
        ("[subject]\nwriters = 5", "subject.writers: .*not permitted"),
        ("[quota]\nconnections = 5", "quota: .*not permitted"),
        ("connections", "no TOML"),
    ],
)
def test_what_is_no_quota_is_refused(path: Path, text: str, said: str) -> None:
    """A bound that is mistyped would be no bound."""
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"STREAMQ_QUOTAS\) cannot be read: No such file"):
        load(tmp_path / "absent.toml")
