"""The baselines of the report, its saved files, and repeated items."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from reports import LAST, changed, classical, fit, planted, report_data, with_column
from small import JOBS, small_config, small_dataset

from anyrec.core.config import EvaluationConfig
from anyrec.data.item_facts import category_feature
from anyrec.recommender import Recommender
from anyrec.report.baselines import fit_baselines
from anyrec.report.collect import collect_report_data
from anyrec.report.sections import sections
from anyrec.report.verdict import verdict
from anyrec.report.write import save_figures, write_report


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
        fitted, _ = fit_baselines(recommender.model, progress=False)
        return recommender.model.split, {name: one.scorer.classical.state() for name, one in fitted.items()}

    split, plain = weights([])
    held_out = [*split.test, *split.validation]
    for rows, same in ((held_out, True), (split.train[:5], False)):
        again, other = weights(rows)
        assert again.name == split.name
        for name in ("ease", "item_knn", "recent_popularity"):
            parts = [np.array_equal(plain[name][part], other[name][part]) for part in plain[name]]
            assert all(parts) is same, name


def test_baselines_are_fitted_on_validation_if_and_only_if_the_model_was_refitted():
    for refit in (False, True):
        recommender = fit({**classical("popularity", evaluation={"baselines": ["ease"]}), "training": {"refit": refit}})
        fitted, _ = fit_baselines(recommender.model, progress=False)
        np.testing.assert_array_equal(fitted["ease"].scorer.popularity, recommender.model.scorer.popularity)
        expected = len(recommender.model.split.train) + refit * len(recommender.model.split.validation)
        assert fitted["ease"].scorer.popularity.sum() == expected


def test_the_default_baselines_are_those_that_fit_the_data():
    data = small_dataset()
    bare = changed(
        data, items=data.items.select(["item_id"]), interactions=data.interactions.select(["user_id", "item_id"])
    )
    for one, split, names in (
        (data, LAST, {"content_knn", "ease", "ials", "item_knn", "popularity", "recent_popularity"}),
        (bare, {"protocol": "random"}, {"ease", "ials", "item_knn", "popularity"}),
    ):
        for own in ("ease", "popularity"):
            recommender = fit({"model": {"type": own}, "split": split}, one)
            assert set(fit_baselines(recommender.model, progress=False)[0]) == names - {own}


def test_a_catalogue_too_large_for_a_baseline_is_noted(monkeypatch):
    recommender = fit({"model": {"type": "popularity"}, "split": LAST})
    monkeypatch.setattr(recommender.registry.get("classical", "ease"), "most_items", 39)
    fitted, notes = fit_baselines(recommender.model, progress=False)
    assert "ease" not in fitted
    assert len(notes) == 1 and "The baseline ease is not measured" in notes[0] and "40 items" in notes[0]
    recommender.config.evaluation = EvaluationConfig(baselines=["ease"])
    assert "ease" in fit_baselines(recommender.model, progress=False)[0]


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
    assert "Repeated items" in text and "use the training interactions only" in text
    evaluation = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert evaluation["repeats"] == "miss" and evaluation["repeated_targets"]["share"] == found.repeats.share
