"""The report and the grids' pages in a real browser: axe-core finds nothing, and a phone needs no sideways scrolling.

Needs a Chromium, such as Debian's package chromium: `make test-slow`.
"""

import shutil
from itertools import product

import pytest

from condmix.stages.report import main
from fake_results import captions_variant, image_variant, project
from profiles import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (390, 768, 1280)  # of a phone, a tablet, a desk
MEDIA = ({"color_scheme": "light"}, {"color_scheme": "dark"}, {"media": "print"})
GRIDS = sorted((ROOT / "metrics" / "experiments").glob("*/index.html"))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["report", *(path.parent.name for path in GRIDS)])
def page(request, tmp_path):
    """The file of a page: the report of made-up results, or a grid's as it is in the repository."""
    if request.param != "report":
        return ROOT / "metrics" / "experiments" / request.param / "index.html"
    params = project(tmp_path, image_variant(), captions_variant())
    main(params)
    return params.paths.report / "index.html"


def test_everybody_can_read_it(page, browser):
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs pip install axe-core-python").Axe()
    for width, media in product(WIDTHS, MEDIA):
        opened = browser.new_page(viewport={"width": width, "height": 900})
        opened.emulate_media(**media)
        opened.goto(page.as_uri())
        opened.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = [(one["id"], [node["target"] for node in one["nodes"]]) for one in axe.run(opened)["violations"]]
        assert not found, (width, media)
        if "media" not in media:  # paper has no such width
            assert opened.evaluate("document.documentElement.scrollWidth") <= width, (width, media)
        opened.close()
