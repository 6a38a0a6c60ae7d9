"""Take the pictures of docs/studio.md and docs/study.md: ``python docs/screenshots.py RUN RUN [RUN ...]``.

Serves ``unpaired studio`` and ``unpaired study`` with the runs, which colour the embedded drawings, opens both in
headless Chromium, and writes docs/images/studio_*.png and study.png. The first run must be a whole run folder.
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

from unpaired import embedded_dataset

IMAGES = Path(__file__).parent / "images"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
BELOW = "document.querySelector('#seen .panel').getBoundingClientRect().bottom + scrollY + 20"
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
    save(page, "translate", BELOW)
    page.get_by_role("tab", name="Training").click()
    page.wait_for_selector("#live .studio-facts")
    save(page, "training", "1180")


def save(page: Any, name: str, height: str) -> None:
    """The upper part of the page, down to a height given in JavaScript, in few colours to keep the file small."""
    from PIL import Image

    page.wait_for_function(LOADED)
    page.wait_for_timeout(1000)  # Gradio fades what it draws
    path = IMAGES / f"studio_{name}.png"
    clip = {"x": 0, "y": 0, "width": 1280, "height": page.evaluate(height)}
    page.screenshot(path=path, full_page=True, clip=clip)
    with Image.open(path) as image:
        small = image.convert("RGB").resize((960, round(960 * image.height / image.width)), Image.Resampling.LANCZOS)
    small.quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def shoot_study(page: Any, address: str) -> None:
    """Enter, answer the first question, choose in the second, which shows real pictures."""
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_selector("#welcome:not([hidden])")
    page.keyboard.type("Ada")
    for key in ("Enter", "1", "Enter", "1"):
        page.keyboard.press(key)
        page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / "study.png")


def serve(here: str, shoot: Any, *words: str) -> None:
    """Run a command that serves a page, and take its pictures."""
    command = [sys.executable, "-m", "unpaired", *words, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here)
    try:
        assert server.stdout is not None
        address = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)
            shoot(page, address)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def main() -> None:
    """Serve the runs and take the pictures."""
    runs = [str(Path(run).resolve()) if Path(run).exists() else run for run in sys.argv[1:]]
    make = [sys.executable, "-m", "unpaired", "study", *runs, "--data", str(embedded_dataset().root)]
    with tempfile.TemporaryDirectory() as here:
        serve(here, shoot, "studio", *runs)
        subprocess.run([*make, "--out", "study", "--show", "12", "--no-serve"], check=True, cwd=here)
        serve(here, shoot_study, "study", "study")


if __name__ == "__main__":
    main()
