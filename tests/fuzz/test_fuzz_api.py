"""Whatever the methods of a recommender are given, they answer or raise an error made for the user."""

import random
import traceback
from collections import Counter

from api_calls import random_call
from hostile import N
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.core.errors import AnyrecError

FIRST, CALLS = (random.randrange(2**40), N) if N else (0, 1500)


def make_models():
    staged = {"retrieve": {"k": 20, "sources": [{"type": "model"}, {"type": "item_to_item"}, {"type": "popularity"}]}}
    tiny = {"epochs": 1, "batch_size": 128, "patience": None}
    configs = [
        small_config(training=tiny, features={"history": {"layers": 1, "window": 8}}),
        small_config(training=tiny, pipeline=staged),
        {"model": {"type": "ease"}},
        {"model": {"type": "bpr_mf", "factors": 4, "iterations": 5}, "index": {"type": "faiss", "kind": "flat"}},
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
            where = f"{place.filename.split('/')[-1]}:{place.lineno}"
            kind = f"{name}: {type(error).__name__} at {where}: {str(error)[:150]!r}"
            found[kind] += 1
            first.setdefault(kind, seed)
    return [f"{count} x {kind} (seed {first[kind]})" for kind, count in found.most_common()]


def test_random_calls_answer_or_raise_an_error_made_for_the_user():
    assert failures(make_models(), range(FIRST, FIRST + CALLS)) == []
