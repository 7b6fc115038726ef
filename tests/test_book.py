"""What pages print: numbers, verdicts without digits, figures that fit the page."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from bigmodel_utils import book
from bigmodel_utils._checks import InputError


def test_show_prints_four_digits_and_keeps_counts_whole(capsys):
    book.show(share=0.123456, images=1797, verdict="kept")
    assert capsys.readouterr().out.splitlines() == [
        "share    0.1235",
        "images   1797",
        "verdict  kept",
    ]


def test_show_hands_values_to_the_prose_of_a_notebook(monkeypatch):
    published = []
    monkeypatch.setattr(book, "_display", lambda *bundle: published.append(bundle))
    book.show(share=0.25)
    assert published == [
        (
            {"application/papermill.record/text/plain": "0.25"},
            {"scrapbook": {"name": "share", "mime_prefix": "application/papermill.record/"}},
        )
    ]


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (1.0, {"at_least": 1.0}),
        (1.0, {"at_most": 1.0}),
        (0.5, {"at_least": 0, "at_most": 1}),
        (1.05, {"equals": 1, "tolerance": 0.1}),
        ({3}, {"equals": {3}}),
        (True, {"equals": True}),
    ],
)
def test_check_prints_a_verdict_that_holds(value, bounds, capsys):
    book.check("it holds", value, **bounds)
    assert capsys.readouterr().out == "✓ it holds\n"


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0.9, {"at_least": 1.0}),
        (1.1, {"at_most": 1.0}),
        (float("nan"), {"at_least": 0}),
        (np.float32("nan"), {"at_most": 0}),
        (float("inf"), {"at_least": 0}),
        (1.2, {"equals": 1, "tolerance": 0.1}),
        ({3, 4}, {"equals": {3}}),
        (float("nan"), {"equals": 1, "tolerance": 0.1}),
    ],
)
def test_check_refuses_what_does_not_hold(value, bounds, capsys):
    with pytest.raises(book.CheckFailed, match="it holds: wanted"):
        book.check("it holds", value, **bounds)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: book.check("above 3", 4, at_least=3), "claim"),
        (lambda: book.check("no bound", 4), "claim"),
        (lambda: book.figure(None, name="x", alt="short"), "alt"),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()


def test_checks_are_logged_where_bands_are_gathered(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGMODEL_CHECK_LOG", str(tmp_path / "log"))
    book.check("it holds", np.float32(0.5), at_least=0)
    with pytest.raises(book.CheckFailed):
        book.check("it does not", 2, at_most=1)
    book.check("it is near", 2, equals=1, tolerance=1.5)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [
        {"claim": "it holds", "value": 0.5, "at_least": 0},
        {"claim": "it does not", "value": 2, "at_most": 1},
        {"claim": "it is near", "value": 2, "equals": 1, "tolerance": 1.5},
    ]


def draw(monkeypatch, name="curve"):
    published = []
    monkeypatch.setattr(book, "_display", lambda *bundle: published.append(bundle))
    drawing, axes = book.make_figure()
    axes.plot([0, 1], [0, 1], color=book.COLOURS["blue"])
    axes.set_xlabel("time (s)")
    book.figure(drawing, name=name, alt="A line that rises from zero to one.", caption="A < B")
    return published[0][0]["text/html"]


def test_figure_is_well_formed_described_and_follows_the_page_s_colours(monkeypatch):
    markup = draw(monkeypatch)
    root = ElementTree.fromstring(markup)
    picture = root.find("{http://www.w3.org/2000/svg}svg")
    assert picture.get("role") == "img"
    assert picture.get("aria-label") == "A line that rises from zero to one."
    assert picture.get("width") == "100%"
    assert root.find("figcaption").text == "A < B"
    assert "var(--bm-blue, #0072b2)" in markup
    assert "currentColor" in markup
    assert "#010203" not in markup
    assert "time (s)" in markup  # text stays text
    assert "http://" not in markup.replace("http://www.w3.org/", "")


def test_a_picture_in_a_figure_keeps_its_data(monkeypatch):
    pictured, axes = book.make_figure()
    axes.imshow([[0.0, 1.0]])
    monkeypatch.setattr(book, "_display", lambda bundle, metadata=None: shown.append(bundle))
    shown = []
    book.figure(pictured, name="pixels", alt="Two pixels, one dark and one light.")
    root = ElementTree.fromstring(shown[-1]["text/html"])
    (picture,) = root.iter("{http://www.w3.org/2000/svg}image")
    assert picture.get("{http://www.w3.org/1999/xlink}href").startswith("data:image/png")
    assert picture.get("id").startswith("pixels-")


def test_figure_is_the_same_twice_and_its_ids_are_its_own(monkeypatch):
    first, second, other = (draw(monkeypatch, name) for name in ("curve", "curve", "other"))
    assert first == second
    ids = [
        {element.get("id") for element in ElementTree.fromstring(markup).iter()} - {None}
        for markup in (first, other)
    ]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    for name in ids[0]:
        assert first.count(f'id="{name}"') == 1


@pytest.mark.parametrize(
    ("tier", "sizes", "wanted"),
    [
        (None, {"cpu": 1, "gpu": 2}, 1),
        ("gpu", {"cpu": 1, "gpu": 2}, 2),
        ("full", {"cpu": 1, "gpu": 2}, 2),
        ("full", {"cpu": 1, "gpu": 2, "full": 3}, 3),
        ("gpu", {"cpu": 1, "full": 3}, 1),
        ("gpu", {"cpu": 1, "gpu": 0}, 0),
    ],
)
def test_a_size_is_that_of_the_tier_or_of_the_one_below(tier, sizes, wanted, monkeypatch):
    monkeypatch.delenv("BIGMODEL_TIER", raising=False)
    if tier:
        monkeypatch.setenv("BIGMODEL_TIER", tier)
    assert book.by_tier(**sizes) == wanted


def test_an_unknown_tier_is_refused(monkeypatch):
    monkeypatch.setenv("BIGMODEL_TIER", "huge")
    with pytest.raises(InputError, match="`BIGMODEL_TIER` must be one of"):
        book.by_tier(cpu=1)
