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
