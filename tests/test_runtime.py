"""Random generators, environment and allocator of the process are restored."""

import gc
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import torch
from small import small_config, small_dataset

from anyrec.core.runtime import SWITCH, giving_way, no_collection, seeded, short_waits
from anyrec.recommender import Recommender

FULL = {
    "features": {"history": {"window": 8}},
    "interaction": {"type": "dot"},
    "pipeline": {"retrieve": {"sources": [{"type": "model"}, {"type": "popularity"}]}, "rank": {"type": "dot"}},
}


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def fit(**changes):
    return Recommender.from_config(small_config(**changes)).fit(small_dataset(), progress=False)


def test_fit_evaluate_recommend_save_and_load_leave_random_generators_as_they_were(tmp_path):
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = states()
    recommender = fit(**FULL)
    assert states() == before
    recommender.evaluate("test")
    recommender.evaluate_pipeline("test")
    recommender.recommend(["u001"], k=3)
    recommender.similar(["i001"], k=3)
    recommender.save(tmp_path / "model")
    Recommender.load(tmp_path / "model").recommend(["u001"], k=3)
    assert states() == before
    fit(model={"type": "ials"})
    assert states() == before


def test_the_same_seed_gives_the_same_model_whatever_the_callers_random_state():
    torch.manual_seed(1)
    one = fit().model.scorer.state_dict()
    torch.manual_seed(2)
    random.seed(2)
    other = fit().model.scorer.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_random_generators_are_restored_after_an_error():
    before = states()
    try:
        with seeded(5):
            assert torch.get_rng_state().tolist() != before[2]
            raise ValueError
    except ValueError:
        pass
    assert states() == before


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )
    return result.stdout.split()


def test_importing_the_library_sets_no_environment_variable():
    code = "import os; before = dict(os.environ); import anyrec, anyrec.recommender; print(before == dict(os.environ))"
    assert run(code) == ["True"]


def test_the_command_line_sets_up_its_process_and_one_switch_stops_it():
    code = (
        "import os; os.environ.pop('THP_MEM_ALLOC_ENABLE', None); from anyrec.core.runtime import own_process;"
        "own_process(); print(os.environ.get('THP_MEM_ALLOC_ENABLE'))"
    )
    assert run(code) == ["1"]
    assert run(code, ANYREC_PROCESS_SETTINGS="0") == ["None"]


def test_a_server_waits_shortly_for_other_threads_and_collects_no_old_objects():
    interval, frozen = sys.getswitchinterval(), gc.get_freeze_count()
    with short_waits():
        assert sys.getswitchinterval() < interval / 10
        assert gc.get_freeze_count() > 10_000
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (interval, frozen)


def test_no_garbage_is_collected_while_a_command_loads_and_it_is_afterwards():
    with no_collection():
        with no_collection():
            assert not gc.isenabled()
        with short_waits():
            assert gc.isenabled()  # a server collects garbage once it answers
        assert not gc.isenabled()
    assert gc.isenabled()


def count_to(end):
    return sum(len([n]) for n in range(end))


def share_of_time(work):
    """Return the share of the time on the clock that this thread works."""
    clock, own = time.perf_counter(), time.thread_time()
    work()
    return (time.thread_time() - own) / (time.perf_counter() - clock)


def test_a_thread_that_gives_way_works_for_less_than_half_of_the_time(monkeypatch):
    with giving_way():
        assert share_of_time(lambda: count_to(100_000)) < 0.5
        other = []
        thread = threading.Thread(target=lambda: other.append(sys.getprofile()))
        thread.start()
        thread.join()
        assert other == [None]  # the other threads go on
    assert sys.getprofile() is None
    monkeypatch.setenv(SWITCH, "0")
    with giving_way():
        assert sys.getprofile() is None


def test_a_thread_that_is_profiled_stays_so():
    def profile(frame, event, argument):
        pass

    sys.setprofile(profile)
    try:
        with giving_way():
            assert sys.getprofile() is profile
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
