"""Every state of the page: accessible by the rules of axe-core, and without an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib import resources
from typing import Any

import pytest

from streamq import load_settings

from .browsers import Browser
from .pictures import SIZES
from .scenes import LONG_CHUNKS, LONG_SCENE, SCENES, Scene, Stage, long_gateway, staged
from .served import Serve

Note = Callable[[str, str], None]

# What the list shows is checked in its own state: 500 rows take a while.
_AXE = (
    "axe.run(%s, {resultTypes: ['violations']}).then(({violations}) => violations.map(each =>"
    " `${each.id} (${each.impact}): ${each.nodes[0].html.slice(0, 200)}`))"
)
_QUICK = ("log", "error", "token")


async def violations(browser: Browser, scene: Scene) -> Any:
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text()
    await browser.value(f"{axe};0")
    where = "document" if scene.name == "list" else "{exclude: [['#list']]}"
    return await browser.value(_AXE % where, waits=True)


async def check(stage: Stage, browser: Browser, scenes: list[Scene], sizes: list[str]) -> None:
    """Check states in sizes, light and dark."""
    found = {}
    for scene in scenes:
        for size in sizes:
            width, height = SIZES[size]
            await stage.show(browser, scene, width, height)
            for is_dark in (False, True):
                await browser.look(width, height, is_dark=is_dark)
                problems = await violations(browser, scene)
                if problems:
                    found[f"{scene.name}, {size}, {'dark' if is_dark else 'light'}"] = problems
            wide = "document.documentElement.scrollWidth > innerWidth"
            assert await browser.value(wide) is False, f"{scene.name} is wider than a {size}"
    assert found == {}
    assert browser.errors == []


async def test_states_are_accessible_and_without_an_error(browser: Browser) -> None:
    """Contrast, names and roles are what some depend on to read a stream at all."""
    async with staged(streams=20) as stage:
        await check(stage, browser, [each for each in SCENES if each.name in _QUICK], ["desktop"])


@pytest.mark.full
@pytest.mark.timeout(500)
@pytest.mark.parametrize("size", SIZES)
async def test_every_state_is_accessible_in_every_theme(browser: Browser, size: str) -> None:
    """A colour that can be read in the light may not be readable in the dark."""
    async with staged(streams=20) as stage:
        await check(stage, browser, [each for each in SCENES if each.name != "list"], [size])


@pytest.mark.full
@pytest.mark.timeout(500)
async def test_a_list_of_500_streams_is_accessible(browser: Browser) -> None:
    """It is what people see first."""
    async with staged() as stage:
        scenes = [each for each in SCENES if each.name == "list"]
        await check(stage, browser, scenes, list(SIZES))


@pytest.mark.full
async def test_a_hundred_thousand_chunks_leave_the_page_small(browser: Browser, note: Note) -> None:
    """Exports and long logs froze the tab, or filled its memory."""
    async with AsyncExitStack() as stack:
        url = await long_gateway(stack, load_settings(backend="memory"))
        await browser.open("about:blank")
        await browser.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="window.tasks = []; new PerformanceObserver(list => tasks.push("
            "...list.getEntries().map(each => each.duration)))"
            ".observe({type: 'longtask', buffered: true})",
        )
        await browser.call("Page.navigate", url=f"{url}/?stream={LONG_SCENE.stream}")
        await browser.until(LONG_SCENE.until, seconds=120)
        assert await browser.text("#chunks") == f"{LONG_CHUNKS:,}"
        assert await browser.value("document.querySelectorAll('#output *').length") < 1_000
        longest = json.dumps(await browser.value("Math.round(Math.max(0, ...tasks))"))
        note("page", f"{LONG_CHUNKS:,} chunks: longest task of the browser {longest} ms")
        text = await browser.text("#output") or ""
        assert text.endswith(f"word{LONG_CHUNKS - 1} ")
        story = "import('./page/session.js').then(({gateway}) => gateway().story('%s'))"
        length = f"{story % LONG_SCENE.stream}.then(({{text}}) => text.length)"
        assert await browser.value(length, waits=True) == len(text)
        assert browser.errors == []


async def test_a_long_stream_drops_its_beginning_and_says_so(
    start: Serve, browser: Browser
) -> None:
    """A page that holds all of a stream that never ends takes all of the memory."""
    await browser.open(f"{(await start()).server.url}/")
    module = "import('./page/output.js').then(({Output}) => {"
    await browser.value(
        f"{module} window.root = document.createElement('div'); window.out = new Output(root);"
        " for (let i = 0; i < 400; i++) { out.text('line of text\\n'.repeat(1000)); out.trim(); }"
        " window.kept = out.chars; window.blocks = root.childElementCount;"
        " for (let i = 0; i < 9000; i++) { out.row(document.createElement('p'), 10); out.trim(); }"
        " window.rows = root.querySelectorAll('p').length; })",
        waits=True,
    )
    assert await browser.value("kept <= 2_000_000 && kept > 1_900_000") is True
    assert await browser.value("blocks <= 1_000") is True
    assert await browser.value("rows <= 5_000 && rows > 4_900") is True
    assert await browser.value("out.hasDropped") is True
    await browser.value(
        f"{module} window.root = document.createElement('div'); window.out = new Output(root);"
        " for (let i = 0; i < 300; i++) { out.text('\\x07'.repeat(1000)); out.trim(); }"
        " window.signs = root.querySelectorAll('span').length;"
        " const colours = '\\x1b[31ma\\x1b[32mb'.repeat(500);"
        " for (let i = 0; i < 300; i++) { out.text(colours); out.trim(); }"
        " window.spans = root.querySelectorAll('span').length; })",
        waits=True,
    )
    assert await browser.value("[signs, spans].every(each => each > 50_000 && each < 130_000)")
