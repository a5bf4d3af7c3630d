"""`make demo`: multi-modal data with planted tastes, a model, and recommendations for people never seen, explained."""

from __future__ import annotations

import base64
import html
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from anyrec.cli.run import report_run
from anyrec.core.config import Config
from anyrec.core.files import atomic_write
from anyrec.core.outputs import check_output
from anyrec.data.synthetic.generate import Synthetic, generate
from anyrec.data.synthetic.world import trait_name
from anyrec.recommender import Recommender
from anyrec.storage.model_directory import check_model_output

CONFIG: dict[str, Any] = {
    "name": "demo",
    "defaults": "fixed",
    "dim": 64,
    "id_dropout": 0.5,
    "split": {"protocol": "cold_users"},
    "loss": {"type": "full_softmax"},
    "training": {"epochs": 15, "batch_size": 512, "optimizer": {"learning_rate": 0.003}, "patience": 4},
}
SHOWN, K = 8, 5


def run_demo(folder: Path, console: Console) -> None:
    """Make data, train, recommend; write `report.html` and `report.md` into `folder`."""
    started = time.perf_counter()
    check_output(folder, "inside")
    check_model_output(folder / "model")
    world = generate(users=1000, items=120, interactions=16_000, seed=0, noise=0.1, root=folder)
    world.write(folder / "data.json")
    console.print(
        f"{len(world.dataset.users):,} people, {len(world.dataset.items):,} items with two pictures each, "
        f"{len(world.dataset.interactions):,} interactions, a tenth of them random -> {folder / 'data.json'}"
    )

    def report(entry: dict[str, Any]) -> None:
        console.print(
            f"epoch {entry['epoch']:>2}   loss {entry['loss']:.3f}   validation ndcg@10 {entry['validation']['ndcg@10']:.3f}"
        )

    recommender = Recommender.from_config(Config.model_validate(CONFIG)).fit(world.dataset, report=report)
    recommender.save(folder / "model")
    newcomers, truth, people = world.new_users(200, seed=1)
    lists = recommender.recommend(newcomers, K)
    rows = _explained(world, newcomers.users, people, truth, lists)
    console.print(_table(rows[:SHOWN]))
    scores = _scores(world, lists, truth)
    for line in _summary(scores):
        console.print(line)
    _write_report(folder, rows[:SHOWN], scores, recommender)
    report_run(recommender, folder / "measured", console)
    console.print(f"report: {folder / 'report.html'}   ({time.perf_counter() - started:.0f} s in all)")


def planted_ndcg(chosen: np.ndarray, truth: np.ndarray) -> float:
    """chosen: (people, k) item rows, best first; truth: (people, items) affinity, which is the gain. Ideal: the k best."""
    discount = 1 / np.log2(np.arange(2, chosen.shape[1] + 2))
    gained = (np.take_along_axis(truth, chosen, 1) * discount).sum(1)
    best = (-np.sort(-truth, axis=1)[:, : chosen.shape[1]] * discount).sum(1)
    return float((gained / np.maximum(best, 1e-9)).mean())


def _scores(world: Synthetic, lists: pa.Table, truth: np.ndarray) -> dict[str, float]:
    items = len(world.dataset.items)
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    chosen = np.array([place[name] for name in lists["item_id"].to_pylist()]).reshape(len(truth), -1)
    counts = np.bincount(world.dataset.item_rows, minlength=items)
    popular = np.tile(np.argsort(-counts, kind="stable")[:K], (len(truth), 1))
    random = np.random.default_rng(0).random(truth.shape).argsort(1)[:, :K]
    return {
        "this model": planted_ndcg(chosen, truth),
        "popularity": planted_ndcg(popular, truth),
        "chance": planted_ndcg(random, truth),
    }


def _summary(scores: dict[str, float]) -> list[str]:
    told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    return [f"Against the planted truth, for 200 people never seen in training (ndcg@{K}, 1 is perfect): {told}."]


def _explained(
    world: Synthetic, users: pa.Table, people: dict[str, np.ndarray], truth: np.ndarray, lists: pa.Table
) -> list[dict[str, Any]]:
    """Who each person is, what they got, and which of their planted tastes each item meets."""
    place = {name: row for row, name in enumerate(world.dataset.items["item_id"].to_pylist())}
    titles = world.dataset.items["text.title"].to_pylist()
    found = []
    got: dict[str, list[dict[str, Any]]] = {}
    for row in lists.to_pylist():
        got.setdefault(row["user_id"], []).append(row)
    for number, person in enumerate(users.to_pylist()):
        wants = {trait: trait_name(trait, people[trait][number]) for trait in ("category", "weather", "style", "theme")}
        items = []
        for row in got[person["user_id"]]:
            item = place[row["item_id"]]
            met = [
                value for trait, value in wants.items() if trait_name(trait, world.world.traits[trait][item]) == value
            ]
            items.append(
                {
                    "title": titles[item] or row["item_id"],
                    "number": item,
                    "met": met,
                    "affinity": float(truth[number, item]),
                }
            )
        who = f"{person['categorical.occupation']}, {person['continuous.age']:.0f}, {person['categorical.location']}"
        found.append(
            {"who": who, "bio": person["text.bio"], "wants": wants, "items": items, "best": float(truth[number].max())}
        )
    return found


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "who, never seen before",
        "gets",
        "because it meets (planted tastes)",
        "of the best possible",
        header_style="bold",
    )
    for row in rows:
        wants = ", ".join(row["wants"].values())
        for rank, item in enumerate(row["items"][:3]):
            first = f"{row['who']}\n  likes {wants}" if rank == 0 else ""
            table.add_row(
                first, item["title"], " + ".join(item["met"]) or "-", f"{item['affinity']:.1f} / {row['best']:.1f}"
            )
        table.add_section()
    return table


def _write_report(folder: Path, rows: list[dict[str, Any]], scores: dict[str, float], recommender: Recommender) -> None:
    lines = ["# The demo", "", *_summary(scores), ""]
    body = []
    for row in rows:
        wants = ", ".join(row["wants"].values())
        lines += [
            f"**{row['who']}** (likes {wants}): "
            + "; ".join(f"{i['title']} ({' + '.join(i['met']) or 'nothing planted'})" for i in row["items"]),
            "",
        ]
        cards = "".join(_card(folder, item) for item in row["items"])
        told = html.escape(f"{row['who']}. {row['bio'] or ''}")
        body.append(
            f'<section><p><b>{told}</b><br>planted tastes: {html.escape(wants)}</p><div class="cards">{cards}</div></section>'
        )
    metrics = recommender.metrics.get("test", {})
    told = f"On the interactions of people held out, a tenth of them random: ndcg@10 {metrics.get('ndcg@10', 0):.3f}, recall@10 {metrics.get('recall@10', 0):.3f}."
    lines.append(told)
    with atomic_write(folder / "report.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    bars = "".join(
        f'<tr><td>{name}</td><td><i style="width:{value * 12:.1f}em"></i></td><td>{value:.3f}</td></tr>'
        for name, value in scores.items()
    )
    page = PAGE.format(summary=html.escape(_summary(scores)[0]), bars=bars, body="".join(body), told=html.escape(told))
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _card(folder: Path, item: dict[str, Any]) -> str:
    picture = base64.b64encode((folder / "images" / f"{item['number']}_front.png").read_bytes()).decode()
    met = "".join(f"<span>{html.escape(name)}</span>" for name in item["met"]) or "<em>none planted</em>"
    return f'<figure><img alt="" src="data:image/png;base64,{picture}"><figcaption>{html.escape(item["title"])}<br>{met}</figcaption></figure>'


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>anyrec demo</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --mark: #2f7d5b; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ margin-bottom: 0; }}
section {{ border-top: 1px solid var(--line); }}
.cards {{ display: flex; flex-wrap: wrap; gap: .75rem; margin-bottom: 1rem; }}
figure {{ margin: 0; width: 9rem; }}
img {{ width: 9rem; height: 9rem; border-radius: .5rem; image-rendering: pixelated; border: 1px solid var(--line); }}
figcaption {{ font-size: .85rem; }}
span {{ background: var(--mark); color: #fff; border-radius: .6rem; padding: 0 .45rem; margin: 0 .2rem .2rem 0; display: inline-block; }}
td i {{ display: block; height: .8rem; background: var(--mark); border-radius: .2rem; }}
</style></head><body>
<h1>People never seen in training</h1>
<p>{summary}</p><table>{bars}</table>
<p>Under each picture stand the person's planted tastes that the item meets: category by occupation, weather by home,
style (visible only in the picture) by age, theme (only in the item's description) by the words of the bio.</p>
{body}<p>{told}</p></body></html>
"""
