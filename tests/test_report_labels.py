"""Labels of figures in every script, with and without a font that has their characters."""

import itertools
import re

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from reports import changed, classical, report_data, with_column
from small import small_dataset

from anyrec.evaluation.statistics import Interval
from anyrec.report import figures
from anyrec.report.labels import BLANK, MOST_WIDTH, Labels, _characters, _width
from anyrec.report.sections import NUMBERED
from anyrec.report.write import write_report

SCRIPTS = [
    "小説",
    "ライトノベル",
    "한국 드라마",
    "السينما العربية",
    "עברית",
    "🎬 film 🇫🇷",
    "ไทย",
    "हिन्दी",
    "a\tb\nc",
    "_x",
]
SPAN = Interval(0.5, 0.4, 0.6, 9)


def drawn_texts(svg):
    return [re.sub(r"&(lt|gt|amp);", lambda m: {"lt": "<", "gt": ">", "amp": "&"}[m[1]], text) for text in texts(svg)]


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def drawing(names):
    """Return a figure with a bar for each name; every warning is an error in tests."""
    return figures.slice_bars("users by x", names, {"模型": [SPAN] * len(names)}, [3] * len(names), "ndcg@10", "s")


def test_labels_in_every_script_are_in_the_svg_and_explained_if_they_are_numbers_in_the_png():
    picture = drawing(SCRIPTS)
    shown = [text.strip(BLANK) for text in drawn_texts(picture.svg)]
    numbered = Labels([*SCRIPTS, "模型"]).numbered
    for name in (*SCRIPTS, "模型"):
        label = re.sub(r"\s", " ", name)
        assert label in shown
    assert picture.numbers == "; ".join(f"{drawn.strip(BLANK)} is {label}" for drawn, label in numbered.items())
    assert not re.search(r"\[\d+\]", "".join(shown))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=3, unique=True))
@settings(max_examples=25, deadline=None)
def test_any_text_is_drawn_without_a_warning(names):
    assert drawing(names).png.startswith(b"\x89PNG")


def test_an_installed_font_with_the_characters_is_used():
    default = _characters(font_manager.findfont("DejaVu Sans"))
    others = {font.name: font.fname for font in font_manager.fontManager.ttflist if "Last Resort" not in font.name}
    name, more = next((name, found) for name, file in sorted(others.items()) if (found := _characters(file) - default))
    text = min(more)
    labels = Labels([text])
    assert labels.families and not labels.numbered and labels[text] == text, name
    assert Labels(["plain"]).families == []


def test_numbered_labels_are_as_wide_as_the_labels_that_replace_them(monkeypatch):
    monkeypatch.setattr("anyrec.report.labels._fonts_for", lambda found: ([], frozenset(found) - set("abc ")))
    labels = Labels(["abc", "小説 b", "漫画", "abc c"])
    assert [labels[name].strip(BLANK) for name in ("abc", "小説 b", "漫画", "abc c")] == ["abc", "[1]", "[2]", "abc c"]
    for drawn, label in labels.numbered.items():
        blanks = drawn.count(BLANK)
        assert blanks >= 1 and abs(blanks * 0.318 + _width(drawn.strip(BLANK)) - _width(label)) < 0.64
    assert labels.written_out(f"<text>{labels['漫画']}</text><text>[2]</text>") == "<text>漫画</text><text>[2]</text>"


@given(st.text("ab é", max_size=80))
def test_long_labels_keep_their_beginning_and_their_end(text):
    label, text = Labels([text])[text], text.strip()
    start, _, end = label.partition("…")
    assert text.startswith(start) and text.endswith(end) and _width(label) <= MOST_WIDTH
    assert (label == text) == (_width(text) <= MOST_WIDTH)


def test_a_report_in_every_script_has_no_warning_and_says_once_what_it_cannot_draw(tmp_path):
    """Ids, names of features, values of features and the name of the model; warnings are errors in tests."""
    data = small_dataset()
    ids = {side: [f"{SCRIPTS[n % 6]}{n}" for n in range(len(data.table(side)))] for side in ("user", "item")}
    values = itertools.cycle(SCRIPTS[:7])
    users = with_column(data.users, "categorical.職業", [next(values) for _ in ids["user"]])
    items = with_column(data.items, "categorical.ジャンル", [next(values) for _ in ids["item"]])
    users = users.set_column(0, "user_id", pa.array(ids["user"]))
    items = items.set_column(0, "item_id", pa.array(ids["item"]))
    rows = with_column(data.interactions, "user_id", [ids["user"][row] for row in data.user_rows])
    rows = with_column(rows, "item_id", [ids["item"][row] for row in data.item_rows])
    found = report_data(
        {**classical("ease"), "name": "モデル"}, changed(data, users=users, items=items, interactions=rows)
    )
    write_report(found, tmp_path)
    page, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    for name in SCRIPTS[:7]:
        assert name in page and name in markdown
    numbered = "モデル" in Labels(["モデル"]).numbered.values()
    assert markdown.count(NUMBERED) == page.count(NUMBERED) == int(numbered)
    assert ("[1] is モデル." in markdown) == numbered
