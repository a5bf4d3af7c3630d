"""What a sequence model says of data that have no order, too little of it, or nothing left."""

import json

import numpy as np
import pyarrow as pa
import pytest
from small import call, in_order, small_config, small_dataset

from anyrec.core.errors import ConfigError, DataError
from anyrec.data.checks.row_limits import apply_limits
from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender

HISTORY = {"features": {"history": {"window": 5}}, "user": {"features": {"identity": None}}}


def fit(dataset, **changes):
    return Recommender.from_config(small_config(**HISTORY, **changes)).fit(dataset, progress=False)


def test_times_out_of_order_in_the_file_change_nothing():
    data = small_dataset()
    shuffled = data.interactions.take(pa.array(np.random.default_rng(3).permutation(len(data.interactions))))
    mixed = Dataset(data.users, data.items, shuffled, roles=data.roles)
    split = {"protocol": "leave_last_out"}
    one, other = fit(data, split=split), fit(mixed, split=split)
    assert one.recommend(None, 5).equals(other.recommend(None, 5))


def test_a_user_with_one_interaction_is_trained_on_and_served():
    data = small_dataset()
    first = np.flatnonzero(np.append(True, data.user_rows[1:] != data.user_rows[:-1]))
    keep = np.setdiff1d(np.arange(len(data.interactions)), np.arange(first[3] + 1, first[4]))
    lonely = Dataset(data.users, data.items, data.interactions.take(pa.array(keep)), roles=data.roles)
    fitted = fit(lonely, split={"protocol": "leave_last_out"})
    assert 3 not in fitted.dataset.user_rows[fitted.model.split.test]
    assert len(fitted.recommend(["u003"], 5)) == 5


def test_filters_that_leave_no_interaction_are_an_error():
    data = small_dataset()
    config = Recommender.from_config({"data": {"min_item_interactions": 10_000}}).config
    with pytest.raises(DataError, match="leave no interaction"):
        apply_limits(data, config.data)


def test_nothing_to_rank_gives_empty_lists():
    fitted = fit(small_dataset())
    assert len(fitted.recommend(["u001"], 5, candidates=[])) == 0


def test_the_block_and_its_options_are_checked(tmp_path):
    data = {
        "user_data": [{"user_id": "a"}],
        "item_data": [{"item_id": "x"}],
        "interactions": [{"user_id": "a", "item_id": "x"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    for text, message in (
        ('{"block": "lstm"}', "lstm"),
        ('{"heads": 3}', "3 heads do not divide"),
        ('{"windw": 5}', "window"),
    ):
        code, _, error = call(
            "train",
            "--data",
            tmp_path / "data.json",
            "--set",
            f"features.history={text}",
            "--set",
            "split.protocol=none",
        )
        assert code == 2 and message in error


def test_single_labels_and_histories_do_not_go_together():
    with pytest.raises(ConfigError, match="features/history"):
        fit(small_dataset(), negatives={"type": "labelled"}, loss={"type": "bce"}, data={"min_rating": 3})


def test_a_config_that_sets_nothing_is_made_to_fit_the_data(tmp_path, monkeypatch):
    """Who sets nothing gets the order where there is one."""
    data = in_order(small_dataset())
    from anyrec.data import suggest_config as init

    suggested, reasons = init.suggest_config(data, tmp_path / "small.json")
    assert suggested["features"]["history"]["use_kind"] is True
    assert suggested["user"]["features"] == {"identity": None}
    assert suggested["features"]["history"]["fields"] == {"recent": {"block": "mean"}}
    assert suggested["fusion"] == {"type": "residual"}
    assert suggested["loss"] == {"type": "full_softmax"}
    assert any("transformer of 2 layers" in reason for reason in reasons)
    monkeypatch.setattr(init, "MANY", len(data.interactions))
    assert init.suggest_config(data, tmp_path / "small.json")[0]["features"]["history"]["layers"] == 4
    timeless = Dataset(data.users, data.items, data.interactions.drop_columns(["timestamp"]), roles=data.roles)
    suggested, reasons = init.suggest_config(timeless, tmp_path / "small.json")
    assert suggested["features"]["history"] == {"type": "set"}
    assert any("no interaction has a time" in reason for reason in reasons)
