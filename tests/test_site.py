"""The rendered site as files: every page is there, whole, and needs nobody else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from _ext import book_assets
from bigmodel_utils.recipes import list_recipes
from bigmodel_utils.standards import load_clauses
from tools import build_sphinx

ROOT = Path(__file__).resolve().parent.parent
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
STYLES = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect"}

pytestmark = pytest.mark.slow


def list_pages(toc):
    """Pages that a table of contents names."""
    parts = toc.get("parts", [toc])
    return [toc["root"], *(chapter["file"] for part in parts for chapter in part["chapters"])]


def read_title(page):
    """The title of a page's source, without Markdown's marks."""
    path = ROOT / f"{page}.ipynb"
    if path.exists():
        text = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    else:
        text = (ROOT / f"{page}.md").read_text(encoding="utf-8")
    return re.search(r"^# (.+)$", text, re.MULTILINE)[1]


class Page(HTMLParser):
    """The main text of a page and the resources that it loads."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.words, self._depth, self._skip = [], [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in LOADING and values.get(LOADING[tag]):
            self.loaded.append(values[LOADING[tag]])
        if tag == "link" and STYLES & set((values.get("rel") or "").split()):
            self.loaded.append(values["href"])
        if tag == "article" or self._depth:
            self._depth += tag == "article"
        self._skip += tag in {"script", "style"}

    def handle_endtag(self, tag):
        self._depth -= tag == "article"
        self._skip -= tag in {"script", "style"}

    def handle_data(self, data):
        if self._depth and not self._skip:
            self.words += data.split()


def find_missing_pages(site, pages):
    """Pages that are absent, nearly empty, or carry another title than their source."""
    missing = []
    for page in pages:
        path = site / f"{page}.html"
        if not path.exists():
            missing.append(page)
            continue
        words = Page(path.read_text(encoding="utf-8")).words
        title = read_title(page).split()
        if len(words) < 40 or words[: len(title)] != title:
            missing.append(page)
    return missing


@pytest.fixture(scope="session")
def pages():
    return list_pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))


def test_every_page_of_the_table_of_contents_is_rendered(built_site, pages):
    assert len(pages) >= 6
    assert find_missing_pages(built_site, pages) == []


def test_the_test_above_sees_an_absent_and_an_empty_page(built_site, pages, tmp_path):
    for page in pages[1:]:
        target = tmp_path / f"{page}.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((built_site / f"{page}.html").read_bytes())
    (tmp_path / f"{pages[1]}.html").write_text("<article><h1>Training</h1></article>")
    assert find_missing_pages(tmp_path, pages) == pages[:2]


def test_every_notebook_is_in_the_table_of_contents(pages):
    notebooks = {
        str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("chapters/*/*.ipynb")
    }
    assert notebooks <= set(pages)


def test_no_page_loads_anything_from_elsewhere(built_site):
    for path in built_site.rglob("*.html"):
        for address in Page(path.read_text(encoding="utf-8")).loaded:
            assert not re.match(r"(https?:)?//", address), f"{path.name} loads {address}"
            assert (
                address.startswith("data:")
                or (path.parent / address.split("?")[0].split("#")[0]).resolve().exists()
            ), f"{path.name} loads {address}, which is not there"


def test_a_page_says_how_it_ran_and_which_clauses_it_earns(built_site, pages):
    page = "chapters/04_code/training"
    text = (built_site / f"{page}.html").read_text(encoding="utf-8")
    record = json.loads((ROOT / f"{page}.run.json").read_text(encoding="utf-8"))
    badge = text[text.index("bm-badge") :][:4000]
    assert f"Tier {record['tier']}" in badge
    assert record["lock_sha256"][:8] in badge
    for clause in load_clauses():
        if clause.page == page:
            assert clause.id in badge


def test_all_clauses_and_recipes_are_listed(built_site):
    standard = (built_site / "standard.html").read_text(encoding="utf-8")
    for clause in load_clauses():
        assert f'id="{clause.id.lower()}"' in standard
        assert clause.metric in standard
        assert all(standard.count(mapping) >= 2 for mapping in clause.mappings)
    # The words, not the markup: a command is highlighted piece by piece.
    recipes = " ".join(Page((built_site / "recipes.html").read_text(encoding="utf-8")).words)
    for recipe in list_recipes():
        assert f"bigmodel recipe add {recipe.name}" in recipes


def test_no_launch_button_or_dead_address_while_the_repository_has_none(built_site):
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    text = (built_site / "chapters/04_code/training.html").read_text(encoding="utf-8")
    assert ("colab.research.google.com" in text) == bool(url)
    assert ("btn-source-repository-button" in text) == bool(url)


def test_figures_are_described_and_equations_have_their_engine(built_site):
    text = (built_site / "chapters/04_code/training.html").read_text(encoding="utf-8")
    assert text.count('class="bm-figure"') >= 3
    assert text.count('class="bm-figure"') == text.count('<svg role="img" aria-label="')
    assert list((built_site / "_static").glob("mathjax/*.js"))


def measure_megabytes(*paths):
    files = (file for path in paths for file in [path, *path.rglob("*")] if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e6


def test_nothing_idle_is_shipped(built_site):
    assert not list(built_site.rglob("*.map"))
    assert measure_megabytes(built_site / "_static") < 3.5
    whole = measure_megabytes(built_site)
    chapters = measure_megabytes(built_site / "chapters", built_site / "_sources" / "chapters")
    # The search index and the pages around the chapters.
    assert whole - chapters - measure_megabytes(built_site / "_static") < 1


def test_no_page_is_heavy(built_site):
    """The page itself and the notebook that it offers for download."""
    for page in built_site.glob("chapters/*/*.html"):
        notebook = built_site / "_sources" / page.relative_to(built_site).with_suffix(".ipynb")
        assert measure_megabytes(page, notebook) < 0.75, page.stem


def test_downloaded_notebook_is_the_one_of_the_page(built_site):
    path = "chapters/04_code/training.ipynb"
    offered = (built_site / "_sources" / path).read_text(encoding="utf-8")
    assert json.loads(offered) == json.loads((ROOT / path).read_text(encoding="utf-8"))
    assert "\n" not in offered


STYLE = """
html[data-theme="light"] .highlight { background: #fefefe; color: #080808 }
html[data-theme="light"] .highlight .n { color: #080808 } /* Name */
html[data-theme="light"] .highlight .k { color: #7928a1 } /* Keyword */
html[data-theme="dark"] .highlight { background: #2b2b2b; color: #F8F8F2 }
html[data-theme="dark"] .highlight .n { color: #F8F8F2 } /* Name */
html[data-theme="dark"] .highlight .k { color: #DCC6E0 } /* Keyword */
"""


@pytest.mark.parametrize(
    ("style", "plain"),
    [
        (STYLE, {"n"}),
        (STYLE.replace(".n { color: #F8F8F2", ".n { color: #FFFFFF"), set()),
        (STYLE.replace(".n { color: #080808", ".n { font-weight: bold; color: #080808"), set()),
        ("", set()),
    ],
)
def test_only_what_looks_like_all_code_is_plain(style, plain):
    assert book_assets.find_plain_classes(style) == plain


def test_code_without_plain_markup_reads_the_same(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "pygments.css").write_text(STYLE, encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(
        '<pre><span class="k">if</span> <span class="n">a</span></pre>', encoding="utf-8"
    )
    book_assets.drop_plain_spans(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text == '<pre><span class="k">if</span> a</pre>'


def test_plain_sphinx_builds_the_same_pages(tmp_path, pages):
    assert build_sphinx.main(["--output", str(tmp_path / "sphinx")]) == 0
    for page in pages:
        assert (tmp_path / "sphinx" / "html" / f"{page}.html").exists()
