"""The page in the hands of people: list, keys, values, attempts, downloads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from streamq import open_writer
from streamq.driver import ChunkQueue

from .browsers import Browser
from .served import Serve, WatchedQueue, end, eventually

RUN = "0d0e7a52-93a8-4f31-9a53-3d61b3a54f2b"
_ROWS = (
    "[...document.querySelectorAll('#list section')].filter(each => !each.hidden).map(each =>"
    " [each.querySelector('h2 .id')?.textContent ?? '', ...[...each.querySelectorAll('li')]"
    ".filter(row => !row.hidden).map(row => row.querySelector('.name').textContent"
    " + ' ' + row.querySelector('.word').textContent)])"
)
_LOOK = "document.dispatchEvent(new Event('visibilitychange'))"  # which makes the list ask anew
_FOCUS = "document.activeElement.id || document.activeElement.dataset.name || ''"


async def fail(queue: ChunkQueue, name: str) -> None:
    async with open_writer(name, queue=queue) as writer:
        await writer.fail(ValueError("no"))


async def listed(browser: Browser, rows: int) -> Any:
    """Wait until the list has so many rows whose state is known, and return its groups."""
    await browser.until(f"document.querySelectorAll('#list .word:not(:empty)').length === {rows}")
    return await browser.value(_ROWS)


async def test_streams_are_listed_by_workflow_and_by_folder(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A workflow with three topics is one thing to whoever looks for it."""
    now = int(time.time() * 1e6)
    await end(queue, "lonely", "a", epoch=now - 9_000_000)
    await end(queue, "imports/one", "a", epoch=now - 8_000_000)
    await end(queue, "imports/two", "a", epoch=now - 7_000_000)
    await end(queue, f"chat/7/{RUN}/answer", "a", epoch=now - 6_000_000)
    await fail(queue, f"chat/7/{RUN}/log")
    async with open_writer(f"job/activity-{RUN}/default", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        await browser.open(f"{(await start()).server.url}/")
        assert await listed(browser, 6) == [
            ["job", "default OPEN"],
            ["chat/7", "log ERROR", "answer END"],
            ["imports/", "two END", "one END"],
            ["", "lonely END"],
        ]
    kinds = "[...document.querySelectorAll('#list .kind')].map(each => each.textContent)"
    assert await browser.value(kinds) == ["activity 0d0e7a52", "workflow 0d0e7a52", "folder"]


async def test_the_list_is_searched_and_filtered_by_state(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Nobody reads 500 rows to find the one that failed."""
    await end(queue, "a/one", "a")
    await end(queue, "b/One more", "a")
    await fail(queue, "a/two")
    await browser.open(f"{(await start()).server.url}/")
    await listed(browser, 3)
    chips = "[...document.querySelectorAll('.chip')].map(each => each.textContent)"
    assert await browser.value(chips) == ["All 3", "●OPEN 0", "✓END 2", "✕ERROR 1", "■CANCELLED 0"]
    await browser.value("document.querySelector('.chip[data-state=ERROR]').click()")
    assert await browser.value(_ROWS) == [["a/", "two ERROR"]]
    await browser.value("document.querySelector('.chip[data-state=\"\"]').click()")
    await browser.value("document.getElementById('name').focus()")
    await browser.type("one")
    assert sorted(map(len, await browser.value(_ROWS))) == [2, 2]
    assert await browser.value("document.querySelector('.chip').textContent") == "All 2"
    await browser.type("-not-there")
    assert await browser.value(_ROWS) == []
    assert await browser.text("#open") == "Open"  # a stream that will start soon
    await browser.press("Enter")
    await browser.until("document.querySelector('#state.ABSENT')")
    assert await browser.text("#title") == "one-not-there"


async def test_streams_beyond_the_newest_500_are_found_by_their_beginning(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """The list is bounded; what is older must not be out of reach."""
    await end(queue, "old/first", "a")
    for number in range(500):
        await end(queue, f"new/{number}", "a")
    await browser.open(f"{(await start()).server.url}/")
    await browser.until("document.querySelectorAll('#list li').length === 500")
    assert "beginning of a name" in (await browser.text("#list-note") or "")
    await browser.press("/")
    await browser.type("old/")
    found = "document.querySelector('#list li:not([hidden]) .name')?.textContent === 'first'"
    await browser.until(found)
    asked = (
        "performance.getEntriesByType('resource').filter(({name}) => /prefix/.test(name)).length"
    )
    before = await browser.value(asked)
    await browser.until(f"{_LOOK}, {asked} >= {before} + 2")  # it does not come and go
    assert await browser.value(found) is True
    await browser.value("document.getElementById('name').select()")
    await browser.press("Backspace")
    await browser.until("document.querySelectorAll('#list li').length === 500")


async def test_the_list_shows_what_goes_on(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A stream that ends, and a rate, are seen without opening it."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        await browser.open(f"{(await start()).server.url}/")
        await listed(browser, 1)
        for _ in range(20):
            await writer.send_chunk("b")
        await writer.flush()
        facts = "document.querySelector('#list .facts').textContent"
        await browser.until(f"{_LOOK}, /^21 events · [\\d.]+\\/s$/.test({facts})")
    await browser.until(f"{_LOOK}, document.querySelector('#list .word.END')")


async def test_the_focus_stays_on_its_row_when_streams_begin(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Whoever goes through the list by keys would begin at its top again every few seconds."""
    for name in ("a/one", "a/two", "b"):
        await end(queue, name, "text")
    await browser.open(f"{(await start()).server.url}/")
    await listed(browser, 3)
    await browser.value("document.querySelector('[data-name=\"a/one\"]').focus()")
    for count, name in ((4, "a/three"), (5, "c/four")):  # in its group, and in one of its own
        await end(queue, name, "text")
        await browser.until(f"{_LOOK}, document.querySelectorAll('#list li').length === {count}")
        assert await browser.value(_FOCUS) == "a/one"


async def test_on_a_phone_the_focus_goes_with_what_is_shown(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A screen reader stays on a list that is not there any more."""
    await end(queue, "a", "text")
    await browser.open("about:blank")
    await browser.look(390, 844)
    await browser.call("Page.navigate", url=f"{(await start()).server.url}/")
    await listed(browser, 1)
    await browser.value("document.querySelector('[data-name=a]').focus()")
    await browser.press("Enter")
    await browser.until("document.querySelector('#state.END')")
    assert await browser.value(_FOCUS) == "title"
    await browser.press("Escape")
    await browser.until("document.activeElement.dataset.name === 'a'")


async def test_a_browser_that_keeps_nothing_shows_the_page(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """With cookies blocked, a browser throws where a page asks for its storage."""
    await end(queue, "a", "text")
    await browser.open("about:blank")
    refusing = (
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    await browser.call("Page.addScriptToEvaluateOnNewDocument", source=refusing)
    await browser.call("Page.navigate", url=f"{(await start()).server.url}/?stream=a")
    await browser.until("document.querySelector('#state.END')")
    await browser.press("?", shift=True)
    await browser.until("document.querySelector('#help-dialog[open]')")
    await browser.value("document.getElementById('single-keys').click()")
    assert browser.problems == []


async def test_keys_alone_suffice(
    start: Serve, queue: WatchedQueue, browser: Browser, tmp_path: Path
) -> None:
    """Whoever cannot use a mouse reads, searches, copies and downloads all the same."""
    await end(queue, "a/first", "The first text.")
    await end(queue, "a/second", {"deep": {"text": "x" * 120}})
    await browser.open(f"{(await start()).server.url}/")
    await listed(browser, 2)
    await browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    await browser.press("/")
    assert await browser.value(_FOCUS) == "name"
    await browser.type("first")
    await browser.press("ArrowDown")
    assert await browser.value(_FOCUS) == "a/first"
    await browser.press("Enter")
    await browser.until("document.querySelector('#state.END')")
    assert await browser.text("#output") == "The first text."
    await browser.press("d")
    assert await browser.value(_FOCUS) == "download-text"
    await browser.press("Enter")
    await eventually((tmp_path / "a_first.txt").exists)
    await browser.until("!document.getElementById('download').open")
    await browser.press("/")
    await browser.press("Backspace")
    await browser.press("Escape")  # back to the list
    await browser.press("j" if await browser.text("#title") == "a/first" else "k")
    await browser.press("k")
    await browser.until("document.querySelector('#output details.node')")
    assert await browser.text("#title") == "a/second"
    await browser.press("o")
    assert await browser.value(_FOCUS) == "scroller"
    await browser.press("Tab")
    assert await browser.value("document.activeElement.tagName") == "SUMMARY"
    await browser.press("Enter")  # closes the tree that the page has opened
    assert await browser.value("document.querySelector('details.node').open") is False
    await browser.press("?", shift=True)
    await browser.until("document.querySelector('#help-dialog[open]')")
    assert "Jump to live" in (await browser.text("#shortcuts") or "")
    await browser.press("Escape")
    await browser.until("!document.querySelector('dialog[open]')")
    assert browser.problems == []


async def test_the_tabulator_reaches_every_control(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A button that only a mouse reaches does not exist for some."""
    for name in ("a", "b", "c"):
        await end(queue, name, "text")
    await browser.open(f"{(await start()).server.url}/?stream=b")
    await browser.until("document.querySelector('#state.END')")
    await listed(browser, 3)
    wanted = await browser.value(
        "[...document.querySelectorAll('button, input, select, summary, a[href]')]"
        ".filter(each => each.checkVisibility() && !each.closest('dialog, #list'))"
        ".map(each => each.id || each.parentElement.id || each.dataset.state || each.textContent)"
    )
    reached = set()
    for _ in range(40):
        await browser.press("Tab")
        reached.add(
            await browser.value(
                "document.activeElement.id || document.activeElement.dataset.name ||"
                " document.activeElement.parentElement?.id ||"
                " document.activeElement.dataset.state || document.activeElement.textContent"
            )
        )
    assert set(wanted) <= reached
    assert {"b", "scroller"} <= reached  # one row of the list; arrows go on from there
    assert not {"a", "c"} & reached


async def test_single_keys_can_be_switched_off(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Speech input presses keys by mistake (WCAG 2.1.4)."""
    await end(queue, "a", "text")
    await browser.open(f"{(await start()).server.url}/")
    await listed(browser, 1)
    await browser.press("?", shift=True)
    await browser.until("document.querySelector('#help-dialog[open]')")
    await browser.value("document.getElementById('single-keys').click()")
    await browser.press("Escape")
    await browser.until("!document.querySelector('dialog[open]')")
    await browser.press("j")
    assert await browser.text("#head") is None


async def test_a_large_value_is_a_tree_that_is_made_as_it_is_opened(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Fifty thousand entries at once would take the browser minutes."""
    await end(queue, "s", {"rows": [{"id": i} for i in range(50_000)], "<b>": "x" * 5_000})
    await browser.open(f"{(await start()).server.url}/?stream=s")
    await browser.until("document.querySelector('#state.END')")
    count = "document.querySelectorAll('#output *').length"
    assert await browser.value(count) < 30
    rows = "document.querySelectorAll('#output details.node')[1]"
    assert await browser.value(f"{rows}.querySelector('summary').textContent") == "rows: [50,000]"
    await browser.value(f"{rows}.querySelector('summary').click()")
    await browser.until(f"{rows}.querySelectorAll('details').length === 100")
    await browser.value(f"{rows}.querySelector('button.more').click()")
    await browser.until(f"{rows}.querySelectorAll('details').length === 200")
    assert await browser.value("document.querySelectorAll('#output b').length") == 0
    assert await browser.value(count) < 1_500


async def test_a_log_has_its_colours_and_nothing_else_of_a_terminal(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Sequences were shown as boxes; a sequence that is cut in two is one all the same."""
    pieces = [
        "\x1b[3",
        "1mred\x1b[0m plain\n",
        "\x1b[38;5;82mgreen\x1b[m \x1b[2J\x1b]0;t\x07",
        "\x1b[",
    ]
    await end(queue, "s", *pieces)
    await browser.open(f"{(await start()).server.url}/?stream=s")
    await browser.until("document.querySelector('#state.END')")
    assert await browser.value("document.getElementById('output').className") == "log"
    spans = "[...document.querySelectorAll('#output span')].map(n => [n.className, n.textContent])"
    assert await browser.value(spans) == [
        ["fg-1", "red"],
        ["fg-10", "green"],
        ["sign", "\x1b"],
        ["sign", "\x1b"],
        ["sign", "\x07"],
        ["sign", "\x1b"],
    ]
    assert await browser.text("#output") == "red plain\ngreen \x1b[2J\x1b]0;t\x07\x1b["
    font = "getComputedStyle(document.querySelector('#output .text')).fontFamily"
    assert "monospace" in await browser.value(font)
    await browser.value("document.getElementById('view').value = 'text'")
    await browser.value("document.getElementById('view').dispatchEvent(new Event('change'))")
    assert await browser.value("document.getElementById('output').className") == ""


async def test_attempts_are_shown_along_time(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """That the second attempt took ten minutes explains why the answer is late."""
    now = time.time()
    for seconds, text in ((600, "one"), (540, "two")):
        writer = await open_writer("s", queue=queue, epoch=int((now - seconds) * 1e6))
        await writer.send_chunk(text)
        await writer.aclose()
    async with open_writer("s", queue=queue) as writer:
        await browser.open(f"{(await start()).server.url}/?stream=s")
        await browser.until("document.getElementById('connection').textContent === 'live'")
        await browser.until("document.querySelectorAll('.attempt').length >= 2")
        await writer.send_chunk("three")  # which the page sees as it is written
        await writer.flush()
        await browser.until("document.getElementById('output').textContent === 'three'")
        await browser.until("document.querySelectorAll('.attempt').length === 3")
        shown = await browser.value(
            "[...document.querySelectorAll('.attempt')].map(each =>"
            " [each.querySelector('.what').textContent, each.querySelector('.when').textContent])"
        )
        assert [what for what, _ in shown] == [
            "Attempt 1 superseded",
            "Attempt 2 superseded",
            "Attempt 3 running",
        ]
        assert "60 s · 1 chunk" in shown[0][1]
        assert "9 min · 1 chunk" in shown[1][1]
        await browser.until("!document.getElementById('first-fact').hidden")
    await browser.until("document.querySelector('.attempt.END')")


async def test_all_of_a_stream_is_downloaded_and_copied(
    start: Serve, queue: WatchedQueue, browser: Browser, tmp_path: Path
) -> None:
    """The page keeps the newest part only; the rest must not be lost for whoever looks."""
    values = ["text ", {"a": [1, 18446744073709551617]}, b"\x00\xff", "end"]
    first = await open_writer("a/b", queue=queue, epoch=1)
    await first.send_chunk("void")
    await first.aclose()
    await end(queue, "a/b", *values, epoch=2)
    url = (await start()).server.url
    await browser.open(f"{url}/?stream=a%2Fb")
    await browser.until("document.querySelector('#state.END')")
    await browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    text = 'text \n{"a":[1,18446744073709551617]}\nbase64:AP8=\nend'
    await browser.value("document.getElementById('download-text').click()")
    await eventually((tmp_path / "a_b.txt").exists)
    assert (tmp_path / "a_b.txt").read_text() == text
    await browser.value("document.getElementById('download-json').click()")
    await eventually((tmp_path / "a_b.json").exists)
    story = json.loads((tmp_path / "a_b.json").read_text())
    assert (story["state"], story["attempt"], len(story["chunks"])) == ("END", 2, 4)
    assert story["chunks"][1]["value"]["a"][1] == 18446744073709551617
    assert story["chunks"][2]["base64"] == "AP8="
    permitted = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    await browser.call("Browser.grantPermissions", permissions=permitted, origin=url)
    await browser.call("Page.bringToFront")
    await browser.value("document.getElementById('copy').click()")
    await browser.until("document.getElementById('toast').textContent === 'Copied.'")
    assert await browser.value("navigator.clipboard.readText()", waits=True) == text
    assert browser.problems == []


async def test_a_screen_reader_hears_what_matters_and_no_flood(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A live region with every token of a model makes a page unusable."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        await browser.open(f"{(await start()).server.url}/?stream=s")
        await browser.until("document.getElementById('output').textContent === 'a'")
        live = "document.querySelectorAll('[aria-live], [role=log]').length"
        assert await browser.value(live) == 0
        within = "document.getElementById('output').closest('[role=status], [role=alert]')"
        assert await browser.value(f"{within} === null")
        await writer.fail(ValueError("no more"))
    said = "document.getElementById('announcement').textContent"
    await browser.until(f"{said}.includes('ERROR') && {said}.includes('no more')")
