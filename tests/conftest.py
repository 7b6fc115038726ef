"""The rendered site, built once a session for the tests that look at it."""

from pathlib import Path

import pytest

from tools.build_book import build_book

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def built_site(tmp_path_factory) -> Path:
    """Folder of the site, rendered from the stored outputs; warnings are errors."""
    output = tmp_path_factory.mktemp("site")
    assert build_book(ROOT, output) == 0
    return output / "_build" / "html"
