"""The studio in a real headless Chromium: upload, paste, translate, compare, look, watch, refuse; desk and phone."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from served_studio import ServedStudio

from tiny import write_images

pytest.importorskip("gradio", reason='needs pip install "unpaired[studio]"')
playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
expect = playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)

pytestmark = pytest.mark.slow  # Gradio takes seconds to import and to draw its page

_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
]  # fmt: skip
_PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
_TIMEOUT = 120_000
expect.set_options(timeout=_TIMEOUT)


@pytest.fixture(scope="module")
def run(studio_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of this module's own, to write to as a training does."""
    return shutil.copytree(studio_runs[0], tmp_path_factory.mktemp("training") / "first")


@pytest.fixture(scope="module")
def studio(
    run: Path, studio_runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedStudio]:
    """One studio for all tests; at the end it must have written nothing, and have removed its folder."""
    served = ServedStudio(tmp_path_factory.mktemp("served"), str(run), str(studio_runs[1]))
    before = sorted(run.rglob("*"))
    yield served
    listening = urllib.request.urlopen(f"{served.address}gradio_api/heartbeat/an-open-page", timeout=60)
    code, err = served.end()
    assert code in (0, 130), err
    listening.close()
    assert "Traceback" not in err, err
    assert "ERROR" not in err, err
    assert not [*served.here.rglob("*"), *served.temporary.rglob("unpaired-studio-*")], "nothing is left behind"
    assert sorted(run.rglob("*")) == before


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, studio: ServedStudio) -> Iterator[Callable[..., Any]]:
    """Open the studio; nothing may be asked of another server, and no script may fail."""
    contexts, wrong, asked = [], [], []

    def open_page(**options: Any) -> Any:
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.set_default_timeout(_TIMEOUT)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(studio.address)
        page.wait_for_selector("#translate")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in asked), "nothing comes from elsewhere"


def upload(page: Any, *files: Path) -> None:
    page.set_input_files("#uploads input[type=file]", [str(path) for path in files])
    expect(page.locator("#uploads .thumbnail-item, #uploads .preview img").first).to_be_visible()


def test_upload_translate_compare_look_and_download(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    folder = write_images(tmp_path / "pictures", 2, size=(48, 40))
    upload(page, folder / "image0.png", folder / "image1.png")  # which translates them
    expect(page.locator("#said")).to_contain_text("Translated 2 pictures")
    expect(page.locator("#slider img").first).to_be_visible()
    expect(page.locator("#beside img")).to_have_count(3)
    assert page.locator("#beside figcaption").all_inner_texts() == ["input", "first", "second"]

    with page.expect_download() as found:
        page.click("#download")
    with zipfile.ZipFile(found.value.path()) as archive:
        assert len(archive.namelist()) == 4
        with Image.open(io.BytesIO(archive.read("first/image0.png"))) as image:
            assert image.size == (48, 40)

    page.click("#look")
    expect(page.locator("#seen .panel img")).to_have_count(4)
    expect(page.locator("#seen .scale").first).to_contain_text("nats, most significant")
    page.locator("#seen .panel img").nth(1).click()
    expect(page.locator("dialog.enlarged img")).to_be_visible()


def test_a_clip_is_translated_and_none_is_said(visit: Callable[..., Any], tmp_path: Path) -> None:
    clips = pytest.importorskip("clips", reason='needs pip install "unpaired[video]"')
    page = visit()
    page.get_by_role("tab", name="Clip").click()
    page.click("#translate-clip")
    expect(page.locator("#clip-said")).not_to_be_empty()
    page.set_input_files("#clip input[type=file]", str(clips.clip(tmp_path / "clip.mp4", frames=4)))
    expect(page.locator("#clip video")).to_be_visible()
    page.click("#translate-clip")
    expect(page.locator("#clip-said")).to_contain_text("4 frames of 48 x 32 pixels; flicker")
    expect(page.locator("#made-clip video")).to_be_visible()


def test_the_webcam_takes_a_picture_and_a_clip_as_it_is_sent(visit: Callable[..., Any]) -> None:
    pytest.importorskip("av", reason='needs pip install "unpaired[video]"')
    page = visit(permissions=["camera", "microphone"])
    page.click("#uploads [aria-label='Capture from camera']")
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#uploads video')?.videoWidth > 0")
    page.click("#uploads [title='capture photo']")
    expect(page.locator("#uploads .thumbnail-item, #uploads .preview img").first).to_be_visible()

    page.get_by_role("tab", name="Clip").click()
    page.click("#clip [aria-label='Capture from camera']")
    page.locator("#clip").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#clip video')?.videoWidth > 0")
    page.get_by_text("Record", exact=True).click()
    page.wait_for_timeout(4000)
    page.get_by_text("Stop", exact=True).click()
    expect(page.locator("#clip [aria-label='Clear']").first).to_be_visible()
    assert not page.locator("#clip .mirror").count(), "the clip is shown as it is translated"
    page.click("#translate-clip")
    expect(page.locator("#clip-said")).to_contain_text("pixels; flicker")


_COPY = """async (address) => {
  const blob = await (await fetch(address)).blob();
  await navigator.clipboard.write([new ClipboardItem({[blob.type]: blob})]);
}"""


def test_pictures_are_pasted_from_the_clipboard(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('words')")
    page.get_by_label("Paste from clipboard").click()
    expect(page.get_by_text("No image or video found in clipboard")).to_be_visible()
    folder = write_images(tmp_path / "pictures", 2, size=(48, 40))
    for number in (0, 1):
        held = base64.b64encode((folder / f"image{number}.png").read_bytes()).decode()
        page.evaluate(_COPY, f"data:image/png;base64,{held}")
        page.get_by_label("Paste from clipboard").first.click()
        expect(page.locator("#uploads .thumbnail-item")).to_have_count(number + 1)
    page.click("#translate")
    expect(page.locator("#said")).to_contain_text("Translated 2 pictures")
    with page.expect_download() as found:
        page.click("#download")
    with zipfile.ZipFile(found.value.path()) as archive:
        made = [archive.read(name) for name in sorted(archive.namelist()) if name.startswith("first/")]
    assert len(set(made)) == 2
    for content in made:
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (48, 40)


def test_bombs_and_wrong_files_are_refused_with_a_sentence(
    visit: Callable[..., Any], bomb: Path, tmp_path: Path
) -> None:
    page = visit()
    (tmp_path / "words.png").write_bytes(b"no picture at all")
    good = write_images(tmp_path / "pictures", 1) / "image0.png"
    upload(page, bomb, tmp_path / "words.png", good)
    page.click("#translate")
    said = page.locator("#said")
    expect(said).to_contain_text("bomb.png: 60,000 x 60,000 pixels are more than the limit of")
    expect(said).to_contain_text("words.png: the content is text, not an image")
    expect(said).to_contain_text("Translated image0.png, 40 x 36 pixels")


def test_nothing_chosen_is_said(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("#translate")
    expect(page.locator("#said")).to_contain_text("choose a picture first")


def test_a_training_is_watched_while_it_goes_on(visit: Callable[..., Any], run: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Training").click()
    live = page.locator("#live")
    expect(live).to_contain_text("4 of 4")
    expect(live.locator(".studio-samples img")).to_have_count(6)
    expect(live.locator("svg").first).to_be_visible()
    log = run / "log.jsonl"
    kept = log.read_text()
    try:
        log.write_text(
            kept.splitlines(keepends=True)[0] + json.dumps({"images_seen": 3, "seconds_per_image": 2}) + "\n"
        )
        expect(live).to_contain_text("3 of 4")
        expect(live).to_contain_text("training")
    finally:
        log.write_text(kept)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(color_scheme=scheme, **_PHONE)
    page.click("#examples")
    expect(page.locator("#beside img")).to_have_count(3)
    room = (
        "element => [getComputedStyle(element).textOverflow, parseFloat(getComputedStyle(element).paddingRight) > 24]"
    )
    assert page.locator("#picture input").evaluate(room) == ["ellipsis", True], "a long name ends before the arrow"
    for tab in ("Translate", "Training"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing hangs over the side"
    red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red < 60 if scheme == "dark" else red > 200


def test_it_is_said_why_there_are_no_examples(visit: Callable[..., Any]) -> None:
    page = visit()
    page.get_by_label("first", exact=True).uncheck()
    page.click("#examples")
    expect(page.locator("#said")).to_contain_text("second has weights only, and no held-out images; upload pictures")
    page.wait_for_timeout(1000)
    expect(page.locator("#said")).not_to_contain_text("drop, paste or choose a picture first")


def ask(address: str, path: str, **options: Any) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, **options), timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def test_requests_of_other_sites_and_paths_outside_are_refused(studio: ServedStudio, run: Path) -> None:
    address = studio.address
    assert ask(address, "", headers={"Host": "evil.example"})[0] == 421
    join = {"data": b"{}", "method": "POST"}
    other = {"Content-Type": "application/json", "Origin": "http://evil.example"}
    assert ask(address, "gradio_api/queue/join", headers=other, **join)[0] == 403
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(address, "gradio_api/queue/join", headers=form, **join)[0] == 415
    for path in (run / "run.yaml", Path("/etc/passwd"), studio.here / ".." / "here"):
        code, body = ask(address, f"gradio_api/file={path}")
        assert code in (403, 404), path
        assert "root:" not in body
    assert ask(address, "openapi.json")[0] == ask(address, "docs")[0] == 404
    wrong = json.dumps({"data": [{"a": 1}] * 9, "fn_index": 0, "session_hash": "x"}).encode()
    for path in ("gradio_api/queue/join", "gradio_api/run/predict", "gradio_api/run/on_translate"):  # no tracebacks
        ask(address, path, data=wrong, method="POST", headers={"Content-Type": "application/json"})
    traversal = f"gradio_api/file={studio.temporary}/{os.listdir(studio.temporary)[0]}/../../../etc/passwd"
    assert ask(address, traversal)[0] in (403, 404)
