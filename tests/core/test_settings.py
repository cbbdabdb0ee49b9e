"""Configuration: sources, and errors that name the variable and the next step."""

from pathlib import Path

import pytest
from pydantic import SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from streamq import ConfigurationError, Settings, load_settings, open_queue
from streamq._settings import build, check_variables
from streamq._settings_base import DriverSettings


class FakeSettings(DriverSettings):
    """Settings of a driver that only these tests know."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_FAKE_")
    toml_table = "fake"

    url: SecretStr = SecretStr("fake://nowhere")
    retries: int = 3


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty directory, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_environment_wins_over_dotenv_over_toml_over_default(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is the one that users know from other tools."""
    (elsewhere / "streamq.toml").write_text('tenant = "toml"\nttl_seconds = 1\nidle_seconds = 1\n')
    (elsewhere / ".env").write_text("STREAMQ_TENANT=dotenv\nSTREAMQ_TTL_SECONDS=2\nOTHER=x\n")
    monkeypatch.setenv("STREAMQ_TENANT", "environment")
    settings = load_settings()
    seen = (settings.tenant, settings.ttl_seconds, settings.idle_seconds, settings.backend)
    assert seen == ("environment", 2, 1, "sqlite")
    assert load_settings(tenant="argument").tenant == "argument"


def test_driver_settings_come_from_their_own_prefix_and_table(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each driver owns its flat prefix; the file has one table for each."""
    (elsewhere / "streamq.toml").write_text('backend = "fake"\n[fake]\nretries = 7\n')
    monkeypatch.setenv("STREAMQ_FAKE_URL", "fake://user:secret@host")
    settings = build(FakeSettings)
    assert settings.retries == 7
    assert settings.url.get_secret_value() == "fake://user:secret@host"
    assert "secret" not in repr(settings)


def test_named_configuration_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped path must not silently fall back to defaults."""
    monkeypatch.setenv("STREAMQ_CONFIG_FILE", "nope.toml")
    with pytest.raises(ConfigurationError, match=r"names 'nope\.toml', which does not exist"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backend = ", r"cannot read .*streamq\.toml"),
        ('bakend = "redis"', r"unknown setting 'bakend' in .*streamq\.toml; did you mean 'back"),
    ],
)
def test_broken_configuration_file_is_an_error(elsewhere: Path, text: str, message: str) -> None:
    """A configured value must have an effect, or be refused."""
    (elsewhere / "streamq.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_settings()


def test_unknown_key_of_a_driver_table_is_an_error(elsewhere: Path) -> None:
    """The same rule inside a driver's table."""
    (elsewhere / "streamq.toml").write_text("[fake]\nretrys = 1\n")
    with pytest.raises(ConfigurationError, match=r"'retrys' in \[fake\].*did you mean 'retries'"):
        build(FakeSettings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STREAMQ_TTL_SECONDS", "soon"),
        ("STREAMQ_TTL_SECONDS", "0"),
        ("STREAMQ_TTL_SECONDS", "inf"),
        ("STREAMQ_TTL_SECONDS", "nan"),
        ("STREAMQ_IDLE_SECONDS", "1e30"),
        ("STREAMQ_GATEWAY_PORT", "70000"),
        ("STREAMQ_MAX_CHUNK_BYTES", "-1"),
    ],
)
def test_invalid_value_names_the_variable_and_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The message alone must be enough to fix it."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=rf"{variable}: .*'{value}'"):
        load_settings()


class PairSettings(FakeSettings):
    """What is wrong with these is wrong with two of them together."""

    user: str = ""

    @model_validator(mode="after")
    def _has_a_user(self) -> "PairSettings":
        if not self.user:
            raise ValueError("STREAMQ_FAKE_URL needs STREAMQ_FAKE_USER")
        return self


def test_settings_that_contradict_each_other_show_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Logs keep such errors: a password without a user name must not be among them."""
    monkeypatch.setenv("STREAMQ_FAKE_URL", "fake://user:hunter2@host")
    with pytest.raises(ConfigurationError) as caught:
        build(PairSettings)
    assert str(caught.value) == "invalid setting: STREAMQ_FAKE_URL needs STREAMQ_FAKE_USER"


def test_invalid_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages end up in logs."""
    with pytest.raises(ConfigurationError) as caught:
        build(FakeSettings, url={"hunter2": 1})
    assert "hunter2" not in str(caught.value)
    assert "STREAMQ_FAKE_URL" in str(caught.value)


def test_credentials_in_an_address_are_never_shown() -> None:
    """Users write them there, whatever the setting is for, and the message goes to a log."""
    with pytest.raises(ConfigurationError) as caught:
        build(FakeSettings, retries="redis://user:hunter2@host:1, a:p@ss@b")
    assert "hunter2" not in str(caught.value)
    assert "p@ss" not in str(caught.value)
    assert "***@host:1" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [
        ("STREAMQ_BAKEND", "did you mean 'STREAMQ_BACKEND'"),
        ("STREAMQ_FAKE_URLS", "did you mean 'STREAMQ_FAKE_URL'"),
        ("STREAMQ_QQQQQ", "streamq config"),
        ("streamq_bakend", "did you mean 'STREAMQ_BACKEND'"),
    ],
)
def test_mistyped_variable_is_an_error_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch, variable: str, suggestion: str
) -> None:
    """pydantic-settings alone would ignore it, and a user would debug for an hour."""
    monkeypatch.setenv(variable, "x")
    with pytest.raises(ConfigurationError, match=suggestion):
        check_variables(Settings(backend="fake"), FakeSettings, ["fake", "memory"])


def test_mistyped_variable_in_dotenv_is_an_error_too(elsewhere: Path) -> None:
    """The file is read like the environment, so it is checked like it."""
    (elsewhere / ".env").write_text("STREAMQ_BAKEND=redis\n")
    with pytest.raises(ConfigurationError, match="STREAMQ_BAKEND"):
        check_variables(Settings(backend="fake"), FakeSettings, ["fake"])


def test_table_of_no_backend_is_an_error(elsewhere: Path) -> None:
    """A mistyped table would silently leave a backend on its defaults."""
    (elsewhere / "streamq.toml").write_text("[fakee]\nretries = 1\n")
    with pytest.raises(ConfigurationError, match=r"\[fakee\].*did you mean 'fake'"):
        check_variables(Settings(backend="fake"), FakeSettings, ["fake"])


def test_variables_of_drivers_that_are_not_selected_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One environment may configure several backends, and switch with one variable."""
    monkeypatch.setenv("STREAMQ_REDIS_URL", "redis://x")
    monkeypatch.setenv("STREAMQ_MEMORY_ANYTHING", "1")
    check_variables(Settings(backend="fake"), FakeSettings, ["fake", "memory"])


async def test_opening_a_queue_checks_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to open one passes the same check, before anything is connected."""
    monkeypatch.setenv("STREAMQ_BACKEND", " Memory ")
    monkeypatch.setenv("STREAMQ_MEMORY_STOER", "x")
    with pytest.raises(ConfigurationError, match="did you mean 'STREAMQ_MEMORY_STORE'"):
        await open_queue()


def test_empty_name_of_a_file_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that a deployment leaves empty does not name the working directory."""
    monkeypatch.setenv("STREAMQ_TEMPORAL_API_KEY_FILE", "")
    assert load_settings().temporal_api_key_file is None


def test_every_setting_is_described() -> None:
    """`streamq config` and the docs are generated from the descriptions."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
