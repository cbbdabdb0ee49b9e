"""Quotes, for each check, the sentences of the contract that the check proves.

Design: docs/design/testing.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._conditions import Check

_PROMISES = "_streamq_promises"


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence of the contract, as a check quotes it.

    Attributes:
        where: The object of :mod:`streamq.driver` whose documentation has the sentence, such as
            ``ChunkQueue.append``, ``Entry.index`` or ``Capabilities.durable``.
        sentence: The sentence, or a part of it, word for word.
        cause: What usually breaks it, and the next step of the driver's author; may be empty.
    """

    where: str
    sentence: str
    cause: str = ""


def promises(where: str, sentence: str, *, cause: str = "") -> Callable[[Check], Check]:
    """Mark a check with a sentence of the contract that it proves.

    A failure of the check shows the sentence, and ``docs/contract.md`` lists the check below it. A
    check that proves several sentences is marked several times, the most important one first.

    Args:
        where: The object of :mod:`streamq.driver` whose documentation has the sentence, such as
            ``ChunkQueue.append``, ``Entry.index`` or ``Capabilities.durable``.
        sentence: The sentence, or a part of it, word for word; line breaks do not matter.
        cause: What usually breaks it, and what to do; shown with a failure that names no other.
    """

    def mark(check: Check) -> Check:
        promise = Promise(where, " ".join(sentence.split()), " ".join(cause.split()))
        # Decorators are applied from the bottom; the first one in the source comes first.
        setattr(check, _PROMISES, (promise, *promises_of(check)))
        return check

    return mark


def promises_of(check: object) -> tuple[Promise, ...]:
    """Return the sentences of the contract that a check proves, the most important one first."""
    found = getattr(check, _PROMISES, ())
    return found if isinstance(found, tuple) else ()
