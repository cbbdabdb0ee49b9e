"""Lists the checks and hooks of the suite as data, for the report and the documentation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ._harness import HOOKS, MANDATORY_HOOKS, BackendHarness
from ._suite import DriverSuite
from .checks._conditions import Conditions, conditions_of

OWN_GROUP = "own"
"""The group of checks that an author adds to a suite."""


@dataclass(frozen=True, slots=True)
class CheckFacts:
    """Facts about one check.

    Attributes:
        name: Its name, without parameters.
        group: The group that it belongs to.
        guarantee: The reason for the check, in one sentence.
        conditions: The conditions under which it applies.
    """

    name: str
    group: str
    guarantee: str
    conditions: Conditions


@dataclass(frozen=True, slots=True)
class HookFacts:
    """Facts about one optional part of a harness.

    Attributes:
        signature: Its name and parameters.
        does: What it does, and what its checks rely on.
        proves: What its checks prove.
        mandatory_for: Capabilities that cannot be declared without it.
    """

    signature: str
    does: str
    proves: str
    mandatory_for: tuple[str, ...]


def catalogue(suite: type = DriverSuite) -> Iterator[CheckFacts]:
    """Iterate over the checks of a suite, in the order in which pytest runs them."""
    seen: set[str] = set()
    for origin in reversed(suite.__mro__):
        for name in vars(origin):
            if name.startswith("test_") and name not in seen:
                seen.add(name)
                check = getattr(suite, name)
                yield CheckFacts(
                    name, group_of(suite, name), guarantee_of(check), conditions_of(check)
                )


def hooks() -> Iterator[HookFacts]:
    """Iterate over the hooks that a harness may supply."""
    for name in HOOKS:
        hook = getattr(BackendHarness, name)
        paragraphs = [" ".join(part.split()) for part in (inspect.getdoc(hook) or "").split("\n\n")]
        proves = next(part for part in paragraphs if part.startswith("Proves "))
        parameters = [each for each in inspect.signature(hook).parameters if each != "self"]
        yield HookFacts(
            f"{name}({', '.join(parameters)})",
            " ".join(_before_sections(paragraphs, proves)),
            proves.removeprefix("Proves ").removeprefix("that "),
            tuple(flag for flag, needed in MANDATORY_HOOKS.items() if name in needed),
        )


def _before_sections(paragraphs: Sequence[str], proves: str) -> Iterator[str]:
    """Yield the paragraphs of a hook's docstring that say what it does."""
    for part in paragraphs:
        if part.startswith("Args:"):
            return
        if part != proves:
            yield part


def group_of(suite: type, check: str) -> str:
    """Return the group of the class that a check comes from."""
    for origin in suite.__mro__:
        if check in vars(origin):
            return str(vars(origin).get("group") or OWN_GROUP)
    return OWN_GROUP


def guarantee_of(check: object) -> str:
    """Return the sentence that states the reason for a check."""
    return " ".join((inspect.getdoc(check) or "").partition("\n\n")[0].split())
