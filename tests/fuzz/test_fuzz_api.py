"""Whatever the methods of a recommender are given, they answer or raise an error made for the user."""

import random
import traceback
from collections import Counter

import pytest
from api_calls import random_call
from hostile import N
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.core.errors import AnyrecError, NotFittedError

FIRST, CALLS = (random.randrange(2**40), N) if N else (0, 1500)


def make_models():
    staged = {"retrieve": {"k": 20, "sources": [{"type": "model"}, {"type": "item_to_item"}, {"type": "popularity"}]}}
    tiny = {"epochs": 1, "batch_size": 128, "patience": None}
    configs = [
        small_config(training=tiny, features={"history": {"layers": 1, "window": 8}}),
        small_config(training=tiny, pipeline=staged),
        {"model": {"type": "ease"}},
    ]
    return [Recommender.from_config(config).fit(small_dataset(), progress=False) for config in configs]


def failures(models, seeds):
    """(kind of failure, how many): calls that raise something else than an error made for the user."""
    found, first = Counter(), {}
    for seed in seeds:
        name, call = random_call(seed)
        try:
            call(models[seed % len(models)])
        except AnyrecError as error:
            str(error)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{name}: {type(error).__name__} at {place.filename.split('/')[-1]}:{place.lineno}: {str(error)[:150]!r}"
            found[kind] += 1
            first.setdefault(kind, seed)
    return [f"{count} x {kind} (seed {first[kind]})" for kind, count in found.most_common()]


def test_random_calls_answer_or_raise_an_error_made_for_the_user():
    assert failures(make_models(), range(FIRST, FIRST + CALLS)) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.recommend(["u001"]),
        lambda model: model.answer(["u001"]),
        lambda model: model.similar(["i001"]),
        lambda model: model.search(text="nurse"),
        lambda model: model.score([{"user_id": "u001", "item_id": "i001"}]),
        lambda model: model.embed_users(),
        lambda model: model.add_items([{"item_id": "new"}]),
        lambda model: model.evaluate("test"),
        lambda model: model.save("nowhere"),
        lambda model: model.with_data(small_dataset()).recommend(["u001"]),
    ],
)
def test_a_model_that_is_not_fitted_says_so(call):
    with pytest.raises(NotFittedError, match=r"not fitted. Call fit\(dataset\)"):
        call(Recommender.from_config(small_config()))
