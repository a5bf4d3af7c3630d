"""Text encoders: hashed words, and sentence-transformers with the real MiniLM weights."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch

from anyrec.core.contracts import Context
from anyrec.core.errors import ConfigError
from anyrec.core.ragged import select
from anyrec.data.preparation.words import split_words
from anyrec.encoders.sentence import Sentence, backbone, embed_texts, token_ids
from anyrec.encoders.text import Hashed
from anyrec.testing import check_encoder


def fitted(column, **options):
    encoder = Hashed(Hashed.Params(**options), 16)
    encoder.fit(column)
    return encoder, encoder.encode_column(column)


def test_words_of_any_script_are_split():
    words, offsets = split_words(pa.array(["Don't STOP, Käse!", "東京タワー", None, "one two"]), 99)
    assert words.to_pylist() == ["don", "t", "stop", "käse", "東", "京", "タ", "ワ", "ー", "one", "two"]
    assert offsets.tolist() == [0, 4, 9, 9, 11]


def test_texts_of_the_same_words_get_the_same_vector_and_unknown_words_are_absent():
    column = pa.array(["red boat", "Red  BOAT!", "blue house", "blue house", "zzz", "", None])
    encoder, prepared = fitted(column)
    assert prepared.present.tolist() == [True, True, True, True, False, False, False]
    torch.manual_seed(0)
    encoder.build()
    vectors = encoder(select(prepared.values, torch.arange(7)))
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


def test_several_texts_of_a_record_are_read_together():
    many = pa.array([["red boat", "blue house"], ["red boat"], [], None])
    encoder, prepared = fitted(many, min_count=1)
    assert prepared.present.tolist() == [True, True, False, False]
    assert prepared.values.lengths.tolist() == [7, 3, 0, 0]  # four words and three pairs, two words and one pair


def test_max_words_limits_the_words_read():
    encoder, prepared = fitted(pa.array(["a b c d e f g h"] * 3), max_words=3, ngrams=1)
    assert prepared.values.lengths.tolist() == [3, 3, 3]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_real_language_model_keeps_the_contract(minilm, tmp_path, frozen):
    column = pa.array(
        ["a boat on the sea", None, "a ship at sail", "how to file taxes", "", "a boat on the sea", "rain", "sun"]
    )
    params = {"model": str(minilm), "frozen": frozen}
    if frozen:
        check_encoder(Sentence, column, params, Context(cache=tmp_path))
    encoder = Sentence(Sentence.Params(**params), 8)
    encoder.context = Context(cache=tmp_path)
    encoder.fit(column)
    prepared = encoder.encode_column(column)
    encoder.build()
    assert prepared.present.tolist() == [True, False, True, True, False, True, True, True]
    output = encoder(select(prepared.values, torch.arange(8)))
    assert output.shape == (8, 8) and output.isfinite().all()
    output[prepared.present].sum().backward()
    trained = [name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("backbone" in name for name in trained) is not frozen


def test_frozen_vectors_reflect_meaning_and_do_not_depend_on_the_batch(minilm):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm), device="cpu")
    texts = [
        "a boat on the sea",
        "a ship under sail",
        "how to file your taxes on time, with all the forms that it takes",
    ] * 5
    vectors = torch.nn.functional.normalize(embed_texts(texts, model, None, "cpu"), dim=1)
    reference = torch.from_numpy(model.encode(texts, normalize_embeddings=True)).float()
    assert (vectors * reference).sum(1).min() > 0.999
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_vectors_are_computed_once(minilm, tmp_path, monkeypatch):
    column = pa.array([f"text number {n}" for n in range(6)])
    encoder = Sentence(Sentence.Params(model=str(minilm)), 8)
    encoder.context = Context(cache=tmp_path)
    first = encoder.encode_column(column).values
    calls = []
    monkeypatch.setattr(Sentence, "_embed", lambda self, texts: calls.append(texts) or torch.ones(len(texts), 384))
    second = encoder.encode_column(pa.concat_arrays([column, pa.array(["a new one"])])).values
    assert calls == [["a new one"]]
    assert torch.equal(first, second[:6])


def test_threads_with_other_limits_do_not_change_the_tokens_of_each_other(minilm):
    """A tokenizer keeps the limit of its last call: a quarter of the calls gave texts of the other limit."""
    encoder = Sentence(Sentence.Params(model=str(minilm)), 8)
    encoder.load()
    tokenizer = backbone(str(minilm), encoder.context, "").tokenizer

    def lengths(most):
        texts = [f"{most} " + "word " * 200] * 100
        return {len(ids) for _ in range(15) for ids in token_ids(tokenizer, texts, most)}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lengths, [20, 30, 20, 30])) == [{20}, {30}, {20}, {30}]
    finally:
        sys.setswitchinterval(interval)


def test_a_model_that_cannot_be_loaded_is_an_error_that_names_the_alternative():
    encoder = Sentence(Sentence.Params(model="/no/such/model"), 8)
    with pytest.raises(ConfigError, match="cannot be loaded") as error:
        encoder.encode_column(pa.array(["hello"]))
    assert "'hashed'" in str(error.value)


def test_hashed_terms_of_real_plots_predict_the_genre(ml_1m):
    """A linear model on the hashed terms of ML-1M's plots separates comedies from the rest better than chance."""
    from sklearn.linear_model import LogisticRegression

    from anyrec.data.formats.movielens import read_movielens

    items = read_movielens(ml_1m).items.slice(0, 1500)
    column = items["text.plot"].combine_chunks()
    encoder, prepared = fitted(column.slice(0, 1000))
    prepared = encoder.encode_column(column)
    comedy = np.array(["Comedy" in (genres or []) for genres in items["categorical.genres"].to_pylist()])
    terms = np.zeros((1500, len(encoder.terms)), np.float32)
    terms[prepared.values.row_of_value().numpy(), prepared.values.values.numpy()] = 1
    model = LogisticRegression(max_iter=300, C=0.1).fit(terms[:1000], comedy[:1000])
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(comedy[1000:], model.decision_function(terms[1000:])) > 0.6
