"""An ending prints as a name although it is stored as a number."""

from __future__ import annotations

import json

import pytest

from streamq import SealState


@pytest.mark.parametrize("state", list(SealState))
def test_an_ending_is_printed_by_name_and_stored_as_a_number(state: SealState) -> None:
    """Users write ``print(event.state)`` first; "0" would mean nothing to them."""
    assert (str(state), f"{state}") == (state.name, state.name)
    assert json.dumps(state) == str(state.value)
