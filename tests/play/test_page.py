"""The page of `condmix play` in a real browser: typing, drawing, refusals, download, a phone's width.

Needs `pip install 'condmix[play]' playwright` and a Chromium, such as Debian's.
"""

import shutil
import socket
from contextlib import contextmanager

import pytest
from PIL import Image

from condmix import CondmixError
from condmix.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WAIT = 120_000  # ms, on a machine that is busy with other work


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("missing", [False, True])
def test_a_port_in_use_and_a_missing_gradio_are_one_sentence(missing, monkeypatch):
    import sys
    from types import ModuleType

    from click.testing import CliRunner

    monkeypatch.setitem(sys.modules, "gradio", None if missing else ModuleType("gradio"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(main, ["play", "--port", str(port)])
    says = "pip install 'condmix[play]'" if missing else f"port {port} can't be used (Address already in use)"
    assert done.exit_code == 1 and says in done.output.splitlines()[-1]


def test_another_port_is_one_that_there_is(monkeypatch):
    from condmix.play.page import check_port

    def taken(self, address):
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", taken)
    for port, another in ((65_534, 65_535), (65_535, 65_534)):
        with pytest.raises(CondmixError, match=f"--port {another}$"):
            check_port(port)


@contextmanager
def served():
    """The page over the models of the current folder; its address."""
    pytest.importorskip("gradio", reason="needs pip install 'condmix[play]'")
    from condmix.play.page import check_port, serve
    from condmix.play.studio import Models

    port = free_port()
    check_port(port)
    page = serve(Models(), port, block=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The page over the demo, served from an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nowhere"))
        with served() as address:
            yield address


@pytest.fixture
def open_page(demo):
    """A function that opens an address at a width; fails the test where the page asks for anything elsewhere."""
    if CHROMIUM is None:
        pytest.skip("needs a Chromium, such as Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        elsewhere = []

        def opened(address, width=1200, height=1000):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(WAIT)
            page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:"))
                    else elsewhere.append(request.url))  # fmt: skip
            page.goto(address)
            page.wait_for_selector("button#draw")
            return page

        yield opened
        browser.close()
        assert elsewhere == []


def fill(page, field, text):
    page.locator(f"#{field} input, #{field} textarea").first.fill(text)


def draw(page):
    """Click, and wait for the pictures."""
    page.click("button#draw")
    page.wait_for_selector("#pictures a[download]")


@pytest.mark.slow
def test_captions_that_are_typed_are_drawn_shown_and_downloaded(open_page, demo, tmp_path):
    from condmix.sampling.record import read_record

    page = open_page(demo)
    fill(page, "caption_0", "a large red ring")
    fill(page, "caption_1", "a navy backdrop")
    fill(page, "seed", "7")
    draw(page)
    assert page.locator("#pictures img").count() == 4
    page.wait_for_function("document.querySelectorAll('#strip img').length == 4")
    texts = page.locator("#strip figcaption").all_inner_texts()
    assert texts == ["all sources", "without caption 1", "without caption 2", "no source"]
    with page.expect_download() as download:
        page.locator("#pictures a").nth(1).click()
    download.value.save_as(tmp_path / "one.png")
    record = read_record(tmp_path / "one.png")
    assert record["request"]["captions"] == ["a large red ring", "a navy backdrop"]
    assert record["request"]["seed"] == 7 and record["picture"] == 1

    fill(page, "caption_0", "a small yellow square")
    page.locator("#caption_0 input, #caption_0 textarea").first.press("Enter")
    page.wait_for_function("document.querySelectorAll('#session img').length == 8")
    newest = page.locator("#session .asked").first.inner_text()
    assert newest == 'demo: "a small yellow square" + "a navy backdrop", guidance 2, 10 steps'


@pytest.mark.slow
def test_pictures_are_shown_while_they_are_drawn_until_it_is_stopped(open_page, demo):
    page = open_page(demo)
    fill(page, "steps", "1000")
    page.click("button#draw")
    page.wait_for_selector("#pictures img")  # none is done yet, so none can be downloaded
    assert page.locator("#pictures a").count() == 0 and page.locator("#status").inner_text().startswith("Drawing, ")
    page.click("button#stop")
    page.locator("#status").get_by_text("Stopped.").wait_for()
    fill(page, "steps", "2")
    draw(page)
    assert page.locator("#session img").count() == 4


@pytest.mark.slow
def test_a_weight_per_source_replaces_guidance(open_page, demo, tmp_path):
    from condmix.sampling.record import read_record

    page = open_page(demo)
    page.click("#weighted input")
    page.locator("#guidance").wait_for(state="hidden")
    page.get_by_label("number input for Weight of caption 2").fill("3")
    draw(page)
    with page.expect_download() as download:
        page.locator("#pictures a").first.click()
    download.value.save_as(tmp_path / "one.png")
    assert read_record(tmp_path / "one.png")["request"]["weights"] == {"caption_1": 1, "caption_2": 3}


@pytest.mark.slow
def test_a_picture_and_a_class_are_given_to_a_model_that_sees_them(open_page, drawing, tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with served() as address:
        page = open_page(address)
        page.click("#variant input")
        page.get_by_role("option", name="class_v1").click()
        page.locator("#caption_0").wait_for(state="hidden")
        page.locator("#picture input[type=file]").set_input_files(tmp_path / "broken.png")
        page.wait_for_selector("#picture .file-preview")
        fill(page, "steps", "2")
        page.click("button#draw")
        page.locator("#picture-error").get_by_text("broken.png does not decode").wait_for()
        page.get_by_label("Clear", exact=True).click()
        page.locator("#picture input[type=file]").set_input_files(tmp_path / "photo.png")
        page.wait_for_selector("#picture .file-preview")
        page.click("#class input")
        page.get_by_role("option", name="square").click()
        draw(page)
        page.wait_for_function("document.querySelectorAll('#strip img').length == 4")
        texts = page.locator("#strip figcaption").all_inner_texts()
        assert texts == ["all sources", "without picture", "without class", "no source"]
        assert '"square" + a picture' in page.locator("#session .asked").inner_text()


@pytest.mark.slow
def test_a_refusal_stands_beside_its_field_and_goes_when_it_is_mended(open_page, demo):
    page = open_page(demo)
    fill(page, "caption_1", "a dragon")
    page.click("button#draw")
    error = page.locator("#caption_1-error")
    error.get_by_text("is not among the words").wait_for()
    field, said = page.locator("#caption_1").bounding_box(), error.bounding_box()
    assert 0 <= said["y"] - (field["y"] + field["height"]) < 60
    assert page.locator("#pictures img").count() == 0
    fill(page, "caption_1", "a navy backdrop")
    draw(page)
    error.wait_for(state="hidden")


@pytest.mark.slow
def test_on_a_phone_nothing_scrolls_sideways(open_page, demo):
    page = open_page(demo, 390, 844)
    fill(page, "caption_1", "")
    draw(page)
    page.wait_for_function("document.querySelectorAll('#strip img').length == 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
