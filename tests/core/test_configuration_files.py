"""Files with settings in every state that a disk can have them in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamq import ConfigurationError, load_settings
from streamq._setting_origins import is_service_link
from streamq._settings import check_variables
from streamq.memory import MemorySettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty directory, so that no file of the developer's has a say."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [".env", "streamq.toml"])
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("latin-1", "line 2 has the byte 0xfc, which is not UTF-8"),
        ("utf-16", "line 1 has the byte 0xff, which is not UTF-8"),
        ("directory", "it is a directory"),
        ("pipe", "it is no regular file"),
        ("device", "it is no regular file"),
        ("loop", "symbolic links"),
        ("huge", "larger than"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    elsewhere: Path, name: str, state: str, reason: str
) -> None:
    """The message names the file, and no command waits for a pipe that nobody writes to."""
    path = elsewhere / name
    if state == "latin-1":
        path.write_bytes("# x\n# für\n".encode("latin-1"))
    elif state == "utf-16":
        path.write_bytes("# x\n".encode("utf-16"))
    elif state == "directory":
        path.mkdir()
    elif state == "pipe":
        os.mkfifo(path)
    elif state == "device":
        path.symlink_to("/dev/zero")
    elif state == "loop":
        path.symlink_to(name)
    else:
        path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"cannot read {path}: " in str(caught.value)
    assert reason in str(caught.value)


def test_marks_of_other_systems_are_read(elsewhere: Path) -> None:
    """Editors of Windows write a byte-order mark, and two characters at the end of a line."""
    (elsewhere / "streamq.toml").write_bytes(b'\xef\xbb\xbftenant = "a"\r\nmode = "batch"\r\n')
    (elsewhere / ".env").write_bytes(b"\xef\xbb\xbfSTREAMQ_TTL_SECONDS=5\r\nSTREAMQ_TENANT=b\r\n")
    settings = load_settings()
    assert (settings.tenant, settings.mode, settings.ttl_seconds) == ("b", "batch", 5)


def test_a_virtual_environment_of_that_name_is_no_file_with_settings(elsewhere: Path) -> None:
    """Old projects have their virtual environment there."""
    (elsewhere / ".env").mkdir()
    (elsewhere / ".env" / "pyvenv.cfg").touch()
    assert load_settings().backend == "sqlite"


def test_a_directory_that_was_removed_has_no_files(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may outlive the directory that it was started in."""
    gone = elsewhere / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_settings().backend == "sqlite"


LINKS = {
    f"STREAMQ{service}{name}": value
    for service in ("", "_GATEWAY", "_REDIS", "_KAFKA", "_TEMPORAL", "_BACKEND", "_MODE")
    for name, value in {
        "_SERVICE_HOST": "10.0.0.1",
        "_SERVICE_PORT": "8330",
        "_SERVICE_PORT_HTTP": "8330",
        "_SERVICE_PORT_METRICS_V2": "9000",
        "_PORT": "tcp://10.0.0.1:8330",
        "_PORT_8330_TCP": "tcp://10.0.0.1:8330",
        "_PORT_8330_TCP_PROTO": "tcp",
        "_PORT_8330_TCP_PORT": "8330",
        "_PORT_8330_TCP_ADDR": "fd00::1",
        "_PORT_53_UDP": "udp://10.0.0.1:53",
    }.items()
}


def test_links_to_services_of_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called streamq-gateway puts them into every pod of its namespace."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.gateway_port == 8330
    check_variables(settings, MemorySettings, ["memory", "sqlite"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMQ_GATEWAY_PORT", "8330"),
        ("STREAMQ_GATEWAY_PORT", "http://10.0.0.1:1"),
        ("STREAMQ_REDIS_URL", "tcp://10.0.0.1:6379"),
        ("STREAMQ_SERVICE_HOST", "my host"),
        ("STREAMQ_REDIS_SERVICE_PORT", "redis"),
        ("STREAMQ_BACKND", "tcp://10.0.0.1:1"),
        ("OTHER_PORT", "tcp://10.0.0.1:1"),
    ],
)
def test_what_only_looks_like_a_link_is_a_setting(name: str, value: str) -> None:
    """A mistyped setting is still an error."""
    assert not is_service_link(name, value)
