"""Feature importance, slices and example users, against plain loops."""

import collections
import json
import math
import re
from dataclasses import astuple, replace

import numpy as np
import pyarrow as pa
import pytest
from reports import changed, classical, fit, planted, report_data, tower, with_column
from small import JOBS, call, small_config, small_dataset

from anyrec.data.dataset import Dataset
from anyrec.data.formats.write_json import write_json
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.measure import catalogue_statistics, measure
from anyrec.evaluation.ranking import metrics_by_user
from anyrec.evaluation.slices import slices
from anyrec.evaluation.statistics import intervals
from anyrec.recommender import Recommender
from anyrec.report.feature_importance import feature_importance
from anyrec.report.page import Gallery, Section, as_html
from anyrec.report.sections import sections
from anyrec.report.write import write_report

# Feature importance


def test_planted_features_are_the_most_important_and_noise_is_not_significant(reported):
    found, _ = reported
    order = sorted(found.feature_importance, key=lambda name: -found.feature_importance[name].difference)
    assert set(order[:2]) == {"user categorical.occupation", "item categorical.category"}
    assert all(
        found.feature_importance[name].significant and found.feature_importance[name].difference > 0.2
        for name in order[:2]
    )
    assert not found.feature_importance["user continuous.noise"].significant
    assert set(order) == {
        f"{side} {name}" for side in ("user", "item") for name in found.recommender.model.columns[side]
    }


@pytest.mark.slow
@pytest.mark.parametrize("interaction", ["dot", "attention"])
def test_masking_a_feature_equals_leaving_its_column_empty(interaction):
    """The attention reads the features one by one, the dot product their fused vector."""
    config = small_config(
        interaction={"type": interaction}, training={"epochs": 1, "batch_size": 128, "patience": None}
    )
    recommender = fit({**config, "evaluation": {"k": [5, 10]}})
    whole = measure(recommender.model, "test", catalogue_statistics(recommender.model), "model")
    importance = feature_importance(recommender.model, "test", whole, "ndcg@10")
    for side, features in recommender.model.columns.items():
        for name in features:
            if name == "identity.id":
                continue
            data = small_dataset()
            table = data.table(side)
            empty = with_column(table, name, pa.nulls(len(table), table.schema.field(name).type))
            bare = recommender.with_data(changed(data, **{f"{side}s": empty}))
            assert all(not present.any() for _, present in [bare.model.columns[side][name]])
            without = metrics_by_user(rank_held_out(bare.model, "test"), [10])["ndcg@10"]
            expected = (whole.by_user["ndcg@10"] - without).mean()
            assert importance[f"{side} {name}"].difference == pytest.approx(expected, abs=1e-12), (side, name)


def test_pooled_features_are_masked_together():
    features = {"categorical": {"type": "categorical", "pool_group": True}, "text": None, "temporal": None}
    data = planted("occupation")
    recommender = fit(tower(features=features, training={"epochs": 1}), data)
    importance = feature_importance(
        recommender.model,
        "test",
        measure(recommender.model, "test", catalogue_statistics(recommender.model), ""),
        "ndcg@10",
    )
    assert "user categorical" in importance and "user categorical.occupation" not in importance


def test_a_classical_model_has_no_feature_importance_and_no_embedding_diagnostics():
    found = report_data(classical("ease"))
    assert (
        found.feature_importance == {}
        and found.diagnostics.embeddings == {}
        and found.diagnostics.alignment == []
        and found.diagnostics.cohesion is None
    )


# Slices


def test_slices_of_users_partition_the_users_and_slices_of_items_the_held_out_items(reported):
    found, _ = reported
    ranking = found.model.ranking
    kinds = collections.defaultdict(list)
    for one in found.slices:
        kinds[one.kind].append(one)
        assert one.figures.keys() == {"model", found.best_baseline}
        assert 0 < one.users <= len(ranking.users) and one.users <= one.targets <= len(ranking.targets)
    for kind in ("users by training interactions", "users by length of history"):
        assert sum(one.users for one in kinds[kind]) == len(ranking.users)
        assert sum(one.targets for one in kinds[kind]) == len(ranking.targets)
    assert sum(one.targets for one in kinds["items by training interactions"]) == len(ranking.targets)
    without_category = found.recommender.dataset.items["categorical.category"].is_null().to_numpy()
    assert (
        sum(one.targets for one in kinds["items by categorical.category"]) == (~without_category[ranking.items]).sum()
    )


def test_slices_by_a_feature_with_one_value_per_user_partition_the_users():
    parts = [one for one in parts_of(small_dataset()) if one.kind == "users by categorical.job"]
    assert {one.name for one in parts} == set(JOBS)
    assert sum(one.users for one in parts) == sum(one.targets for one in parts) == 60


def ndcg_by_loop(ranks, k=10):
    gains = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
    return gains / sum(1 / math.log2(place + 2) for place in range(min(k, len(ranks))))


def bounds(name):
    """Return the bounds of `unseen`, `1-19`, `20+`."""
    if name == "unseen":
        return 0, 0
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return numbers[0], math.inf if "+" in name else numbers[-1]


def test_metrics_of_slices_equal_a_plain_loop(reported):
    """A slice of users has all their held-out items; a slice of items the held-out items in it."""
    found, _ = reported
    data, split, ranking = found.recommender.dataset, found.recommender.model.split, found.model.ranking
    known = {(data.user_rows[row], data.item_rows[row]) for row in split.train}
    counts = {"users": collections.Counter(u for u, _ in known), "items": collections.Counter(i for _, i in known)}
    traits = {
        "users": data.users["categorical.occupation"].to_pylist(),
        "items": data.items["categorical.category"].to_pylist(),
    }
    ranks = collections.defaultdict(dict)
    for user, item, rank in zip(ranking.targets.tolist(), ranking.items.tolist(), ranking.ranks.tolist(), strict=True):
        ranks[user][item] = rank
    checked = set()
    for one in found.slices:
        side, by = one.kind.split(" by ")
        if by in ("training interactions", "length of history"):
            low, high = bounds(one.name)
            chosen = {row for row in range(len(traits[side])) if low <= counts[side][row] <= high}
        elif by in ("categorical.occupation", "categorical.category"):
            chosen = {row for row, value in enumerate(traits[side]) if value == one.name}
        else:
            continue
        if side == "users":
            lists = [list(own.values()) for user, own in ranks.items() if user in chosen]
        else:
            lists = [[rank for item, rank in own.items() if item in chosen] for own in ranks.values()]
        lists = [own for own in lists if own]
        assert (one.users, one.targets) == (len(lists), sum(map(len, lists))), one.name
        assert one.figures["model"]["ndcg@10"].mean == pytest.approx(np.mean([ndcg_by_loop(own) for own in lists])), (
            one.name
        )
        checked.add(one.kind)
    assert len(checked) == 5


def test_a_slice_has_every_metric_of_the_report_at_every_cutoff_and_as_many_users_as_have_it(reported):
    found, _ = reported
    ranking, ks = found.model.ranking, found.recommender.config.evaluation.k
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "precision", "hit_rate", "map", "mrr") for k in ks]
    lists = [f"{name}@{k}" for name in ("novelty", "popularity", "diversity", "calibration") for k in ks]
    of_all = [f"{name}@{k}" for k in ks for name in ("coverage", "gini")]
    for one in found.slices:
        for model, result in (("model", found.model), (found.best_baseline, found.baselines[found.best_baseline])):
            figures, overall = one.figures[model], one.overall[model]
            assert {*names, *(f"serendipity@{k}" for k in ks)} <= set(figures) and list(overall) == of_all
            assert set(lists) <= set(figures) or one.kind.startswith("items")
            assert all(span.low <= span.mean <= span.high and span.users <= one.users for span in figures.values())
            assert all(figures[name].users == one.users for name in names)
            if one.users == len(ranking.users) and one.kind.startswith("users"):
                assert {name: span.mean for name, span in figures.items()} | overall == pytest.approx(result.means())


def test_lists_of_a_slice_equal_a_plain_loop(reported):
    """Coverage is of a group's users in all items, or of a group's items in the lists of all users."""
    found, _ = reported
    data, ranking, catalogue = found.recommender.dataset, found.model.ranking, found.catalogue
    jobs, kinds = data.users["categorical.occupation"].to_pylist(), data.items["categorical.category"].to_pylist()
    checked = 0
    for one in found.slices:
        figures, overall = one.figures["model"], one.overall["model"]
        if one.kind == "users by categorical.occupation":
            lists = [row[:10] for user, row in zip(ranking.users, ranking.lists, strict=True) if jobs[user] == one.name]
            assert overall["coverage@10"] == pytest.approx(len({item for row in lists for item in row}) / 60)
            shown = [np.mean([catalogue.counts[item] for item in row]) for row in lists]
            assert figures["popularity@10"].mean == pytest.approx(np.mean(shown))
        elif one.kind == "items by categorical.category":
            listed = {item for row in ranking.lists for item in row[:10] if kinds[item] == one.name}
            assert overall["coverage@10"] == pytest.approx(len(listed) / kinds.count(one.name))
            assert not [name for name in figures if name.startswith(("popularity", "novelty", "diversity"))]
        else:
            continue
        checked += 1
    assert checked > 5


def test_the_interval_of_a_slice_is_that_of_its_users(reported):
    found, _ = reported
    data, ranking = found.recommender.dataset, found.model.ranking
    jobs = np.array(data.users["categorical.occupation"].to_pylist())
    for one in found.slices:
        if one.kind == "users by categorical.occupation":
            own = found.model.by_user["recall@5"][jobs[ranking.users] == one.name]
            expected, span = intervals({"": own})[""], one.figures["model"]["recall@5"]
            assert astuple(span) == pytest.approx(astuple(expected), abs=1e-12)


def test_slices_are_in_evaluation_json_and_in_the_report(reported):
    found, folder = reported
    saved = json.loads((folder / "evaluation" / "evaluation.json").read_text())["slices"]
    assert saved == json.loads(json.dumps([one.as_dict() for one in found.slices]))
    markdown = (folder / "report.md").read_text()
    for one, entry in zip(found.slices, saved, strict=True):
        assert (entry["users"], entry["held_out_items"]) == (one.users, one.targets)
        span = entry["metrics"]["model"]["ndcg@10"]
        assert set(span) == {"mean", "low", "high", "users"} and set(entry["metrics"]["model"]["gini@5"]) == {"mean"}
        if "training interactions" in one.kind:
            assert f"{one.name} ({one.users:,} users): model" in markdown
            cell = f"{span['mean']:.3f} [{span['low']:.3f}, {span['high']:.3f}]"
            assert cell in markdown


def test_the_command_evaluate_reports_slices_as_json_and_as_tables(tmp_path):
    write_json(small_dataset(), tmp_path / "data.json")
    recommender = fit(classical("ease"), Dataset.read(tmp_path / "data.json"))
    folder = recommender.save(tmp_path / "model")
    arguments = ("evaluate", "--model-path", folder, "--data", tmp_path / "data.json", "--slices")
    code, out, message = call(*arguments)
    assert code == 0, message
    assert json.loads(out)["slices"] == json.loads(json.dumps([one.as_dict() for one in recommender.evaluate_slices()]))
    code, out, message = call(*arguments, "--table")
    assert code == 0 and "users by training interactions" in out, message
    assert out.count("ndcg@10") == 1 + len({one.kind for one in recommender.evaluate_slices()})
    code, _, message = call(*arguments, "--classification", "--truth", tmp_path / "data.json")
    assert code == 2 and "--slices" in message and "--classification" in message


def test_an_item_without_training_interactions_is_in_the_unseen_bucket():
    data = small_dataset()
    items = data.interactions["item_id"].to_pylist()
    for user in range(60):
        items[user * 8 + (6 if user % 2 else 7)] = "i999"  # of half the users it validates, of the others it tests
    new = data.items.slice(0, 1).set_column(0, "item_id", pa.array(["i999"]))
    table = with_column(data.interactions, "item_id", items)
    parts = parts_of(changed(data, items=pa.concat_tables([data.items, new]), interactions=table))
    assert {one.name: one.targets for one in parts if one.kind == "items by training interactions"}["unseen"] == 30


def parts_of(data):
    recommender = fit(classical("popularity"), data)
    catalogue = catalogue_statistics(recommender.model)
    return slices(recommender.dataset, catalogue, [measure(recommender.model, "test", catalogue, "model")], [10])


def test_slices_show_the_most_frequent_values_and_skip_features_with_many_values():
    data = small_dataset(users=100)
    users = with_column(data.users, "categorical.postcode", [f"p{n}" for n in range(100)])
    users = with_column(
        users, "categorical.letter", ["abcdefghij"[math.isqrt(n)] for n in range(100)]
    )  # 1, 3, 5, ... 19
    parts = parts_of(changed(data, users=users))
    assert "users by categorical.postcode" not in {one.kind for one in parts}
    shown = [(one.name, one.users) for one in parts if one.kind == "users by categorical.letter"]
    assert shown == list(zip("jihgfedc", range(19, 3, -2), strict=True))


# Examples


def test_examples_mark_exactly_the_held_out_items_as_hits(reported):
    found, _ = reported
    data, split = found.recommender.dataset, found.recommender.model.split
    titles = [
        title or row for title, row in zip(*(data.items[n].to_pylist() for n in ("text.title", "item_id")), strict=True)
    ]
    assert len(found.examples) == 6
    for one in found.examples:
        person = one.user.split()[0]
        user = data.ids("user").to_pylist().index(person)
        mine = [row for row in range(len(data.interactions)) if data.user_rows[row] == user]
        tested = {titles[data.item_rows[row]] for row in mine if row in set(split.test)}
        seen = {titles[data.item_rows[row]] for row in mine if row in set(split.train) | set(split.validation)}
        assert [item.hit for item in one.recommended] == [item.title in tested for item in one.recommended]
        assert set(one.held_out) <= tested and not any(item.hit for item in one.history)
        recommender = found.recommender
        before = replace(recommender.parts, model=recommender.model.before("test"))
        lists = (
            Recommender(recommender.config, recommender.registry, parts=before)
            .recommend([person], 60, exclude_seen=False)["item_id"]
            .to_pylist()
        )
        ranked = [titles[data.ids("item").to_pylist().index(item)] for item in lists]
        assert [item.title for item in one.recommended] == [
            title for title in ranked if title not in seen or title in tested
        ][:6]
        times = data.interactions["timestamp"].to_pylist()
        known = [row for row in mine if row not in set(split.test)]
        latest = [titles[data.item_rows[row]] for row in sorted(known, key=lambda row: times[row], reverse=True)]
        assert [item.title for item in one.history] == latest[: len(one.history)] and len(one.history) == min(
            6, len(latest)
        )
    assert sum(any(item.hit for item in one.recommended) for one in found.examples) >= 3


def test_the_hit_ratio_of_an_example_equals_a_plain_loop(reported):
    found, _ = reported
    assert found.category == "categorical.category" and all(
        set(one.ratios) == {found.category} for one in found.examples
    )
    data = found.recommender.dataset
    kinds = data.items["categorical.category"].to_pylist()
    titles = [
        title or row for title, row in zip(*(data.items[n].to_pylist() for n in ("text.title", "item_id")), strict=True)
    ]
    for one in found.examples:
        user = data.ids("user").to_pylist().index(one.user.split()[0])
        rows = [*found.recommender.model.split.train, *found.recommender.model.split.validation]
        categories = {kinds[data.item_rows[row]] for row in rows if data.user_rows[row] == user} - {None}
        shown = [kinds[titles.index(item.title)] in categories for item in one.recommended]
        assert one.ratios[found.category] == pytest.approx(sum(shown) / len(shown))


def authored():
    """Return small data whose items have one or two authors, some none, and a publisher."""
    data, rng = small_dataset(), np.random.default_rng(0)
    authors = [[f"author{n}" for n in rng.choice(12, rng.integers(0, 3), replace=False)] or None for _ in range(40)]
    items = with_column(data.items, "categorical.author_name", pa.array(authors, pa.list_(pa.string())))
    return changed(data, items=with_column(items, "categorical.publisher", [f"press{n % 6}" for n in range(40)]))


def test_hit_ratios_of_several_traits_equal_a_plain_loop(tmp_path, undrawn):
    found = report_data(classical("ease", evaluation={"baselines": ["popularity"], "k": [5]}), authored())
    data, split, ranking = found.recommender.dataset, found.recommender.model.split, found.model.ranking
    assert [one.feature for one in found.traits] == [
        "categorical.tags",
        "categorical.author_name",
        "categorical.publisher",
    ]
    known = [*split.train, *split.validation]
    for one in found.traits:
        values = [
            {value} if isinstance(value, str) else set(value or ()) for value in data.items[one.feature].to_pylist()
        ]
        of = {"history": known, "held_out": split.test}
        for kind, rows in of.items():
            mine = collections.defaultdict(set)
            for row in rows:
                mine[data.user_rows[row]] |= values[data.item_rows[row]]
            ratios = [
                np.mean([bool(values[item] & mine[user]) for item in items[:5]])
                for user, items in zip(ranking.users, ranking.lists, strict=True)
                if mine[user]
            ]
            span = getattr(one, kind)["model"]
            assert (span.mean, span.users) == (pytest.approx(np.mean(ratios)), len(ratios)), (one.feature, kind)
            chance = [np.mean([bool(own & mine[user]) for own in values]) for user in ranking.users if mine[user]]
            assert one.by_chance[list(of).index(kind)] == pytest.approx(np.mean(chance), abs=0.02)
    text = (write_report(found, tmp_path).parent / "report.md").read_text()
    assert "categorical.author_name, history" in text and "categorical.publisher, held-out" in text
    example = found.examples[0].ratios
    assert set(example) >= {"categorical.tags", "categorical.publisher"}
    shared = ", ".join(f"{name.split('.')[1]} {ratio:.0%}" for name, ratio in example.items())
    assert f"Recommended items that share a value with the history: {shared}." in text
    saved = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["traits"]
    assert saved["categorical.publisher"]["history"]["popularity"]["users"] == 60


def test_the_config_names_the_traits_and_the_number_of_examples(tmp_path, undrawn):
    options = {"baselines": [], "traits": ["categorical.publisher"], "diagnostics": {"examples": 3}}
    found = report_data(classical("ease", evaluation=options), authored())
    assert [one.feature for one in found.traits] == ["categorical.publisher"] and len(found.examples) == 3
    assert found.examples[0].recommended[0].about.startswith("press")
    none = report_data(classical("ease", evaluation={"baselines": [], "traits": [], "diagnostics": {"examples": 0}}))
    assert none.traits == [] and none.examples == []
    assert "Example recommendations" not in [section.title for section in sections(none, tmp_path)]


def test_the_page_marks_as_many_hits_as_the_report_data(reported, undrawn):
    found, folder = reported
    hits = sum(item.hit for one in found.examples for item in one.recommended)
    assert (folder / "report.html").read_text().count('<b class="badge">hit</b>') == hits
    assert (folder / "report.md").read_text().count("** (hit)") == hits
    gallery = next(
        block for section in sections(found, folder) for block in section.blocks if isinstance(block, Gallery)
    )
    assert as_html("", [Section("", [gallery])]).count('<li class="marked">') == hits
