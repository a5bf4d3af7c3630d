"""The report's sections: a study put in words, tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anyrec.data.item_facts import indicators
from anyrec.evaluation import sampled
from anyrec.evaluation.measure import EvaluationResult
from anyrec.evaluation.statistics import Comparison, Interval
from anyrec.report import figures
from anyrec.report.diagnostics import norms
from anyrec.report.page import Block, Bullets, Gallery, Section, Table, Text

if TYPE_CHECKING:
    from anyrec.report.study import Study

LEVELS = {"problem": "Problem", "warning": "Warning", "note": "Note"}
CORRELATIONS, SLICE_FIGURES = 12, 3
FEW = 20
"""Users below which a difference from popularity that is not significant says nothing about the model."""


def sections(study: Study, folder: Path) -> list[Section]:
    made = [
        _verdict(study, folder),
        _comparison(study),
        _repeats(study),
        _training(study),
        _slices(study),
        _lists(study),
        _features(study),
        _vectors(study),
        _examples(study),
        _data(study),
        _method(study),
    ]
    return [section for section in made if section.blocks]


def verdict(study: Study) -> str:
    """The first paragraph: how good, against what, and whether it is worth using. A baseline that is better comes first."""
    mine = study.intervals[study.model.name][study.metric]
    users = f"{mine.users:,} user{'s' if mine.users != 1 else ''}"
    told = f"On held-out interactions of {users} the model reaches {study.metric} {_span(mine)}."
    best, popular = study.best_baseline, study.compared.get("popularity")
    if best is None:
        return f"{told} No baseline was measured, so there is nothing to say whether that is good."
    better = [name for name, gap in study.compared.items() if gap.significant and gap.difference < 0]
    name = max(better, key=lambda one: study.baselines[one].mean(study.metric)) if better else best
    gap = study.compared[name]
    called = f"the best baseline, {name}," if name == best else name
    reaches = f"{called} reaches {study.baselines[name].mean(study.metric):.4f}"
    if better:
        told += f" **A baseline is better: {reaches}** ({_gap(gap)})."
    elif _better(gap):
        return f"{told} That is better than every baseline: {reaches} ({_gap(gap)})."
    elif name != "popularity":
        told += f" **A baseline is as good: {reaches}**, and the difference could be chance ({_gap(gap)})."
    if popular is None or _better(popular):
        return told
    value = study.baselines["popularity"].mean(study.metric)
    figure = "" if better and name == "popularity" else f", which reaches {value:.4f} ({_gap(popular)})"
    if mine.users < FEW:
        return f"{told} **That is too few users to tell the model from popularity**{figure}."
    return (
        f"{told} **The model learned nothing about who likes what, as far as {users} can tell: it is no better than "
        f"showing everybody the same popular items**{figure}."
    )


def _verdict(study: Study, folder: Path) -> Section:
    blocks: list[Block] = [Text(verdict(study), strong=True)]
    best = study.best_baseline
    if best is not None and not _better(study.compared[best]):
        place = folder / "baselines" / best
        use = f"python inference.py --model_path {place} --data people.json"
        train = f"python train.py --config {place / 'config.json'} --data <data>"
        blocks.append(Text(f"To use {best}: `{use}`; to train it as any model: `{train}`."))
    recommender = study.recommender
    warnings = [note for note in recommender.notes if note.startswith("LEAK") or "future" in note or "unsure" in note]
    if recommender.config.evaluation.candidate_samples is not None:
        warnings.append(sampled(recommender.config.evaluation.candidate_samples))
    warnings += [
        f"{one.text} {one.advice}"
        for one in study.findings
        if one.level == "problem" or (one.kind == "repeats" and one.level == "warning")
    ]
    if warnings:
        blocks.append(Bullets([f"**Beware.** {line}" for line in dict.fromkeys(warnings)]))
    return Section("", blocks)


def _comparison(study: Study) -> Section:
    names = [study.model.name, *sorted(study.baselines, key=lambda name: -study.baselines[name].mean(study.metric))]
    k = study.metric.split("@")[1]
    metrics = [study.metric] + [f"{name}@{k}" for name in ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")]
    metrics = [name for name in dict.fromkeys([*metrics, "auc"]) if name in study.model.by_user]
    rows = []
    for name in names:
        one = study.model if name == study.model.name else study.baselines[name]
        cells = [f"{one.mean(metric):.4f}" for metric in metrics[1:]]
        gap = study.compared.get(name)
        against = ["", ""] if gap is None else [_signed(gap.difference), _p(gap.corrected)]
        rows.append([name, _span(study.intervals[name][study.metric]), *against, *cells])
    header = ["", f"{study.metric} [95%]", "model less it", "p (Holm)", *metrics[1:]]
    spans = {name: study.intervals[name][study.metric] for name in names}
    blocks: list[Block] = [
        Table(header, rows, "The model first, then the baselines, fitted on the same split.", marked=[0]),
        figures.bars(spans, study.model.name, study.metric, None),
    ]
    others = sorted({int(name.split("@")[1]) for name in study.model.by_user if name.startswith("ndcg@")})
    if len(others) > 1:
        table = [[f"@{k}", *(f"{study.model.mean(f'{name}@{k}'):.4f}" for name in _ACCURACY)] for k in others]
        blocks.append(Table(["model", *_ACCURACY], table, "The model at every cut-off."))
    notes = [*study.notes, *_information(study)]
    return Section("Against the baselines", [*blocks, *[Text(note) for note in notes]])


def _information(study: Study) -> list[str]:
    """Which models read the validation interactions at test time, and which know the training interactions alone."""
    model = study.recommender.model
    if study.part != "test" or model.refitted or not len(model.required_learning().split.validation):
        return []
    models = {study.model.name: model, **study.fitted}
    reading = [name for name, one in models.items() if one.reads_history]
    others = [name for name in models if name not in reading]
    if not reading or not others:
        return []
    return [
        f"At test time {', '.join(reading)} also read what each user did in the validation part, as they would in service. "
        f"{', '.join(others)} cannot: they know the training interactions alone, which puts them at a disadvantage."
    ]


_ACCURACY = ("ndcg", "recall", "precision", "hit_rate", "map", "mrr")


def _repeats(study: Study) -> Section:
    """Metrics over items that users had before and over the others, apart."""
    found = study.repeats
    if found is None:
        return Section("")
    rule = {
        "miss": "each such pair counts as a miss in every figure of this report",
        "drop": "such pairs are left out of every figure of this report",
        "include_seen": "the figures of this report are of lists that contain seen items",
    }[found.rule]
    blocks: list[Block] = [
        Text(
            f"{found.repeated:,} of the {found.pairs:,} held-out pairs ({found.share:.1%}) are items that the user had before. "
            f"Served lists leave out seen items; {rule} (evaluation.repeats={found.rule})."
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
            "Where users take the same items again, lists without seen items cannot show what many of them take next. To serve "
            "seen items: exclude_seen=False (--include-seen), measured with evaluation.repeats=include_seen."
        )
        blocks.append(Text(advice))
    return Section("Items that users had before", blocks)


def _training(study: Study) -> Section:
    recommender = study.recommender
    history = recommender.result.history if recommender.result else []
    blocks: list[Block] = []
    if history:
        seconds = sum(entry["seconds"] for entry in history)
        best = recommender.result.best_epoch if recommender.result else len(history)
        blocks.append(Text(f"{len(history)} epochs in {_time(seconds)}; the weights are those of epoch {best}."))
        blocks.append(figures.curves(history, recommender.config.training.metric))
    blocks.append(figures.latency(study.milliseconds))
    return Section("Training and answering", [*blocks, Bullets(recommender.describe())])


def _slices(study: Study) -> Section:
    blocks: list[Block] = []
    names = [study.model.name] + ([study.best_baseline] if study.best_baseline else [])
    kinds = list(dict.fromkeys(one.kind for one in study.slices))
    for place, kind in enumerate(kinds):
        chosen = [one for one in study.slices if one.kind == kind]
        if len(chosen) < 2 and "interactions" not in kind:
            continue
        rows = [
            [one.name, f"{one.users:,}", f"{one.targets:,}", *(_span(one.figures.get(name), 3) for name in names)]
            for one in chosen
        ]
        if place < SLICE_FIGURES and len(chosen) > 1:
            values = {name: [one.figures.get(name) for one in chosen] for name in names}
            labels, counts = [one.name for one in chosen], [one.users for one in chosen]
            blocks.append(figures.slice_bars(kind, labels, values, counts, study.metric, f"slice_{place}"))
        header = ["", "users", "held out", *names]
        blocks.append(Table(header, rows, f"{study.metric} of {kind} [95%]"))
    pictures = [block for block in blocks if isinstance(block, figures.Picture)]
    tables = [block for block in blocks if not isinstance(block, figures.Picture)]
    return Section("Who is served well", [*pictures, *tables])


def _lists(study: Study) -> Section:
    k = study.metric.split("@")[1]
    told = {
        "coverage": "share of the catalogue that is shown to anybody",
        "gini": "0: all items shown alike; 1: one item only",
        "popularity": "mean number of users who had an item shown",
        "novelty": "bits of surprise in an item shown",
        "serendipity": "hits that popularity would not have shown",
        "diversity": "difference in kind within a list; 1 is none alike",
        "calibration": "divergence of the list's mix of kinds from the user's; 0 is the same",
    }
    models = {study.model.name: study.model} | (
        {study.best_baseline: study.baselines[study.best_baseline]} if study.best_baseline else {}
    )
    if "popularity" in study.baselines:
        models["popularity"] = study.baselines["popularity"]
    names = [name for name in told if f"{name}@{k}" in study.model.means()]
    rows = [[f"{name}@{k}", *(_figure(one, f"{name}@{k}") for one in models.values()), told[name]] for name in names]
    counts = study.catalogue.counts
    shown = {name: _shown(one, int(k), len(counts)) for name, one in models.items() if name != "popularity"}
    return Section(
        "What the lists are like",
        [Table(["", *models, "what it is"], rows, prose=True), figures.exposure(counts, shown, int(k))],
    )


def _features(study: Study) -> Section:
    blocks: list[Block] = []
    if study.worth:
        order = sorted(study.worth, key=lambda name: -study.worth[name].difference)
        rows = [
            [name, f"{_signed(one.difference)} [{one.low:+.4f}, {one.high:+.4f}]", _p(one.corrected)]
            for name, one in ((name, study.worth[name]) for name in order)
        ]
        blocks.append(figures.worth_bars(study.worth, study.metric))
        blocks.append(
            Table(["feature", f"{study.metric} lost without it [95%]", "p (Holm)"], rows, "Each feature, masked.")
        )
    strong = [one for one in study.correlations if one.corrected < 0.05][:CORRELATIONS]
    if strong:
        rows = [[one.feature, f"{one.r:+.2f}", _p(one.corrected), f"{one.n:,}"] for one in strong]
        caption = (
            "Features that go with the scores (Pearson r, corrected for all that were tried): an item's with its mean score, "
            "a user's with how popular the items in their list are."
        )
        blocks.append(Table(["feature", "r", "p (Holm)", "records"], rows, caption))
    return Section("What each feature is worth", blocks)


def _vectors(study: Study) -> Section:
    if not study.embeddings:
        return Section("")
    recommender, blocks = study.recommender, []
    for side, found in study.embeddings.items():
        length = norms(found)
        blocks.append(
            f"Length of {side} vectors: {length['mean']:.2f} on average, {length['5%']:.2f} to {length['95%']:.2f} for nine in ten."
        )
    if study.cohesion is not None:
        near, anyone = study.cohesion
        blocks.append(
            f"Of an item's ten nearest neighbours {near:.0%} share its {_plain(study.category)}; of items taken at random {anyone:.0%}."
        )
    for one in study.alignment[:6]:
        blocks.append(f"Cosine of two that share `{one.feature}`: {one.same:.2f}; of any two: {one.any:.2f}.")
    items = study.embeddings["item"]
    kinds, names = np.full(len(items.rows), "", object), []
    if study.category is not None:
        matrix, values = indicators(recommender.dataset, "item", study.category)
        names = values[: len(figures.KINDS)]
        for place in reversed(range(len(names))):  # an item of several kinds takes the commonest colour
            kinds[matrix[items.rows][:, place].toarray().ravel() > 0] = names[place]
    return Section(
        "What the model has learned", [figures.embedding_map(items.vectors, list(kinds), names), Bullets(blocks)]
    )


def _examples(study: Study) -> Section:
    if not study.examples:
        return Section("")
    return Section("What people would see", [Gallery(study.examples)])


def _data(study: Study) -> Section:
    lines = [f"**{LEVELS[one.level]}.** {one.text} {one.advice}" for one in study.findings]
    lines += [f"**Note.** {note}" for note in study.recommender.notes if not note.startswith("LEAK")]
    return Section("The data", [Bullets(lines)] if lines else [])


def _method(study: Study) -> Section:
    config = study.recommender.config
    split = study.recommender.model.required_learning().split
    among = "all items" if config.evaluation.candidates == "all" else "all items that occur in an interaction"
    among = (
        among
        if config.evaluation.candidate_samples is None
        else f"{config.evaluation.candidate_samples:,} random items (sampled: not comparable)"
    )
    known = "training and validation" if study.part == "test" else "training"
    lines = [
        f"Split `{split.name}`: {len(split.train):,} interactions to train, {len(split.validation):,} to validate, "
        f"{len(split.test):,} to test; saved as split.parquet, and followed by every model here.",
        f"Each held-out item was ranked among {among}"
        + (f" without what the same user had in {known}" if config.evaluation.repeats != "include_seen" else "")
        + "; an equal score counts half a place.",
        "Intervals and p are of paired bootstrap samples of users (2,000 at least); p is corrected by Holm over the baselines "
        "(or features).",
        f"{len(study.model.ranking.targets):,} held-out items of {len(study.model.ranking.users):,} users; seed {config.seed}.",
        "Seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in study.seconds.items()) + ".",
    ]
    return Section("How it was measured", [Bullets(lines)])


def _shown(one: EvaluationResult, k: int, items: int) -> np.ndarray:
    lists = one.ranking.lists[:, :k]
    return np.bincount(lists[lists >= 0], minlength=items)


def _figure(one: EvaluationResult, metric: str) -> str:
    return f"{one.mean(metric):.3f}" if metric in one.by_user or metric in one.overall else ""


def _better(gap: Comparison) -> bool:
    return gap.significant and gap.difference > 0


def _span(one: Interval | None, digits: int = 4) -> str:
    return "" if one is None else f"{one.mean:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"


def _gap(gap: Comparison) -> str:
    return f"difference {_signed(gap.difference)}, 95% interval {gap.low:+.4f} to {gap.high:+.4f}, {_p(gap.corrected, True)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _p(value: float, named: bool = False) -> str:
    told = f"{value:.3f}" if value >= 0.001 else "< 0.001"
    return told if not named else f"p = {told}" if value >= 0.001 else f"p {told}"


def _plain(name: str | None) -> str:
    return (name or "").split(".", 1)[-1]


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
