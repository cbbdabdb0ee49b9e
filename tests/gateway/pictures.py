"""Makes pictures of the gateway's page in every state, to be looked at.

``python -m tests.gateway.pictures DIR`` writes them for a phone and a desktop, light and dark.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from .browsers import running_browser
from .scenes import LONG_SCENE, SCENES, staged

SIZES = {"phone": (390, 844), "desktop": (1400, 900)}


async def take_pictures(folder: Path, names: list[str], themes: list[str]) -> None:
    """Write a picture of each state, size and theme."""
    scenes = [s for s in [*SCENES, LONG_SCENE] if not names or s.name in names]
    with tempfile.TemporaryDirectory() as profile:
        async with (
            staged(with_long=LONG_SCENE in scenes) as stage,
            running_browser(Path(profile)) as browser,
        ):
            for scene in scenes:
                for size, (width, height) in SIZES.items():
                    await stage.show(browser, scene, width, height)
                    for theme in themes:
                        await browser.look(width, height, is_dark=theme == "dark")
                        await asyncio.sleep(0.15)  # until it is painted; nothing depends on it
                        picture = await browser.picture()
                        (folder / f"{scene.name}-{size}-{theme}.png").write_bytes(picture)
            for problem in browser.problems:
                print(problem, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="names of states")
    parser.add_argument("--themes", nargs="*", default=["light", "dark"])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(take_pictures(given.folder, given.only, given.themes))
