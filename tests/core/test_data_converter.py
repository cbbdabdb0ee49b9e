"""The codec of ``STREAMQ_DATA_CONVERTER`` is found by an entry point, not by an import."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator

import pytest

from streamq import ConfigurationError, Settings, StreamId
from streamq.opening import _data_converter
from streamq.opening._data_converter import configured_conversion

_STREAM = StreamId("t", "workflow/run/topic")


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    """Look the entry point up in each test."""
    _data_converter._loader.cache_clear()
    yield
    _data_converter._loader.cache_clear()


@pytest.fixture
def converting(settings: Settings) -> Settings:
    """Settings with a data converter that has no codec."""
    return settings.model_copy(
        update={"data_converter": "temporalio.contrib.pydantic:pydantic_data_converter"}
    )


def test_the_converter_is_loaded_through_the_entry_point(converting: Settings) -> None:
    """The default converter has no codec; a wrong name is still an error."""
    assert configured_conversion(converting, _STREAM)[1] is None
    wrong = converting.model_copy(update={"data_converter": "temporalio.converter:DataConvertor"})
    with pytest.raises(ConfigurationError, match="did you mean 'DataConverter'"):
        configured_conversion(wrong, _STREAM)


def test_without_temporal_the_message_names_the_extra(
    converting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway host often installs streamq without Temporal's SDK."""
    monkeypatch.setitem(sys.modules, "streamq.temporal._serializer", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'streamq\[temporal\]'"):
        configured_conversion(converting, _STREAM)


def test_missing_metadata_is_no_obstacle(
    converting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen program has none, and that of an old editable installation lacks the entry point."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())
    assert configured_conversion(converting, _STREAM)[1] is None


def test_the_core_does_not_import_temporal() -> None:
    """Readers and gateways must work, and start fast, without Temporal's SDK."""
    code = "import sys, streamq; sys.exit(any(m.startswith('temporalio') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
