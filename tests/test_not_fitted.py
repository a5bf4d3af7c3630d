"""A recommender before `fit`: every public method that needs a model raises NotFittedError."""

import inspect

import numpy as np
import pytest
from small import small_config, small_dataset

from anyrec.core.errors import NotFittedError
from anyrec.recommender import Recommender

ROWS = np.array([0])
CALLS = {
    "add": lambda it: it.add({"user_data": [{"user_id": "new"}]}),
    "update": lambda it: it.update({"user_data": [{"user_id": "new"}]}),
    "add_items": lambda it: it.add_items([{"item_id": "new"}]),
    "add_users": lambda it: it.add_users([{"user_id": "new"}]),
    "answer": lambda it: it.answer(["u001"]),
    "dataset": lambda it: it.dataset,
    "describe": lambda it: it.describe(),
    "embed_items": lambda it: it.embed_items(),
    "embed_users": lambda it: it.embed_users(),
    "evaluate": lambda it: it.evaluate("test"),
    "evaluate_heads": lambda it: it.evaluate_heads("test"),
    "evaluate_slices": lambda it: it.evaluate_slices("test"),
    "evaluate_pipeline": lambda it: it.evaluate_pipeline("test"),
    "export": lambda it: it.export("nowhere"),
    "filtered": lambda it: it.filtered({"item.continuous.price": {"lt": 20}}),
    "fit_like": lambda it: it.fit_like(it.config),
    "model": lambda it: it.model,
    "parts": lambda it: it.parts,
    "push_items": lambda it: it.push_items("qdrant:nowhere"),
    "push_to_hub": lambda it: it.push_to_hub("me/shop"),
    "read_records": lambda it: it.read_records("user", ["u001"]),
    "recommend": lambda it: it.recommend(["u001"]),
    "save": lambda it: it.save("nowhere"),
    "save_pretrained": lambda it: it.save_pretrained("nowhere"),
    "saved_in": lambda it: it.saved_in("nowhere", "id"),
    "score": lambda it: it.score([{"user_id": "u001", "item_id": "i001"}]),
    "score_rows": lambda it: it.score_rows(["u001"], ROWS, ROWS),
    "search": lambda it: it.search(text="nurse"),
    "similar": lambda it: it.similar(["i001"]),
    "split": lambda it: it.split,
    "tracked_result": lambda it: it.tracked_result(),
    "with_config": lambda it: it.with_config(it.config),
    "with_data": lambda it: it.with_data(small_dataset()),
    "with_image_root": lambda it: it.with_image_root("images"),
    "with_pipeline": lambda it: it.with_pipeline(None),
}
WITHOUT_A_MODEL = {"add_encoder", "config", "fit", "from_config", "from_pretrained", "is_fitted", "load", "stages"}
"""Public members that an unfitted recommender has."""


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_needs_a_model_raises_not_fitted(name):
    with pytest.raises(NotFittedError, match=r"not fitted. Call fit\(dataset\)"):
        CALLS[name](Recommender.from_config(small_config()))


def test_every_public_method_is_covered():
    public = {name for name, _ in inspect.getmembers(Recommender) if not name.startswith("_")}
    assert public == set(CALLS) | WITHOUT_A_MODEL


def test_an_unfitted_recommender_has_its_config_and_says_that_it_is_not_fitted():
    recommender = Recommender.from_config(small_config(name="shop"))
    assert recommender.config.name == "shop"
    assert not recommender.is_fitted and recommender.metrics == {} and recommender.pipeline is None
