"""Train and save a model that tests/test_saved_models.py loads, and its answers (NAME.expected.json).

    cd tests && PYTHONPATH=..:. python saved_models/make.py NAME

The folders here were written by the code of their commit and stay as they are: a model that exists is not replaced. To
cover a new kind of model, add a config and run this with its name.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import torch
from small import small_config, small_dataset
from test_saved_models import answers_of

from anyrec import Dataset, Recommender

HERE = Path(__file__).parent
NEUTRAL_ROOT = Path("/data")
"""The folder that the models name as the one of their training data: no folder of the machine that trained them."""
TEXT = {"type": "hashed", "buckets": 256}
CONFIGS = {
    "two_tower_pipeline": small_config(
        dim=8,
        features={"text": TEXT, "temporal": None},
        heads={"kind": {"type": "interaction_type"}},
        loss={"type": "full_softmax"},
        index={"type": "faiss", "kind": "flat"},
        pipeline={
            "retrieve": {
                "k": 30,
                "sources": [
                    {"type": "model"},
                    {"type": "item_to_item", "by": "next", "k": 10},
                    {"type": "classical", "model": {"type": "ease", "l2": 10}, "k": 10},
                    {"type": "popularity", "k": 10},
                ],
            },
            "rank": {"type": "mlp", "k": 20, "hidden_dims": [16], "training": {"epochs": 2, "learning_rate": 0.01}},
            "rerank": {"rules": [{"type": "where", "where": {"item.continuous.price": {"lt": 60}}}]},
        },
    ),
    "two_tower_content": small_config(
        dim=8,
        features={"text": TEXT},
        fusion={"type": "attention", "num_heads": 2, "num_layers": 1},
        item={"fusion": {"type": "gated"}},
        split={"protocol": "cold_items"},
    ),
    "sequence": small_config(
        dim=8,
        features={
            "text": TEXT,
            "temporal": None,
            "history": {"window": 10, "layers": 1, "heads": 2, "use_gap": True, "use_kind": True},
        },
        loss={"type": "full_softmax"},
        split={"protocol": "leave_last_out"},
    ),
    "ease": {"model": {"type": "ease"}, "split": {"protocol": "leave_last_out"}},
    "ials": {
        "model": {"type": "ials", "factors": 6, "alpha": 4.0, "regularization": 0.5},
        "split": {"protocol": "leave_last_out"},
    },
    "item_knn": {"model": {"type": "item_knn"}, "split": {"protocol": "random"}},
}


def main(name):
    folder = HERE / name
    if folder.exists():
        raise SystemExit(f"{folder} exists. Models of an earlier version are not made again.")
    torch.set_num_threads(1)
    data = small_dataset(users=40, items=30, each=8, seed=5)
    dataset = Dataset(data.users, data.items, data.interactions, NEUTRAL_ROOT, data.roles)
    config = {**CONFIGS[name], "name": name}
    Recommender.from_config(config).fit(dataset, progress=False).save(folder)
    recommender = Recommender.load(folder)
    (HERE / f"{name}.expected.json").write_text(as_lines(answers_of(recommender)), encoding="utf-8")


def as_lines(answers):
    """JSON with a row of an answer on each line."""
    parts = []
    for question, rows in answers.items():
        lines = [json.dumps(rows)] if isinstance(rows, dict) else ["[", ",\n".join(map(json.dumps, rows)), "]"]
        parts.append(f"{json.dumps(question)}: " + "\n".join(lines))
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
