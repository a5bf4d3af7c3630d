"""Comparison of runs: metrics, paired differences, settings, and runs that are not comparable."""

import json
import shutil
from dataclasses import astuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from small import call, small_config, small_dataset

from anyrec.core.errors import InputError
from anyrec.evaluation.statistics import compare_paired, intervals
from anyrec.recommender import Recommender
from anyrec.report.collect import collect_report_data
from anyrec.report.compare import as_json, compare_runs, tables
from anyrec.report.write import save_figures


def make_run(folder, name, **changes):
    """A small run, measured: its folder."""
    evaluation = {"baselines": ["popularity"], "k": [5, 10], **changes.pop("evaluation", {})}
    config = small_config(name=name, evaluation=evaluation, output_dir=str(folder), **changes)
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    fitted.save(folder / name / "model")
    save_figures(collect_report_data(fitted, progress=False), folder / name / "evaluation")
    return folder / name


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    short = {"epochs": 1, "batch_size": 128, "patience": None}
    return {
        "good": make_run(folder, "good"),
        "poor": make_run(folder, "poor", dim=4, training=short),
        "features": make_run(folder, "features", features={"text": None}),
        "elsewhere": make_run(folder, "elsewhere", split={"protocol": "random"}, evaluation={"candidate_samples": 9}),
    }


@pytest.fixture
def copies(measured, tmp_path):
    """Copies of the runs, to be damaged."""
    return {name: shutil.copytree(folder, tmp_path / name) for name, folder in measured.items()}


def by_user(folder, metric="ndcg@10"):
    return pq.read_table(folder / "evaluation" / "users.parquet")[f"model.{metric}"].to_numpy()


def test_means_differences_and_order_equal_those_computed_from_users_parquet(measured):
    names = ["poor", "good", "features"]
    found = compare_runs([measured[name] for name in names])
    values = {name: by_user(measured[name]) for name in names}
    order = sorted(names, key=lambda name: -values[name].mean())
    assert [run.name for run in found.runs] == order
    assert (found.metric, found.users, found.warnings) == ("ndcg@10", 60, [])
    best, *rest = order
    behind = compare_paired(values[best], {name: values[name] for name in rest})
    assert [run.behind for run in found.runs] == [None, *behind.values()]
    for run in found.runs:
        saved = json.loads((measured[run.name] / "evaluation" / "evaluation.json").read_text())["metrics"]["model"]
        assert astuple(run.main) == pytest.approx(astuple(intervals({"": values[run.name]})[""]), abs=1e-12)
        assert run.main.mean == pytest.approx(saved["ndcg@10"], abs=1e-12)
        assert list(run.metrics) == ["recall@10", "precision@10", "hit_rate@10", "map@10", "mrr@10", "auc"]
        assert run.metrics == pytest.approx({name: saved[name] for name in run.metrics}, abs=1e-12)


def test_only_settings_that_differ_are_listed(measured):
    found = compare_runs([measured["good"], measured["poor"], measured["features"]])
    assert found.settings == {
        "dim": {"good": 16, "poor": 4, "features": 16},
        "training.epochs": {"good": 3, "poor": 1, "features": 3},
        "features": {"good": {}, "poor": {}},
        "features.text": {"features": None},
    }


def test_a_model_folder_means_its_run_and_runs_with_the_same_name_are_named_by_folder(measured, copies):
    found = compare_runs([measured["good"] / "model", copies["good"]])
    assert {run.name for run in found.runs} == {str(measured["good"].resolve()), str(copies["good"])}
    assert found.runs[1].behind.difference == 0 and found.runs[1].behind.corrected == 1
    assert found.settings == {}


def test_incomparable_runs_are_an_error_and_with_force_are_compared_on_common_users(measured):
    with pytest.raises(InputError) as caught:
        compare_runs([measured["good"], measured["elsewhere"]])
    assert [fault.where for fault in caught.value.faults] == ["split", "candidate_samples"]
    assert "good has leave_last_out-" in str(caught.value) and "elsewhere has 9" in str(caught.value)
    found = compare_runs([measured["good"], measured["elsewhere"]], force=True)
    assert len(found.warnings) == 4 and "by force" in found.warnings[0] and "random items" in found.warnings[2]
    users = {
        name: pq.read_table(measured[name] / "evaluation" / "users.parquet", columns=["user_id"])[0].to_pylist()
        for name in ("good", "elsewhere")
    }
    common = sorted(set(users["good"]) & set(users["elsewhere"]))
    assert found.users == len(common) < 60 and f"{60 - len(common)} of good" in found.warnings[3]
    for run in found.runs:
        places = [users[run.name].index(user) for user in common]
        assert run.main.mean == pytest.approx(by_user(measured[run.name])[places].mean(), abs=1e-12)
        assert run.own_users == len(users[run.name])


def test_runs_with_different_main_metrics_are_compared_by_the_first_that_all_have(copies):
    edit(copies["good"], metric="ndcg@7")
    found = compare_runs([copies["good"], copies["poor"]])
    assert found.metric == "ndcg@10" and "ndcg@7" in found.warnings[0]
    edit(copies["poor"], metric="recall@3")
    with pytest.raises(InputError, match="ndcg@7, recall@3 in common"):
        compare_runs([copies["good"], copies["poor"]])


def edit(folder, **changes):
    path = folder / "evaluation" / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_all_faults_of_all_runs_are_reported(copies, tmp_path):
    shutil.rmtree(copies["good"] / "evaluation")
    (copies["poor"] / "evaluation" / "evaluation.json").write_text("{")
    (copies["features"] / "evaluation" / "users.parquet").write_text("no")
    (copies["elsewhere"] / "model" / "config.json").unlink()
    with pytest.raises(InputError) as caught:
        compare_runs([*copies.values(), tmp_path / "none", copies["good"]])
    text = str(caught.value)
    assert text.startswith("6 faults") and caught.value.exit_code == 2
    for part in (
        f"{copies['good']}: this run has not been measured (it has no evaluation). Run `anyrec report` first.",
        "poor/evaluation/evaluation.json: this cannot be read",
        "features/evaluation/users.parquet: this cannot be read",
        "elsewhere: this run has no config.json",
        "none: there is no such folder",
        "named twice",
    ):
        assert part in text
    with pytest.raises(InputError, match="nothing to compare with"):
        compare_runs([copies["poor"]])
    (copies["poor"] / "evaluation" / "evaluation.json").write_text('{"name": "poor", "split": "x"}')
    with pytest.raises(InputError, match="does not say its metric, users, part, candidates, candidate_samples"):
        compare_runs([copies["poor"], copies["features"]])


def test_runs_without_a_common_user_are_an_error(copies):
    path = copies["poor"] / "evaluation" / "users.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "user_id", [np.arange(len(table))]), path)
    with pytest.raises(InputError, match="no user is common"):
        compare_runs([copies["good"], copies["poor"]])


def test_the_command_prints_a_table_with_a_row_per_run_or_json(measured):
    runs = [measured["good"], measured["poor"]]
    code, out, err = call("compare", *runs, "--table")
    assert code == 0 and err == ""
    found = compare_runs(runs)
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for run in found.runs:
        assert f"{run.main.mean:.4f} [{run.main.low:.4f}, {run.main.high:.4f}]" in rows[run.name]
        assert rows[run.name].split()[-1] == f"{run.metrics['auc']:.4f}"
    assert rows["dim"].split() == ["dim", *(str(found.settings["dim"][run.name]) for run in found.runs)]
    assert call("compare", *runs)[1] == call("compare", *runs, "--json")[1]
    code, out, _ = call("compare", *runs, "--json")
    assert code == 0 and json.loads(out) == json.loads(json.dumps(as_json(found)))
    code, out, err = call("compare", measured["good"], measured["elsewhere"], "--force")
    assert code == 0 and err.startswith("warning: compared by force")
    code, _, message = call("compare", measured["good"], measured["elsewhere"])
    assert code == 2 and "--force" in message


def test_cells_are_plain_text_and_nan_is_null_in_json(measured):
    found = compare_runs([measured["good"], measured["poor"]])
    found.settings["loss"] = {"good": "[bold]x[/bold]"}
    found.runs[0].metrics["auc"] = float("nan")
    assert "[bold]" in str(list(tables(found)[1].columns[1].cells))
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["runs"][0]["metrics"]["auc"] is None
