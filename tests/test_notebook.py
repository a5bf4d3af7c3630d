"""What notebooks and the interactive interpreter show of datasets, recommenders and results."""

import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from small import small_config, small_dataset

from anyrec.core.notebook import MOST_ROWS, html_table
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender
from anyrec.retrieval.results import SearchResult


class Cells(HTMLParser):
    """Collects the texts of an HTML document, and refuses tags that are not closed."""

    def __init__(self):
        super().__init__()
        self.texts, self.opened = [], []

    def handle_starttag(self, tag, attributes):
        self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def texts_of(html):
    parser = Cells()
    parser.feed(html)
    assert not parser.opened
    return parser.texts


@pytest.fixture(scope="module")
def fitted():
    config = small_config(name="shop", training={"epochs": 2, "batch_size": 128, "patience": None})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


def test_a_table_escapes_its_texts_and_counts_the_rows_it_leaves_out():
    html = html_table("<b>&", ["a", "<script>"], [[f"<i>{n}", n / 3] for n in range(MOST_ROWS + 5)])
    assert "<script>" not in html and "<i>" not in html
    texts = texts_of(html)
    assert texts[:3] == ["<b>&", "a", "<script>"] and "<i>1" in texts and "0.3333" in texts
    assert "and 5 more rows" in texts and f"<i>{MOST_ROWS}" not in texts


def test_a_dataset_is_described_in_a_line_and_as_a_table():
    data = small_dataset()
    assert repr(data) == "Dataset(60 users, 40 items, 480 interactions)"
    texts = texts_of(data._repr_html_())
    assert {"users", "60", "categorical.job, continuous.age, temporal.spending, text.bio"} <= set(texts)
    assert {"interactions", "480", "interaction_type, rating, timestamp"} <= set(texts)
    empty = Dataset(data.users.slice(0, 0), data.items, data.interactions.slice(0, 0))
    assert repr(empty) == "Dataset(0 users, 40 items, 0 interactions)" and texts_of(empty._repr_html_())


def test_a_recommender_is_described_before_and_after_fitting(fitted):
    unfitted = Recommender.from_config(small_config(name="shop"))
    assert repr(unfitted) == "Recommender(shop: two_tower, not fitted)"
    assert "not fitted" in " ".join(texts_of(unfitted._repr_html_()))
    assert re.fullmatch(r"Recommender\(shop: two_tower, 60 users, 40 items, test ndcg@10 0\.\d{4}\)", repr(fitted))
    texts = texts_of(fitted._repr_html_())
    assert {"metric", "validation", "test", "ndcg@10"} <= set(texts)
    assert f"{fitted.metrics['test']['ndcg@10']:.4f}" in texts
    ease = Recommender.from_config({"model": {"type": "ease"}, "split": {"protocol": "none"}})
    assert repr(ease.fit(small_dataset(), progress=False)) == "Recommender(model: ease, 60 users, 40 items)"


def test_results_are_described_shortly(fitted):
    answer = fitted.answer(["u001", "u002"], 15)
    assert re.fullmatch(r"Answer\(2 users, 30 items, \d+\.\d ms\)", repr(answer))
    texts = texts_of(answer._repr_html_())
    assert "u001" in texts and "and 10 more rows" in texts and "total" in " ".join(texts)
    odd = fitted.answer([{"user_id": "<x>", "categorical": {"gruop": "a"}}], 2)
    assert "1 warning" in repr(odd) and "<x>" in texts_of(odd._repr_html_())
    result = fitted.result
    assert repr(result).startswith("TrainingResult(2 epochs, best ") and len(repr(result)) < 80
    assert {"epoch", "loss", "validation ndcg@10"} <= set(texts_of(result._repr_html_()))
    assert repr(SearchResult.empty(3, 7)) == "SearchResult(3 queries, 7 results each)"


def test_ids_are_shown_as_they_are_in_the_data():
    data = small_dataset()
    odd = data.users.set_column(0, "user_id", pa.array([f"<{n}>" for n in range(60)]))
    rows = data.interactions.set_column(0, "user_id", odd["user_id"].combine_chunks().take(pa.array(data.user_rows)))
    fitted = Recommender.from_config({"model": {"type": "popularity"}}).fit(
        Dataset(odd, data.items, rows, roles=data.roles), progress=False
    )
    assert "<3>" in texts_of(fitted.answer(["<3>"], 2)._repr_html_())


class FakeShell:
    """IPython's registry of formatters, as far as it is used."""

    def __init__(self):
        self.types = {}
        self.display_formatter = self
        self.formatters = {"text/html": self}

    def for_type_by_name(self, module, name, function):
        self.types[module, name] = function

    def html(self, value):
        return self.types[type(value).__module__, type(value).__name__](value)


@pytest.fixture
def shell(monkeypatch):
    fake = FakeShell()
    monkeypatch.setattr("builtins.get_ipython", lambda: fake, raising=False)
    Recommender.from_config(small_config())
    return fake


def test_tables_of_results_are_html_in_a_notebook_and_other_arrow_tables_stay_as_they_are(fitted, shell):
    users = ["u001", "u002"]
    lists = fitted.recommend(users, 12)
    texts = texts_of(shell.html(lists))
    assert texts[:5] == ["24 rows of 2 users", *lists.column_names] and "and 4 more rows" in texts
    assert texts[5:9] == ["u001", lists["item_id"][0].as_py(), f"{lists['score'][0].as_py():.4f}", "1"]
    scores = fitted.score([{"user_id": "u001", "item_id": "i001"}])
    for table in (fitted.similar(["i001"], 3), scores, fitted.embed_users(users), fitted.embed_items(["i001"])):
        assert len(texts_of(shell.html(table))) > len(table.column_names)
        assert max(map(len, texts_of(shell.html(table)))) <= 120
    assert shell.html(fitted.dataset.users) is None


def test_texts_and_numbers_of_results_are_escaped_and_ids_have_no_separators(shell):
    table = pa.table({"user_id": [1234567], "item_id": ["<script>&"], "score": [0.5], "rank": [1]})
    html = shell.html(table)
    assert "<script>" not in html and texts_of(html)[5:] == ["1234567", "<script>&", "0.5000", "1"]


def test_without_a_notebook_nothing_is_registered():
    assert repr(Recommender.from_config(small_config(name="shop"))) == "Recommender(shop: two_tower, not fitted)"


def test_slices_have_a_short_repr(fitted):
    one = next(one for one in fitted.evaluate_slices() if one.kind == "users by training interactions")
    assert repr(one) == f"Slice({one.kind}: 1-19, {one.users} users, {one.targets} held-out items)"
