"""Statistics of texts, against counts by hand."""

import math
import string

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config, small_dataset

from anyrec.data.preparation.text_statistics import STATISTICS, statistics_of
from anyrec.encoders.text_statistics import TextStatistics
from anyrec.recommender import Recommender
from anyrec.testing import check_encoder


def of(text):
    """The statistics of one text by name; counts without the logarithm."""
    values = statistics_of(pa.array([text], pa.string())).to_pylist()[0]
    logs = {"characters", "words", "sentences", "lines", "words of a sentence", "questions and exclamations"}
    return {name: math.expm1(one) if name in logs else one for name, one in zip(STATISTICS, values, strict=True)}


def test_a_text_is_counted():
    found = of("Great pan! It is GREAT.\nWould buy again, 100%?")
    expected = {
        "characters": 46,
        "words": 9,
        "sentences": 3,
        "lines": 2,
        "words of a sentence": 3,
        "characters of a word": 33 / 9,
        "fraction of distinct words": 8 / 9,
        "fraction of capitals": 8 / 46,
        "fraction of digits": 3 / 46,
        "fraction of punctuation": 5 / 46,
        "questions and exclamations": 2,
    }
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("No stop", 1),
        ("3.5 stars of 5", 1),
        ("Really?! Yes...", 2),
        ('He said "no." Then left.', 2),
        ("\u597d\u3002\u5f88\u597d\uff01", 2),
    ],
)
def test_sentences_end_at_stops_before_a_space_or_the_end(text, sentences):
    assert of(text)["sentences"] == pytest.approx(sentences)


def test_several_texts_of_a_record_count_as_one_and_blank_ones_as_none():
    lists = statistics_of(pa.array([["One.", "Two?"], [], None, [" "]])).to_pylist()
    assert lists[0] == statistics_of(pa.array(["One.\nTwo?"])).to_pylist()[0] and lists[1:] == [None, None, None]
    assert statistics_of(pa.array(["", "  \n", None])).to_pylist() == [None] * 3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=60) | st.text(string.printable, max_size=60), max_size=5))
def test_the_statistics_of_any_text_are_finite_and_do_not_depend_on_other_records(texts):
    found = statistics_of(pa.array(texts, pa.string())).to_pylist()
    for text, values in zip(texts, found, strict=True):
        assert values == statistics_of(pa.array([text], pa.string())).to_pylist()[0]
        assert values is None or (len(values) == len(STATISTICS) and np.isfinite(values).all() and min(values) >= 0)


def test_the_encoder_keeps_its_contract_and_trains():
    check_encoder(TextStatistics)
    check_encoder(TextStatistics, pa.array([["a b", "c!"], None, ["D"], [], ["e f g."], ["h"], ["i i"], ["j?"]]))
    config = small_config(features={"text": {"fields": {"title": {"type": "text_statistics", "encoding": "linear"}}}})
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    item, user = fitted.model.scorer.item, fitted.model.scorer.user
    types = {name: one.type for tower in (item, user) for name, one in tower.named_encoders()}
    assert types["text.title"] == "text_statistics" and types["text.bio"] == "hashed"
    assert fitted.metrics["test"]["ndcg@10"] > 0
