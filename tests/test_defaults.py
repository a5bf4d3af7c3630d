"""Defaults fitted to the data apply to every key that is not set, one by one, wherever the config comes from."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import call, in_order, small_dataset

from anyrec.core.config import Config
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.defaults import merged, resolve_config
from anyrec.data.order import order_matters
from anyrec.data.suggest_set import set_dim, suggest_set
from anyrec.model.blended import towers_of
from anyrec.recommender import Recommender

REGISTRY = discover()


ORDERLESS = small_dataset()
"""Its users draw items independently, so their times tell nothing."""
DATA = in_order(ORDERLESS)
TIMELESS = Dataset(DATA.users, DATA.items, DATA.interactions.drop_columns(["timestamp"]), roles=DATA.roles)


def resolved(document, data=DATA):
    config, _ = load_config(document)
    found, _ = resolve_config(config, data, REGISTRY)
    return found


def test_one_set_key_changes_that_key_alone():
    nothing = resolved({}).model_dump()
    one = resolved({"training": {"patience": 3}}).model_dump()
    nothing["training"]["patience"] = 3
    assert one == nothing
    assert one["fusion"]["type"] == "residual" and one["features"]["history"]["window"]


def test_python_and_the_command_line_train_the_same_model(tmp_path):
    document = {"training": {"epochs": 1}, "split": {"protocol": "leave_last_out"}}
    (tmp_path / "cfg.json").write_text(json.dumps(document))
    code, _, message = call("train", "--data", write(tmp_path), "--config", tmp_path / "cfg.json", "--output", tmp_path)
    assert code == 0, message
    from_shell = Recommender.load(tmp_path / "model")
    from_python = Recommender.from_config(document).fit(Dataset.read(tmp_path / "data"), progress=False)
    assert from_python.config.model_copy(update={"output_dir": "models"}) == from_shell.config.model_copy(
        update={"output_dir": "models"}
    )
    assert "history.events" in towers_of(from_python.model).scorer.user.features
    assert from_shell.model.choice == from_python.model.choice


def test_the_saved_config_is_complete_and_reruns_alone_to_the_same_model(tmp_path):
    fitted = Recommender.from_config({"training": {"epochs": 1}}).fit(DATA, progress=False)
    fitted.save(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["defaults"] == "fixed" and saved["fusion"]["type"] == "residual"
    again = Recommender.from_config(saved).fit(DATA, progress=False)
    assert again.config == fitted.config
    networks = [towers_of(one.model).scorer for one in (again, fitted)]
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert one.equal(other)


def test_a_second_fit_chooses_defaults_for_its_own_data():
    recommender = Recommender.from_config({"training": {"epochs": 1}}).fit(DATA, progress=False)
    assert recommender.config.features["history"].type == "history"
    assert recommender.fit(TIMELESS, progress=False).config.features["history"].type == "set"


def test_fixed_defaults_leave_the_config_as_it_is():
    config, _ = load_config({"defaults": "fixed", "dim": 8})
    assert resolve_config(config, DATA, REGISTRY) == (config, [])


def test_the_complete_config_is_printed_on_request(tmp_path):
    code, out, message = call("train", "--data", write(tmp_path), "--set", "training.patience=3", "--print-config")
    assert code == 0, message
    printed = json.loads(out)
    assert printed["training"]["patience"] == 3 and printed["fusion"]["type"] == "residual"
    assert load_config(printed)[0].model_dump(mode="json") == printed
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"fusion": {"type": "gated"}}, {"fusion": "gated"}),
        ({"fusion": {"start": 0.1}}, {"fusion": "residual"}),
        ({"fusion": {"hidden_dims": [8]}}, {"fusion": "simple"}),
        ({"loss": {"type": "bce"}}, {"loss": "bce", "negatives": "in_batch"}),
        ({"loss": {"type": "softmax"}}, {"loss": "softmax", "negatives": "shared"}),
        ({"loss": {"temperature": 2}}, {"loss": "full_softmax"}),
        ({"negatives": {"type": "uniform"}}, {"loss": "softmax", "negatives": "uniform"}),
        ({"negatives": {"size": 64}}, {"loss": "softmax", "negatives": "shared"}),
        ({"negatives": {"block": 64}}, {"loss": "softmax", "negatives": "in_batch"}),
        ({"interaction": {"type": "mlp"}}, {"loss": "softmax", "negatives": "in_batch"}),
        ({"model": {"type": "ease"}}, {"fusion": "simple", "loss": "softmax"}),
    ],
    ids=str,
)
def test_a_chosen_component_stands_and_the_others_agree_with_it(document, expected):
    found = resolved(document)
    for key, name in expected.items():
        assert getattr(found, key).type == name
    for key, value in document.items():
        assert set(value).issubset(getattr(found, key).model_dump())


def test_without_a_history_the_choices_are_those_for_ids_without_order():
    for document in (
        {"features": {"history": None}},
        {"user": {"features": {"history": None}}},
        {"features": {"history": {"type": "aggregates"}}},
        {"fusion": {"type": "identity"}},
    ):
        found = resolved(document)
        assert "identity" not in found.user.features and found.training.average_epochs == 0
        assert found.training.scheduler.type == "constant"
    labelled = {"negatives": {"type": "labelled"}, "loss": {"type": "bce"}}
    assert "history" not in resolved(labelled).features


def test_users_are_sets_where_order_tells_nothing():
    """Without times, with shuffled times, and with times where users draw items independently."""
    rng = np.random.default_rng(0)
    times = DATA.interactions.column("timestamp")
    times = times.take(pa.array(rng.permutation(len(times))))
    shuffled = DATA.interactions.set_column(DATA.interactions.column_names.index("timestamp"), "timestamp", times)
    assert order_matters(DATA.sorted())
    for data in (TIMELESS, ORDERLESS, Dataset(DATA.users, DATA.items, shuffled, roles=DATA.roles)):
        found = resolved({}, data)
        assert found.features["history"].type == "set" and found.user.features["identity"] is None
        assert (found.loss.type, found.interaction.type) == ("full_softmax", "cosine")
        assert found.interaction.options()["temperature"] == pytest.approx(1 / np.log(40), abs=1e-4)
        assert found.history_dropout == 0.1
        assert found.training.refit
    for learns_from_validation in ({"heads": {"rating": {"type": "rating"}}}, {"pipeline": {"rank": {"type": "dcn"}}}):
        assert not resolved(learns_from_validation, TIMELESS).training.refit


def test_a_set_agrees_with_the_keys_that_are_set():
    assert resolved({"features": {"history": {"type": "set"}}}).features["history"].type == "set"
    own = resolved({"user": {"features": {"history": {"type": "set", "hidden_share": 0.3}}}}, TIMELESS)
    assert own.user.features["history"].options() == {"hidden_share": 0.3} and "history" not in own.features
    as_asked = resolved({"features": {"history": {"window": 7}}}, TIMELESS)
    assert as_asked.features["history"].type is None and "identity" not in as_asked.user.features
    sequence = resolved({"features": {"history": {"window": 7}}}, ORDERLESS)
    assert sequence.features["history"].options()["window"] == 7 and sequence.fusion.type == "residual"
    few, many = (resolved({"training": {"batch_size": size}}, TIMELESS).training for size in (4, 400))
    assert few.epochs < many.epochs and few.evaluate_every < many.evaluate_every
    dot = resolved({"interaction": {"type": "dot"}, "loss": {"type": "bpr"}}, TIMELESS)
    assert not dot.interaction.options() and dot.features["history"].type == "set"
    graph = resolved({"features": {"identity": {"graph_layers": 1}}}, TIMELESS)
    assert "identity" not in graph.user.features and graph.features["history"].type == "set"


def test_the_size_of_a_set_model_follows_the_numbers_of_users_and_interactions():
    wide = [suggested(users, each) for users, each in ((500, 10), (5000, 10), (40_000, 10), (40_000, 300))]
    assert [one["training"]["batch_size"] for one in wide] == [640, 780, 2560, 76_800]
    assert [one["training"]["epochs"] for one in wide] == [30, 10, 8, 8]
    assert all(
        2 * one["training"]["patience"] * one["training"]["evaluate_every"] <= one["training"]["epochs"] for one in wide
    )
    assert [set_dim(size) for size in (1000, 100_000, 1_000_000, 10**8)] == [64, 128, 256, 128]


def suggested(users, each):
    """The suggestion for users with the same number of interactions each."""
    found = {}
    options = {"why": "", "batch": None, "epochs": None, "own_history": False, "keep_id": False}
    suggest_set(found, [], np.full(users, each), 1000, False, **options)
    return found


def test_options_of_a_history_join_those_that_are_chosen():
    history = resolved({"features": {"history": {"block": "gru", "window": 10}}}).features["history"]
    assert history.options()["window"] == 10 and history.options()["layers"] == 2 and "hidden" not in history.options()
    assert history.fields["recent"].options() == {"block": "mean"}
    both_sided = resolved({"features": {"history": {"block": "bidirectional"}}}).features["history"]
    assert "recent" not in both_sided.fields  # it hides no interaction, and all features of one group must
    own = resolved({"user": {"features": {"history": {"window": 7}}}})
    assert own.user.features["history"].options()["window"] == 7 and "history" not in own.features
    off = resolved({"features": {"history": {"fields": {"recent": None}}}}).features["history"]
    assert off.fields == {"recent": None}


def test_numbers_follow_those_that_are_set():
    small, large = (resolved({"training": {"batch_size": size}}).training for size in (40, 400))
    assert small.epochs <= large.epochs and (small.batch_size, large.batch_size) == (40, 400)
    assert resolved({"evaluation": {"k": [3, 7]}}).training.metric == "ndcg@7"
    assert resolved({"dim": 7}).features["history"].options()["heads"] == 1
    assert resolved({"fusion": {"type": "attention", "num_heads": 64}}).dim == 64
    sparse = resolved({"training": {"optimizer": {"sparse": True}}}).training.optimizer
    assert sparse.weight_decay == 0 and sparse.learning_rate == 0.003
    by_feature = resolved({"features": {"identity": {"sparse": True}}})
    assert by_feature.training.optimizer.weight_decay == 0 and by_feature.features["identity"].options()["init_std"]
    assert resolved({"training": {"optimizer": {"type": "sgd"}}}).training.optimizer.weight_decay == 0
    assert resolved({"training": {"scheduler": {"type": "constant"}}}).training.scheduler.warmup == 0
    assert resolved({"training": {"scheduler": {"warmup": 0.2}}}).training.scheduler.type == "linear"
    graph = resolved({"features": {"identity": {"graph_layers": 1}}})
    assert "identity" not in graph.user.features


@pytest.mark.parametrize(("each", "short"), [(8, True), (19, True), (20, False), (40, False)])
def test_short_histories_have_more_regularisation_and_fewer_epochs(each, short):
    data = in_order(small_dataset(users=40, items=50, each=each))
    found = resolved({}, data)
    optimizer = found.training.optimizer
    assert found.features["history"].options().get("dropout") == (0.5 if short else None)
    assert (optimizer.weight_decay > 0.01) == short
    own = {"features": {"history": {"dropout": 0.1}}, "training": {"optimizer": {"weight_decay": 0.02}}}
    chosen = resolved(own, data)
    assert chosen.features["history"].options()["dropout"] == 0.1
    assert chosen.training.optimizer.weight_decay == 0.02
    placed = resolved({"user": {"features": {"history": {"layers": 1}}}}, data).user.features["history"].options()
    assert placed.get("dropout") == (0.5 if short else None)
    fewest = 6 if short else 10
    assert resolved({"training": {"batch_size": 1}}, data).training.epochs == fewest


def test_weight_decay_on_short_histories_has_the_same_effect_in_an_epoch_whatever_the_steps():
    data = in_order(small_dataset(users=100, each=10))
    effects = []
    for size in (8, 16, 32):
        training = resolved({"training": {"batch_size": size}}, data).training
        steps = len(data.interactions) / size
        effects.append(training.optimizer.learning_rate * training.optimizer.weight_decay * steps)
    assert effects == pytest.approx([1 / 11] * 3, rel=0.05)


def test_training_waits_for_at_most_a_quarter_of_the_epochs_unless_these_are_few():
    for each, size in ((8, 1), (8, 80), (30, 1), (30, 400)):
        data = in_order(small_dataset(items=50, each=each))
        training = resolved({"training": {"batch_size": size}}, data).training
        assert training.patience == max(3, training.epochs // 4) and 2 * training.patience <= training.epochs
    assert resolved({"training": {"epochs": 100}}).training.patience == 5  # the fixed default
    assert resolved({"training": {"patience": None}}).training.patience is None


def test_a_model_that_contradicts_the_config_is_never_chosen_without_a_note():
    with pytest.raises(ConfigError, match="unknown key"):
        Recommender.from_config({"fusion": {"start": 0.1, "hidden_dims": [4]}}).fit(DATA, progress=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)


def holds(document, other):
    """Whether every key of `document` is in `other` with the same value, at any depth."""
    return all(
        key in other
        and (holds(value, other[key]) if isinstance(value, dict) and value else other[key] == value or value == {})
        for key, value in document.items()
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4),
    st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4),
)
def test_options_of_the_config_stay_and_every_other_suggestion_is_taken(asked, suggested):
    found = merged(asked, suggested)
    assert holds(asked, found)
    assert set(found) == set(asked) | set(suggested)
    assert merged(found, suggested) == found


SETTINGS = {
    "dim": st.sampled_from([3, 8]),
    "encoder_dim": st.sampled_from([4, 5, None]),
    "fusion": st.sampled_from([{"type": name} for name in REGISTRY.names("fusion") if name != "identity"]),
    "interaction": st.sampled_from([{"type": name} for name in ("dot", "cosine", "mlp")]),
    "loss": st.sampled_from([{"type": name} for name in REGISTRY.names("loss")]),
    "negatives": st.sampled_from([{"type": name} for name in REGISTRY.names("sampler") if name != "labelled"]),
    "id_dropout": st.sampled_from([0.0, 0.5]),
    "features": st.sampled_from(
        [{"history": None}, {"history": {"block": "gru"}}, {"identity": {"sparse": True}}, {"text": None}]
    ),
    "user": st.sampled_from([{"features": {"identity": {"dropout": 0.1}}}, {"fusion": {"type": "sum"}}]),
    "evaluation": st.sampled_from([{"k": [2]}, {"k": [1, 30]}]),
}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=SETTINGS))
def test_the_chosen_defaults_train_with_any_options(document):
    """A user's choice is never broken by a suggestion."""
    if document.get("fusion", {}).get("type") == "attention":
        document.pop("dim", None), document.pop("encoder_dim", None)  # its four heads are the user's to divide
    if document.get("loss", {}).get("type") == "full_softmax":
        document.pop("negatives", None)  # it compares with all items: a sampler of the user is refused
    document = {**document, "training": {"epochs": 1}}
    fitted = Recommender.from_config(document).fit(DATA, progress=False)
    asked = Config.model_validate(document).model_dump(exclude_unset=True)
    assert holds(asked, fitted.config.model_dump())


def write(folder):
    """The small data as a folder of tables."""
    place = folder / "data"
    if not place.exists():
        place.mkdir()
        for name in ("users", "items", "interactions"):
            pq.write_table(getattr(DATA, name), place / f"{name}.parquet")
    return place
