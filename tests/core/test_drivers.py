"""Finding and loading drivers: every failure has a clear message of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamq import BackendLoadError, BackendNotFoundError, installed_drivers, load_driver

Install = Callable[..., None]

GOOD_DRIVER = """
from streamq.memory import MemoryDriver

class GoodDriver(MemoryDriver):
    name = "good"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a made-up distribution with one driver entry point, for this test only."""

    def install(dist: str, name: str, module: str, source: str, target: str) -> None:
        site = tmp_path / dist
        info = site / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[streamq.drivers]\n{name} = {module}:{target}\n")
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    return install


def test_built_in_drivers_are_found_by_name() -> None:
    """memory and sqlite need no plugin."""
    assert {"memory", "sqlite"} <= set(installed_drivers())
    assert load_driver("memory").name == "memory"


def test_third_party_driver_is_found_by_its_entry_point(install: Install) -> None:
    """Anyone can add a backend without a change in streamq."""
    install("acme-good", "good", "acme_good", GOOD_DRIVER, "GoodDriver")
    assert installed_drivers()["good"] == "acme-good"
    assert load_driver("good").name == "good"


def test_unknown_name_suggests_the_closest_and_lists_the_installed() -> None:
    """A typo can be fixed from the message alone."""
    with pytest.raises(BackendNotFoundError) as caught:
        load_driver("sqlit")
    assert "unknown backend 'sqlit'; did you mean 'sqlite'?" in str(caught.value)
    assert f"installed: {', '.join(installed_drivers())}" in str(caught.value)


def test_known_plugin_that_is_not_installed_names_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next step is one pip install."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    with pytest.raises(BackendNotFoundError, match="run: pip install streamq-redis"):
        load_driver("redis")


def test_name_registered_twice_is_refused_and_names_both(install: Install) -> None:
    """The choice between the two must not depend on the order of sys.path."""
    install("acme-one", "twice", "acme_one", GOOD_DRIVER, "GoodDriver")
    install("acme-two", "twice", "acme_two", "raise SystemExit('imported')", "GoodDriver")
    with pytest.raises(BackendLoadError, match=r"acme-one .*acme-two .*Uninstall all but one"):
        load_driver("twice")


def test_missing_client_library_names_the_package_to_install(install: Install) -> None:
    """A plugin without its client must not show as a traceback of a foreign import."""
    install("acme-x", "x", "acme_x", "import surely_not_installed.sub", "Driver")
    with pytest.raises(BackendLoadError, match=r"needs the package 'surely_not_installed'.*acme-x"):
        load_driver("x")


def test_broken_import_names_the_defect(install: Install) -> None:
    """The plugin's own defect is named as such."""
    install("acme-y", "y", "acme_y", "1 / 0", "Driver")
    with pytest.raises(BackendLoadError, match=r"acme-y cannot be imported: ZeroDivisionError"):
        load_driver("y")


def test_entry_point_to_a_missing_attribute_is_a_load_error(install: Install) -> None:
    """A renamed class in the plugin is a mistake of its authors; the message says so."""
    install("acme-z", "z", "acme_z", "", "Driver")
    with pytest.raises(BackendLoadError, match=r"acme-z cannot be imported: AttributeError"):
        load_driver("z")


@pytest.mark.parametrize("target", ["number", "Plain", "make"])
def test_entry_point_to_something_else_is_refused(install: Install, target: str) -> None:
    """Not every object behind an entry point is a driver."""
    source = "number = 1\nclass Plain: ...\ndef make(): ..."
    install("acme-w", "w", "acme_w", source, target)
    with pytest.raises(BackendLoadError, match=r"not a subclass of streamq\.driver\.Driver"):
        load_driver("w")


def test_driver_with_another_name_than_its_entry_point_is_refused(install: Install) -> None:
    """Messages and metrics would otherwise name a backend that was not selected."""
    install("acme-v", "v", "acme_v", GOOD_DRIVER, "GoodDriver")
    with pytest.raises(BackendLoadError, match="calls itself 'good'"):
        load_driver("v")


def test_listing_and_loading_import_nothing_else(install: Install) -> None:
    """Selecting one backend must not pay for, or fail on, all the others."""
    install("acme-u", "u", "acme_u", "raise SystemExit('imported')", "Driver")
    assert "u" in installed_drivers()
    assert load_driver("memory").name == "memory"


def test_importing_streamq_imports_no_client_no_plugin_and_no_temporal() -> None:
    """Applications pay only for what they use."""
    code = (
        "import sys, streamq\n"
        "heavy = {'redis', 'streamq_redis', 'temporalio', 'starlette', 'uvicorn', 'typer', 'rich',"
        " 'pytest', 'streamq.temporal', 'streamq.gateway', 'streamq.cli', 'streamq.testing',"
        " 'streamq.memory', 'streamq.sqlite'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
