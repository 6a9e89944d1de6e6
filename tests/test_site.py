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
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_every_page_opens_without_an_error_and_its_explorers_answer():
    playwright = pytest.importorskip("playwright.sync_api")
    problems = []
    with playwright.sync_playwright() as driver:
        options = {"executable_path": CHROMIUM, "args": ["--headless", "--no-sandbox"]}
        browser = driver.chromium.launch(**options)
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
        page.route("http*://**", lambda route: route.abort())  # mathematics' fonts
        for path in PAGES:
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            for explorer in page.locator("section.gcelib").all():
                table = explorer.locator("table").first
                before = table.inner_text()
                slider = explorer.get_by_role("slider").first
                slider.focus()
                page.keyboard.press("ArrowRight")
                assert table.inner_text() != before, path.name
        browser.close()
    assert not problems
    start = (SITE / "index.html").read_text(encoding="utf-8")
    assert 'class="gcelib-explorer"' in start
