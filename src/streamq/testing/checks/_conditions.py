"""Marks each check with the capabilities and hooks that it requires.

Design: docs/design/testing.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from streamq.driver import Capabilities
from streamq.testing._harness import HOOKS

Check = TypeVar("Check", bound=Callable[..., object])

_CONDITIONS = "_streamq_conditions"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions under which a check applies.

    Attributes:
        capabilities: Capabilities that have to be declared; the check tests them.
        hooks: Hooks that the harness has to supply.
    """

    capabilities: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


def requires(*capabilities: str) -> Callable[[Check], Check]:
    """Mark a check that tests capabilities; it is skipped where one of them is not declared.

    Args:
        capabilities: Names of attributes of :class:`streamq.Capabilities`.
    """
    unknown = {name for name in capabilities if not hasattr(Capabilities, name)}
    if unknown:
        raise ValueError(f"{sorted(unknown)} are not capabilities")

    def mark(check: Check) -> Check:
        found = conditions_of(check)
        setattr(check, _CONDITIONS, Conditions(capabilities + found.capabilities, found.hooks))
        return check

    return mark


def needs(*hooks: str) -> Callable[[Check], Check]:
    """Mark a check that needs hooks of the harness.

    If one is not supplied, the check is skipped, or fails if a declared capability makes the hook
    mandatory.

    Args:
        hooks: Names of methods of :class:`BackendHarness`.
    """
    unknown = set(hooks) - set(HOOKS)
    if unknown:
        raise ValueError(f"{sorted(unknown)} are not hooks of BackendHarness")

    def mark(check: Check) -> Check:
        found = conditions_of(check)
        setattr(check, _CONDITIONS, Conditions(found.capabilities, hooks + found.hooks))
        return check

    return mark


def conditions_of(check: object) -> Conditions:
    """Return the conditions under which a check applies."""
    found = getattr(check, _CONDITIONS, None)
    return found if isinstance(found, Conditions) else Conditions()
