"""The time limit of the work of a thread."""

import threading
import time

import pytest
from small import small_config, small_dataset

from anyrec.core.once import Once
from anyrec.core.time_limit import OutOfTime, check_time, until
from anyrec.recommender import Recommender
from anyrec.serving.explain import explain


def test_the_limit_holds_within_its_block_and_in_its_thread_alone():
    check_time()
    with until(time.monotonic() - 1):
        with pytest.raises(OutOfTime):
            check_time()
        with until(None):
            check_time()
        other = []
        thread = threading.Thread(target=lambda: other.append(check_time()))
        thread.start()
        thread.join()
        assert other == [None]
        with pytest.raises(OutOfTime):
            check_time()
    check_time()


def test_a_value_that_later_requests_need_is_computed_to_its_end():
    with until(time.monotonic() - 1):
        assert Once().get("vectors", lambda: check_time() or 7) == 7


def test_every_request_of_a_model_ends_soon_after_its_time():
    pipeline = {"rank": {"type": "mlp", "training": {"epochs": 1}}, "rerank": {"rules": [{"type": "diversity"}]}}
    recommender = Recommender.from_config(small_config(pipeline=pipeline)).fit(small_dataset(), progress=False)
    stages = [
        lambda: recommender.recommend(["u001"], 5),
        lambda: recommender.recommend([{"user_id": "new"}], 5),
        lambda: explain(recommender, ["u001"], recommender.recommend(["u001"], 5)),
        lambda: recommender.embed_items([{"item_id": "new"}]),
    ]
    for stage in stages:
        stage()
        with until(time.monotonic() - 1), pytest.raises(OutOfTime):
            stage()
