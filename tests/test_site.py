"""The site: every page opens without an error, its links lead somewhere, diagrams live.

``make site`` builds it; where ``build/site`` is absent there is nothing to test.
"""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
PAGES = sorted(SITE.rglob("*.html"))
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
needs_site = pytest.mark.skipif(not PAGES, reason="make site has not been run")


@needs_site
def test_links_lead_to_files_of_the_site():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.S)
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            target = unquote(link.split("#")[0].split("?")[0])
            if target and not re.match(r"[a-z]+:|//", target):
                assert (page.parent / target).exists(), f"{page.name}: {link}"


@needs_site
def test_nothing_of_a_page_comes_from_another_host():
    loads = re.compile(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+"')
    sheets = re.compile(r'<link[^>]+rel="stylesheet"[^>]+href="(?:https?:)?//[^"]+"')
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not loads.findall(text) + sheets.findall(text), page.name


#: What is wider than the window and does not scroll by itself.
TOO_WIDE = """() => document.documentElement.scrollWidth
    - document.documentElement.clientWidth"""


@needs_site
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_every_page_opens_offline_without_an_error_and_its_explorers_answer():
    playwright = pytest.importorskip("playwright.sync_api")
    problems = []

    def note(page, what):
        problems.append(f"{Path(page.url).name}: {what}")

    answered = 0
    with playwright.sync_playwright() as driver:
        options = {"executable_path": CHROMIUM, "args": ["--headless", "--no-sandbox"]}
        browser = driver.chromium.launch(**options)
        size = {"width": 1280, "height": 720}
        page = browser.new_context(viewport=size, offline=True).new_page()
        page.on("pageerror", lambda error: note(page, error))
        page.on("console", lambda m: m.type == "error" and note(page, m.text))
        page.on("requestfailed", lambda request: note(page, request.url))
        for path in PAGES:
            page.goto(path.as_uri())
            if page.evaluate(TOO_WIDE) > 0:
                note(page, "is wider than the window")
            for explorer in page.locator("section.gcelib").all():
                if explorer.get_attribute("data-state") == "alone":
                    continue  # so large that it says that it wants a kernel
                table = explorer.locator("table").first
                before = table.inner_text()
                slider = explorer.get_by_role("slider").first
                slider.focus()
                page.keyboard.press("ArrowRight")
                assert table.inner_text() != before, path.name
                answered += 1
        browser.close()
    assert not problems
    assert answered >= 4  # the start page, 00, 01 and 04
