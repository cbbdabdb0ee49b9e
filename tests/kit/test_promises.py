"""Each check quotes the contract: word for word, so that a failure shows what the driver owes."""

from __future__ import annotations

import pytest

from streamq.testing import DriverSuite, promises
from streamq.testing._contract import documented, objects, sentences
from streamq.testing._unproved import UNPROVED
from streamq.testing.checks._promises import Promise, promises_of

CHECKS = sorted(name for name in dir(DriverSuite) if name.startswith("test_"))
PROMISES = [each for name in CHECKS for each in promises_of(getattr(DriverSuite, name))]


@pytest.mark.parametrize("name", CHECKS)
def test_quoted_sentence_is_in_the_contract(name: str) -> None:
    """A sentence that the contract no longer has would send an author to look for it in vain."""
    for promise in promises_of(getattr(DriverSuite, name)):
        assert promise.sentence in documented(promise.where), promise


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_quotes_the_contract(name: str) -> None:
    """A check of something that the contract does not demand would fail sound drivers."""
    assert promises_of(getattr(DriverSuite, name))


@pytest.mark.parametrize("where", objects())
def test_every_sentence_is_proved_or_has_a_reason(where: str) -> None:
    """A demand that nobody proves is a hope; and a reason must go once there is a check."""
    proved = [each.sentence for each in PROMISES if each.where == where]
    excused = [beginning for place, beginning in UNPROVED if place == where]
    for sentence in sentences(where):
        is_proved = any(each in sentence or sentence in each for each in proved)
        found = [beginning for beginning in excused if sentence.startswith(beginning)]
        assert is_proved != bool(found), f"{where}: {sentence}"
        excused = [beginning for beginning in excused if beginning not in found]
    assert excused == [], "these sentences are no longer there"


def test_reasons_are_given_for_objects_of_the_contract() -> None:
    """A reason for an object that is gone would never be looked at again."""
    assert {where for where, _ in UNPROVED} <= {*objects()}


def test_first_decorator_in_the_source_comes_first() -> None:
    """The most important sentence of a check leads its failure."""

    @promises("Entry.index", "one")
    @promises("Entry.data", "two  words\n over two lines", cause="none")
    def check() -> None:
        pass

    assert promises_of(check) == (
        Promise("Entry.index", "one"),
        Promise("Entry.data", "two words over two lines", "none"),
    )
    assert promises_of(len) == ()


@pytest.mark.parametrize(
    ("where", "beginning"),
    [
        ("ChunkQueue", "An open connection to a backend."),
        ("ChunkQueue.append", "Store entries, in order,"),
        ("ChunkQueue.backend", "The driver's name, for messages"),
        ("Entry.index", "Place within the epoch,"),
        ("Capabilities.durable", "An entry whose append has returned"),
        ("new_entries", "Return the entries that are still to be stored"),
    ],
)
def test_every_kind_of_object_is_found(where: str, beginning: str) -> None:
    """A check may prove what is said of a class, a method, a field or an attribute."""
    assert documented(where).startswith(beginning)


@pytest.mark.parametrize("where", ["Nothing", "ChunkQueue.nothing", "Entry.nothing"])
def test_object_that_the_contract_lacks_is_an_error(where: str) -> None:
    """A mistyped name must not pass as a promise without a text."""
    with pytest.raises(LookupError):
        documented(where)
