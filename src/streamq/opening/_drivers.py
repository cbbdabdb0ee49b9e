"""Finds and loads drivers by name through stevedore and entry points.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import importlib.metadata
import inspect

from stevedore import NamedExtensionManager

from streamq._errors import BackendLoadError, BackendNotFoundError, error_text
from streamq._settings import OFFICIAL_PLUGINS
from streamq._settings_base import DriverSettings, did_you_mean
from streamq.calling._breach import shown
from streamq.calling._queues import capabilities_problem
from streamq.driver import AnyDriver, Driver

GROUP = "streamq.drivers"
_BUILT_IN = {"memory": "streamq.memory:MemoryDriver", "sqlite": "streamq.sqlite:SqliteDriver"}
_OURS = "streamq"


class _Loader(NamedExtensionManager[AnyDriver]):
    """Loads one driver from given entry points.

    stevedore's own list is cached on disk and can lag behind a ``pip install``. Its DriverManager
    cannot be kept from logging "Could not load" beside our error; this base class can.
    """

    def __init__(self, points: list[importlib.metadata.EntryPoint]) -> None:
        self._points = points
        self.failures: list[BaseException] = []
        super().__init__(
            GROUP,
            [point.name for point in points],
            on_load_failure_callback=lambda _manager, _point, exc: self.failures.append(exc),
            on_missing_entrypoints_callback=None,
        )

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        """Return the given entry points: scanning all distributions again would double the cost."""
        return self._points


def installed_drivers() -> dict[str, str]:
    """Return the name of every installed driver and the distribution it comes from.

    Nothing is imported. A name that two distributions register is listed with both. The built-in
    drivers are there without metadata, as in a program that PyInstaller has frozen.
    """
    found: dict[str, list[str]] = {name: [_OURS] for name in _BUILT_IN}
    for point in importlib.metadata.entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point.dist.name if point.dist else "unknown")
    return {name: ", ".join(sorted(set(dists))) for name, dists in sorted(found.items())}


def load_driver(name: str) -> AnyDriver:
    """Import one driver, and only that one.

    Raises:
        BackendNotFoundError: No installed driver has that name.
        BackendLoadError: It is registered twice, cannot be imported, or is not a driver.
    """
    points = list(importlib.metadata.entry_points(group=GROUP, name=name))
    targets = {point.value for point in points} | {*filter(None, [_BUILT_IN.get(name)])}
    if not targets:
        raise BackendNotFoundError(_not_found(name), backend=name)
    if len(targets) > 1:
        claims = {(p.dist.name if p.dist else "?", p.value) for p in points}
        if name in _BUILT_IN:
            claims.add((_OURS, _BUILT_IN[name]))
        dists = ", ".join(f"{dist} ({target})" for dist, target in sorted(claims))
        raise BackendLoadError(
            f"backend {name!r} is claimed by more than one distribution: {dists}. Uninstall all "
            "but one.",
            backend=name,
        )
    if name in _BUILT_IN:
        return _built_in(name)
    loader = _Loader(points)
    dist = points[0].dist.name if points[0].dist else "its distribution"
    if loader.failures:
        cause = loader.failures[0]
        raise BackendLoadError(_broken(name, dist, points[0].value, cause), backend=name) from cause
    driver = loader.extensions[0].plugin
    if not (inspect.isclass(driver) and issubclass(driver, Driver)):
        raise BackendLoadError(
            f"entry point {name!r} of {dist} is {driver!r}, not a subclass of "
            "streamq.driver.Driver; tell the authors of that package",
            backend=name,
        )
    if (flaw := _flaw(driver, name)) is not None:
        raise BackendLoadError(
            f"entry point {name!r} of {dist} leads to {flaw}; tell the authors of that package",
            backend=name,
        )
    return driver


def _flaw(driver: AnyDriver, name: str) -> str | None:
    """Return what is wrong with a driver, before anything relies on its attributes."""
    its_name = getattr(driver, "name", None)
    if its_name != name:
        return f"a driver that calls itself {shown(its_name)}"
    summary = getattr(driver, "summary", None)
    if not isinstance(summary, str):
        return f"a driver whose summary is {shown(summary)}, not a line of text"
    if (problem := capabilities_problem(getattr(driver, "capabilities", None))) is not None:
        return f"a driver whose {problem}"
    settings = getattr(driver, "settings_type", None)
    if not (inspect.isclass(settings) and issubclass(settings, DriverSettings)):
        return f"a driver whose settings_type is {shown(settings)}, not a class of DriverSettings"
    if "open" in driver.__abstractmethods__:
        return "a driver without open()"
    return None


def _built_in(name: str) -> AnyDriver:
    # Imports that tools which freeze programs can see.
    if name == "memory":
        from streamq.memory import MemoryDriver

        return MemoryDriver
    from streamq.sqlite import SqliteDriver

    return SqliteDriver


def _not_found(name: str) -> str:
    installed = installed_drivers()
    message = f"unknown backend {name!r}{did_you_mean(name, [*installed, *OFFICIAL_PLUGINS])}"
    if name in OFFICIAL_PLUGINS:
        distribution = f"streamq-{name.replace('_', '-')}"
        message = f"backend {name!r} is not installed; run: pip install {distribution}"
    return f"{message} (installed: {', '.join(installed)})"


def _broken(name: str, dist: str, target: str, exc: BaseException) -> str:
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        missing = exc.name.partition(".")[0]
        if missing != target.partition(":")[0].partition(".")[0]:
            return (
                f"backend {name!r} needs the package {missing!r}, which is not installed; run: "
                f"pip install --force-reinstall {dist}"
            )
    return f"backend {name!r} of {dist} cannot be imported: {type(exc).__name__}: {error_text(exc)}"
