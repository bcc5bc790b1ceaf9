"""Make the pictures of the studio: a server of its own, three films, a Chromium. python docs/pictures/studio.py"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
FILMS = (
    "a red ball bounces on grass at sunset",
    "a blue cube moves left on snow during the day",
    "a yellow cone rests on sand at night while the camera zooms in",
)


def main() -> None:
    from service import service

    browser_here = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as home, service(Path(home)) as one, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_here, args=["--no-sandbox"])
        look = {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"}
        page = browser.new_context(**look).new_page()
        page.goto(one.url)
        for number, words in enumerate(FILMS, 1):
            page.get_by_label("Prompt", exact=True).fill(words)
            page.locator(".facts").wait_for()
            page.locator("button.main").click()
            page.locator(f".films li:nth-child({number}) img").wait_for(timeout=120_000)
        keep(page, "create")
        page.get_by_role("link", name="Gallery").click()
        page.locator(".films .card").last.click()
        page.locator(".screen video").evaluate("v => new Promise(r => v.oncanplay = r)")
        page.get_by_text("Do the same by program").click()
        keep(page, "film")
        page.get_by_role("button", name="Retake a part").click()
        page.locator(".piece").nth(1).focus()
        page.get_by_role("button", name="Other words here").click()
        page.wait_for_timeout(1500)
        keep(page, "timeline")
        phone = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="light").new_page()
        phone.goto(f"{one.url}/#/gallery")
        phone.locator(".films img").last.wait_for()
        phone.wait_for_timeout(500)
        keep(phone, "phone")
        browser.close()


def keep(page: Any, name: str) -> None:
    """A picture of what is seen now, small."""
    shown = Image.open(io.BytesIO(page.screenshot()))
    shown.save(HERE / f"studio-{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
