"""The baselines of the report, its saved files, and repeated items."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reports import LAST, changed, classical, fit, planted, report_data, with_column
from small import JOBS, small_config, small_dataset

from anyrec.core.config import EvaluationConfig
from anyrec.data.item_facts import category_feature
from anyrec.data.learning import LearningData
from anyrec.data.split import Split
from anyrec.recommender import Recommender
from anyrec.report.baselines import fit_baselines
from anyrec.report.collect import collect_report_data
from anyrec.report.sections import sections
from anyrec.report.verdict import verdict
from anyrec.report.write import save_figures, write_report
from anyrec.training.tune import tune


def test_baselines_do_not_depend_on_held_out_interactions():
    """Other held-out items leave the weights bit-identical; other training items change them."""
    data = small_dataset()

    def weights(rows):
        items = data.interactions["item_id"].to_pylist()
        for row in rows:
            items[row] = f"i{(int(items[row][1:]) + 7) % 40:03d}"
        config = classical(
            "popularity", evaluation={"baselines": ["ease", "item_knn", "content_knn", "recent_popularity"]}
        )
        recommender = fit(config, changed(data, interactions=with_column(data.interactions, "item_id", items)))
        found = fit_baselines(recommender.model, progress=False)
        states = {name: one.before("test").scorer.classical.state() for name, one in found.fitted.items()}
        return recommender.model.split, found.tuned, states

    split, tuned, plain = weights([])
    for rows, same in ((split.test, True), (split.validation, False), (split.train[:5], False)):
        again, options, other = weights(rows)
        assert again.name == split.name
        for name in ("ease", "item_knn", "recent_popularity"):
            parts = [np.array_equal(plain[name][part], other[name][part]) for part in plain[name]]
            assert (all(parts) and options.get(name) == tuned.get(name)) is same, name


@pytest.mark.parametrize("refit", [False, True])
def test_baselines_are_tuned_on_validation_and_then_fitted_on_training_and_validation(refit):
    recommender = fit({**classical("popularity", evaluation={"baselines": ["ease"]}), "training": {"refit": refit}})
    learning = recommender.model.required_learning()
    found = fit_baselines(recommender.model, progress=False)
    context = replace(recommender.model.context, warnings=[])
    tuned = tune(learning, recommender.config, recommender.model.registry, context, "ease")
    assert found.tuned == {"ease": tuned.options} and len(tuned.tried) > 1
    assert found.fitted["ease"].refitted
    both = np.union1d(learning.split.train, learning.split.validation)
    dense = np.zeros((60, 40))
    dense[learning.dataset.user_rows[both], learning.dataset.item_rows[both]] = 1
    inverse = np.linalg.inv(dense.T @ dense + tuned.options["l2"] * np.eye(40))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(found.fitted["ease"].scorer.classical.weights, expected, atol=1e-5)


def test_baselines_that_are_measured_on_validation_do_not_learn_from_it():
    data = small_dataset()
    recommender = fit(classical("popularity", evaluation={"baselines": ["ease"]}), data)
    place = recommender.model.required_learning()
    without = LearningData(
        place.dataset, place.labels, Split(place.split.train, place.split.validation, np.empty(0, np.int64), "random")
    )
    model = replace(recommender.model, learning=without)
    fitted = fit_baselines(model, progress=False).fitted["ease"]
    assert not fitted.refitted and fitted.config.training.refit is False


def test_tuning_can_be_switched_off():
    options = {"baselines": ["ease", "recent_popularity"], "tune_baselines": False}
    found = fit_baselines(fit(classical("popularity", evaluation=options)).model, progress=False)
    assert found.tuned == {} and found.fitted["ease"].scorer.classical.params.l2 == 200.0


def test_the_report_prints_the_chosen_options_and_the_saved_baseline_has_them(tmp_path, undrawn):
    found = report_data(classical("popularity", evaluation={"baselines": ["ease"]}))
    write_report(found, tmp_path)
    l2 = found.tuned["ease"]["l2"]
    assert f"ease (l2 {l2:.4g}; tuned on validation)" in verdict(found)
    text = (tmp_path / "report.md").read_text()
    assert f"- ease: l2 {l2:.4g}; tuned on validation." in text
    assert "fitted on the training and validation parts with options chosen on the validation part" in text
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["tuned"] == found.tuned
    saved = Recommender.load(tmp_path / "baselines" / "ease")
    assert saved.config.model.options() == found.tuned["ease"] and saved.model.refitted
    measured = saved.with_data(small_dataset()).evaluate("test")["ndcg@10"]
    assert measured == pytest.approx(found.baselines["ease"].mean("ndcg@10"))


def test_the_default_baselines_are_those_that_fit_the_data():
    data = small_dataset()
    bare = changed(
        data, items=data.items.select(["item_id"]), interactions=data.interactions.select(["user_id", "item_id"])
    )
    for one, split, names in (
        (data, LAST, {"content_knn", "ease", "ials", "item_knn", "popularity", "recent_popularity", "trending"}),
        (bare, {"protocol": "random"}, {"ease", "ials", "item_knn", "popularity"}),
    ):
        for own in ("ease", "popularity"):
            recommender = fit({"model": {"type": own}, "split": split}, one)
            assert set(fit_baselines(recommender.model, progress=False).fitted) == names - {own}


def test_a_catalogue_too_large_for_a_baseline_is_noted(monkeypatch):
    recommender = fit({"model": {"type": "popularity"}, "split": LAST})
    monkeypatch.setattr(recommender.registry.get("classical", "ease"), "most_items", 39)
    found = fit_baselines(recommender.model, progress=False)
    notes = found.notes
    assert "ease" not in found.fitted and "item_knn" in notes[0]
    assert len(notes) == 1 and "The baseline ease is not measured" in notes[0] and "40 items" in notes[0]
    recommender.config.evaluation = EvaluationConfig(baselines=["ease"])
    assert "ease" in fit_baselines(recommender.model, progress=False).fitted


def test_the_report_of_a_loaded_model_equals_that_of_the_fitted_one(reported, tmp_path):
    found, folder = reported
    data = planted("occupation")
    again = collect_report_data(
        Recommender.load(found.recommender.save(tmp_path / "model")).with_data(data), progress=False
    )
    save_figures(again, tmp_path / "evaluation")

    def read(place):
        summary = json.loads((place / "evaluation" / "evaluation.json").read_text())
        return {name: value for name, value in summary.items() if name != "seconds"}

    assert read(tmp_path) == read(folder)
    assert pq.read_table(tmp_path / "evaluation" / "users.parquet").equals(
        pq.read_table(folder / "evaluation" / "users.parquet")
    )
    for part in (
        "intervals",
        "compared",
        "slices",
        "feature_importance",
        "examples",
        "findings",
    ):
        assert getattr(again, part) == getattr(found, part), part
    for part in ("correlations", "alignment", "cohesion"):
        assert getattr(again.diagnostics, part) == getattr(found.diagnostics, part), part
    assert verdict(again) == verdict(found)


def test_a_list_metric_that_only_the_model_has_does_not_stop_the_report(tmp_path, undrawn):
    """The popular items have no tag, so the popularity baseline has no calibration; the model has."""
    data, rng = small_dataset(users=60, items=40), np.random.default_rng(0)
    tags = [None if row < 18 else [JOBS[row % 4]] for row in range(40)]
    items = [f"i{row:03d}" for _ in range(60) for row in (*(18 + rng.permutation(22)[:2]), *rng.permutation(18)[:6])]
    data = changed(
        data,
        items=with_column(data.items.select(["item_id"]), "categorical.tags", pa.array(tags, pa.list_(pa.string()))),
        interactions=with_column(data.interactions, "item_id", items),
    )
    config = classical(
        "content_knn", evaluation={"baselines": ["popularity"], "k": [10], "category": "categorical.tags"}
    )
    found = report_data(config, data)
    assert category_feature(found.recommender.dataset) == "categorical.tags"
    assert "calibration@10" in found.model.by_user and "calibration@10" not in found.baselines["popularity"].by_user
    assert sections(found, tmp_path)


def test_repeated_targets_are_reported_separately_and_the_inputs_of_each_model_are_stated(tmp_path, undrawn):
    from test_repeats import repeating

    config = small_config(
        model={"type": "ease"}, split={"protocol": "leave_last_out"}, evaluation={"baselines": ["popularity"]}
    )
    fitted = Recommender.from_config(config).fit(repeating(), progress=False)
    found = collect_report_data(fitted, progress=False)
    assert found.repeats.material and set(found.repeats.with_seen) == {"model", "popularity"}
    text = (write_report(found, tmp_path).parent / "report.md").read_text()
    assert "Repeated items" in text and "The baselines were also fitted on the validation part" in text
    evaluation = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert evaluation["repeats"] == "miss" and evaluation["repeated_targets"]["share"] == found.repeats.share
