"""Random calls of the public methods of a fitted recommender, sensible and senseless, each from its own seed."""

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

SURROGATE = "\ud800"
SCALARS = [None, True, 0, 1, -1, 1.5, float("nan"), float("inf"), 2**31, 2**63, 10**400, "", " ",
           "u001", "i001", "3", "x" * 5000, SURROGATE, "a\x00b", b"x", object(), Ellipsis,
           pd.Timestamp("2024-01-01"), np.int64(3), np.float32(1), int, print]  # fmt: skip
PAIRS = [{"user_id": "u001", "item_id": "i001"}]
TABLES = [
    pa.table({}),
    pa.table({"user_id": pa.array(["u001"]), "item_id": pa.array(["i001"])}),
    pa.table({"user_id": pa.array(["q"]), "categorical.job": pa.array(["nurse"]).dictionary_encode()}),
    pa.table({"user_id": pa.array([1]), "item_id": pa.array([None], pa.string())}),
    pa.table({"item_id": pa.array(["n1", "n1"]), "continuous.price": pa.array([1, 2])}),
    pa.table({"item_id": pa.array(["n2"]), "categorical.tags": pa.array(["nurse"]), "text.title": pa.array(["x"])}),
    pa.table([pa.array(["u001"]), pa.array(["u002"])], names=["user_id", "user_id"]),
    pa.table({"user_id": pa.array([b"u001"]), "extra": pa.array([{"a": 1}])}),
    pd.DataFrame({"user_id": ["u001", 1]}),
    pd.DataFrame({"user_id": ["u001"], "item_id": ["i001"], "timestamp": [pd.Timestamp("2024-01-01")]}),
    pd.DataFrame([["x", "y"]], columns=["user_id", "user_id"]),
    pd.Series(["u001", "u002"]),
    np.array(["u001", "u002"]),
    np.array([["u001"]]),
    np.array([1.5]),
]


def value(rng, depth=0):
    """Anything at all."""
    kind = rng.random()
    if depth > 3 or kind < 0.6:
        return rng.choice(SCALARS)
    if kind < 0.75:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind < 0.9:
        keys = [
            "user_id",
            "item_id",
            "categorical",
            "continuous",
            "text",
            "temporal",
            "image",
            "job",
            "price",
            1,
            "user_data",
        ]
        return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(TABLES)


def record(rng, side):
    """A record that is nearly right."""
    made = {f"{side}_id": rng.choice([f"{side[0]}001", "new", 5, value(rng)])}
    groups = {"categorical": ["job", "tags", "jop"], "continuous": ["age", "price"], "text": ["bio", "title"],
              "temporal": ["spending", "prev_interactions", "restocked"], "image": ["cover"], "odd": ["x"]}  # fmt: skip
    for group in rng.sample(sorted(groups), rng.randrange(3)):
        good = rng.choice(["nurse", 3, [1.5, 2], ["i001", "i002"], ["nurse"], "2024-01-01"])
        made[group] = rng.choice([{rng.choice(groups[group]): rng.choice([good, good, value(rng)])}, value(rng)])
    return made


def source(rng, side):
    """Users or items in one of the forms that are taken, or in another."""
    known = [f"{side[0]}{n:03d}" for n in (1, 2, 3)]
    events = [{"user_id": "new", "item_id": "i001", "timestamp": rng.choice([3, "2024-01-01", value(rng)])}]
    return rng.choice([
        lambda: known, lambda: tuple(known), lambda: set(known), lambda: iter(known), lambda: pa.array(known),
        lambda: pa.chunked_array([known, known]), lambda: pd.Series(known), lambda: np.array(known), lambda: None,
        lambda: [known[0], known[0]], lambda: [], lambda: {}, lambda: [record(rng, side) for _ in range(2)],
        lambda: record(rng, side), lambda: {"user_data": [{"user_id": "new"}], "interactions": events},
        lambda: {"user_data": value(rng), "item_data": value(rng)}, lambda: [known[0], value(rng)],
        lambda: rng.choice(TABLES), lambda: value(rng), lambda: Path("/no/such/file.json"), lambda: Path("/dev/null"),
    ])()  # fmt: skip


def random_call(seed):
    """The name of a method and a program that calls it on a model."""
    rng = random.Random(seed)
    often = lambda good: good if rng.random() < 0.7 else value(rng)  # noqa: E731
    k, strict = often(rng.choice([1, 3, 10**9])), rng.choice([None, None, True, False])
    users, items = source(rng, "user"), source(rng, "item")
    context = often({"device": "tv"})
    now = often(rng.choice([None, 0, 1_700_000_000_000_000]))
    options = {
        "exclude_seen": rng.random() < 0.5,
        "candidates": often(None),
        "context": context,
        "now": now,
        "strict": strict,
    }
    events = often(rng.choice([None, [{"user_id": "u001", "item_id": "i003"}], rng.choice(TABLES)]))
    conditions = [None, {}, {"item.continuous.price": {"lt": 60}}, {"item.nope": 1}, {"user.continuous.age": {"gt": 1}}]
    search = {
        "text": often(rng.choice([None, "nurse", "thing"])),
        "image": often(None),
        "user": often(rng.choice([None, "u001", record(rng, "user")])),
        "k": k,
        "space": often(rng.choice(["auto", "text", "tower"])),
        "where": often(rng.choice(conditions)),
        "personal": often(0.3),
        "exclude_seen": rng.random() < 0.3,
        "candidates": often(None),
        "strict": strict,
    }
    return rng.choice([
        ("recommend", lambda model: model.recommend(users, k, interactions=events, **options)),
        ("answer", lambda model: model.answer(users, k, interactions=events, trace=rng.random() < 0.3, **options)),
        ("similar", lambda model: model.similar(items, k)),
        ("search", lambda model: model.search(**search)),
        ("score", lambda model: model.score(rng.choice([users, rng.choice(TABLES), PAIRS]))),
        ("embed_users", lambda model: model.embed_users(users, strict=strict)),
        ("embed_items", lambda model: model.embed_items(items, strict=strict)),
        ("add_items", lambda model: model.add_items(items, strict=strict).recommend(["u001"], 3)),
        ("add_users", lambda model: model.add_users(users, interactions=events, strict=strict).recommend(None, 3)),
        ("evaluate", lambda model: model.evaluate(often("test"))),
    ])  # fmt: skip
