"""Items and users that were never trained on: the two cold-start protocols, with all models measured on the same cases.

    HF_HUB_OFFLINE=1 python benchmarks/cold.py --protocol cold-items|cold-users --data ml-1m|ml-100k [--seed 0]
        [--only content-knn,lightfm] [--peers PYTHON]

Prints for each model the options chosen on the validation fold, and ndcg@10 and recall@10 on both folds. `--peers`
names an interpreter with LightFM (`pip install rectools-lightfm 'numpy<2'`) and records its figures in cold_peers.json;
without it the recorded figures are printed. To add a model, add a function to `MODELS` that takes the data, the case,
the seed and options, and returns a scorer.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from cold_protocols import PROTOCOLS, ColdCase, Fold, K, Scorer, history_matrix, mean_metrics, score
from common import CONFIGS, DATA, argument_parser, minilm, names, read_config
from scipy import sparse

from anyrec.core.contracts import TrainingMatrix
from anyrec.core.discovery import discover
from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.ids import rows_of
from anyrec.data.list_columns import flat
from anyrec.model.fitted import FittedModel
from anyrec.recommender import Recommender

HERE = Path(__file__).parent
RECORDED = HERE / "cold_peers.json"
HISTORY = "given"
"""Name of the feature that holds the history of a case's user."""
Options = dict[str, float | int | bool | None]


def content_knn(dataset: Dataset, case: ColdCase, seed: int, last: int | None = None) -> Scorer:
    """Score by the cosine of a candidate's MiniLM vector and the mean of the history's last items (None: all)."""
    vectors = content_vectors(dataset)
    profiles = history_matrix(case, len(vectors), last) @ vectors
    return lambda batch: profiles[batch] @ vectors[case.candidates].T


def content_vectors(dataset: Dataset) -> np.ndarray:
    """Return (items, 384) MiniLM vectors of norm 1 of title, genres and plot; they are cached on disk."""
    texts = _texts(dataset)
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"anyrec-cold-{name}.npy"
    if not path.exists():
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(minilm(), device="cpu")
        np.save(path, model.encode(texts, batch_size=8, normalize_embeddings=True, show_progress_bar=False))
    return np.load(path)


def _texts(dataset: Dataset) -> list[str]:
    parts = []
    for name in ("text.title", "categorical.genres", "text.plot"):
        if name in dataset.items.column_names:
            column = dataset.items.column(name).combine_chunks()
            column = pc.binary_join(column, ", ") if pa.types.is_list(column.type) else column
            parts.append(pc.fill_null(column, ""))
    return pc.binary_join_element_wise(*parts, ". ").to_pylist()


def popular(dataset: Dataset, case: ColdCase, seed: int) -> Scorer:
    """Score each candidate by its number of training interactions."""
    counts = np.bincount(dataset.item_rows[case.train], minlength=len(dataset.items))[case.candidates]
    return lambda batch: np.tile(counts, (len(batch), 1))


def classical(name: str, dataset: Dataset, case: ColdCase, seed: int, **options: float) -> Scorer:
    """Score by a classical model of anyrec that was fitted on the training rows, from each case's history."""
    component = discover().get("classical", name)
    model = component(component.Params(**options))
    keys = np.unique(dataset.user_rows[case.train] * len(dataset.items) + dataset.item_rows[case.train])
    users, items = keys // len(dataset.items), keys % len(dataset.items)
    shape = (len(dataset.users), len(dataset.items))
    matrix = sparse.csr_matrix((np.ones(len(keys), np.float32), (users, items)), shape=shape)
    model.fit(TrainingMatrix(matrix, users, items, None, dataset.items, seed))
    history = history_matrix(case, len(dataset.items))
    return lambda batch: model.score(case.users[batch], history[batch])[:, case.candidates]


def lightfm(python: str, dataset: Dataset, case: ColdCase, seed: int, **options: float) -> Scorer:
    """Score by LightFM (WARP) in another interpreter; a cold item is represented by its metadata alone."""
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
    """Return (pairs,) item rows and feature numbers, one number for each category and each year."""
    owners, features, count = [], [], 0
    for name in dataset.features("item"):
        if name.split(".")[0] == "categorical" or name == "continuous.year":
            values, rows = flat(dataset.items.column(name).combine_chunks())
            codes = pc.dictionary_encode(values).indices.to_numpy()
            owners.append(rows)
            features.append(codes + count)
            count += int(codes.max(initial=-1)) + 1
    return np.concatenate(owners), np.concatenate(features)


def fit_anyrec(dataset: Dataset, case: ColdCase, seed: int, config: Path, overrides: Sequence[str] = ()) -> Scorer:
    """Score by a model of anyrec that was fitted on the training rows.

    Args:
        dataset: All of the data.
        case: The case; each of its users becomes a record with its history.
        seed: Seed of the training.
        config: Path of the config.
        overrides: `key=value` settings that replace those of the config.
    """
    options = [*overrides, f"seed={seed}", f"data.history={HISTORY}", "split.protocol=none"]
    settings, _ = load_config(read_config(config), options)
    model = Recommender.from_config(settings).fit(training_data(dataset, case), progress=False).model
    return scorer_of(model, dataset, case)


def training_data(dataset: Dataset, case: ColdCase) -> Dataset:
    """Return the dataset with the training rows of a case only, sorted by id."""
    train = dataset.interactions.take(pa.array(case.train))
    return Dataset(dataset.users, dataset.items, train, dataset.root, dataset.roles).sorted()


def scorer_of(model: FittedModel, dataset: Dataset, case: ColdCase) -> Scorer:
    """Score by a fitted model that reads the history of each case from the feature `HISTORY` of a record."""
    items = dataset.ids("item")
    histories = pa.ListArray.from_arrays(pa.array(case.offsets.astype(np.int32)), items.take(pa.array(case.history)))
    records = dataset.users.take(pa.array(case.users)).append_column(f"temporal.{HISTORY}", histories)
    candidates = torch.from_numpy(rows_of(items.take(pa.array(case.candidates)), model.dataset.ids("item")))
    with torch.inference_mode():
        users, vectors = model.represent(model.read_records("user", records)), model.representations("item")

    def score_batch(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores = model.scorer.score(users[torch.from_numpy(batch)], vectors)
            return scores[:, candidates.to(scores.device)].float().cpu().numpy()

    return score_batch


MODELS: dict[str, dict[str, Callable[..., Scorer]]] = {
    "cold-items": {"content-knn": content_knn, "anyrec": partial(fit_anyrec, config=CONFIGS / "ml-1m-cold-items.json")},
    "cold-users": {
        "anyrec": partial(fit_anyrec, config=CONFIGS / "ml-1m-sequence.json"),
        "popularity": popular,
        "ease": partial(classical, "ease"),
        "item-knn": partial(classical, "item_knn"),
    },
}
"""The models of each protocol, called with (dataset, case, seed, **options), where options is an entry of GRIDS."""

GRIDS: dict[str, list[Options]] = {
    "content-knn": [{"last": last} for last in (None, 1, 3, 5, 10, 20, 50)],
    "ease": [{"l2": l2} for l2 in (1000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0)],
    "item-knn": [{"neighbours": count} for count in (20, 50, 100, 200, 500, 1000, 3000)],
    "lightfm": [{"epochs": epochs, "identity": identity} for identity in (False, True) for epochs in (5, 15)],
}


def main() -> None:
    parser = argument_parser(__doc__, required=True)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", choices=["validation", "test"], action="append", help="by default both")
    parser.add_argument("--only", help="names of models, between commas")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter that has LightFM")
    arguments = parser.parse_args()
    dataset = Dataset.read(DATA / arguments.data)
    folds: list[Fold] = arguments.fold or ["validation", "test"]
    cases: dict[Fold, ColdCase] = {fold: PROTOCOLS[arguments.protocol](dataset, arguments.seed, fold) for fold in folds}
    for fold, case in cases.items():
        length = np.median(np.diff(case.offsets))
        print(f"{fold}: {len(case.users)} users, median history {length:.0f}, {len(case.candidates)} candidates")
    models = dict(MODELS[arguments.protocol])
    key = f"{arguments.protocol} {arguments.data} seed {arguments.seed}"
    if arguments.protocol == "cold-items" and arguments.peers:
        models["lightfm"] = partial(lightfm, arguments.peers)
    chosen = names(arguments.only, list(models))
    for name in chosen:
        line = measure(dataset, cases, models[name], GRIDS.get(name, [{}]), arguments.seed)
        print(f"{name:12} {line}", flush=True)
        if name == "lightfm":
            record(key, line)
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if "lightfm" not in chosen and key in recorded:
        print(f"{'lightfm':12} {recorded[key]} (recorded)")


def measure(
    dataset: Dataset, cases: dict[Fold, ColdCase], fit: Callable[..., Scorer], grid: list[Options], seed: int
) -> str:
    """Return one line with the metrics of each fold, for the options with the best validation ndcg.

    Without a validation fold the grid must hold one set of options.
    """
    started, best, figures = time.perf_counter(), 0, {}
    if "validation" in cases:
        case = cases["validation"]
        found = [mean_metrics(score(case, fit(dataset, case, seed, **options))) for options in grid]
        best = int(np.argmax([metrics[f"ndcg@{K}"] for metrics in found]))
        figures["validation"] = found[best]
    elif len(grid) > 1:
        raise SystemExit("The options are chosen on the validation fold: remove --fold.")
    if "test" in cases:
        figures["test"] = mean_metrics(score(cases["test"], fit(dataset, cases["test"], seed, **grid[best])))
    parts = [
        f"{fold} " + " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        for fold, metrics in figures.items()
    ]
    return f"{'; '.join(parts)}; {grid[best] or 'no settings'}; {time.perf_counter() - started:.0f} s"


def record(key: str, line: str) -> None:
    """Write one line of LightFM's figures to cold_peers.json."""
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    RECORDED.write_text(json.dumps({**recorded, key: line}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
