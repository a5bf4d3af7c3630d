"""The HTML and Markdown of the report, its metrics and its figures."""

import collections
import html.parser
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import measured
from reports import changed, report_data, table_under, with_column
from small import small_config, small_dataset

from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.ranking import ranking_metrics
from anyrec.evaluation.statistics import Interval, intervals
from anyrec.report import figures
from anyrec.report.page import Bullets, Section, Table, Text, as_html, write_page
from anyrec.report.sections import sections
from anyrec.report.verdict import verdict


class Page(html.parser.HTMLParser):
    """Check that tags nest; collect references, headings, ids and text."""

    VOID = {"meta", "link", "img", "br", "hr"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.references, self.tags, self.headings, self.text, self.ids = (
            [],
            [],
            collections.Counter(),
            [],
            "",
            [],
        )
        self.feed(text)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.references += [
            value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "action")
        ]
        self.references += [url for _, value in attributes for url in re.findall(r"url\(([^)]*)\)", value or "")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.open, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "style":
            assert not re.search(r"@import|url\(|https?:", data)
        self.text += data


def test_the_page_needs_no_network_and_is_well_formed(reported):
    _, folder = reported
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.references and all(reference.startswith(("#", "data:")) for reference in page.references)
    assert page.tags["script"] == page.tags["iframe"] == page.tags["object"] == 0
    assert page.tags["h1"] == 1 and page.tags["svg"] >= 8 and page.tags["article"] == 6
    assert len(page.ids) == len(set(page.ids)), "pictures that share an id borrow each other's parts"
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)


def test_every_section_and_picture_is_on_the_page_and_in_the_markdown(reported, undrawn):
    found, folder = reported
    markdown, page = (folder / "report.md").read_text(), Page((folder / "report.html").read_text())
    titles = [section.title for section in sections(found, folder) if section.title]
    assert titles == [
        "Comparison with baselines",
        "Training and latency",
        "Groups of users and items",
        "Properties of the lists",
        "Feature importance",
        "Embeddings",
        "Example recommendations",
        "Data checks",
        "Method",
    ]
    assert page.headings == titles == re.findall(r"^## (.*)$", markdown, re.M)
    pictures = re.findall(r"\]\(figures/(\w+)\.png\)", markdown)
    assert {path.stem for path in (folder / "figures").iterdir()} == set(pictures)
    assert len(pictures) == page.tags["svg"] == len(set(pictures))
    assert all((folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert verdict(found).replace("**", "") in page.text


def test_the_metrics_in_the_report_equal_those_in_the_saved_files(reported):
    found, folder = reported
    summary = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    users = pq.read_table(folder / "evaluation" / "users.parquet")
    header, *rows = table_under((folder / "report.md").read_text(), "Comparison with baselines")
    assert header[:4] == ["", "ndcg@10 [95%]", "delta (model - baseline)", "p (Holm)"]
    assert header[4:] == ["recall@10", "precision@10", "hit_rate@10", "map@10", "mrr@10", "auc"]
    assert {row[0] for row in rows} == set(summary["metrics"])
    means = [float(row[1].split()[0]) for row in rows]
    assert rows[0][0] == "model" and means[1:] == sorted(means[1:], reverse=True)
    for row in rows:
        measured = summary["metrics"][row[0]]
        for name, cell in zip(header[4:], row[4:], strict=True):
            assert cell == f"{measured[name]:.4f}", (row[0], name)
        own = users[f"{row[0]}.ndcg@10"].to_numpy()
        span = intervals({"": own})[""]
        assert row[1] == f"{own.mean():.4f} [{span.low:.4f}, {span.high:.4f}]" and own.mean() == pytest.approx(
            measured["ndcg@10"]
        )
        if row[0] != "model":
            compared = summary["compared"][row[0]]
            assert row[2] == f"{compared['difference']:+.4f}"
            assert compared["difference"] == pytest.approx((users["model.ndcg@10"].to_numpy() - own).mean())
            assert row[3] in (f"{compared['corrected']:.3f}", "< 0.001")
    _, *importance = table_under((folder / "report.md").read_text(), "Feature importance")
    assert {row[0] for row in importance} == set(summary["feature_importance"])
    assert all(row[1].startswith(f"{summary['feature_importance'][row[0]]['difference']:+.4f} [") for row in importance)
    assert summary["split"] == found.recommender.model.split.name and summary["users"] == len(users)
    assert users["user_id"].to_pylist() == sorted(users["user_id"].to_pylist())


def test_the_means_equal_those_that_training_printed(reported):
    found, _ = reported
    measured = found.recommender.metrics["test"]
    assert {name: found.model.mean(name) for name in measured} == pytest.approx(measured)
    for name, one in found.fitted.items():
        assert found.baselines[name].mean("ndcg@10") == pytest.approx(
            ranking_metrics(rank_held_out(one, "test"), [10])["ndcg@10"]
        )


def test_markup_in_the_data_is_escaped_in_the_page(tmp_path):
    data = small_dataset()
    titles = [f"<script>alert({n})</script> & \"co\" 'x' | **b** `c`" for n in range(len(data.items))]
    jobs = [f"<b onload=x>&\"{job}'" for job in data.users["categorical.job"].to_pylist()]
    tags = [[f"<i>{tag}", 'a" id="b'] for tag, *_ in data.items["categorical.tags"].to_pylist()]
    data = changed(
        data,
        users=with_column(data.users, "categorical.job", jobs),
        items=with_column(with_column(data.items, "text.title", titles), "categorical.tags", tags),
    )
    found = report_data(small_config(evaluation={"baselines": ["popularity"]}, features={"temporal": None}), data)
    page = Page(as_html("A <script>", sections(found, tmp_path)))
    assert page.tags["script"] == page.tags["i"] == 0
    assert "A <script>" in page.text and "<script>alert(" in page.text and "<b onload=x>" in page.text
    blocks = [block for section in sections(found, tmp_path) for block in section.blocks]
    lines = [block.text for block in blocks if isinstance(block, Text)]
    lines += [line for block in blocks if isinstance(block, Bullets) for line in block.lines]
    bold = sum(len(re.findall(r"\*\*[^*]+\*\*", line)) for line in lines)
    hits = sum(item.hit for one in found.examples for item in one.recommended)
    assert page.tags["b"] == bold + hits


@pytest.mark.parametrize(
    "name",
    ["$", "$$$", "50%", "<b>", "_x", "$$", "$5 to $10", r"$\nothing$"],
)
def test_figures_accept_every_name_in_the_data(name):
    span = Interval(0.5, 0.4, 0.6, 9)
    picture = figures.slice_bars(
        "users by x", [name, "b"], {name: [span, None], "other": [span, span]}, [3, 4], "ndcg@10", "s"
    )
    assert picture.png.startswith(b"\x89PNG") and Page(picture.svg).text.count(name) >= 1


def test_a_metric_with_equal_values_for_all_users_can_be_drawn():
    span = intervals({"x": np.full(11, 0.61314719)})["x"]
    assert figures.bars({"model": span}, "model", "ndcg@10").png
    assert figures.slice_bars("users by x", ["a"], {"model": [span]}, [11], "ndcg@10", "s").png


def check_fit(page, folder, width, dark):
    """Check in a browser that nothing is cut off, and that wide tables scroll under their first column."""
    found = measured(page, folder, width, dark)
    assert (found["width"], found["dark"]) == (width, dark)
    assert found["page"] <= width and found["outside"] == [] and found["texts"] == []
    for table in found["tables"]:
        assert table["hidden"] < 1, "a column cannot be reached by scrolling"
        assert table["moved"] < 1 and table["solid"] and table["cut"] == 0, "the first column scrolls away"
        assert table["column"] <= 0.5 * width
    return found["tables"]


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_fits_into_a_screen_and_a_telephone(reported, tmp_path, dark):
    _, folder = reported
    tables = check_fit(folder / "report.html", tmp_path, 1280, dark)
    assert len(tables) >= 10 and all(table["scrolled"] == 0 for table in tables)
    tables = check_fit(folder / "report.html", tmp_path, 390, dark)
    assert any(table["scrolled"] > 0 for table in tables)
    assert all(table["scrolled"] < 900 for table in tables)


def test_tables_with_many_columns_and_long_names_scroll_within_their_box(tmp_path):
    names = ["a name of many short words that goes on", "x" * 90, "小説" * 30, "مرحبا بالعالم", "1-19", ""]
    rows = [[name, *[f"0.{n:04d} [0.0000, 1.0000]" for n in range(12)]] for name in names]
    prose = [
        [name, "0.5", "what this means, in a sentence that is longer than the screen of a telephone"] for name in names
    ]
    many = Table(["metric", *[f"{n} (30 users): a model with a name" for n in range(12)]], rows, "Wide", marked=[0])
    text = "`" + "a/path/without/spaces/" * 9 + "` " + "w" * 200
    blocks = [Text(text), Bullets([text]), many, Table(["a", "b", "definition"], prose, "Prose", prose=True), many]
    write_page("t" * 120, [Section("A heading " * 20, blocks)], tmp_path)
    for width in (390, 1280):
        wide, _, again = check_fit(tmp_path / "report.html", tmp_path, width, dark=False)
        assert wide["scrolled"] > 100 and wide == again and wide["column"] > 100
