"""``streamq backends``."""

from __future__ import annotations

import json
from pathlib import Path

from streamq import installed_drivers, load_driver

from .command import Cli, Inside, one_error


def test_json_has_what_the_drivers_declare(inside: Inside) -> None:
    """Programs can choose a backend by what it promises."""
    found = json.loads(inside.run("backends", "--json").out)
    assert found["selected"] == "sqlite"
    assert {each["name"]: each["distribution"] for each in found["backends"]} == installed_drivers()
    for each in found["backends"]:
        driver = load_driver(each["name"])
        assert each["capabilities"] == driver.capabilities.to_dict()
        assert each["summary"] == driver.summary
        assert each["selected"] == (each["name"] == "sqlite")
        assert each["error"] is None


def test_the_table_has_the_same_facts(inside: Inside) -> None:
    """People and programs are told the same."""
    as_json, as_table = inside.run_each([["backends", "--json"], ["backends"]])
    facts, lines = json.loads(as_json.out)["backends"], as_table.out.splitlines()
    header = next(line for line in lines if line.startswith("capability"))
    rows = {line.split()[0]: line for line in lines[lines.index(header) + 1 :]}
    for each in facts:
        column = header.index(each["name"])
        assert any(each["name"] in line and each["distribution"] in line for line in lines)
        for name, value in each["capabilities"].items():
            cell = rows[name][column:].split("   ")[0]
            expected = {True: "yes", False: "no"}.get(value, value)
            if name == "max_record_bytes":
                is_small = value < 2**20
                expected = f"{value / 2**10:g} KiB" if is_small else f"{value / 2**20:g} MiB"
            assert cell == expected


def test_the_selected_backend_is_marked(inside: Inside) -> None:
    """It shows what a program started here would use."""
    out = inside.run("backends", env={"STREAMQ_BACKEND": "Redis"}).out
    assert "redis (selected)" in out
    assert out.count("(selected)") == 1


def test_a_driver_that_cannot_be_loaded_is_listed_with_the_reason(cli: Cli) -> None:
    """One broken plugin must not hide the others, nor itself."""
    info = cli.directory / "plugins" / "streamq_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: streamq-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[streamq.drivers]\nbroken = no_such_module:Driver\n")
    env = {"PYTHONPATH": str(Path(info).parent)}
    shown, as_json = cli.run_each([["backends"], ["backends", "--json"]], env=env)
    assert shown.code == 0
    assert any(
        line.startswith("broken") and "streamq-broken" in line and "no_such_module" in line
        for line in shown.out.splitlines()
    )
    facts = json.loads(as_json.out)["backends"]
    broken = {each["name"]: each for each in facts}["broken"]
    assert "no_such_module" in broken["error"]
    assert broken["capabilities"] is None
    assert "no_such_module" in one_error(
        cli.run("tail", "a", env={**env, "STREAMQ_BACKEND": "broken"})
    )
