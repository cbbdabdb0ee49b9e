"""The public names are exactly those that are listed, and errors carry what scripts need."""

import ast
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import streamq
import streamq.driver
from streamq import Capabilities, LatencyClass, StreamqError, _errors


def public(module: ModuleType) -> set[str]:
    """Return the names that can be imported from a module and that streamq defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "streamq").startswith("streamq")
    }


def test_all_lists_every_public_name() -> None:
    """Every importable name is supported, and every supported name is importable."""
    aliases = {"Event", "EventOrGap"}  # type aliases do not know where they were defined
    assert public(streamq) | aliases == set(streamq.__all__)


def test_contract_is_what_the_driver_module_defines() -> None:
    """`help(streamq.driver)` shows what is in `__all__`: the contract, without errors and parts."""
    defined = {
        name
        for name in public(streamq.driver)
        if getattr(getattr(streamq.driver, name), "__module__", "streamq.driver")
        in ("streamq.driver", "streamq._capabilities")
    }
    aliases = {"AnyDriver"}
    others = {"BEFORE_ALL", "SettingsT"}
    assert (defined | aliases) - others == set(streamq.driver.__all__)


def test_every_part_of_drivers_is_exported_for_type_checkers() -> None:
    """A name that is imported without "as" is an error in strict mode for whoever uses it."""
    tree = ast.parse(Path(streamq.driver.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    names = [each for node in imports for each in node.names]
    bare = {each.name for each in names if each.asname is None}
    assert bare <= set(streamq.driver.__all__)
    assert {each.asname for each in names if each.name == each.asname} <= public(streamq.driver) | {
        "CredentialCall"
    }


def errors() -> list[type[StreamqError]]:
    found = [e for e in vars(streamq).values() if inspect.isclass(e)]
    return [e for e in found if issubclass(e, StreamqError) and e is not StreamqError]


@pytest.mark.parametrize("error", errors(), ids=lambda e: e.__name__)
def test_every_error_has_its_own_code_and_a_docstring(error: type[StreamqError]) -> None:
    """Scripts branch on the code; it must be stable and unambiguous."""
    assert error.code in vars(error).values(), "inherits the code of its base class"
    assert [e.code for e in errors()].count(error.code) == 1
    assert error.__doc__


def tree(error: type[StreamqError], depth: int = 1) -> list[str]:
    """Return the lines of a class and of its subclasses that streamq itself defines."""
    lines = ["    " * depth + error.__name__]
    for each in error.__subclasses__():
        if each.__module__ == _errors.__name__:
            lines += tree(each, depth + 1)
    return lines


def test_the_tree_of_errors_is_the_one_that_is_documented() -> None:
    """The docstring is where users look up which class catches which errors."""
    documented = (_errors.__doc__ or "").splitlines()
    start = documented.index("    StreamqError")
    end = documented.index("", start)
    assert documented[start:end] == tree(StreamqError)


def test_only_passing_conditions_are_retryable() -> None:
    """Retrying a typo for thirty seconds helps no user."""
    retryable = {e.__name__ for e in errors() if e.retryable}
    assert retryable == {
        "BackendUnavailableError",
        "BufferFullError",
        "QuotaError",
        "StorageFullError",
        "ThrottledError",
    }


def test_capabilities_know_their_flags() -> None:
    """The capabilities that can be required are derived from the declaration itself."""
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=False,
        cross_process=False,
        cross_host=False,
        expires=True,
        max_record_bytes=10,
        latency=LatencyClass.MILLISECONDS,
    )
    data = capabilities.to_dict()
    assert data["latency"] == "milliseconds"
    assert set(Capabilities.flags()) == {n for n, v in data.items() if isinstance(v, bool)}
