"""Rows A1 to A17 of the promised features: the universal trainer. A18 has an issue of its own and no test yet."""

import csv
import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from audited import ask, refused, run, settings
from small import call, small_config

from anyrec import AnyrecError, Dataset, Recommender

ROOT = Path(__file__).parents[2]
QUICK = settings(training__epochs=1, training__patience=None, evaluation__baselines=["popularity"], dim=16, blend=None)
"""Options of a training that takes about a second."""


def train(data, folder, *options, name="run"):
    """Train by the command, and return the folder of the run and what was printed."""
    code, out, message = call("train", "--data", data, "--output_dir", folder, "--set", f"name={name}", *options)
    assert code == 0, message
    return folder / name, out + message


def test_a1_the_dataset_json_has_users_items_and_interactions_with_groups_that_may_be_missing(tmp_path):
    users = [
        {"user_id": "u0", "categorical": {"job": "nurse"}, "continuous": {"age": 30}, "text": {"bio": "sails"}},
        {"user_id": "u1", "image": {"face": "u1.png"}, "temporal": {"spent": [1, 2.5]}, "categorical": {"job": None}},
        *({"user_id": f"u{n}"} for n in range(2, 12)),
    ]
    items = [{"item_id": f"i{n}", "text": {"title": f"Thing {n}"} if n % 2 else None} for n in range(8)]
    rows = [
        {"user_id": f"u{n % 12}", "item_id": f"i{n * 5 % 8}", "interaction_type": ["view", "buy"][n % 2]}
        | {"timestamp": 1_700_000_000 + n if n % 2 else f"2023-11-{15 + n % 9}T10:00:00Z"}
        | ({"weight": 2.0, "rating": 4, "context": {"device": "phone"}} if n % 3 else {"label": n % 2})
        for n in range(60)
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"user_data": users, "item_data": items, "interactions": rows}))
    assert "12 users, 8 items, 60 interactions" in run("validate", path, "--no-images")
    folder, _ = train(path, tmp_path, *QUICK)
    assert (
        len(ask("recommend", "--model_path", folder, "--user_id", "u1", "--k", 3)["users"][0]["recommendations"]) == 3
    )
    data = Dataset.read(path)
    assert data.features("user") == ["categorical.job", "continuous.age", "image.face", "temporal.spent", "text.bio"]
    times = ["interaction_type", "timestamp", "weight", "rating", "label", "context.device"]
    assert set(times) <= set(data.interactions.column_names)
    seconds = [time.timestamp() for time in data.interactions["timestamp"].to_pylist()]
    assert seconds[1] == 1_700_000_001 and seconds[0] == 1_700_042_400
    negative = {(row["user_id"], row["item_id"]) for row in rows if row.get("label") == 0}
    fitted = Recommender.from_config(small_config()).fit(data, progress=False)
    learning = fitted.model.learning
    train_pairs = learning.dataset.interactions.take(pa.array(learning.positives(learning.split.train)))
    assert not negative & set(zip(*(train_pairs[key].to_pylist() for key in ("user_id", "item_id")), strict=True))


def flat(record):
    """Return a record with keys group.name."""
    found = {}
    for key, value in record.items():
        if isinstance(value, dict):
            found |= {f"{key}.{name}": one for name, one in value.items()}
        elif value is not None:
            found[key] = value
    return found


def test_a2_the_same_data_in_every_container_are_the_same_dataset(films, tmp_path):
    document = json.loads(films.read_text())
    parts = {"users": "user_data", "items": "item_data", "interactions": "interactions"}
    rows = {part: list(map(flat, document[key])) for part, key in parts.items()}
    tables = {part: pa.Table.from_pylist(every, pa.table(columns(every)).schema) for part, every in rows.items()}
    for kind in ("jsonl", "csv", "parquet"):
        (tmp_path / kind).mkdir()
    for part, every in rows.items():
        (tmp_path / "jsonl" / f"{part}.jsonl").write_text("\n".join(map(json.dumps, document[parts[part]])))
        pq.write_table(tables[part], tmp_path / "parquet" / f"{part}.parquet")
        write_csv(tmp_path / "csv" / f"{part}.csv", every)
    wanted = Dataset.read(films).sorted().fingerprint()
    for kind in ("jsonl", "csv", "parquet"):
        assert run("describe", tmp_path / kind) == run("describe", films)
        assert Dataset.read(tmp_path / kind).sorted().fingerprint() == wanted, kind
    frames = {
        "pandas": [pd.DataFrame(every) for every in rows.values()],
        "polars": [polars.from_arrow(table) for table in tables.values()],
        "arrow": list(tables.values()),
    }
    for kind, made in frames.items():
        assert Dataset.from_tables(*made).sorted().fingerprint() == wanted, kind
    folder, _ = train(tmp_path / "parquet", tmp_path, "--set", "model.type=ease", *settings(evaluation__baselines=[]))
    same = Recommender.from_config({"model": {"type": "ease"}}).fit(Dataset.read(films), progress=False)
    assert Recommender.load(folder).recommend([1], 5).equals(same.recommend([1], 5))


def columns(rows):
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def write_csv(path, rows):
    """Write rows as CSV; a column with lists is named `name[]` and has its values between bars."""
    found = columns(rows)
    lists = {name for name, values in found.items() if any(isinstance(value, list) for value in values)}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f"{name}[]" if name in lists else name for name in found])
        for row in rows:
            cells = ([*row.get(name, [])] if name in lists else row.get(name) for name in found)
            writer.writerow(["|".join(cell) if isinstance(cell, list) else cell for cell in cells])


def test_a3_every_fault_of_the_data_is_reported_with_place_value_reason_and_hint(shop, tmp_path):
    schema = json.loads(run("schema", "dataset"))
    document = json.loads(shop.read_text())
    jsonschema.validate(document, schema)
    users, items, rows = (document[key] for key in ("user_data", "item_data", "interactions"))
    users[3]["user_id"], items[4]["item_id"] = 7, items[5]["item_id"]
    users[5]["continuous"], users[6].setdefault("continuous", {})["age"] = {"age": float("nan")}, math.inf
    rows[0]["user_id"], rows[1]["timestamp"], rows[2]["label"] = "nobody", "the day before", 5
    items[7]["image"] = {"views": ["nowhere.png"]}
    (tmp_path / "broken.png").write_bytes(b"no image")
    items[8]["image"] = {"views": ["broken.png"]}
    users[9]["categorial"] = {"job": "nurse"}
    items[9]["text"] = {"never": None}
    path = tmp_path / "data.json"
    path.write_text(json.dumps(document))
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(path.read_text())))
    message = refused("validate", path)
    for where, *rest in (
        ("/user_data/3/user_id", "7", "texts"),
        ("/item_data/5/item_id", repr(items[5]["item_id"]), "/item_data/4"),
        ("/user_data/5/continuous/age", "NaN"),
        ("/user_data/6/continuous/age", "infinity", "Leave the value out"),
        ("/interactions/0/user_id", "'nobody'", "Add its record"),
        ("/interactions/1/timestamp", "'the day before'", "2024-05-17T12:30:00Z"),
        ("/interactions/2/label", "5", "a label is 0 or 1"),
    ):
        line = next(line for line in message.splitlines() if line.strip().startswith(f"{where}:"))
        assert all(part in line for part in rest), line
    with pytest.raises(AnyrecError) as error:
        Dataset.read(path)
    assert str(error.value) == message
    notes = validated(tmp_path, document)
    assert "Did you mean 'categorical'?" in notes and "'text.never' has a value in no record" in notes
    for what in (
        "/item_data/7/image/views: the image 'nowhere.png'",
        "/item_data/8/image/views: the image 'broken.png'",
    ):
        assert what in refused("validate", tmp_path / "mended.json", "--set", "data.strict=true")
    empty = {"user_data": [], "item_data": [], "interactions": []}
    path.write_text(json.dumps(empty))
    assert refused("validate", path).count("there is no") == 3


def validated(folder, document):
    """Correct the faults of `document` but those that are notes, and return what `validate` says of it."""
    users, items, rows = (document[key] for key in ("user_data", "item_data", "interactions"))
    users[3]["user_id"], items[4]["item_id"] = "user3", "item4"
    users[5]["continuous"], users[6]["continuous"] = {"age": 3}, {"age": 4}
    rows[0]["user_id"], rows[1]["timestamp"], rows[2]["label"] = "user3", 1_700_000_000, 1
    for item in items:
        if item["item_id"] not in (items[7]["item_id"], items[8]["item_id"]):
            item.pop("image", None)
    (folder / "mended.json").write_text(json.dumps(document))
    code, _, message = call("validate", folder / "mended.json")
    assert code == 0, message
    return message.replace("\n", " ")


PLUGIN = '''
import pyarrow.compute as pc
import torch
from pydantic import Field
from anyrec import Encoder, Params

class Length(Encoder):
    """Encodes a text by how long it is."""
    type = "length"
    group = "text"

    class Params(Params):
        most: int = Field(100, ge=1, le=1000, description="The length that counts as long.")

    def prepare(self, column):
        column = pc.list_element(column, 0) if "list" in str(column.type) else column
        return torch.tensor(pc.fill_null(pc.utf8_length(column), 0).to_pylist()).float().unsqueeze(1) / self.params.most
'''


def test_a4_one_json_config_whose_keys_are_optional_checked_saved_and_overridden(films, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "length.py").write_text(PLUGIN)
    config = tmp_path / "config.json"
    config.write_text("{}")
    assert "valid" in run("validate", films, "--config", config)
    config.write_text(json.dumps({"trainin": {"epochs": 3}, "fusion": {"type": "gatedd"}}))
    message = refused("validate", films, "--config", config)
    assert "Did you mean 'training'" in message and "Did you mean 'gated'" in message
    schema = json.loads(run("schema", "config", "--plugins", tmp_path / "plugins"))
    assert schema["$defs"]["encoder:length"]["properties"]["most"]["maximum"] == 1000
    suggested = json.loads(run("init", films))
    jsonschema.validate(suggested, schema)
    suggested["name"], suggested["dim"] = "first", 16
    suggested["training"] = {**suggested.get("training", {}), "epochs": 1}
    config.write_text(json.dumps({**suggested, "blend": None, "evaluation": {"baselines": []}}))
    first, out = train(films, tmp_path, "--config", config, "--set", "fusion.type=gated", name="first")
    assert "-> gated ->" in out
    saved = json.loads((first / "config.json").read_text())
    assert saved["fusion"]["type"] == "gated" and saved["training"]["epochs"] == 1 and saved["dim"] == 16
    second, _ = train(films, tmp_path, "--config", first / "config.json", name="second")
    one, two = (Recommender.load(folder).recommend([1, 2], 5) for folder in (first, second))
    assert one.equals(two), "the saved config alone trains the same model"


ENCODERS = {
    "features": {
        "identity": {},
        "categorical": {"hash_buckets": 32},
        "continuous": {"encoding": "periodic"},
        "text": {"type": "hashed", "fields": {"description": {"type": "text_statistics"}}},
        "image": {"type": "torchvision", "model": "shufflenet_v2_x0_5", "weights": None, "frozen": True, "size": 32},
        "temporal": {"pooling": "transformer", "fields": {"spending": {"pooling": "gru"}, "logins": {}}},
        "history": {"window": 8, "layers": 1},
    },
    "item": {"features": {"continuous": {"encoding": "piecewise"}, "categorical": {}}},
}


def test_a5_every_kind_of_encoder_reads_its_group_and_unseen_values(shop, tmp_path, minilm):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**ENCODERS, "defaults": "fixed", "evaluation": {"baselines": []}, "blend": None}))
    folder, out = train(shop, tmp_path, "--config", config, *QUICK[:4], *QUICK[6:])
    for part in (
        "identity.id (identity)", "categorical.occupation (categorical)", "continuous.age (continuous)",
        "text.title (hashed)", "text.description (text_statistics)", "image.views (torchvision)",
        "temporal.price_history (sequence)", "temporal.spending (sequence)", "temporal.logins (timestamps)",
        "temporal.recent_items (item_ids)", "history.",
    ):  # fmt: skip
        assert part in out, part
    never_seen = {
        "user_id": "new",
        "categorical": {"occupation": "astronaut"},
        "continuous": {"age": 1e6},
        "temporal": {"logins": ["2031-01-01"], "recent_items": ["item3", "nothing"], "spending": [1e9]},
    }
    (tmp_path / "request.json").write_text(json.dumps({"user_data": [never_seen]}))
    found = ask("recommend", "--model_path", folder, "--data", tmp_path / "request.json", "--embeddings")["users"][0]
    assert len(found["recommendations"]) == 10 and np.isfinite(found["embedding"]).all()
    for options in ({"type": "sentence", "model": str(minilm)}, {"type": "cnn", "size": 32}):
        group = "image" if options["type"] == "cnn" else "text"
        changes = {"features": {group: options}, "training": {"epochs": 1, "patience": None}}
        fitted = Recommender.from_config(small_config(**changes)).fit(few(shop), progress=False)
        assert options["type"] in {encoder.type for encoder in fitted.model.scorer.item.encoders}


def few(path, **limits):
    """Return a part of a dataset: 60 users if no other limits are given."""
    from anyrec.core.config import DataConfig

    return Dataset.read(path, DataConfig(**{"max_users": 60, **limits}))


def test_a6_several_fields_of_one_type_are_kept_apart_or_pooled_and_records_have_several_images(shop, tmp_path):
    apart, out = train(shop, tmp_path, *QUICK, *settings(defaults="fixed", features__image=None), name="apart")
    assert "text.description (hashed), text.title (hashed)" in out
    options = settings(defaults="fixed", features__image=None, features__text={"pool_group": True})
    pooled, _ = train(shop, tmp_path, *QUICK, *options, name="pooled")
    tokens = [Recommender.load(folder).model.scorer.item.token_names for folder in (apart, pooled)]
    assert (
        {"text.description", "text.title"} <= set(tokens[0]) and "text" in tokens[1] and len(tokens[1]) < len(tokens[0])
    )
    pictures = json.loads(shop.read_text())["item_data"]
    assert max(len(item.get("image", {}).get("views", [])) for item in pictures) > 1
    both = {"item_id": "new", "text": {"title": ["A book about the stars", "A pan for the ocean"]}}
    model = Recommender.load(apart)
    one, two = model.embed_items([{**both, "text": {"title": both["text"]["title"][:1]}}]), model.embed_items([both])
    assert one["embedding"].to_pylist() != two["embedding"].to_pylist(), "the second text counts"


SAMPLERS = [
    {"type": "uniform"},
    {"type": "popularity"},
    {"type": "in_batch"},
    {"type": "mixed"},
    {"type": "hard", "top": 20},
    {"type": "labelled"},
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda choice: choice["type"])
def test_a7_never_an_item_the_user_has_interacted_with(sampler, films, monkeypatch):
    """Negatives of every sampler, drawn while a model of MovieLens is trained on ratings of 4 and 5 as positives."""
    from test_negatives import watch_sampler, watch_top

    from anyrec.training import loop

    drawn, make = [], loop.make_objective

    def watched(*args):
        objective = make(*args)
        (watch_top if objective.top is not None else watch_sampler)(
            objective if objective.top is not None else objective.sampler, drawn
        )
        return objective

    monkeypatch.setattr(loop, "make_objective", watched)
    limits = {"max_users": 40, "min_rating": 4}
    ratio = {} if sampler["type"] in ("in_batch", "mixed", "labelled") else {"negative_ratio": 3}
    config = small_config(data=limits, negatives=sampler, loss={"type": "bce"}, **ratio)
    config["training"]["epochs"] = 1
    fitted = Recommender.from_config(config).fit(few(films, **limits), progress=False)
    learning = fitted.model.learning
    data, rows = learning.dataset, learning.split.train
    had = set(zip(data.user_rows[rows].tolist(), data.item_rows[rows].tolist(), strict=True))
    pairs = torch.cat(drawn) if drawn else torch.empty(0, 2, dtype=torch.long)
    assert not had & set(map(tuple, pairs.tolist()))
    assert learning.labels.negative[rows].any(), "lower ratings are explicit negatives"
    if sampler["type"] in ("uniform", "popularity", "hard"):
        assert len(pairs) >= 0.9 * 3 * len(learning.positives(rows)), "the ratio of negatives to positives"


def test_a7_types_ratings_labels_and_time_decide_which_are_positive_and_by_how_much(shop, tmp_path):
    types = {"purchase": 3.0, "like": 1.0}
    options = settings(data__positive_types=types, data__half_life_days=30, defaults="fixed", features__image=None)
    _, out = train(shop, tmp_path, *QUICK, *options)
    assert "positive" in out
    from anyrec.core.config import DataConfig
    from anyrec.data.labels import training_weights

    fitted_data = DataConfig(positive_types=types, half_life_days=30)
    config = small_config(data={"positive_types": types, "half_life_days": 30}, features={"image": None})
    fitted = Recommender.from_config(config).fit(Dataset.read(shop, fitted_data), progress=False)
    learning = fitted.model.learning
    kinds = np.array(learning.dataset.interactions["interaction_type"].to_pylist())
    assert set(kinds[learning.labels.positive]) == {"purchase", "like"}
    rows = learning.positives(learning.split.train)
    weights = training_weights(learning.labels, learning.dataset, learning.split.train, fitted.config.data, []).weight[
        rows
    ]
    times, bought = learning.dataset.times[rows], kinds[rows] == "purchase"
    late = times > np.median(times)
    assert weights[late].mean() > 5 * weights[~late].mean(), "older positives count less"
    assert weights[bought & late].mean() > 2 * weights[~bought & late].mean(), "a purchase counts three times"


def test_a8_every_fusion_by_one_key_of_the_same_config(shop, tmp_path):
    from anyrec.core.discovery import discover

    promised = {"simple", "attention", "weighted", "gated", "bilinear", "sum", "concat", "adaptive_mimic"}
    assert promised | {"identity"} <= set(discover().names("fusion"))
    data, lists = few(shop), {}
    for name in sorted(promised):
        changes = {"fusion": {"type": name}, "training": {"epochs": 1, "patience": None}, "features": {"image": None}}
        fitted = Recommender.from_config(small_config(**changes)).fit(data, progress=False)
        assert fitted.model.scorer.item.fusion.type == name
        lists[name] = tuple(fitted.recommend(None, 3)["item_id"].to_pylist())
    assert len(set(lists.values())) == len(promised), "each fusion is another model"
    attention = {"type": "attention", "num_heads": 2, "num_layers": 2, "dropout": 0.1}
    _, out = train(shop, tmp_path, *QUICK, *settings(fusion=attention, features__image=None, defaults="fixed"))
    assert out.count("-> attention ->") == 2
    only = dict.fromkeys(("image", "text", "categorical", "continuous", "temporal"))
    _, out = train(shop, tmp_path, *QUICK, *settings(fusion__type="identity", features=only, defaults="fixed"))
    assert "identity.id (identity) -> identity ->" in out


def test_a9_interactions_switchable_separately_from_the_fusion_of_users_and_items(shop, tmp_path):
    for name in ("dot", "cosine", "mlp", "attention"):
        config = small_config(interaction={"type": name}, features={"image": None}, loss={"type": "bce"})
        config["training"]["epochs"] = 1
        fitted = Recommender.from_config(config).fit(few(shop), progress=False)
        assert fitted.model.scorer.interaction.type == name and len(fitted.recommend(None, 3)) == 3 * 60
    for name in ("cosine", "attention"):
        options = settings(
            interaction__type=name, user__fusion__type="gated", item__fusion__type="attention", defaults="fixed",
            features__image=None, data__max_users=80, negatives__type="uniform", loss__type="bce",
        )  # fmt: skip
        folder, out = train(shop, tmp_path, *QUICK, *options, name=name)
        user, item = (line for line in out.splitlines() if " tower: " in line)
        assert "-> gated ->" in user and "-> attention ->" in item
        model = Recommender.load(folder)
        assert model.model.scorer.interaction.type == name
        assert math.isfinite(model.score([{"user_id": "user3", "item_id": "item5"}])["score"][0].as_py())


def test_a10_heads_for_types_and_ratings_at_once_answer_in_words_and_are_measured(shop, tmp_path):
    heads = {"kind": {"type": "interaction_type", "weight": 0.3}, "stars": {"type": "rating", "weight": 0.5}}
    options = settings(heads=heads, defaults="fixed", features__image=None, training__epochs=3)
    folder, _ = train(shop, tmp_path, *QUICK, *options)
    found = ask("evaluate", "--model_path", folder, "--data", shop)["heads"]
    assert {"accuracy", "log_loss", "auc"} <= set(found["kind"]) and {"rmse", "mae"} <= set(found["stars"])
    assert "interaction_type" in (folder / "report.md").read_text()
    assert json.loads((folder / "evaluation" / "evaluation.json").read_text())["heads"].keys() == {"kind", "stars"}
    request = tmp_path / "request.json"
    pairs = [{"user_id": "user3", "item_id": "item5"}]
    request.write_text(json.dumps({"user_data": [{"user_id": "user3"}], "interactions": pairs}))
    (row,) = ask("recommend", "--model_path", folder, "--data", request)["scores"]
    assert set(row["kind"]) == {"view", "like", "purchase"} and sum(row["kind"].values()) == pytest.approx(1, abs=1e-4)
    assert 1 <= row["stars"] <= 6 and math.isfinite(row["score"])
    assert Recommender.load(folder).score(pairs).to_pylist()[0]["kind"] == pytest.approx(row["kind"], abs=1e-5)
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    source = "from anyrec.classifier.heads import Rating as Base\n\n\nclass Stars(Base):\n    type = 'stars'\n"
    (plugins / "stars.py").write_text(source)
    config = small_config(heads={"own": {"type": "stars"}}, features={"image": None}, plugins=[str(plugins)])
    assert Recommender.from_config(config).fit(few(shop), progress=False).score(pairs)["own"][0].as_py() > 0


LOSSES = ["bce", "bpr", "infonce", "softmax", "full_softmax", "gbce", "contrastive", "triplet", "focal"]


def test_a11_every_loss_a_weighted_sum_and_one_of_a_plugin(shop, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "square.py").write_text(
        "from anyrec.classifier.losses import BPR as Base\n\n\nclass Square(Base):\n"
        '    """Squared differences."""\n\n    type = "square"\n'
    )
    data, parts = few(shop), [{"type": "focal", "gamma": 1.0, "weight": 0.5}, {"type": "square", "weight": 0.5}]
    choices = [*({"type": name} for name in LOSSES), {"type": "square"}, {"type": "combined", "parts": parts}]
    for choice in choices:
        config = small_config(loss=choice, features={"image": None}, plugins=[str(plugins)])
        fitted = Recommender.from_config(config).fit(data, progress=False)
        losses = [entry["loss"] for entry in fitted.result.history]
        assert losses[-1] < losses[0], choice
    options = settings(loss={"type": "combined", "parts": parts}, features__image=None, defaults="fixed")
    assert "epoch" in train(shop, tmp_path, *QUICK, *options, "--plugins", plugins)[1]


def test_a12_optimizers_schedulers_and_sparse_tables_with_illegal_combinations_refused(shop, tmp_path):
    data = few(shop)
    for optimizer in ("adam", "adamw", "sgd", "adagrad"):
        for scheduler in ("constant", "cosine", "linear"):
            training = {"epochs": 1, "batch_size": 256, "patience": None, "optimizer": {"type": optimizer}}
            config = small_config(training={**training, "scheduler": {"type": scheduler}}, features={"image": None})
            fitted = Recommender.from_config(config).fit(data, progress=False)
            assert all(weight.isfinite().all() for weight in fitted.model.scorer.parameters())
    options = settings(features__identity={"sparse": True}, features__image=None, defaults="fixed")
    assert "epoch" in train(shop, tmp_path, *QUICK, *options)[1]
    for key, value in (("weight_decay", 0.1), ("max_norm", 1.0)):
        changes = settings(**{f"training__optimizer__{key}": value})
        assert "sparse gradients cannot go with" in refused("train", "--data", shop, *QUICK, *options, *changes)


def test_a13_early_stopping_checkpoints_resume_precision_clipping_seeds_and_the_epoch_log(shop, tmp_path):
    same = settings(features__image=None, defaults="fixed", dim=16, training__gradient_clip=1.0)
    same += settings(training__precision="bf16", evaluation__baselines=["popularity"], blend=None, data__max_users=80)
    stop = settings(training__epochs=40, training__patience=1, training__optimizer__learning_rate=0.3)
    folder, out = train(shop, tmp_path, *same, *stop, name="stopped")
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(log) < 40 and {"epoch", "loss", "seconds", "validation"} <= set(log[0])
    assert "user tower:" in out and "parameters:" in out and "epoch   1   loss" in out
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"best.safetensors", "last.safetensors"}
    few_epochs = settings(training__epochs=2, training__patience=None)
    more = settings(training__epochs=4, training__patience=None)
    lists = {}
    for name, first in (("whole", None), ("halves", few_epochs)):
        if first:
            train(shop, tmp_path, *same, *first, "--seed", 7, name=name)
        run_folder, _ = train(shop, tmp_path, *same, *more, "--seed", 7, *(["--resume"] if first else []), name=name)
        lists[name] = Recommender.load(run_folder).embed_users(["user3"])
    assert lists["whole"].equals(lists["halves"]), "a resumed run ends as one that was never stopped"
    other, _ = train(shop, tmp_path, *same, *more, "--seed", 8, name="other")
    assert not Recommender.load(other).embed_users(["user3"]).equals(lists["whole"])


def test_a14_inference_for_known_and_new_users_and_items_under_every_name_of_the_options(
    shop_run, tmp_path, monkeypatch
):
    request = {
        "user_data": [
            {"user_id": "user3"},
            {"user_id": "new", "categorical": {"occupation": "chef"}, "continuous": {"age": 41}},
            {"user_id": "nobody"},
        ],
        "item_data": [{"item_id": "new item", "text": {"title": "A book about the ocean"}}],
    }
    (tmp_path / "batch.json").write_text(json.dumps(request))
    (tmp_path / "one.json").write_text(json.dumps({"user_data": request["user_data"][1:2]}))
    schema = json.loads(run("schema", "result"))
    batch = ask("recommend", "--model_path", shop_run, "--data", tmp_path / "batch.json", "--top_k", 5, "--embeddings")
    jsonschema.validate(batch, schema)
    assert [user["user_id"] for user in batch["users"]] == ["user3", "new", "nobody"]
    assert all(len(user["embedding"]) == 16 and len(user["recommendations"]) == 5 for user in batch["users"])
    assert [item["item_id"] for item in batch["items"]] == ["new item"] and len(batch["scores"]) == 3
    one = ask("recommend", "--model-path", shop_run, "--data", tmp_path / "one.json", "--k", 5)
    assert "embedding" not in one["users"][0]
    names = [row["item_id"] for row in one["users"][0]["recommendations"]]
    assert names == Recommender.load(shop_run).recommend(request["user_data"][1:2], 5)["item_id"].to_pylist()
    root, name = shop_run.parent, shop_run.name
    for options in (
        ("--model_path", f"{root}/{name}.pth"),
        ("--model_dir", root, "--model_name", name),
        ("--model_path", shop_run, "--config_path", root / "shop.json"),
        ("--model-path", shop_run, "--config", root / "shop.json"),
    ):
        found = ask("recommend", *options, "--data_path", tmp_path / "one.json", "--top-k", 5)
        assert [row["item_id"] for row in found["users"][0]["recommendations"]] == names
    cheap = json.dumps({"item.continuous.price": {"lt": 50}})
    output = tmp_path / "out.json"
    run("recommend", "--model_path", shop_run, "--user_id", "user3", "--filters", cheap, "--output_file", output)
    prices = {row["item_id"]: row["continuous.price"] for row in Recommender.load(shop_run).dataset.items.to_pylist()}
    listed = json.loads(output.read_text())["users"][0]["recommendations"]
    assert len(listed) == 10 and all(prices[row["item_id"]] < 50 for row in listed)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "rules.json").write_text(json.dumps({"pipeline": {"rerank": {"rules": [
        {"type": "where", "where": {"item.continuous.price": {"lt": 50}}}]}}}))  # fmt: skip
    found = ask("recommend", "--model_path", shop_run, "--config", "rules.json", "--user_id", "user3")
    assert all(prices[row["item_id"]] < 50 for row in found["users"][0]["recommendations"])
    message = refused("recommend", "--model_path", shop_run, "--set", "fusion.type=gated", "--user_id", "user3")
    assert "fusion" in message


def test_a15_plugins_by_a_file_a_package_and_a_module_appear_everywhere(shop, tmp_path, monkeypatch):
    from importlib import metadata

    from torch import nn

    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "length.py").write_text(PLUGIN)
    assert "length" in run("plugins", "--plugins", plugins)
    assert "The length that counts as long." in run("plugins", "length", "--plugins", plugins)
    options = settings(features__text={"type": "length", "most": 50}, features__image=None, defaults="fixed")
    folder, out = train(shop, tmp_path, *QUICK, *options, "--plugins", plugins)
    assert "text.title (length)" in out
    assert "length" in refused("recommend", "--model_path", folder, "--user_id", "user3")
    assert ask("recommend", "--model_path", folder, "--user_id", "user3", "--plugins", plugins)["users"]
    monkeypatch.chdir(tmp_path)  # where ./plugins is found by itself
    assert "length" in run("plugins", "encoder")
    site = tmp_path / "site" / "shop_package"
    site.mkdir(parents=True)
    hook = "\nfrom anyrec import hookimpl\n\n\n@hookimpl\ndef anyrec_encoders():\n    return [Length]\n"
    (site / "__init__.py").write_text(PLUGIN.replace('"length"', '"packaged"') + hook)
    monkeypatch.syspath_prepend(tmp_path / "site")
    point = metadata.EntryPoint("shop", "shop_package", "anyrec")
    monkeypatch.setattr("anyrec.core.discovery.entry_points", lambda group: [point], raising=False)
    module = Recommender.from_config(small_config(features={"image": None})).add_encoder("sensor", nn.Linear(2, 4))
    data = few(shop)
    data.items = data.items.append_column("sensor.xy", pa.array([[1.0, 2.0]] * len(data.items)))
    fitted = module.fit(data, progress=False)
    assert "sensor.xy" in fitted.model.scorer.item.features
    loaded = Recommender.load(fitted.save(tmp_path / "module"), trust_plugins=True)
    assert loaded.recommend(["user3"], 5).equals(fitted.recommend(["user3"], 5))


def test_a16_evaluation_as_classification_on_the_saved_test_interactions(shop, shop_run, tmp_path):
    found = ask("evaluate", "--model_path", shop_run, "--data", shop, "--classification")
    found = found.get("classification", found)
    for name in ("accuracy", "precision", "recall", "f1", "auc", "threshold"):
        assert 0 <= found[name] <= 1 or name == "threshold"
    assert found["auc"] > 0.6
    fixed = ask("evaluate", "--model_path", shop_run, "--data", shop, "--classification", "--threshold", 0.5)
    assert fixed.get("classification", fixed)["threshold"] == 0.5
    split = pq.read_table(shop_run / "split.parquet").to_pylist()
    assert split, "the test interactions are saved"


def opened(path):
    """Return the width of an image file."""
    from PIL import Image

    with Image.open(path) as image:
        return image.width


def test_a17_generated_data_have_the_planted_preferences_and_a_model_finds_them(shop, shop_model, tmp_path):
    document = json.loads(shop.read_text())
    views = [name for item in document["item_data"] for name in item.get("image", {}).get("views", [])]
    assert views and not any(opened(shop.parent / name) == 0 for name in views)
    categories = {item["item_id"]: item.get("categorical", {}).get("category") for item in document["item_data"]}
    of_user = {user["user_id"]: user.get("categorical", {}).get("occupation") for user in document["user_data"]}
    jobs = sorted(set(of_user.values()) - {None})
    bought = {job: {} for job in jobs}
    for row in document["interactions"]:
        job, category = of_user[row["user_id"]], categories[row["item_id"]]
        if job and category:
            bought[job][category] = bought[job].get(category, 0) + 1
    hits, chance = 0, 0.0
    for job in jobs:
        favourite = max(bought[job], key=bought[job].get)
        listed = shop_model.recommend([{"user_id": f"new {job}", "categorical": {"occupation": job}}], 5)
        hits += sum(categories[item] == favourite for item in listed["item_id"].to_pylist())
        chance += 5 * sum(category == favourite for category in categories.values()) / len(categories)
    assert hits > 2 * chance, "new users get the category that their occupation prefers"
    again = tmp_path / "again.json"
    run("synth", "planted", again, "--n_users", 30, "--n_items", 10, "--n_interactions", 200, "--no-images")
    assert len(json.loads(again.read_text())["user_data"]) == 30
