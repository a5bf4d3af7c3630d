"""Eight threads on one model get the answers of one thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.data.partial import request_of_document
from anyrec.serving.explain import explain
from anyrec.serving.result import infer

THREADS, ROUNDS, CALLS = 8, 3, 240
"""Each round is on a model that has just been loaded: the threads race for values that are computed once."""
STAGES = {
    "retrieve": {"k": 20, "sources": [{"type": "model"}, {"type": "item_to_item"}, {"type": "history"}]},
    "rank": {"type": "dcn", "training": {"epochs": 1}},
    "rerank": {"rules": [{"type": "calibrate", "feature": "item.categorical.tags"}]},
    "strict": True,
}
CONFIGS = {
    "staged": small_config(
        training={"epochs": 1, "batch_size": 128, "patience": None},
        features={"history": {"type": "aggregates"}},
        pipeline=STAGES,
        split={"protocol": "leave_last_out"},
    ),
    "ease": {"model": {"type": "ease"}},
}


def programs(model, n):
    """Different calls about user and item number `n`, each a function without arguments."""
    user, item = f"u{n:03d}", f"i{n:03d}"
    person = {"user_id": f"new{n}", "categorical": {"job": "nurse" if n % 2 else "pilot"}}
    document = {"user_data": [person], "interactions": [{"user_id": f"new{n}", "item_id": item}]}
    request = request_of_document(document, model.dataset, model.config.data)

    def answer():
        found = infer(model, request, 5, now=0)
        return {key: value for key, value in found.items() if key != "latency_ms"}

    def explained():
        return [one.sentence for one in explain(model, [user], model.recommend([user], 3, now=0))]

    calls = [
        lambda: model.recommend([user], 5, now=0).to_pylist(),
        lambda: model.recommend([person], 5, now=0).to_pylist(),
        answer,
        lambda: model.similar([item], 3).to_pylist(),
        lambda: model.score([{"user_id": user, "item_id": item}]).to_pylist(),
        explained,
        lambda: model.add_users(document).recommend([f"new{n}"], 5, now=0).to_pylist(),
    ]
    if model.model.has_vectors:
        new = {"item_id": f"fresh{n}", "categorical": {"tags": ["nurse"]}}
        calls += [
            lambda: model.search(text="nurse", user=user, k=3).to_pylist(),
            lambda: model.add_items([new]).recommend([user], 40, now=0).to_pylist(),
            lambda: model.embed_users([person]).to_pylist(),
        ]
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_mixed_calls_of_eight_threads_give_what_one_thread_gives(name, tmp_path):
    folder = Recommender.from_config(CONFIGS[name]).fit(small_dataset(), progress=False).save(tmp_path / "model")

    def loaded():
        """A model of which nothing is computed yet, and calls of it."""
        model = Recommender.load(folder).with_data(small_dataset())
        return model, [lambda: model.evaluate("test"), *(call for n in range(6) for call in programs(model, n))]

    expected = [call() for call in loaded()[1]]
    for round_ in range(ROUNDS):
        model, calls = loaded()
        warnings = list(model.model.context.warnings)
        barrier = threading.Barrier(THREADS)

        def run(seed, calls=calls, barrier=barrier):
            barrier.wait()
            chosen = np.random.default_rng(seed).integers(0, len(calls), CALLS // THREADS)
            return [int(place) for place in chosen if calls[place]() != expected[place]]

        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(run, range(round_ * THREADS, (round_ + 1) * THREADS))) == [[]] * THREADS
        assert model.model.context.warnings == warnings
