"""Take the pictures of docs/studio.md: ``python docs/studio_screenshots.py RUN [RUN ...]``.

Starts ``unpaired studio`` with the runs, opens it in headless Chromium, translates embedded drawings with them, and
writes docs/images/studio_*.png. The first run must be a whole run folder.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
BELOW = "document.querySelector('#seen').getBoundingClientRect().bottom + scrollY + 20"
LOADED = "[...document.querySelectorAll('img')].every(image => image.complete)"


def shoot(page: Any, address: str) -> None:
    """Translate, look, and visit each tab."""
    page.goto(address)
    page.click("#examples")
    page.wait_for_selector("#uploads img")
    page.click("#translate")
    page.wait_for_selector("#download:visible")
    page.click("#look")
    page.wait_for_selector("#seen .panel img")
    save(page, "translate", page.evaluate(BELOW))
    page.get_by_role("tab", name="Training").click()
    page.wait_for_selector("#live .studio-facts")
    save(page, "training", 1180)


def save(page: Any, name: str, height: float) -> None:
    """The upper part of the page, in few colours to keep the file small."""
    from PIL import Image

    page.wait_for_function(LOADED)
    page.wait_for_timeout(1000)  # Gradio fades what it draws
    path = IMAGES / f"studio_{name}.png"
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": height})
    with Image.open(path) as image:
        small = image.convert("RGB").resize((960, round(960 * image.height / image.width)), Image.Resampling.LANCZOS)
    small.quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Serve the runs and take the pictures."""
    runs = [str(Path(run).resolve()) for run in sys.argv[1:]]
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as here:
        command = [sys.executable, "-m", "unpaired", "studio", *runs, "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            address = server.stdout.readline().split()[1]
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.set_default_timeout(120_000)
                shoot(page, address)
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


if __name__ == "__main__":
    main()
