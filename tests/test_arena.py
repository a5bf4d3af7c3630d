"""The arena: the splits of its protocols against plain references, its pooled figures, its page, and its runs."""

import datetime as dt
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.data.dataset import Dataset
from anyrec.data.pairs import Pairs

sys.path.insert(0, str(ROOT / "benchmarks"))
import arena
import arena_protocols
import lightgcn
from arena_cold import COLD, last_validates
from arena_protocols import PROTOCOLS, SHARES, global_time, leave_last_out, new_users, order_free, read
from arena_report import cells, pooled, ratio, read_records, readme_rows, render, verdict, with_rows
from arena_runs import highest, run
from arena_task import METRICS, Task

START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)


@st.composite
def datasets(draw):
    """Draw distinct pairs with equal times, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    users, items = draw(st.integers(3, 12)), draw(st.integers(5, 20))
    pairs = rng.permutation(users * items)[: draw(st.integers(30, 60)) * users * items // 100]
    times = [START + dt.timedelta(minutes=int(minute)) for minute in rng.integers(0, 25, len(pairs))]
    interactions = pa.table(
        {
            "user_id": pairs // items,
            "item_id": pairs % items,
            "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "rating": rng.integers(1, 6, len(pairs)).astype(float),
        }
    )
    return Dataset(pa.table({"user_id": np.arange(users)}), pa.table({"item_id": np.arange(items)}), interactions)


def triples(dataset, rows):
    """Return the sorted (user, item, time) of interactions."""
    taken = dataset.interactions.take(pa.array(rows, pa.int64())).select(["user_id", "item_id", "timestamp"])
    return sorted(tuple(row.values()) for row in taken.to_pylist())


# -- the splits --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(datasets())
def test_p1_holds_out_the_last_two_of_each_user_whatever_their_rating(dataset):
    train, validation, test = [], [], []
    for user in range(len(dataset.users)):
        rows = [row for row in range(len(dataset.interactions)) if dataset.user_rows[row] == user]
        rows.sort(key=lambda row: dataset.times[row])  # stable: ties keep the order of the file
        if len(rows) >= 2:
            test.append(rows.pop())
        if len(rows) >= 2:
            validation.append(rows.pop())
        train += rows
    split = leave_last_out(dataset).split
    assert split.test.tolist() == sorted(test)
    assert split.validation.tolist() == sorted(validation)
    assert split.train.tolist() == sorted(train)


@settings(max_examples=40, deadline=None)
@given(datasets(), st.sampled_from(SHARES))
def test_p2_cuts_all_interactions_by_time_and_has_nothing_later(dataset, share):
    count = len(dataset.interactions)
    order = sorted(range(count), key=lambda row: dataset.times[row])
    ends = [round(count * percent / 100) for percent in (share, share + 10, share + 20)]
    case = global_time(dataset, str(share))
    assert triples(case.dataset, case.split.train) == triples(dataset, order[: ends[0]])
    assert triples(case.dataset, case.split.validation) == triples(dataset, order[ends[0] : ends[1]])
    assert triples(case.dataset, case.split.test) == triples(dataset, order[ends[1] : ends[2]])
    assert len(case.dataset.interactions) == ends[2]


@settings(max_examples=40, deadline=None)
@given(datasets(), st.integers(0, 99))
def test_p3_is_a_random_split_that_no_time_changes(dataset, seed):
    keys = dataset.user_rows * len(dataset.items) + dataset.item_rows
    order = np.random.default_rng(0).permutation(len(keys))
    drawn = np.argsort(keys)[order]
    last = {dataset.user_rows[row]: row for row in drawn}  # every user keeps the last one of the draw to train on
    free = [row for row in drawn.tolist() if last[dataset.user_rows[row]] != row]
    tenth = round(len(keys) * 0.1)
    case = order_free(dataset)
    assert case.split.test.tolist() == sorted(free[:tenth])
    assert case.split.validation.tolist() == sorted(free[tenth : 2 * tenth])
    assert "timestamp" not in case.dataset.interactions.column_names
    times = np.random.default_rng(seed).permutation(dataset.column("timestamp").to_numpy())
    names = dataset.interactions.column_names
    shuffled = dataset.interactions.set_column(
        names.index("timestamp"), "timestamp", pa.array(times, pa.timestamp("us", "UTC"))
    )
    again = order_free(arena_protocols.with_interactions(dataset, shuffled))
    assert again.split.name == case.split.name


@settings(max_examples=20, deadline=None)
@given(datasets())
def test_new_users_are_in_one_part_only(dataset):
    split = new_users(dataset).split
    users = [set(dataset.user_rows[part].tolist()) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, users)) == len(set.union(*users)) == len(np.unique(dataset.user_rows))


@settings(max_examples=20, deadline=None)
@given(datasets())
def test_cold_cases_train_with_the_last_of_each_user_as_validation(dataset):
    split, p1 = last_validates(dataset), leave_last_out(dataset).split
    assert split.validation.tolist() == p1.test.tolist()
    assert not len(split.test)
    assert len(split.train) + len(split.validation) == len(dataset.interactions)


def tiny(folder, users=30, items=24, each=8, positions=False):
    """Write a data set with features, and clock times or positions."""
    rng = np.random.default_rng(0)
    chosen = np.concatenate([rng.permutation(items)[:each] for _ in range(users)])
    owners, places = np.repeat(np.arange(users), each), np.tile(np.arange(each), users)
    moments = [START + dt.timedelta(hours=int(hour)) for hour in rng.integers(0, 5000, users * each)]
    when = {"position": places} if positions else {"timestamp": pa.array(moments, pa.timestamp("us", "UTC"))}
    folder.mkdir(parents=True)
    table = pa.table({"user_id": owners, "item_id": chosen, **when})
    pq.write_table(table, folder / "interactions.parquet")
    genres = [["drama", "comedy", "crime"][item % 3] for item in range(items)]
    pq.write_table(pa.table({"item_id": np.arange(items), "categorical.genre": genres}), folder / "items.parquet")
    if not positions:
        ages = rng.integers(18, 80, users).astype(float)
        pq.write_table(pa.table({"user_id": np.arange(users), "continuous.age": ages}), folder / "users.parquet")
    return table


def test_positions_become_minutes_and_users_may_have_no_table(tmp_path):
    table = tiny(tmp_path / "shop", positions=True)
    dataset = read(tmp_path / "shop")
    minutes = (dataset.times - dataset.times.min()) // 60_000_000
    assert minutes.tolist() == table["position"].to_pylist()
    assert dataset.interactions["item_id"].to_pylist() == table["item_id"].to_pylist()
    valid = {name for name, protocol in (PROTOCOLS | COLD).items() if protocol.valid(dataset)}
    assert valid == {"P1", "P3", "cold-items", "cold-users"}  # no clock, no features of users


# -- the figures -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_pooled_values_have_the_mean_over_cuts(seed, cuts):
    rng = np.random.default_rng(seed)
    parts = [(np.flatnonzero(rng.random(30) < 0.4), None) for _ in range(cuts)]
    parts = [(rows, rng.random(len(rows))) for rows, _ in parts if len(rows)]
    found = pooled(parts)
    assert len(found) == len(set(np.concatenate([rows for rows, _ in parts]).tolist()))
    assert found.mean() == pytest.approx(np.mean([values.mean() for _, values in parts]))
    if len(parts) == 1:
        assert found == pytest.approx(parts[0][1])


def test_pooled_values_vary_as_a_bootstrap_that_draws_users_and_averages_over_cuts():
    rng = np.random.default_rng(1)
    parts = [(np.flatnonzero(rng.random(400) < share), None) for share in (0.5, 0.2)]
    level = rng.normal(size=400)  # a user's level is the same in both cuts
    parts = [(rows, level[rows] + rng.normal(size=len(rows))) for rows, _ in parts]
    drawn = []
    for _ in range(2000):
        times = np.bincount(rng.integers(0, 400, 400), minlength=400)
        drawn.append(np.mean([np.average(values, weights=times[rows]) for rows, values in parts]))
    found = pooled(parts)
    assert found.std() / np.sqrt(len(found)) == pytest.approx(np.std(drawn), rel=0.15)


@pytest.mark.parametrize("gain, expected", [(1.2, "above"), (1.0, "within noise"), (0.8, "below")])
def test_verdicts_follow_the_paired_interval(gain, expected):
    rng = np.random.default_rng(0)
    other = rng.random(500)
    found = ratio(other * gain + rng.normal(0, 0.02, 500), other)
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(gain, abs=0.01)
    assert verdict(found) == expected


def record(folder, model, values, cut="-", protocol="P3", seed=0, **changes):
    """Add the record of a run in which all metrics have the same values."""
    task = Task("toys", protocol, cut, model, seed)
    values = np.asarray(values, float)
    np.savez(folder / f"{task.key}.npz", users=np.arange(len(values)), **dict.fromkeys(METRICS, values))
    line = {
        **vars(task),
        **dict.fromkeys(METRICS, values.mean()),
        "users": len(values),
        "validation": 0.5,
        "options": {"l2": 400.0},
        "seconds": 2.0,
        "tuning_seconds": 30.0,
        "peak_gib": 0.7,
        "wall": 36.0,
        "processor_seconds": 72.0,
        "code": "new",
        **changes,
    }
    with open(folder / "results.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    return task


def test_the_page_compares_the_default_with_the_best_classical_model(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.random(200)
    record(tmp_path, "default", base * 0.0)  # an earlier record of the same task does not count
    record(tmp_path, "default", base * 1.2)
    record(tmp_path, "default", base * 1.4, seed=1)
    record(tmp_path, "ease", base)
    record(tmp_path, "popularity", base / 2, options={})
    record(tmp_path, "lightgcn", base * 2)
    page = render(read_records(tmp_path), tmp_path)
    row = next(line for line in page.splitlines() if line.startswith("| P3 | toys |"))
    mean = base.mean()
    assert f"| {1.3 * mean:.4f} | {mean:.4f} ease | 1.300 [" in row
    assert row.count("| above |") == 2
    details = [line for line in page.splitlines() if line.startswith(("| lightgcn", "| default", "| ease", "| popul"))]
    assert [line.split("|")[1].strip() for line in details] == ["lightgcn", "default", "ease", "popularity"]
    assert f"(seeds ± {0.2 * mean / 2**0.5:.4f})" in details[1]
    assert "| 2.0 | 30 | 0.70 | l2 400 |" in details[2]
    assert "runs: 5, one at a time, each in a process of its own: 0.1 hours together, 0.1 hours of one" in page


def test_the_rows_of_the_readme_are_replaced(tmp_path):
    record(tmp_path, "default", [0.5, 0.1])
    record(tmp_path, "ease", [0.5, 0.3])
    rows = readme_rows(read_records(tmp_path), tmp_path)
    (row,) = rows
    assert row.startswith("| arena, P3 (")
    assert row.endswith("| toys 0.300 | best tuned classical model: toys ease 0.400 |")
    page = "# x\n\n| a |\n\n## Measured\n\nText.\n\n| task |\n|---|\n| speed |\n\nMore.\n\n| b |\n"
    once = with_rows(page, rows)
    assert once == page.replace("| speed |\n", f"| speed |\n{row}\n")
    assert with_rows(once, rows) == once
    assert with_rows(once, []) == page


def test_a_model_without_all_cuts_is_named_and_not_compared(tmp_path):
    for cut in ("60", "65"):
        record(tmp_path, "default", [0.5, 0.1, 0.9], cut, "P2")
    record(tmp_path, "ease", [0.9, 0.9, 0.9], "60", "P2")
    (cell,) = cells(read_records(tmp_path), tmp_path)
    assert (list(cell.entries), cell.missing, cell.cuts) == (["default"], ["ease"], ["60", "65"])
    page = render(read_records(tmp_path), tmp_path)
    assert "Not measured on all cuts: ease." in page
    assert "| P2 | toys (incomplete) |" in page


def test_models_that_were_measured_on_other_users_are_refused(tmp_path):
    record(tmp_path, "default", [0.5, 0.1])
    record(tmp_path, "ease", [0.5, 0.1, 0.2])
    with pytest.raises(ValueError, match="different users"):
        cells(read_records(tmp_path), tmp_path)


# -- the runs ----------------------------------------------------------------------------------------------------------


def test_a_run_is_repeated_only_for_another_version_or_task(tmp_path):
    task = record(tmp_path, "ease", [0.5, 0.1])
    assert arena.is_done(task, tmp_path, "new")
    assert not arena.is_done(task, tmp_path, "newer")
    assert arena.is_done(task, tmp_path, None)
    assert not arena.is_done(Task("toys", "P3", "-", "ease", seed=1), tmp_path, None)
    assert not arena.is_done(Task("toys", "P3", "-", "ease", trials=3), tmp_path, None)


def test_the_values_of_an_option_are_climbed():
    tried = []
    values = (1, 2, 4, 8, 16)
    assert highest(lambda value: tried.append(value) or -abs(value - 7), values, 2) == 8
    assert set(tried) == {1, 2, 4, 8, 16}  # the neighbours of the best value are measured
    assert highest(lambda value: -value, values, 2) == 1


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_lightgcn_averages_vectors_over_the_graph(layers):
    rng = np.random.default_rng(0)
    matrix = rng.random((6, 9)) < 0.4
    pairs = Pairs.of(*np.nonzero(matrix), 6)
    net = lightgcn.LightGCN(pairs, 9, lightgcn.Options(layers, dim=4), 0)
    whole = np.block([[np.zeros((6, 6)), matrix], [matrix.T, np.zeros((9, 9))]])
    degree = np.maximum(whole.sum(1), 1)
    whole = whole / np.sqrt(degree[:, None] * degree[None])
    start = net.vectors.detach().numpy()
    total = sum(np.linalg.matrix_power(whole, step) @ start for step in range(layers + 1))
    total = total / np.linalg.norm(total, axis=1, keepdims=True)
    assert np.concatenate([part.detach().numpy() for part in net()]) == pytest.approx(total, abs=1e-5)


SMALL = ("training.epochs=1", "dim=8")


@pytest.mark.parametrize(
    "protocol, cut, model",
    [
        ("P1", "-", "default"),
        ("P2", "70", "recent_popularity"),
        ("P3", "-", "lightgcn"),
        ("P3", "-", "ease"),
        ("cold-items", "-", "content_knn"),
        ("cold-items", "-", "default"),
        ("cold-users", "-", "ease"),
        ("new-users", "-", "default"),
    ],
)
def test_every_kind_of_run_measures_all_metrics(tmp_path, monkeypatch, protocol, cut, model):
    tiny(tmp_path / "toys")
    monkeypatch.setattr(arena_protocols, "DATA", tmp_path)
    found = run(Task("toys", protocol, cut, model, trials=2, overrides=SMALL if model == "default" else ()))
    assert list(found.by_user) == list(METRICS)
    assert (np.diff(found.users) > 0).all()
    for values in found.by_user.values():
        assert len(values) == len(found.users)
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.slow
def test_the_command_runs_missing_tasks_and_prints_the_table(tmp_path, monkeypatch, capsys):
    data, out, page = tmp_path / "data", tmp_path / "out", tmp_path / "page.md"
    tiny(data / "toys")
    monkeypatch.setenv("ANYREC_DATA", str(data))
    for module in (arena, arena_protocols):
        monkeypatch.setattr(module, "DATA", data)
    command = f"arena.py --protocol P3 --only default,popularity --seeds 0 --out {out} --report {page}"
    command += " --set training.epochs=1 --set dim=8"
    monkeypatch.setattr(sys, "argv", command.split())
    arena.main()
    first = capsys.readouterr().out
    assert first.count("toys P3") == 2
    assert "| P3 | toys |" not in first  # the changed default is no default
    table = Path(page).read_text()
    assert "| default training.epochs=1 dim=8 |" in table
    assert "| popularity |" in table
    arena.main()
    assert "toys P3" not in capsys.readouterr().out
    assert len((out / "results.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "protocol, expected",
    [
        ("P3", {"default", "lightgcn", "ease", "ials", "item_knn", "content_knn", "popularity"}),
        ("P2", {"default", "recent_popularity", "trending", "ease"}),
        ("new-users", {"default", "popularity", "recent_popularity", "trending"}),
        ("cold-items", {"default", "popularity", "content_knn"}),
        ("cold-users", {"default", "popularity", "ease", "item_knn", "content_knn"}),
    ],
)
def test_each_protocol_has_the_models_that_can_score_there(tmp_path, monkeypatch, protocol, expected):
    tiny(tmp_path / "toys")
    monkeypatch.setattr(sys, "argv", ["arena.py", "--out", str(tmp_path / "out")])
    found = set(arena.models_of(read(tmp_path / "toys"), protocol, arena.parse()))
    assert expected <= found
    assert ("lightgcn" in found) == (protocol == "P3")
    assert ("ease" in found) == (protocol not in ("new-users", "cold-items"))
    assert ("recent_popularity" in found) == (protocol not in ("P3", "cold-items"))
