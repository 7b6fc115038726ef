"""The book as a reader meets it, in headless Chromium."""

import functools
import gzip
import http.server
import json
import re
import shutil
import threading

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tools import notebooks

CHROMIUM = shutil.which("chromium")
PAGE = "chapters/04_code/training.html"
CHAPTERS = [f"{notebooks.page_name(path)}.html" for path in notebooks.find_pages()]
AROUND = ["index.html", "standard.html", "recipes.html", "glossary.html", "bibliography.html"]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Faults of the theme, not ours: its search button's label, and parts outside landmarks.
THEME_FAULTS = {"label-content-name-mismatch", "region"}
# Messages that the theme and its toggle buttons print on every page they serve.
THEME_CHATTER = re.compile(r"^\[(PST|togglebutton)\]")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on this machine"),
]


@pytest.fixture(scope="module")
def address(built_site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(built_site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


class Visit:
    """A fresh visitor on one page, with what was requested and printed on the way."""

    def __init__(self, browser, address, page=PAGE, **options):
        options.setdefault("viewport", {"width": 1280, "height": 900})
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.messages, self.outside, self.bytes = [], [], 0
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.on("response", self._weigh)
        self.page.goto(f"{address}/{page}", wait_until="networkidle")

    def _note(self, url, address):
        if not url.startswith((address, "data:", "blob:")):
            self.outside.append(url)

    def _weigh(self, response):
        if response.ok:
            body = response.body()
            packed = response.url.endswith((".woff2", ".woff", ".png"))
            self.bytes += len(body) if packed else len(gzip.compress(body, 6))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.mark.parametrize("page", [*AROUND, *CHAPTERS])
def test_a_page_asks_nobody_else_and_complains_of_nothing(browser, address, page):
    with Visit(browser, address, page) as visit:
        visit.page.wait_for_timeout(500)
        assert visit.outside == []
        assert [text for text in visit.messages if not THEME_CHATTER.match(text)] == []


def test_a_first_visit_is_light(browser, address):
    with Visit(browser, address) as visit:
        visit.page.wait_for_function("window.MathJax?.startup?.promise !== undefined")
        visit.page.wait_for_timeout(1000)
        assert 50_000 < visit.bytes <= 1_000_000, visit.bytes


@pytest.mark.parametrize("page", CHAPTERS)
def test_equations_are_typeset(browser, address, page):
    with Visit(browser, address, page) as visit:
        # In the article: a heading with an equation stands in the folded contents too.
        visit.page.wait_for_selector("article mjx-container")
        assert visit.page.locator("mjx-container[display=true]").count() >= 1
        assert visit.page.locator("mjx-merror").count() == 0
        assert not re.search(r"\\(operatorname|frac|sum)", visit.page.inner_text("article"))


def test_search_finds_the_page(browser, address):
    with Visit(browser, address, "search.html?q=optimism") as visit:
        results = visit.page.locator("#search-results li a")
        results.first.wait_for(timeout=10_000)
        assert any("Training the image model" in text for text in results.all_inner_texts())


def test_copy_button_copies_the_code_and_nothing_else(browser, address):
    permissions = ["clipboard-read", "clipboard-write"]
    with Visit(browser, address, permissions=permissions) as visit:
        cell = visit.page.locator("div.cell_input div.highlight").first
        cell.hover()
        cell.locator("button.copybtn").click()
        copied = visit.page.evaluate("navigator.clipboard.readText()")
        assert copied.strip() == cell.locator("pre").inner_text().strip()
        assert copied.startswith("from bigmodel_utils import")


LEGIBLE = """() => {
  const luminance = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    const colour = getComputedStyle(element).backgroundColor;
    const clear = colour === 'transparent' || /, 0\\)$/.test(colour);
    return clear && element.parentElement ? behind(element.parentElement) : colour;
  };
  const ratios = [...document.querySelectorAll('.bm-figure svg text')].map(text => {
    const ink = luminance(getComputedStyle(text).fill);
    const back = luminance(behind(text));
    return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
  });
  return {background: getComputedStyle(document.body).backgroundColor,
          number: ratios.length, worst: Math.min(...ratios)};
}"""


def test_dark_mode_changes_the_page_and_figures_stay_legible(browser, address):
    found = {}
    for scheme in ("light", "dark"):
        with Visit(browser, address, color_scheme=scheme) as visit:
            found[scheme] = visit.page.evaluate(LEGIBLE)
    assert found["light"]["background"] != found["dark"]["background"]
    for scheme in found.values():
        assert scheme["number"] > 30
        assert scheme["worst"] >= 4.5


def test_the_mode_can_be_switched_by_hand(browser, address):
    with Visit(browser, address, color_scheme="light") as visit:
        root = visit.page.locator("html")
        seen = set()
        for _ in range(3):
            visit.page.locator("button.theme-switch-button:visible").first.click()
            seen.add(root.get_attribute("data-theme"))
        assert seen == {"light", "dark"}


def test_the_notebook_can_be_downloaded(browser, address):
    with Visit(browser, address) as visit:
        links = visit.page.locator("a.btn-download-source-button, a[href$='.ipynb']")
        target = links.first.get_attribute("href")
        response = visit.page.request.get(f"{address}/{PAGE.rsplit('/', 1)[0]}/{target}")
        notebook = json.loads(response.text())
        assert notebook["nbformat"] == 4
        assert any(cell["cell_type"] == "code" for cell in notebook["cells"])


def test_previous_and_next_lead_on(browser, address):
    with Visit(browser, address) as visit:
        visit.page.locator("a.right-next").click()
        visit.page.wait_for_load_state()
        assert "Training the language model" in visit.page.title()
        visit.page.locator("a.left-prev").click()
        visit.page.wait_for_load_state()
        assert "Training the image model" in visit.page.title()


@pytest.mark.parametrize("page", [*AROUND, *CHAPTERS])
def test_a_telephone_does_not_scroll_sideways(browser, address, page):
    with Visit(browser, address, page, viewport={"width": 390, "height": 844}) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_solution_is_folded_until_asked_for(browser, address):
    with Visit(browser, address) as visit:
        solution = visit.page.locator(".solution.dropdown").first
        code = solution.locator("div.cell_input").first
        assert not code.is_visible()
        solution.locator("button.toggle-button").first.click()
        assert code.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", "standard.html", *CHAPTERS])
def test_axe_finds_nothing_serious_of_ours(browser, address, page, scheme):
    with Visit(browser, address, page, color_scheme=scheme) as visit:
        visit.page.wait_for_timeout(500)
        violations = Axe().run(visit.page).response["violations"]
    serious = [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in violations
        if violation["impact"] in {"serious", "critical"} and violation["id"] not in THEME_FAULTS
        for node in violation["nodes"]
    ]
    assert serious == []
