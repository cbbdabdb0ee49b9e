"""Tests that the versions which the documents call tested are those that the tests run with."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamq.temporal.workflow_streams._integrations import INTEGRATIONS, Integration

PAGE = Path(__file__).parents[3] / "docs" / "integrations.md"


@pytest.mark.parametrize("integration", INTEGRATIONS, ids=lambda each: each.distribution)
def test_table_has_the_version_that_is_installed(integration: Integration) -> None:
    """A worker warns of other versions."""
    rows = [line for line in PAGE.read_text().splitlines() if integration.name in line]
    [row] = [line for line in rows if line.startswith("|")]
    if integration.tested is None:
        assert "not tested" in row
        return
    if integration.installed is None:
        pytest.skip(f"{integration.distribution} is not installed")
    assert integration.is_tested
    assert f"`{integration.distribution}` | {integration.tested} |" in row
