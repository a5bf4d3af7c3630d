"""Items and users never trained on: the two protocols, and peers on the same cases in one run.

    HF_HUB_OFFLINE=1 python benchmarks/cold.py --protocol cold-items|cold-users --data ml-1m|ml-100k [--seed 0]
        [--only content-knn,lightfm] [--peers PYTHON]

Prints, for each peer, the settings chosen on the validation fold, and ndcg@10 and recall@10 on both. `--peers` names an interpreter
with LightFM (`pip install rectools-lightfm 'numpy<2'`) and writes its figures to cold_peers.json; without it those recorded there are
printed. `PEERS` is where to add a model: a function of the data, the case, the seed and its settings that gives a scorer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from p1 import minilm, read_source
from scipy import sparse

from anyrec.core.contracts import TrainingMatrix
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.ids import Side, rows_of
from anyrec.data.list_columns import flat
from anyrec.data.order import time_order
from anyrec.recommender import Recommender

HERE = Path(__file__).parent
DATA = Path(os.environ.get("ANYREC_DATA", HERE / "../../shared/data"))
CONFIGS = HERE.parent / "configs"
RECORDED = HERE / "cold_peers.json"
SHARE, FIRST, K = 0.1, 5, 10
GIVEN = "given"
LOWEST = float(np.finfo(np.float32).min)
Fold = Literal["validation", "test"]
Scorer = Callable[[np.ndarray], Any]
"""Cases (batch,), as places in `ColdCase.users`, to their scores (batch, candidates)."""


@dataclass(frozen=True)
class ColdCase:
    """What may be trained on, and for each test user what is given, what comes next and what it is ranked among.

    train: (rows,) int64 rows of `dataset.interactions`, ascending. users, targets: (cases,) rows of users and of items.
    given: item rows, case i's in time order at `given[offsets[i]:offsets[i + 1]]`; offsets: (cases + 1,).
    candidates: (candidates,) item rows, ascending; those given to a case are not ranked in it.
    """

    train: np.ndarray
    users: np.ndarray
    given: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    candidates: np.ndarray


def cold_items(dataset: Dataset, seed: int, fold: Fold) -> ColdCase:
    """A tenth of the items that occur is in no training and no history.

    A user's target is their latest interaction with one of them, given what came before it, perhaps nothing; it is ranked among
    all of that tenth. Validation has a further tenth of its own, and the test's is out of its training and histories too.
    """
    cold, absent = _draw(dataset, "item", seed, fold)
    order = time_order(dataset)
    users, items = dataset.user_rows[order], dataset.item_rows[order]
    targets = np.flatnonzero(cold[items])
    targets = targets[np.append(users[targets][1:] != users[targets][:-1], True)] if len(targets) else targets
    latest = np.full(len(dataset.users), -1)
    latest[users[targets]] = targets
    given = ~absent[items] & (np.arange(len(items)) < latest[users])
    train = np.flatnonzero(~absent[dataset.item_rows])
    return _case(train, users, items, given, targets, np.flatnonzero(cold))


def cold_users(dataset: Dataset, seed: int, fold: Fold) -> ColdCase:
    """A tenth of the users is in no training.

    Each is given the first five of their items; the next is ranked among all items that occur, but the five. Those with no more
    than five are left out. Validation has a further tenth of its own, and the test's is out of its training too.
    """
    cold, absent = _draw(dataset, "user", seed, fold)
    order = time_order(dataset)
    users, items = dataset.user_rows[order], dataset.item_rows[order]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    targets = np.flatnonzero(cold[users] & (place == FIRST))
    known = np.isin(users, users[targets])
    train = np.flatnonzero(~absent[dataset.user_rows])
    return _case(train, users, items, known & (place < FIRST), targets, np.unique(items))


def score(case: ColdCase, scores_of: Scorer, k: int = K, batch_size: int = 256) -> dict[str, np.ndarray]:
    """{"rank", "ndcg@k", "recall@k"}, each (cases,).

    The rank is 1 + the candidates that score more + half of the others that score the same; what is given is no candidate, unless
    it is the target. A score that is not a number is the lowest.
    """
    ranks = np.empty(len(case.users))
    for batch, scores, target in _blocks(case, scores_of, batch_size):
        ranks[batch] = 1 + (scores > target).sum(1) + ((scores == target).sum(1) - 1) / 2
    hit = ranks <= k
    return {"rank": ranks, f"ndcg@{k}": np.where(hit, 1 / np.log2(ranks + 1), 0.0), f"recall@{k}": hit.astype(float)}


def best_items(case: ColdCase, scores_of: Scorer, length: int, batch_size: int = 256) -> np.ndarray:
    """(cases, length) item rows, best first, -1 past the end; equal scores by row. Of no case's given items but its target."""
    lists = np.full((len(case.users), min(length, len(case.candidates))), -1)
    for batch, scores, _ in _blocks(case, scores_of, batch_size):
        order = np.argsort(-scores, 1, kind="stable")[:, :length]
        shown = np.take_along_axis(scores, order, 1) > -np.inf
        lists[batch] = np.where(shown, case.candidates[order], -1)
    return lists


def _blocks(case: ColdCase, scores_of: Scorer, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cases (batch,), their scores (batch, candidates), what was given at -inf, and the target's (batch, 1)."""
    columns = np.full(1 + max(case.candidates.max(initial=0), case.given.max(initial=0)), -1)
    columns[case.candidates] = np.arange(len(case.candidates))
    owners = np.repeat(np.arange(len(case.users)), np.diff(case.offsets))
    for start in range(0, len(case.users), batch_size):
        batch = np.arange(start, min(start + batch_size, len(case.users)))
        scores = np.nan_to_num(np.array(scores_of(batch), np.float32), nan=LOWEST, neginf=LOWEST)
        target = scores[batch - start, columns[case.targets[batch]]].copy()
        here = slice(case.offsets[batch[0]], case.offsets[batch[-1] + 1])
        given = columns[case.given[here]]
        scores[owners[here][given >= 0] - start, given[given >= 0]] = -np.inf
        scores[batch - start, columns[case.targets[batch]]] = target
        yield batch, scores, target[:, None]


PROTOCOLS: dict[str, Callable[[Dataset, int, Fold], ColdCase]] = {"cold-items": cold_items, "cold-users": cold_users}


def _draw(dataset: Dataset, side: Side, seed: int, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) bool twice: the fold's tenth of those that occur; all that its training must not have. Drawn in the order of ids."""
    rows = dataset.user_rows if side == "user" else dataset.item_rows
    order = pc.sort_indices(dataset.ids(side)).to_numpy()
    known = order[np.isin(order, rows)]
    shuffled = known[np.random.default_rng(seed).permutation(len(known))]
    size = round(len(known) * SHARE)
    test, validation = np.zeros((2, len(order)), bool)
    test[shuffled[:size]] = True
    validation[shuffled[size : 2 * size]] = True
    return (test, test) if fold == "test" else (validation, test | validation)


def _case(
    train: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    given: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray,
) -> ColdCase:
    """users, items: (interactions,) in order of user and time; given: a mask of them; targets: places in them, one a user."""
    owners = users[given]
    ends = np.searchsorted(owners, users[targets], side="right")
    offsets = np.append(0, ends).astype(np.int64)
    return ColdCase(train, users[targets], items[given], offsets, items[targets], candidates)


def given_matrix(case: ColdCase, num_items: int, last: int | None = None) -> sparse.csr_matrix:
    """(cases, items) float32: 1 for each item given, or for the last of them."""
    lengths = np.diff(case.offsets)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    keep = np.ones(len(owners), bool) if last is None else case.offsets[1:][owners] - np.arange(len(owners)) <= last
    ones = np.ones(keep.sum(), np.float32)
    matrix = sparse.csr_matrix((ones, (owners[keep], case.given[keep])), shape=(len(lengths), num_items))
    matrix.data[:] = 1  # repeats
    return matrix


def content_knn(dataset: Dataset, case: ColdCase, seed: int, last: int | None = None) -> Scorer:
    """Cosine of a candidate's MiniLM vector to the mean of those of the items given, or of the last few."""
    vectors = content_vectors(dataset)
    profiles = given_matrix(case, len(vectors), last) @ vectors
    return lambda batch: profiles[batch] @ vectors[case.candidates].T


def content_vectors(dataset: Dataset) -> np.ndarray:
    """(items, 384) unit MiniLM vectors of title, genres and plot; kept in the folder for temporary files."""
    texts = _texts(dataset)
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"anyrec-cold-{name}.npy"
    if not kept.exists():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(minilm(), device="cpu")
        np.save(kept, model.encode(texts, batch_size=8, normalize_embeddings=True, show_progress_bar=False))
    return np.load(kept)


def _texts(dataset: Dataset) -> list[str]:
    names = set(dataset.items.column_names)
    parts = []
    for name in ("text.title", "categorical.genres", "text.plot"):
        if name in names:
            column = dataset.items.column(name).combine_chunks()
            column = pc.binary_join(column, ", ") if pa.types.is_list(column.type) else column
            parts.append(pc.fill_null(column, ""))
    return pc.binary_join_element_wise(*parts, ". ").to_pylist()


def popular(dataset: Dataset, case: ColdCase, seed: int) -> Scorer:
    counts = np.bincount(dataset.item_rows[case.train], minlength=len(dataset.items))[case.candidates]
    return lambda batch: np.tile(counts, (len(batch), 1))


def classical(name: str, dataset: Dataset, case: ColdCase, seed: int, **options: Any) -> Scorer:
    """A classical model of anyrec fitted on the training rows, given each case's items as the user's own."""
    component: Any = discover().get("classical", name)
    model = component(component.Params(**options))
    keys = np.unique(dataset.user_rows[case.train] * len(dataset.items) + dataset.item_rows[case.train])
    users, items = keys // len(dataset.items), keys % len(dataset.items)
    shape = (len(dataset.users), len(dataset.items))
    matrix = sparse.csr_matrix((np.ones(len(keys), np.float32), (users, items)), shape=shape)
    model.fit(TrainingMatrix(matrix, users, items, None, dataset.items, seed))
    given = given_matrix(case, len(dataset.items))
    return lambda batch: model.score(case.users[batch], given[batch])[:, case.candidates]


def lightfm(python: str, dataset: Dataset, case: ColdCase, seed: int, **options: Any) -> Scorer:
    """LightFM's WARP with metadata, in another interpreter: users by their ids, cold items by their metadata alone."""
    metadata = _metadata(dataset)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            f"{folder}/case.npz",
            users=dataset.user_rows[case.train],
            items=dataset.item_rows[case.train],
            shape=np.array([len(dataset.users), len(dataset.items)]),
            feature_items=metadata[0],
            features=metadata[1],
            cases=case.users,
            candidates=case.candidates,
        )
        command = [python, str(HERE / "peers_cold.py"), folder, json.dumps({"seed": seed, **options})]
        subprocess.run(command, check=True)
        scores = np.load(f"{folder}/scores.npy")
    return lambda batch: scores[batch]


def _metadata(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(pairs,) item rows and the numbers of their features: every value of a categorical feature, and the year."""
    owners, features, count = [], [], 0
    for name in dataset.features("item"):
        if name.split(".")[0] == "categorical" or name == "continuous.year":
            values, rows = flat(dataset.items.column(name).combine_chunks())
            codes = pc.dictionary_encode(values).indices.to_numpy()
            owners.append(rows)
            features.append(codes + count)
            count += int(codes.max(initial=-1)) + 1
    return np.concatenate(owners), np.concatenate(features)


def ours(dataset: Dataset, case: ColdCase, seed: int, config: Path, overrides: Sequence[str] = ()) -> Scorer:
    """anyrec by a config and `key=value` overrides, fitted on the training rows; each case's user comes as a record with the items given."""
    settings, _ = load_config(
        read_source(config), [*overrides, f"seed={seed}", f"data.history={GIVEN}", "split.protocol=none"]
    )
    train = dataset.interactions.take(pa.array(case.train))
    known = Dataset(dataset.users, dataset.items, train, dataset.root, dataset.roles).sorted()
    recommender = Recommender.from_config(settings).fit(known, progress=False)
    items = dataset.ids("item")
    lists = pa.ListArray.from_arrays(pa.array(case.offsets.astype(np.int32)), items.take(pa.array(case.given)))
    people = dataset.users.take(pa.array(case.users)).append_column(f"temporal.{GIVEN}", lists)
    candidates = rows_of(items.take(pa.array(case.candidates)), known.ids("item"))
    with torch.inference_mode():
        _, users, _ = recommender._represent("user", people)
        vectors = recommender.model.representations("item")[torch.from_numpy(candidates)]
    return lambda batch: recommender.model.score(users[torch.from_numpy(batch)], vectors).detach().numpy()


PEERS: dict[str, dict[str, Callable[..., Scorer]]] = {
    "cold-items": {"content-knn": content_knn, "anyrec": partial(ours, config=CONFIGS / "ml-1m-cold-items.json")},
    "cold-users": {
        "anyrec": partial(ours, config=CONFIGS / "ml-1m-sequence.json"),
        "popularity": popular,
        "ease": partial(classical, "ease"),
        "item-knn": partial(classical, "item_knn"),
    },
}
"""By protocol: each called with (dataset, case, seed, **settings), the settings one of those in GRIDS."""

GRIDS: dict[str, list[dict[str, Any]]] = {
    "content-knn": [{"last": last} for last in (None, 1, 3, 5, 10, 20, 50)],
    "ease": [{"l2": l2} for l2 in (1000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)],
    "item-knn": [{"neighbours": count} for count in (20, 50, 100, 200, 500, 1000, 3000)],
    "lightfm": [{"epochs": epochs, "identity": identity} for identity in (False, True) for epochs in (5, 15)],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), required=True)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", choices=["validation", "test"], action="append", help="by default both")
    parser.add_argument("--only", help="names of peers, between commas")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has LightFM")
    arguments = parser.parse_args()
    dataset = Dataset.read(DATA / arguments.data)
    case_of = PROTOCOLS[arguments.protocol]
    folds = arguments.fold or ["validation", "test"]
    cases = {fold: case_of(dataset, arguments.seed, fold) for fold in folds}
    for fold, case in cases.items():
        given = np.median(np.diff(case.offsets))
        print(f"{fold}: {len(case.users)} users, {given:.0f} given (median), {len(case.candidates)} candidates")
    peers = dict(PEERS[arguments.protocol])
    key = f"{arguments.protocol} {arguments.data} seed {arguments.seed}"
    if arguments.protocol == "cold-items" and arguments.peers:
        peers["lightfm"] = partial(lightfm, arguments.peers)
    chosen = arguments.only.split(",") if arguments.only else list(peers)
    for name in chosen:
        line = measure(dataset, cases, peers[name], GRIDS.get(name, [{}]), arguments.seed)
        print(f"{name:12} {line}", flush=True)
        if name == "lightfm":
            record(key, line)
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if "lightfm" not in chosen and key in recorded:
        print(f"{'lightfm':12} {recorded[key]} (recorded)")


def measure(
    dataset: Dataset, cases: dict[str, ColdCase], fit: Callable[..., Scorer], grid: list[dict[str, Any]], seed: int
) -> str:
    """A line of the figures of the folds, by the settings that did best on validation; without that fold by the only ones."""
    started, best, figures = time.perf_counter(), 0, {}
    if "validation" in cases:
        case = cases["validation"]
        found = [mean(score(case, fit(dataset, case, seed, **options))) for options in grid]
        best = int(np.argmax([one[f"ndcg@{K}"] for one in found]))
        figures["validation"] = found[best]
    elif len(grid) > 1:
        raise SystemExit("settings are chosen on validation: leave --fold out")
    if "test" in cases:
        figures["test"] = mean(score(cases["test"], fit(dataset, cases["test"], seed, **grid[best])))
    parts = [f"{fold} " + " ".join(f"{name} {value:.4f}" for name, value in of.items()) for fold, of in figures.items()]
    return f"{'; '.join(parts)}; {grid[best] or 'no settings'}; {time.perf_counter() - started:.0f} s"


def mean(figures: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in figures.items() if "@" in name}


def record(key: str, line: str) -> None:
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    RECORDED.write_text(json.dumps({**recorded, key: line}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
