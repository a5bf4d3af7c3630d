"""Files of the older shapes: labelled pairs and true items by user; ids of either type, unknown ones, exclusion."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn import metrics
from small import call, small_config, small_dataset

from anyrec.core.errors import DataError, InputError
from anyrec.data.dataset import Dataset
from anyrec.evaluation.truth_files import evaluate_file
from anyrec.recommender import Recommender


def numbered():
    """The small world with whole numbers for ids: u012 is 12."""
    dataset = small_dataset()

    def number(table, *names):
        for name in names:
            ids = pc.utf8_slice_codeunits(table[name], 1).cast(pa.int64())
            table = table.set_column(table.column_names.index(name), name, ids)
        return table

    tables = number(dataset.users, "user_id"), number(dataset.items, "item_id")
    return Dataset(*tables, number(dataset.interactions, "user_id", "item_id"), roles=dataset.roles)


@pytest.fixture(scope="module")
def fitted():
    return Recommender.from_config(small_config()).fit(numbered(), progress=False)


@pytest.fixture(scope="module")
def place(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture(scope="module")
def loaded(place):
    return Recommender.load(place)


@pytest.fixture
def write(tmp_path):
    def write(value, name="truth.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


def by_user(recommender, *parts):
    """{user: [items]} of parts of the split, as JSON has it."""
    dataset, found = recommender.dataset, {}
    for part in parts:
        for row in recommender.model.split.rows(part):
            user, item = (dataset.interactions[name][int(row)].as_py() for name in ("user_id", "item_id"))
            found.setdefault(str(user), []).append(item)
    return found


def test_lists_by_user_give_the_metrics_of_the_saved_split(fitted, loaded, write):
    truth, seen = write(by_user(fitted, "test")), write(by_user(fitted, "train", "validation"), "seen.json")
    expected = fitted.evaluate("test")
    for recommender in (fitted, loaded):
        found = evaluate_file(recommender.model, truth, seen)
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["targets"] == len(fitted.model.split.test) and found["users"] == 60
    assert found["excluded"] == len(fitted.model.split.train) + len(fitted.model.split.validation)
    assert {"novelty@10", "coverage@10", "gini@10", "diversity@10"} <= set(found)
    assert found["skipped"] == {"unknown_users": 0, "unknown_items": 0, "dropped_pairs": 0}
    assert found["excluded_from"] == "file"
    bare = evaluate_file(loaded.model, truth)
    assert bare.pop("excluded_from") == "history"
    assert bare == {name: value for name, value in found.items() if name not in ("excluded_from", "skipped_exclude")}
    json.dumps(found, allow_nan=False)


def test_labelled_pairs_give_classification_metrics(fitted, loaded, write):
    rng = np.random.default_rng(0)
    users, items, labels = rng.integers(0, 60, 80), rng.integers(0, 40, 80), rng.integers(0, 2, 80)
    rows = [[f"{user}", int(item), int(label)] for user, item, label in zip(users, items, labels, strict=True)]
    scores = loaded.score(pa.table({"user_id": users, "item_id": items}))["score"].to_numpy()
    loaded.config.evaluation.repeats = "include_seen"
    found = evaluate_file(loaded.model, write(rows))
    loaded.config.evaluation.repeats = "miss"
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, scores >= found["threshold"]), abs=1e-12)
    assert found["threshold_from"] == "this file" and "too optimistic" in found["notes"][0]
    chosen = evaluate_file(fitted.model, write(rows))
    assert chosen["threshold_from"] == "validation" and chosen["threshold"] != found["threshold"]
    given = evaluate_file(loaded.model, write(rows), threshold=0.5)
    assert (given["threshold"], given["threshold_from"], given["notes"]) == (0.5, "given", [])
    assert evaluate_file(loaded.model, write([[3, 4, True]]), threshold=0)["auc"] is None


def test_unknown_ids_are_errors_of_which_twenty_are_listed_or_are_dropped_and_counted(loaded, write):
    rows = [[1, 2, 1], *([1000 + n, 1, 0] for n in range(30))]
    with pytest.raises(DataError) as caught:
        evaluate_file(loaded.model, write(rows))
    text = str(caught.value)
    assert text.startswith("30 faults") and "/1/0: the model knows no user 1000" in text
    assert text.count("knows no user") == 20 and "10 more of kind 'unknown id'" in text
    found = evaluate_file(loaded.model, write(rows), threshold=0, skip_unknown=True)
    assert found["skipped"] == {"unknown_users": 30, "unknown_items": 0, "dropped_pairs": 30}
    assert found["support"] == {"positives": 1, "negatives": 0}
    truth = write({"1": [2, 3], "999": [4, 5], "01": [4], "2": [77]})
    with pytest.raises(DataError) as caught:
        evaluate_file(loaded.model, truth, write({"5": [1, 88]}, "seen.json"))
    assert caught.value.counts == {"unknown id": 4}
    for part in ("/999: the model knows no user '999'", "/2/0: the model knows no item 77", "seen.json: /5/1"):
        assert part in str(caught.value)
    found = evaluate_file(loaded.model, truth, write({"5": [1, 88]}, "seen.json"), skip_unknown=True)
    assert found["skipped"] == {"unknown_users": 2, "unknown_items": 1, "dropped_pairs": 4}
    assert (found["targets"], found["excluded"], found["skipped_exclude"]["dropped_pairs"]) == (2, 1, 1)
    with pytest.raises(DataError, match="nothing to measure"):
        evaluate_file(loaded.model, write({"999": [1]}), skip_unknown=True)


def test_ids_match_independently_of_their_type(write):
    dataset = small_dataset()
    users = pa.table({"user_id": ["10", "20"], "categorical.job": ["nurse", "pilot"]})
    items = pa.table({"item_id": ["1", "2", "3"], "categorical.tags": ["a", "b", "c"]})
    pairs = pa.table({"user_id": ["10", "10", "20"], "item_id": ["1", "2", "3"]})
    small = Dataset(users, items, pairs, roles=dataset.roles)
    config = small_config(split={"protocol": "none"}, training={"epochs": 1, "patience": None})
    fitted = Recommender.from_config(config).fit(small, progress=False)
    assert evaluate_file(fitted.model, write({"10": [3]}), write({"10": ["1", "2"]}, "seen.json"))["hit_rate@5"] == 1
    assert evaluate_file(fitted.model, write([[10, 3, 1], [20, 1, 0]]), threshold=0)["support"]["positives"] == 1


@pytest.mark.parametrize(
    "document, message",
    [
        ("3", "expected a list or an object"),
        ("{", "not valid JSON"),
        ("", "this file is empty"),
        ('{"user_data": []}', "this is a dataset"),
        ("[[1, 2]]", "/0: expected [user, item, label]; found [1, 2]"),
        ("[[1, 2, 1], 7]", "/1: expected [user, item, label]; found 7"),
        ("[[1, 2, 3]]", "/0/2: a label is 0 or 1; found 3"),
        ("[[1, 2, null]]", "/0/2: a label is 0 or 1; found None"),
        ("[[1, 2, NaN]]", "/0/2: a label is 0 or 1; found nan"),
        ("[[1, 2.5, 1]]", "/0/1: an id is a text or a whole number"),
        ('{"1": 2}', "/1: expected a list of item ids; found 2"),
        ('{"a/b": 2}', "/a~1b: expected a list"),
        ('{"1": [null]}', "/1/0: an id is a text or a whole number"),
        ('{"1": []}', "nothing to measure"),
        ("[]", "nothing to measure"),
        ("{}", "nothing to measure"),
    ],
)
def test_the_error_of_a_malformed_file_names_the_place(loaded, write, document, message):
    with pytest.raises(DataError) as caught:
        evaluate_file(loaded.model, write(document))
    assert message in str(caught.value) and caught.value.exit_code == 2


def test_an_option_that_does_not_apply_to_the_shape_of_the_file_is_an_error(loaded, write):
    labelled, listed = write([[1, 2, 1]]), write({"1": [2]}, "listed.json")
    with pytest.raises(InputError, match="--exclude"):
        evaluate_file(loaded.model, labelled, listed)
    with pytest.raises(DataError, match="exclude nothing"):
        evaluate_file(loaded.model, listed, labelled)
    with pytest.raises(InputError, match="--threshold"):
        evaluate_file(loaded.model, listed, threshold=0.5)
    with pytest.raises(DataError, match="no such file"):
        evaluate_file(loaded.model, listed.with_name("none.json"))


def evaluate(*arguments):
    """Exit code, what the command printed as JSON, message."""
    code, out, message = call("evaluate", *arguments)
    return code, json.loads(out) if out else None, message


def test_the_command_evaluates_files_and_the_saved_split(fitted, place, write, tmp_path):
    model = ("--model_path", place)
    code, found, _ = evaluate(*model, "--truth", write({"1": [2], "no": [1]}), "--skip-unknown")
    assert code == 0 and found["users"] == 1 and found["skipped"]["unknown_users"] == 1
    code, found, _ = evaluate(*model, "--truth", write([[1, 2, 1], [1, 3, 0]]), "--threshold", "0.5")
    assert code == 0 and found["threshold"] == 0.5
    data, dataset = tmp_path / "data", numbered()
    data.mkdir()
    for name in ("users", "items", "interactions"):
        pq.write_table(getattr(dataset, name), data / f"{name}.parquet")
    code, found, message = evaluate(*model, "--data", data, "--classification")
    assert code == 0 and found["part"] == "test" and found["support"]["positives"] == len(fitted.model.split.test), (
        message
    )
    code, found, _ = evaluate(*model, "--data", data)
    assert found == pytest.approx(fitted.evaluate("test"), abs=1e-6)
    assert evaluate(*model, "--truth", write({"no": [1]}))[0] == 2
    code, _, message = evaluate(*model, "--exclude", data, "--threshold", "nan", "--skip-unknown", "--part", "train")
    assert code == 2 and message.startswith("5 faults")  # without --data the tables of the config are read
    for name in ("--exclude", "--threshold", "--skip-unknown", "--part"):
        assert f"  {name}: " in message
    code, _, message = evaluate(*model)
    assert code == 2 and "--data" in message
    code, _, message = evaluate(*model, "--truth", data, "--classification")
    assert code == 2 and "measured that way by itself" in message
