"""The sections of the report, as paragraphs, tables and figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anyrec.data.item_facts import indicators
from anyrec.evaluation import sampled
from anyrec.evaluation.measure import EvaluationResult
from anyrec.report import figures, numbers
from anyrec.report.chosen import chosen_section
from anyrec.report.collect import ReportData
from anyrec.report.diagnostics import norms
from anyrec.report.examples import Example, Item
from anyrec.report.groups import groups_section
from anyrec.report.page import Block, Bullets, Card, Gallery, Picture, Profile, Section, Table, Text
from anyrec.report.verdict import is_better, tuned_options, verdict

LEVELS = {"problem": "Problem", "warning": "Warning", "note": "Note"}
ACCURACY = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")
NUMBERED = (
    "Labels with characters that no font of this computer has are numbers in the PNG figures; report.md explains them "
    "below each figure, and report.html shows the labels. A font such as Noto Sans CJK or Noto Emoji draws them."
)
MOST_CORRELATIONS, MOST_ALIGNMENTS = 12, 6
LIST_METRICS = {
    "coverage": "fraction of the catalogue that is in at least one list",
    "gini": "0: all items equally often in lists; 1: one item only",
    "popularity": "mean number of training users of a listed item",
    "novelty": "mean self-information of a listed item, in bits",
    "serendipity": "hits that popularity ranks lower",
    "diversity": "mean distance of categories within a list; 1: no two items share one",
    "calibration": "divergence of the list's categories from the user's; 0: same distribution",
}


def sections(data: ReportData, folder: Path) -> list[Section]:
    """Return the sections of the report that are not empty.

    Args:
        data: The contents of the report.
        folder: The run's folder, for the commands that use the best baseline.
    """
    made = [
        _verdict(data, folder),
        _comparison(data),
        chosen_section(data.recommender.model.choice),
        _repeats(data),
        _training(data),
        _heads(data),
        groups_section(data),
        _lists(data),
        _features(data),
        _embeddings(data),
        _examples(data),
        _findings(data),
    ]
    numbered = any(isinstance(block, Picture) and block.numbers for section in made for block in section.blocks)
    return [section for section in (*made, _method(data, numbered)) if section.blocks]


def _verdict(data: ReportData, folder: Path) -> Section:
    blocks: list[Block] = [Text(verdict(data), strong=True)]
    best = data.best_baseline
    if best is not None and not is_better(data.compared[best]):
        place = folder / "baselines" / best
        use = f"python inference.py --model_path {place} --data people.json"
        train = f"python train.py --config {place / 'config.json'} --data <data>"
        blocks.append(Text(f"To use {best}: `{use}`; to train it as any model: `{train}`."))
    recommender = data.recommender
    warnings = [note for note in recommender.notes if note.startswith("LEAK") or "future" in note or "unsure" in note]
    if recommender.config.evaluation.candidate_samples is not None:
        warnings.append(sampled(recommender.config.evaluation.candidate_samples))
    warnings += [
        f"{one.text} {one.advice}"
        for one in data.findings
        if one.level == "problem" or (one.kind == "repeats" and one.level == "warning")
    ]
    if warnings:
        blocks.append(Bullets([f"**Warning.** {line}" for line in dict.fromkeys(warnings)]))
    return Section("", blocks)


def _comparison(data: ReportData) -> Section:
    results = {data.model.name: data.model, **data.baselines}
    names = [data.model.name, *sorted(data.baselines, key=lambda name: -data.baselines[name].mean(data.metric))]
    k = data.metric.split("@")[1]
    metrics = [data.metric, *(f"{name}@{k}" for name in ACCURACY), "auc"]
    metrics = [name for name in dict.fromkeys(metrics) if name in data.model.by_user]
    rows = []
    for name in names:
        delta = data.compared.get(name)
        compared = ["", ""] if delta is None else [f"{delta.difference:+.4f}", numbers.p_value(delta.corrected)]
        cells = [f"{results[name].mean(metric):.4f}" for metric in metrics[1:]]
        rows.append([name, numbers.interval(data.intervals[name][data.metric]), *compared, *cells])
    header = ["", f"{data.metric} [95%]", "delta (model - baseline)", "p (Holm)", *metrics[1:]]
    spans = {name: data.intervals[name][data.metric] for name in names}
    blocks: list[Block] = [
        Table(header, rows, f"The model first, then the baselines, {_fitting(data)}.", marked=[0]),
        figures.bars(spans, data.model.name, data.metric),
    ]
    cutoffs = sorted({int(name.split("@")[1]) for name in data.model.by_user if name.startswith("ndcg@")})
    if len(cutoffs) > 1:
        table = [[f"@{k}", *(f"{data.model.mean(f'{name}@{k}'):.4f}" for name in ACCURACY)] for k in cutoffs]
        blocks.append(Table(["model", *ACCURACY], table, "The model at each cut-off."))
    options = [f"{name}: {tuned_options(data, name)}." for name in names if data.tuned.get(name)]
    texts = [*data.notes, *_inputs_at_test(data)]
    return Section("Comparison with baselines", [*blocks, *([Bullets(options)] if options else []), *map(Text, texts)])


def _fitting(data: ReportData) -> str:
    """Return how the baselines were fitted."""
    both = any(one.refitted for one in data.fitted.values())
    tuned = " with options chosen on the validation part" if data.tuned else ""
    return f"fitted on the training {'and validation parts' if both else 'part'}{tuned}"


def _inputs_at_test(data: ReportData) -> list[str]:
    """State how the model used the validation part, if the baselines were fitted on it and the model was not."""
    model = data.recommender.model
    if model.refitted or not any(one.refitted for one in data.fitted.values()):
        return []
    used = " and to read each user's history" if model.reads_history else ""
    return [
        f"The baselines were also fitted on the validation part, as simple models are in service. The model used that "
        f"part only to choose an epoch{used}. training.refit=true fits it on the validation part as well."
    ]


def _repeats(data: ReportData) -> Section:
    found = data.repeats
    if found is None:
        return Section("")
    rule = {
        "miss": "each such pair counts as a miss in every figure of this report",
        "drop": "such pairs are left out of every figure of this report",
        "include_seen": "the figures of this report are of lists that contain seen items",
    }[found.rule]
    blocks: list[Block] = [
        Text(
            f"{found.repeated:,} of the {found.pairs:,} held-out pairs ({found.share:.1%}) are items that the user had "
            f"before. Served lists leave out seen items; {rule} (evaluation.repeats={found.rule})."
        )
    ]
    header = ["", "without seen items: all pairs", "new pairs"]
    if found.with_seen:
        header += ["with seen items: all pairs", "new pairs", "repeated pairs"]
    rows = []
    for name, without in found.without_seen.items():
        cells = [without.all, without.new]
        if (with_seen := found.with_seen.get(name)) is not None:
            cells += [with_seen.all, with_seen.new, with_seen.repeated]
        rows.append([name, *("" if value is None else f"{value:.4f}" for value in cells)])
    blocks.append(Table(header, rows, f"{found.metric} of new and of repeated pairs.", marked=[0]))
    if found.material and found.rule != "include_seen":
        advice = (
            "If users take the same items again, lists without seen items cannot contain these items. To serve seen "
            "items: exclude_seen=False (--include-seen), measured with evaluation.repeats=include_seen."
        )
        blocks.append(Text(advice))
    return Section("Repeated items", blocks)


def _training(data: ReportData) -> Section:
    recommender, result = data.recommender, data.recommender.result
    blocks: list[Block] = []
    if result is not None and result.history:
        seconds = sum(entry["seconds"] for entry in result.history)
        text = f"{len(result.history)} epochs in {numbers.duration(seconds)}; the weights are those of epoch "
        blocks.append(Text(f"{text}{result.best_epoch}."))
        blocks.append(figures.curves(result.history, recommender.config.training.metric))
    blocks.append(figures.latency(data.milliseconds))
    return Section("Training and latency", [*blocks, Bullets(recommender.describe())])


def _heads(data: ReportData) -> Section:
    """Return a table of the heads' metrics; empty without heads."""
    names = list(dict.fromkeys(name for one in data.heads.values() for name in one if name not in ("target", "count")))
    rows = [
        [name, str(one["target"]), f"{one['count']:,}", *(_decimal(one.get(metric)) for metric in names)]
        for name, one in data.heads.items()
    ]
    if not rows:
        return Section("Heads", [])
    what = (
        "Predictions besides the match score, on the held-out positives that have the target. auc is the mean over the "
        "classes, each against the others."
    )
    return Section("Heads", [Text(what), Table(["head", "target", "interactions", *names], rows)])


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _lists(data: ReportData) -> Section:
    k = data.metric.split("@")[1]
    models = {data.model.name: data.model}
    for name in (data.best_baseline, "popularity"):
        if name is not None and name in data.baselines:
            models[name] = data.baselines[name]
    defined = data.model.means()
    rows = [
        [f"{name}@{k}", *(_mean(one, f"{name}@{k}") for one in models.values()), meaning]
        for name, meaning in LIST_METRICS.items()
        if f"{name}@{k}" in defined
    ]
    counts = data.catalogue.counts
    shown = {name: _times_shown(one, int(k), len(counts)) for name, one in models.items() if name != "popularity"}
    table = Table(["", *models, "definition"], rows, prose=True)
    return Section("Properties of the lists", [table, figures.exposure(counts, shown, int(k))])


def _features(data: ReportData) -> Section:
    blocks: list[Block] = []
    importance = data.feature_importance
    if importance:
        order = sorted(importance, key=lambda name: -importance[name].difference)
        rows = [
            [name, numbers.difference(importance[name]), numbers.p_value(importance[name].corrected)] for name in order
        ]
        blocks.append(figures.importance_bars(importance, data.metric))
        header = ["feature", f"{data.metric} lost without it [95%]", "p (Holm)"]
        blocks.append(Table(header, rows, "Each feature is masked for all users and items."))
    significant = [one for one in data.diagnostics.correlations if one.corrected < 0.05][:MOST_CORRELATIONS]
    if significant:
        rows = [[one.feature, f"{one.r:+.2f}", numbers.p_value(one.corrected), f"{one.n:,}"] for one in significant]
        caption = (
            "Features that correlate with the scores (Pearson r, Holm-corrected over all tests): of an item, with its "
            "mean score; of a user, with the popularity of the items in the user's list."
        )
        blocks.append(Table(["feature", "r", "p (Holm)", "records"], rows, caption))
    return Section("Feature importance", blocks)


def _embeddings(data: ReportData) -> Section:
    found = data.diagnostics
    if not found.embeddings:
        return Section("")
    lines = []
    for side, vectors in found.embeddings.items():
        length = norms(vectors)
        lines.append(
            f"Norms of {side} embeddings: mean {length['mean']:.2f}, 5% quantile {length['5%']:.2f}, 95% quantile "
            f"{length['95%']:.2f}."
        )
    if found.cohesion is not None:
        near, overall = found.cohesion
        category = (data.category or "").split(".", 1)[-1]
        lines.append(
            f"{near:.0%} of the {data.recommender.config.evaluation.diagnostics.neighbours} nearest neighbours of an "
            f"item share its {category}; {overall:.0%} of random pairs of items do."
        )
    lines += [
        f"Mean cosine of two embeddings with the same `{one.feature}`: {one.same:.2f}; of any two: {one.any:.2f}."
        for one in found.alignment[:MOST_ALIGNMENTS]
    ]
    return Section("Embeddings", [_map(data), Bullets(lines)])


def _map(data: ReportData) -> Picture:
    """Draw the item embeddings, coloured by the most frequent categories."""
    items = data.diagnostics.embeddings["item"]
    kinds, names = np.full(len(items.rows), "", object), []
    if data.category is not None:
        matrix, values = indicators(data.recommender.dataset, "item", data.category)
        names = values[: len(figures.KINDS)]
        for place in reversed(range(len(names))):  # an item with several categories has the most frequent one's colour
            kinds[matrix[items.rows][:, place].toarray().ravel() > 0] = names[place]
    return figures.embedding_map(items.vectors, list(kinds), names)


def _examples(data: ReportData) -> Section:
    blocks: list[Block] = [_traits(data)] if data.traits else []
    if data.examples:
        blocks.append(Gallery([_profile(one) for one in data.examples]))
    return Section("Example recommendations", blocks)


def _traits(data: ReportData) -> Table:
    """Return a table of the hit ratios of each trait, for histories and held-out items."""
    models = [data.model.name] + ([data.best_baseline] if data.best_baseline else [])
    rows = []
    for one in data.traits:
        ratios = zip(("history", "held-out"), (one.history, one.held_out), one.by_chance, strict=True)
        for kind, found, chance in ratios:
            cells = [numbers.interval(found.get(name), 3) for name in models]
            rows.append([f"{one.feature}, {kind}", *cells, "" if chance != chance else f"{chance:.3f}"])
    caption = (
        f"Hit ratios of traits: the fraction of a user's {data.metric.split('@')[1]} recommended items that share a "
        "value with an item of the history, and with a held-out item [95%]; and of items drawn at random."
    )
    return Table(["trait", *models, "random items"], rows, caption)


def _profile(one: Example) -> Profile:
    notes = [("Held-out items", "; ".join(one.held_out))]
    if one.ratios:
        shared = ", ".join(f"{name.split('.', 1)[-1]} {ratio:.0%}" for name, ratio in one.ratios.items())
        notes.append(("Recommended items that share a value with the history", f"{shared}."))
    lists = [
        ("History, latest first", [_card(item) for item in one.history]),
        ("Recommended", [_card(item) for item in one.recommended]),
    ]
    return Profile(one.user, lists, notes)


def _card(item: Item) -> Card:
    return Card(item.title, item.about, item.picture, ["hit"] if item.hit else [], marked=item.hit)


def _findings(data: ReportData) -> Section:
    lines = [f"**{LEVELS[one.level]}.** {one.text} {one.advice}" for one in data.findings]
    lines += [f"**Note.** {note}" for note in data.recommender.notes if not note.startswith("LEAK")]
    return Section("Data checks", [Bullets(lines)] if lines else [])


def _method(data: ReportData, numbered: bool) -> Section:
    """Return how the report was made. numbered: Whether a figure has labels that no installed font has."""
    config, ranking = data.recommender.config, data.model.ranking
    split = data.recommender.model.required_learning().split
    among = "all items" if config.evaluation.candidates == "all" else "all items that occur in an interaction"
    if config.evaluation.candidate_samples is not None:
        among = f"{config.evaluation.candidate_samples:,} random items (sampled: not comparable)"
    earlier = "training and validation" if data.part == "test" else "training"
    without = f" except the user's items in {earlier}" if config.evaluation.repeats != "include_seen" else ""
    lines = [
        f"Split `{split.name}`: {len(split.train):,} interactions to train, {len(split.validation):,} to validate, "
        f"{len(split.test):,} to test; saved as split.parquet and used by every model in this report.",
        f"Each held-out item was ranked among {among}{without}; an equal score counts half a place.",
        "Intervals and p are computed from 2,000 paired bootstrap samples of users; p is corrected by Holm over the "
        "baselines (or features).",
        f"{len(ranking.targets):,} held-out items of {len(ranking.users):,} users; seed {config.seed}.",
        "Seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in data.seconds.items()) + ".",
    ]
    return Section("Method", [Bullets([*lines, NUMBERED] if numbered else lines)])


def _times_shown(one: EvaluationResult, k: int, items: int) -> np.ndarray:
    """Return (items,) number of lists that each item is in."""
    lists = one.ranking.lists[:, :k]
    return np.bincount(lists[lists >= 0], minlength=items)


def _mean(one: EvaluationResult, metric: str) -> str:
    return f"{one.mean(metric):.3f}" if metric in one.by_user or metric in one.overall else ""
