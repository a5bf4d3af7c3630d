"""The statements of the report, checked with planted data, plain loops and the saved metrics."""

import collections
import html.parser
import itertools
import json
import math
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
from rich.console import Console
from small import JOBS, call, small_config, small_dataset

from anyrec.cli.run import report_run
from anyrec.core.config import EvaluationConfig
from anyrec.core.errors import ConfigError
from anyrec.data.dataset import Dataset
from anyrec.data.formats.write_json import write_json
from anyrec.data.item_facts import category_feature
from anyrec.data.synthetic.generate import generate
from anyrec.evaluation.held_out import rank_held_out
from anyrec.evaluation.measure import catalogue_statistics, measure
from anyrec.evaluation.ranking import metrics_by_user, ranking_metrics
from anyrec.evaluation.statistics import Interval, intervals
from anyrec.recommender import Recommender
from anyrec.report import figures
from anyrec.report.baselines import fit_baselines
from anyrec.report.collect import collect_report_data
from anyrec.report.diagnostics import Embeddings, alignment, cohesion, correlations, norms
from anyrec.report.feature_importance import feature_importance
from anyrec.report.page import Bullets, Gallery, Section, Text, as_html, as_markdown
from anyrec.report.sections import sections
from anyrec.report.slices import slices
from anyrec.report.verdict import verdict
from anyrec.report.write import save_figures, write_report

LAST = {"protocol": "leave_last_out"}


def tower(**changes):
    """Return the config of a two-tower model for planted data that trains in half a second."""
    training = {"epochs": 8, "batch_size": 256, "patience": None, "optimizer": {"learning_rate": 0.01}}
    features = {"temporal": None, "text": None}
    return {"defaults": "fixed", "dim": 16, "features": features, "training": training, **changes}


def classical(name, evaluation=None, split=LAST, **options):
    return {
        "model": {"type": name, **options},
        "evaluation": evaluation or {"baselines": ["popularity"]},
        "split": split,
    }


def fit(config, dataset=None):
    return Recommender.from_config(config).fit(dataset or small_dataset(), progress=False)


def report_data(config, dataset=None):
    return collect_report_data(fit(config, dataset), progress=False)


def with_column(table, name, values):
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return table.drop_columns([name] if name in table.column_names else []).append_column(name, values)


def changed(data, **tables):
    kept = {"users": data.users, "items": data.items, "interactions": data.interactions}
    return Dataset(**{**kept, **tables}, root=data.root, roles=data.roles)


def planted(*preferences, seed=0):
    """Return data of users who choose by `preferences` only, with a numeric user feature that is noise."""
    data = generate(users=200, items=60, interactions=2400, seed=seed, preferences=preferences).dataset
    users = with_column(data.users, "continuous.noise", np.random.default_rng(1).normal(size=200))
    return changed(data, users=users, items=data.items.drop_columns(["image.views"]))


def shuffled(data, seed=0):
    """Return the data with the items of all interactions permuted; repeated pairs are dropped."""
    items = data.interactions["item_id"].combine_chunks()
    items = items.take(pa.array(np.random.default_rng(seed).permutation(len(items))))
    first = {}
    for row, pair in enumerate(zip(data.interactions["user_id"].to_pylist(), items.to_pylist(), strict=True)):
        first.setdefault(pair, row)
    table = with_column(data.interactions, "item_id", items)
    return changed(data, interactions=table.take(pa.array(list(first.values()))))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Return the report data of a model on planted data, and the folder of the report."""
    found = report_data(tower(), planted("occupation"))
    folder = tmp_path_factory.mktemp("reported")
    write_report(found, folder)
    return found, folder


@pytest.fixture(scope="module")
def beaten(tmp_path_factory):
    """Return the run folder and the output of a training whose model is worse than a baseline."""
    folder = tmp_path_factory.mktemp("beaten")
    write_json(planted("occupation"), folder / "data.json")
    options = ("--set", "model.type=item_knn", "--set", "model.neighbours=1")
    code, out, message = call("train", "--data", folder / "data.json", "--output", folder, *options)
    assert code == 0, message
    return folder / "model", out


@pytest.fixture
def undrawn(monkeypatch):
    """Skip the drawing of figures, for tests of the text."""
    monkeypatch.setattr(
        figures, "_finish", lambda figure, name, caption: figures.Picture(name, "<svg />", b"", caption)
    )


def first_paragraph(markdown):
    """Return the first paragraph after the title."""
    return next(part for part in markdown.split("\n\n")[1:] if part.strip())


def table_under(markdown, heading):
    """Return the rows of the first table of a section of report.md, without the rule and the emphasis."""
    lines = markdown.split(f"## {heading}\n")[1].splitlines()
    lines = itertools.takewhile(
        lambda line: line.startswith("|"), itertools.dropwhile(lambda line: line[:1] != "|", lines)
    )
    return [[cell.strip("*") for cell in line[2:-2].split(" | ")] for line in lines if not line.startswith("|---")]


# The verdict


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
    found = report_data(
        tower(features={"temporal": None, "text": None, "identity": None}), planted("occupation", "location")
    )
    best = max(found.baselines, key=lambda name: found.baselines[name].by_user["ndcg@10"].mean())
    assert found.best_baseline == best and found.compared[best].significant
    assert f"That is better than every baseline: the best baseline, {best}, reaches" in verdict(found)
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
    assert f"**A baseline is better: the best baseline, {best}, reaches {means[best]:.4f}**" in first_paragraph(
        markdown
    )
    assert f"A baseline is better: the best baseline, {best}" in message
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
    assert json.loads(Path(config).read_text())["model"]["type"] == "ease"


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
    found = report_data(classical("popularity", evaluation={"baselines": ["ease", "item_knn"]}))
    assert list(found.baselines) == ["ease"]
    assert len(found.notes) == 1 and "The baseline item_knn is not measured" in found.notes[0]
    assert "\n" + found.notes[0] + "\n" in as_markdown("report", sections(found, tmp_path))


# The page


class Page(html.parser.HTMLParser):
    """Check that tags nest; collect references, headings, ids and text."""

    VOID = {"meta", "link", "img", "br", "hr"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.references, self.tags, self.headings, self.text, self.ids = (
            [],
            [],
            collections.Counter(),
            [],
            "",
            [],
        )
        self.feed(text)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.references += [
            value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "action")
        ]
        self.references += [url for _, value in attributes for url in re.findall(r"url\(([^)]*)\)", value or "")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.open, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "style":
            assert not re.search(r"@import|url\(|https?:", data)
        self.text += data


def test_the_page_needs_no_network_and_is_well_formed(reported):
    _, folder = reported
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.references and all(reference.startswith(("#", "data:")) for reference in page.references)
    assert page.tags["script"] == page.tags["iframe"] == page.tags["object"] == 0
    assert page.tags["h1"] == 1 and page.tags["svg"] >= 8 and page.tags["article"] == 6
    assert len(page.ids) == len(set(page.ids)), "pictures that share an id borrow each other's parts"
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)


def test_every_section_and_picture_is_on_the_page_and_in_the_markdown(reported, undrawn):
    found, folder = reported
    markdown, page = (folder / "report.md").read_text(), Page((folder / "report.html").read_text())
    titles = [section.title for section in sections(found, folder) if section.title]
    assert titles == [
        "Comparison with baselines",
        "Training and latency",
        "Groups of users and items",
        "Properties of the lists",
        "Feature importance",
        "Embeddings",
        "Example recommendations",
        "Data checks",
        "Method",
    ]
    assert page.headings == titles == re.findall(r"^## (.*)$", markdown, re.M)
    pictures = re.findall(r"\]\(figures/(\w+)\.png\)", markdown)
    assert {path.stem for path in (folder / "figures").iterdir()} == set(pictures)
    assert len(pictures) == page.tags["svg"] == len(set(pictures))
    assert all((folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert verdict(found).replace("**", "") in page.text


def test_the_metrics_in_the_report_equal_those_in_the_saved_files(reported):
    found, folder = reported
    summary = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    users = pq.read_table(folder / "evaluation" / "users.parquet")
    header, *rows = table_under((folder / "report.md").read_text(), "Comparison with baselines")
    assert header[:4] == ["", "ndcg@10 [95%]", "delta (model - baseline)", "p (Holm)"]
    assert header[4:] == ["recall@10", "precision@10", "hit_rate@10", "map@10", "mrr@10", "auc"]
    assert {row[0] for row in rows} == set(summary["metrics"])
    means = [float(row[1].split()[0]) for row in rows]
    assert rows[0][0] == "model" and means[1:] == sorted(means[1:], reverse=True)
    for row in rows:
        measured = summary["metrics"][row[0]]
        for name, cell in zip(header[4:], row[4:], strict=True):
            assert cell == f"{measured[name]:.4f}", (row[0], name)
        own = users[f"{row[0]}.ndcg@10"].to_numpy()
        span = intervals({"": own})[""]
        assert row[1] == f"{own.mean():.4f} [{span.low:.4f}, {span.high:.4f}]" and own.mean() == pytest.approx(
            measured["ndcg@10"]
        )
        if row[0] != "model":
            compared = summary["compared"][row[0]]
            assert row[2] == f"{compared['difference']:+.4f}"
            assert compared["difference"] == pytest.approx((users["model.ndcg@10"].to_numpy() - own).mean())
            assert row[3] in (f"{compared['corrected']:.3f}", "< 0.001")
    _, *importance = table_under((folder / "report.md").read_text(), "Feature importance")
    assert {row[0] for row in importance} == set(summary["feature_importance"])
    assert all(row[1].startswith(f"{summary['feature_importance'][row[0]]['difference']:+.4f} [") for row in importance)
    assert summary["split"] == found.recommender.model.split.name and summary["users"] == len(users)
    assert users["user_id"].to_pylist() == sorted(users["user_id"].to_pylist())


def test_the_means_equal_those_that_training_printed(reported):
    found, _ = reported
    measured = found.recommender.metrics["test"]
    assert {name: found.model.mean(name) for name in measured} == pytest.approx(measured)
    for name, one in found.fitted.items():
        assert found.baselines[name].mean("ndcg@10") == pytest.approx(
            ranking_metrics(rank_held_out(one, "test"), [10])["ndcg@10"]
        )


def test_markup_in_the_data_is_escaped_in_the_page(tmp_path):
    data = small_dataset()
    titles = [f"<script>alert({n})</script> & \"co\" 'x' | **b** `c`" for n in range(len(data.items))]
    jobs = [f"<b onload=x>&\"{job}'" for job in data.users["categorical.job"].to_pylist()]
    tags = [[f"<i>{tag}", 'a" id="b'] for tag, *_ in data.items["categorical.tags"].to_pylist()]
    data = changed(
        data,
        users=with_column(data.users, "categorical.job", jobs),
        items=with_column(with_column(data.items, "text.title", titles), "categorical.tags", tags),
    )
    found = report_data(small_config(evaluation={"baselines": ["popularity"]}, features={"temporal": None}), data)
    page = Page(as_html("A <script>", sections(found, tmp_path)))
    assert page.tags["script"] == page.tags["i"] == 0
    assert "A <script>" in page.text and "<script>alert(" in page.text and "<b onload=x>" in page.text
    blocks = [block for section in sections(found, tmp_path) for block in section.blocks]
    lines = [block.text for block in blocks if isinstance(block, Text)]
    lines += [line for block in blocks if isinstance(block, Bullets) for line in block.lines]
    bold = sum(len(re.findall(r"\*\*[^*]+\*\*", line)) for line in lines)
    hits = sum(item.hit for one in found.examples for item in one.recommended)
    assert page.tags["b"] == bold + hits


@pytest.mark.parametrize(
    "name",
    ["$", "$$$", "50%", "<b>", "_x", "$$", "$5 to $10", r"$\nothing$"],
)
def test_figures_accept_every_name_in_the_data(name):
    span = Interval(0.5, 0.4, 0.6, 9)
    picture = figures.slice_bars(
        "users by x", [name, "b"], {name: [span, None], "other": [span, span]}, [3, 4], "ndcg@10", "s"
    )
    assert picture.png.startswith(b"\x89PNG") and Page(picture.svg).text.count(name) >= 1


def test_a_metric_with_equal_values_for_all_users_can_be_drawn():
    span = intervals({"x": np.full(11, 0.61314719)})["x"]
    assert figures.bars({"model": span}, "model", "ndcg@10").png
    assert figures.slice_bars("users by x", ["a"], {"model": [span]}, [11], "ndcg@10", "s").png


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
        assert one.figures["model"].mean == pytest.approx(np.mean([ndcg_by_loop(own) for own in lists])), one.name
        checked.add(one.kind)
    assert len(checked) == 5


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
    return slices(recommender.dataset, catalogue, [measure(recommender.model, "test", catalogue, "model")], "ndcg@10")


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


def test_the_category_overlap_equals_a_plain_loop(reported):
    found, _ = reported
    assert found.category == "categorical.category"
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
        assert one.category_overlap == pytest.approx(sum(shown) / len(shown))


def test_the_page_marks_as_many_hits_as_the_report_data(reported, undrawn):
    found, folder = reported
    hits = sum(item.hit for one in found.examples for item in one.recommended)
    assert (folder / "report.html").read_text().count('<b class="badge">hit</b>') == hits
    assert (folder / "report.md").read_text().count("** (hit)") == hits
    gallery = next(
        block for section in sections(found, folder) for block in section.blocks if isinstance(block, Gallery)
    )
    assert as_html("", [Section("", [gallery])]).count('<li class="marked">') == hits


# Diagnostics


def unit(vector):
    return vector / math.sqrt(sum(value * value for value in vector))


def test_cohesion_equals_a_plain_double_loop():
    data, rng = small_dataset(items=30), np.random.default_rng(0)
    tags = [[JOBS[n] for n in range(4) if rng.random() < 0.4] or None for _ in range(30)]
    data.items = with_column(data.items, "categorical.tags", pa.array(tags, pa.list_(pa.string())))
    vectors = rng.normal(size=(30, 5))
    vectors[:, :4] += [[2.0 * (job in (own or ())) for job in JOBS] for own in tags]
    found = cohesion(data, Embeddings(np.arange(30), vectors.astype(np.float32)), "categorical.tags")
    shared = [[bool(set(a or ()) & set(b or ())) for b in tags] for a in tags]
    near = []
    for one in range(30):
        others = sorted((n for n in range(30) if n != one), key=lambda n: -(unit(vectors[one]) @ unit(vectors[n])))
        near += [shared[one][other] for other in others[:10]]
    assert found[0] == pytest.approx(np.mean(near))
    anyone = np.mean([shared[a][b] for a in range(30) for b in range(30) if a != b])
    assert (
        found[1] == pytest.approx(anyone, abs=0.015) and found[0] > found[1] + 0.1
    )  # the second is of 20,000 drawn pairs


@pytest.mark.parametrize("rows", [np.arange(30), np.arange(0, 30, 2)])
def test_alignment_equals_a_plain_double_loop(rows):
    data, rng = small_dataset(items=30), np.random.default_rng(1)
    tags = [[job for job in JOBS if rng.random() < 0.4] for _ in range(30)]
    data.items = with_column(data.items, "categorical.tags", tags)
    data.items = with_column(data.items, "categorical.only", ["same"] * 30)
    data.items = with_column(data.items, "categorical.kind", [JOBS[n % 3] if n % 7 else None for n in range(30)])
    vectors = rng.normal(size=(30, 5)) + np.array([[3.0 * (n % 3 == place) for place in range(5)] for n in range(30)])
    found = {one.feature: one for one in alignment(data, "item", Embeddings(rows, vectors[rows].astype(np.float32)))}
    assert found.keys() == {"item categorical.tags", "item categorical.kind"}
    cosine = {(a, b): unit(vectors[a]) @ unit(vectors[b]) for a in rows for b in rows if a != b}
    kinds = [[kind] if kind else [] for kind in data.items["categorical.kind"].to_pylist()]
    for name, values in (("tags", tags), ("kind", kinds)):
        same = [cosine[a, b] for a, b in cosine for job in JOBS if job in values[a] and job in values[b]]
        assert found[f"item categorical.{name}"].same == pytest.approx(np.mean(same), abs=1e-6)
        assert found[f"item categorical.{name}"].any == pytest.approx(np.mean(list(cosine.values())), abs=1e-6)
    assert next(iter(found)) == "item categorical.kind"  # the strongest first


def test_a_model_of_planted_preferences_places_similar_records_together(reported):
    found, _ = reported
    near, anyone = found.diagnostics.cohesion
    assert near > 0.5 > anyone + 0.2
    assert found.diagnostics.alignment[0].feature in ("item categorical.category", "user categorical.occupation")
    assert found.diagnostics.alignment[0].same > found.diagnostics.alignment[0].any + 0.3
    data = found.recommender
    for side, made in (("user", data.embed_users()), ("item", data.embed_items())):
        np.testing.assert_allclose(found.diagnostics.embeddings[side].vectors, made["embedding"].to_pylist(), atol=1e-6)
        length = [math.sqrt(sum(x * x for x in vector)) for vector in made["embedding"].to_pylist()]
        assert norms(found.diagnostics.embeddings[side])["mean"] == pytest.approx(np.mean(length), rel=1e-5)


def priced(seed=0):
    """Return data of users who prefer cheap items, with a numeric item feature that is noise."""
    data, rng = small_dataset(users=80, items=60), np.random.default_rng(seed)
    price, noise = rng.normal(50, 10, 60), rng.normal(size=60)
    items = [f"i{row:03d}" for _ in range(80) for row in np.argsort(price / 10 + rng.gumbel(size=60))[:8]]
    table = with_column(with_column(data.items, "continuous.price", price), "continuous.noise", noise)
    return changed(data, items=table, interactions=with_column(data.interactions, "item_id", pa.array(items)))


def test_correlations_find_a_planted_feature_and_not_noise():
    recommender = fit(classical("ease"), priced())
    catalogue = catalogue_statistics(recommender.model)
    found = correlations(recommender.model, measure(recommender.model, "test", catalogue, "model"), catalogue)
    assert found[0].feature == "item continuous.price" and found[0].r < -0.5 and found[0].corrected < 0.001
    assert {one.feature: one for one in found}["item continuous.noise"].corrected > 0.05
    assert [abs(one.r) for one in found] == sorted((abs(one.r) for one in found), reverse=True)


def test_an_items_correlation_uses_its_mean_standardised_score():
    recommender = fit(classical("ease"), priced())
    data = recommender.dataset
    catalogue = catalogue_statistics(recommender.model)
    whole = measure(recommender.model, "test", catalogue, "model")
    found = {one.feature: one for one in correlations(recommender.model, whole, catalogue)}
    users = sorted(set(data.user_rows[recommender.model.split.test].tolist()))
    total = np.zeros(60)
    for user in users:
        pairs = pa.table({"user_id": [f"u{user:03d}"] * 60, "item_id": data.ids("item")})
        scores = recommender.score(pairs)["score"].to_numpy()
        total += (scores - scores.mean()) / scores.std(ddof=1)
    expected = scipy.stats.linregress(data.items["continuous.price"].to_numpy(), total / len(users))
    one = found["item continuous.price"]
    assert (one.r, one.p, one.n) == (pytest.approx(expected.rvalue), pytest.approx(expected.pvalue, rel=1e-3), 60)
    lists = recommender.recommend(None, 20, exclude_seen=False)  # a user's: how popular what they are shown is
    assert set(lists["user_id"].to_pylist()) == {f"u{user:03d}" for user in users}
    shown = whole.by_user["popularity@5"]
    ages = data.users["continuous.age"].to_numpy()[users]
    assert found["user continuous.age"].r == pytest.approx(scipy.stats.linregress(ages, shown).rvalue)


# Baselines and saved files


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


def test_a_significantly_better_baseline_comes_first_and_popularity_after_it():
    from types import SimpleNamespace

    from anyrec.evaluation.statistics import Comparison, Interval

    worse, same = Comparison(-0.1, -0.2, -0.05, 0.001, 0.002), Comparison(0.0, -0.01, 0.01, 0.9, 0.9)
    means = {"recent_popularity": 0.41, "popularity": 0.31}
    found = SimpleNamespace(
        intervals={"m": {"ndcg@10": Interval(0.31, 0.3, 0.32, 99)}},
        model=SimpleNamespace(name="m"),
        metric="ndcg@10",
        best_baseline="recent_popularity",
        compared={"popularity": same, "recent_popularity": worse},
        baselines={name: SimpleNamespace(mean=lambda _, value=value: value) for name, value in means.items()},
    )
    text = verdict(found)
    assert text.index("A baseline is better: the best baseline, recent_popularity, reaches 0.4100") < text.index(
        "learned nothing"
    )
    assert "same popular items**, which reaches 0.3100" in text
    found.intervals["m"]["ndcg@10"] = Interval(0.31, 0.3, 0.32, 1)
    assert "of 1 user the model" in verdict(found) and "learned nothing" not in verdict(found)
    found.compared["popularity"] = Comparison(0.1, 0.05, 0.2, 0.001, 0.002)
    assert "learned nothing" not in verdict(found)


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
