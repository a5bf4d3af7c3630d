"""The verdict, the warnings and the commands in the report, checked with planted data."""

import collections
import json
import re
import shlex
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from reports import (
    changed,
    classical,
    first_paragraph,
    fit,
    planted,
    report_data,
    shuffled,
    tower,
    with_column,
)
from rich.console import Console
from small import call, small_dataset

from anyrec.cli.run import report_run
from anyrec.core.errors import ConfigError
from anyrec.data.dataset import Dataset
from anyrec.data.formats.write_json import write_json
from anyrec.evaluation.statistics import Interval
from anyrec.recommender import Recommender
from anyrec.report.collect import collect_report_data
from anyrec.report.page import Text, as_markdown
from anyrec.report.sections import sections
from anyrec.report.verdict import verdict


@pytest.fixture(scope="module")
def beaten(tmp_path_factory):
    """Return the run folder and the output of a training whose model is worse than a baseline."""
    folder = tmp_path_factory.mktemp("beaten")
    write_json(planted("occupation"), folder / "data.json")
    options = ("--set", "model.type=item_knn", "--set", "model.neighbours=1")
    code, out, message = call("train", "--data", folder / "data.json", "--output", folder, *options)
    assert code == 0, message
    return folder / "model", out


def test_the_verdict_is_learned_nothing_for_shuffled_labels_and_not_for_true_ones(reported):
    found, folder = reported
    paragraph = first_paragraph((folder / "report.md").read_text())
    assert paragraph == f"**{verdict(found)}**"
    assert "learned nothing" not in paragraph
    assert found.compared["popularity"].difference > 0.2 and found.compared["popularity"].significant
    blind = report_data(tower(), shuffled(planted("occupation")))
    assert "**The model learned nothing about who likes what" in verdict(blind)
    assert f"{blind.baselines['popularity'].mean('ndcg@10'):.4f}" in verdict(blind)


def test_the_verdict_is_learned_nothing_for_shuffled_labels_of_real_data(ml_100k):
    data = Dataset.read(ml_100k)
    few = pa.compute.is_in(data.interactions["user_id"], value_set=data.ids("user").slice(0, 250))
    data = changed(data, interactions=data.interactions.filter(few))
    config = classical("item_knn", split={"protocol": "random"})
    assert "learned nothing" in verdict(report_data(config, shuffled(data)))
    assert "That is better than every baseline" in verdict(report_data(config, data))


def test_the_verdict_states_that_a_model_is_better_than_every_baseline(undrawn):
    features, baselines = {"temporal": None, "text": None, "identity": None}, ["popularity", "item_knn"]
    config = tower(features=features, evaluation={"baselines": baselines, "tune_baselines": False})
    found = report_data(config, planted("occupation", "location"))
    best = max(found.baselines, key=lambda name: found.baselines[name].by_user["ndcg@10"].mean())
    assert found.best_baseline == best and found.compared[best].significant
    assert f"That is better than every baseline: the best baseline, {best}" in verdict(found)
    blocks = sections(found, found.recommender.dataset.root)[0].blocks
    assert not [block for block in blocks if isinstance(block, Text) and block.text.startswith("To use")]


def test_a_better_baseline_is_named_with_a_command_and_saved_as_a_model_that_recommends(beaten):
    folder, message = beaten
    summary = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    means = {name: one["ndcg@10"] for name, one in summary["metrics"].items()}
    best = max(means, key=means.get)
    assert (
        best != "model"
        and summary["compared"][best]["corrected"] < 0.05
        and summary["compared"][best]["difference"] < 0
    )
    markdown = (folder / "report.md").read_text()
    assert f"is better: ndcg@10 {means[best]:.4f}**" in first_paragraph(markdown)
    assert f"The best baseline, {best}" in message
    assert f"To use {best}: `python inference.py --model_path {folder / 'baselines' / best} " in markdown
    loaded = Recommender.load(folder / "baselines" / best)
    assert loaded.config.model.type == loaded.config.name == best
    lists = loaded.recommend(None, 10)
    assert len(lists) == 2000 and lists["user_id"].to_pylist()[:10] == ["user0"] * 10
    measured = loaded.with_data(Dataset.read(folder.parent / "data.json")).evaluate("test")
    assert measured["ndcg@10"] == pytest.approx(means[best], abs=1e-12)


def test_the_command_to_use_a_better_baseline_works_as_written(beaten, tmp_path):
    folder, _ = beaten
    (people := tmp_path / "people.json").write_text(
        '{"user_data": [{"user_id": "user3"}], "item_data": [], "interactions": []}'
    )
    command = re.search(r"`python inference.py (.*?)`", (folder / "report.md").read_text())[1]
    code, out, message = call("recommend", *shlex.split(command.replace("people.json", str(people))))
    assert code == 0, message
    assert len(json.loads(out)["users"][0]["recommendations"]) == 10


def test_the_command_to_train_a_better_baseline_works_as_written(beaten, tmp_path, undrawn):
    folder, _ = beaten
    command = re.search(r"`python train.py (.*?)`", (folder / "report.md").read_text())[1]
    code, out, message = call(
        "train", *shlex.split(command.replace("<data>", str(folder.parent / "data.json"))), "--output", tmp_path
    )
    assert code == 0, message


def test_the_command_to_train_a_baseline_names_an_existing_config(beaten, tmp_path, undrawn):
    folder, _ = beaten
    call("report", "--model_path", folder, "--data", folder.parent / "data.json", "--output", tmp_path)
    config = re.search(r"`python train.py --config (\S+) ", (tmp_path / "report.md").read_text())[1]
    metrics = json.loads((folder / "evaluation" / "evaluation.json").read_text())["metrics"]
    best = max(metrics, key=lambda name: metrics[name]["ndcg@10"])
    assert json.loads(Path(config).read_text())["model"]["type"] == best


def test_the_verdict_without_baselines_makes_no_claim():
    found = report_data(classical("popularity", evaluation={"baselines": []}))
    assert found.best_baseline is None and found.compared == {}
    assert verdict(found).endswith("No baseline was measured, so there is nothing to say whether that is good.")


def test_sampled_metrics_are_marked_as_not_comparable(tmp_path, undrawn):
    plain = report_data(classical("ease"))
    found = report_data(classical("ease", evaluation={"baselines": ["popularity"], "candidate_samples": 5}))
    assert found.model.mean("ndcg@10") > plain.model.mean("ndcg@10") + 0.2  # which is why
    for one, said in ((found, True), (plain, False)):
        markdown = as_markdown("report", sections(one, tmp_path))
        assert ("Sampled: not comparable. Each held-out item was ranked among 5 random items only" in markdown) is said
        assert ("5 random items (sampled: not comparable)" in markdown) is said


def test_a_model_without_held_out_interactions_has_no_report(tmp_path):
    recommender = fit(classical("popularity", split={"protocol": "none"}))
    assert collect_report_data(recommender, progress=False) is None
    console = Console(record=True, width=200)
    report_run(recommender, tmp_path, console)
    assert "Nothing is held out from what the model learned, so there is no report." in console.export_text()
    assert list(tmp_path.iterdir()) == []


def test_a_leak_is_a_warning_in_the_first_section(tmp_path, undrawn):
    found = report_data(classical("ease"), leaky())
    top = as_markdown("report", sections(found, tmp_path)[:1])
    assert "**Warning.** LEAK: the user feature 'temporal.previous_liked_items'" in top


def leaky():
    data = small_dataset()
    history = collections.defaultdict(list)
    for user, item in zip(
        data.interactions["user_id"].to_pylist(), data.interactions["item_id"].to_pylist(), strict=True
    ):
        history[user].append(item)
    lists = [history[user] for user in data.users["user_id"].to_pylist()]
    data.users = with_column(data.users, "temporal.previous_liked_items", lists)
    data.roles["user.previous_liked_items"] = "items"
    return data


def test_a_leak_is_a_warning_in_the_report_of_a_loaded_model(tmp_path, undrawn):
    folder = fit(classical("ease"), leaky()).save(tmp_path / "model")
    found = collect_report_data(Recommender.load(folder).with_data(leaky()), progress=False)
    assert "**Warning.** LEAK:" in as_markdown("report", sections(found, tmp_path)[:1])


def test_a_refitted_model_without_a_test_part_is_not_evaluated_on_validation():
    config = classical("ease", split={"protocol": "random", "validation": 0.2, "test": 0.0})
    assert report_data({**config, "training": {"refit": True}}) is None
    recommender = fit(config)
    found = collect_report_data(recommender, progress=False)
    assert found.part == "validation"
    assert found.model.mean("ndcg@10") == pytest.approx(recommender.metrics["validation"]["ndcg@10"])


def test_the_report_uses_an_available_cutoff_if_the_training_metric_has_another():
    found = report_data(classical("ease", evaluation={"baselines": ["popularity"], "k": [5]}))
    assert found.metric == "ndcg@5"


def test_a_model_with_the_name_of_a_baseline_keeps_its_own_metrics():
    found = report_data({**classical("ease"), "name": "popularity"})
    assert f"reaches ndcg@10 {found.model.mean('ndcg@10'):.4f}" in verdict(found)


def test_an_unknown_baseline_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"/evaluation/baselines/1.*Did you mean 'ease'"):
        report_data(classical("popularity", evaluation={"baselines": ["ials", "eas"]}))


def test_a_baseline_that_cannot_be_fitted_is_omitted_with_a_note(monkeypatch, tmp_path, undrawn):
    for name in ["implicit", *(name for name in sys.modules if name.startswith("implicit."))]:
        monkeypatch.setitem(sys.modules, name, None)
    found = report_data(classical("popularity", evaluation={"baselines": ["ease", "ials"]}))
    assert list(found.baselines) == ["ease"]
    assert len(found.notes) == 1 and "The baseline ials is not measured" in found.notes[0]
    assert "\n" + found.notes[0] + "\n" in as_markdown("report", sections(found, tmp_path))


def test_a_significantly_better_baseline_comes_first_and_popularity_after_it():
    from types import SimpleNamespace

    from anyrec.evaluation.statistics import Comparison

    worse, same = Comparison(-0.1, -0.2, -0.05, 0.001, 0.002), Comparison(0.0, -0.01, 0.01, 0.9, 0.9)
    means = {"recent_popularity": 0.41, "popularity": 0.31}
    found = SimpleNamespace(
        intervals={"m": {"ndcg@10": Interval(0.31, 0.3, 0.32, 99)}},
        model=SimpleNamespace(name="m"),
        metric="ndcg@10",
        best_baseline="recent_popularity",
        compared={"popularity": same, "recent_popularity": worse},
        tuned={"recent_popularity": {"half_life_days": 8.39845}},
        baselines={name: SimpleNamespace(mean=lambda _, value=value: value) for name, value in means.items()},
    )
    text = verdict(found)
    named = "The best baseline, recent_popularity (half_life_days 8.398; tuned on validation),"
    assert text.startswith(f"**{named} is better: ndcg@10 0.4100**")
    assert "learned nothing" in text
    assert "same popular items**, which reaches 0.3100" in text
    found.intervals["m"]["ndcg@10"] = Interval(0.31, 0.3, 0.32, 1)
    assert "of 1 user the model" in verdict(found) and "learned nothing" not in verdict(found)
    found.compared["popularity"] = Comparison(0.1, 0.05, 0.2, 0.001, 0.002)
    assert "learned nothing" not in verdict(found)
