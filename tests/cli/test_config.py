"""``streamq config``."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import SecretStr

from streamq import Settings, installed_drivers, load_driver
from streamq.driver import mask_value

from .command import Inside, one_error


def test_json_and_table_have_the_same_facts(inside: Inside) -> None:
    """Table and JSON show the same facts."""
    as_json, as_table = inside.run_each([["config", "--json"], ["config"]])
    found = json.loads(as_json.out)
    assert found["backend"] == "sqlite"
    rows = [re.split(r" {3,}", line) for line in as_table.out.splitlines()[1:]]
    expected = [
        [
            each["variable"],
            *([] if each["value"] in (None, "") else [str(each["value"])]),
            each["source"],
            each["description"],
        ]
        for each in found["settings"]
    ]
    assert rows == expected


@pytest.mark.parametrize("name", installed_drivers())
def test_every_setting_is_described(name: str) -> None:
    """A variable without a description helps no user."""
    fields = load_driver(name).settings_type.model_fields | Settings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_the_source_of_every_value_is_shown(inside: Inside) -> None:
    """Three places can set a variable; the output has to show which one did."""
    (inside.directory / ".env").write_text("STREAMQ_TENANT=from-dotenv\nSTREAMQ_TTL_SECONDS=5\n")
    (inside.directory / "streamq.toml").write_text(
        'tenant = "from-toml"\nretry_seconds = 7\n[sqlite]\nbusy_seconds = 9\n'
    )
    out = inside.run("config", "--json", env={"STREAMQ_TTL_SECONDS": "6"}).out
    found = {each["variable"]: each for each in json.loads(out)["settings"]}

    def fact(variable: str) -> tuple[object, str]:
        return found[variable]["value"], found[variable]["source"]

    assert fact("STREAMQ_TTL_SECONDS") == (6.0, "environment")
    assert fact("STREAMQ_TENANT") == ("from-dotenv", str(inside.directory / ".env"))
    assert fact("STREAMQ_RETRY_SECONDS") == (7.0, str(inside.directory / "streamq.toml"))
    assert fact("STREAMQ_SQLITE_BUSY_SECONDS") == (9.0, str(inside.directory / "streamq.toml"))
    assert fact("STREAMQ_IDLE_SECONDS") == (300.0, "default")


@pytest.mark.parametrize(
    ("variable", "fault"),
    [
        ("TEMPORAL_CONFIG_FILE", "TOML parse error"),
        ("TEMPORAL_PROFILE", "Profile 'other' not found"),
        ("STREAMQ_TEMPORAL_TLS_SERVER_CA", "cannot be read"),
    ],
)
def test_settings_are_shown_though_temporals_cannot_be_used(
    inside: Inside, variable: str, fault: str
) -> None:
    """The output is what people look at to find that fault."""
    (inside.directory / "broken.toml").write_text("[profile.default\n")
    env = {
        variable: "broken.toml" if variable == "TEMPORAL_CONFIG_FILE" else "other",
        "STREAMQ_TENANT": "mine",
    }
    done = inside.run("config", "--json", env=env)
    assert done.code == 0
    found = {each["variable"]: each["value"] for each in json.loads(done.out)["settings"]}
    assert found["STREAMQ_TENANT"] == "mine"
    assert found["STREAMQ_TEMPORAL_ADDRESS"] == "127.0.0.1:7233"
    [line] = done.err.splitlines()
    assert line.startswith("note: ")
    assert fault in line


def test_secrets_are_masked(inside: Inside) -> None:
    """The output is copied into tickets and chats."""
    env = {
        "STREAMQ_BACKEND": "redis",
        "STREAMQ_REDIS_URL": "redis://somebody:hunter2@localhost:6379/0",
    }
    for shown in inside.run_each([["config"], ["config", "--json"]], env=env):
        assert shown.code == 0
        assert "STREAMQ_REDIS_URL" in shown.out
        assert "redis://somebody:**********@localhost:6379" in shown.out
        assert "hunter2" not in shown.out + shown.err


def test_an_invalid_secret_is_not_repeated(inside: Inside) -> None:
    """An error message must not contain a secret that the table masks."""
    env = {"STREAMQ_BACKEND": "redis", "STREAMQ_REDIS_URL": "http://somebody:hunter2@localhost"}
    message = one_error(inside.run("config", env=env))
    assert "STREAMQ_REDIS_URL" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SecretStr("hunter2"), "**********"),
        (SecretStr(""), ""),
        (SecretStr("redis://127.0.0.1:6379/0"), "redis://127.0.0.1:6379/0"),
        (SecretStr("redis://me:hunter2@db.example:6379"), "redis://me:**********@db.example:6379"),
        (SecretStr("rediss://:hunter2@[::1]:6379/3"), "rediss://:**********@[::1]:6379/3"),
        (SecretStr("redis://hunter2@host"), "redis://**********@host"),
        (SecretStr("redis://host/0?password=hunter2"), "redis://host/0?**********"),
        (SecretStr("redis://host?password=a@hunter2"), "**********"),
        (SecretStr("redis://a:hunter2/@:x@host"), "**********"),
        (SecretStr("redis://a:123/4@hunter2@host"), "**********"),
        (SecretStr("unix:///run/redis.sock"), "unix:///run/redis.sock"),
        (SecretStr("https://hooks.example/services/hunter2"), "**********"),
        ("http://somebody:hunter2@host/path", "http://**********@host/path"),
        ("amqp://a:hunter2/@:x@host", "amqp://**********@host"),
        ("https://host/?token=hunter2&a=b", "https://host/?token=**********&a=b"),
        ("https://host/path", "https://host/path"),
        (5.0, 5.0),
        (None, None),
        (True, True),
    ],
)
def test_values_are_shown_without_credentials(value: object, shown: object) -> None:
    """A plugin may have a URL in a setting that is not secret."""
    assert mask_value(value) == shown


def test_an_invalid_value_is_one_line(inside: Inside) -> None:
    """The message has to name the variable and the reason."""
    message = one_error(inside.run("config", env={"STREAMQ_TTL_SECONDS": "soon"}))
    assert "STREAMQ_TTL_SECONDS" in message
    assert "soon" in message
