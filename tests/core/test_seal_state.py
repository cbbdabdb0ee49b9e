"""How an ending prints, and that it is stored as a number all the same."""

from __future__ import annotations

import json

import pytest

from streamq import SealState


@pytest.mark.parametrize("state", list(SealState))
def test_an_ending_is_printed_by_name_and_stored_as_a_number(state: SealState) -> None:
    """``print(event.state)`` is the first thing people write; "0" tells them nothing."""
    assert (str(state), f"{state}") == (state.name, state.name)
    assert json.dumps(state) == str(state.value)
