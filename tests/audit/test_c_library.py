"""Rows C1 to C9 of the promised features: the multi-modal library. Remote C8 has no test yet."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from audited import ask, refused, run, settings
from feast_stub import feast_server
from small import small_config
from tiny_clip import tiny_clip

from anyrec import (
    AnyrecError,
    Dataset,
    DiversityRule,
    ItemTower,
    MultiModalFusion,
    Recommender,
    TwoTower,
    UserTower,
    apply_rules,
    create_index,
)
from anyrec.core.config import DataConfig

ROOT = Path(__file__).parents[2]
LAST = {"split": {"protocol": "leave_last_out"}, "blend": None}


def few(path):
    """Return a part of a dataset: 60 users."""
    return Dataset.read(path, DataConfig(max_users=60))


def test_c1_towers_are_modules_of_their_own_that_share_the_dimension_between_types(shop_model):
    ratio = {"text": 7, "image": 2, "categorical": 1}
    sizes = {"text.title": 24, "image.photo": 12, "categorical.brand": 50}
    items, users = ItemTower(sizes, dim=40, dim_ratio=ratio), UserTower({"identity.id": 30}, dim=40)
    assert {group: share.width for group, share in items.shares.items()} == {"text": 28, "image": 8, "categorical": 4}
    model, generator = TwoTower(users, items, interaction="cosine"), torch.Generator().manual_seed(0)
    features = {
        "text.title": torch.randn(16, 24, generator=generator),
        "image.photo": torch.randn(16, 12, generator=generator),
        "categorical.brand": torch.randint(50, (16,), generator=generator),
    }
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for _ in range(30):
        scores = model({"identity.id": torch.arange(16)}, features)
        loss = torch.nn.functional.cross_entropy(10 * scores, torch.arange(16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert isinstance(shop_model.model.scorer, TwoTower) and isinstance(shop_model.model.scorer.item, ItemTower)
    fusion = MultiModalFusion({"text": 24, "image": 12}, output_dim=8, strategy="gated")
    vectors = {"text": features["text.title"], "image": features["image.photo"]}
    masked = fusion(vectors, {"image": torch.zeros(16, dtype=torch.bool)})
    vectors["image"] = vectors["image"] * torch.nan
    assert torch.equal(masked, fusion(vectors, {"image": torch.zeros(16, dtype=torch.bool)}))


def test_c1_the_share_of_each_type_in_a_config_and_names_of_other_projects(shop, tmp_path):
    options = settings(
        dim_ratio={"text": 2, "categorical": 1}, dim=12, features__image=None, defaults="fixed", blend=None
    )
    options += settings(training__epochs=1, evaluation__baselines=["popularity"], data__max_users=60)
    run("train", "--data", shop, "--output_dir", tmp_path, "--set", "name=shared", *options)
    assert Recommender.load(tmp_path / "shared").model.scorer.item.shares["text"].width == 8
    flat = {"embedding_dim": 16, "num_epochs": 1, "batch_size": 256, "print_every": 10, "image_encoder_config": None}
    (tmp_path / "flat.json").write_text(json.dumps(flat))
    complete = ask("train", "--data", shop, "--config", tmp_path / "flat.json", "--print-config")
    assert complete["dim"] == 16 and complete["training"]["epochs"] == 1
    (tmp_path / "config.yaml").write_text("dim: 12\nfeatures:\n  image: null\n")
    assert ask("train", "--data", shop, "--config", tmp_path / "config.yaml", "--print-config")["dim"] == 12
    assert "dim_ratio" in (ROOT / "docs" / "coming-from.md").read_text()


def test_c2_clip_has_texts_images_and_queries_in_one_space(shop, tmp_path):
    clip = str(tiny_clip(tmp_path))
    features = {"text": {"type": "clip_text", "model": clip}, "image": {"type": "clip", "model": clip}}
    config = small_config(features=features, name="seen", evaluation={"baselines": ["popularity"]}, **LAST)
    config["training"]["epochs"] = 1
    (tmp_path / "c.json").write_text(json.dumps(config))
    run(
        "train", "--data", shop, "--config", tmp_path / "c.json", "--output_dir", tmp_path, "--set", "data.max_users=60"
    )
    model = ("--model_path", tmp_path / "seen", "--trust-plugins")
    loaded = Recommender.load(tmp_path / "seen", trust_plugins=True)
    item = next(row for row in json.loads(shop.read_text())["item_data"] if row.get("image", {}).get("views"))
    picture = shop.parent / item["image"]["views"][0]
    described = len(loaded.search(text="a red kite", k=60, space="joint"))
    assert described == len(loaded.search(image=picture, k=60, space="joint")) >= 57, "all that have a text or an image"
    pictures = small_config(features={"image": features["image"], "text": None}, **LAST)
    seen = Recommender.from_config(pictures).fit(few(shop), progress=False).search(image=picture, k=5)
    assert item["item_id"] in seen["item_id"].to_pylist()
    assert len(ask("search", *model, "--text", "a red kite " * 60, "--k", 5, "--json")) == 5
    missing = settings(features__image={"type": "clip", "model": "/no/clip"}, training__epochs=1)
    assert "/features/image/model" in refused("train", "--data", shop, "--output_dir", tmp_path, *missing)


def test_c3_items_are_searched_by_a_text_and_by_an_image(shop, shop_run, shop_model):
    document = json.loads(shop.read_text())
    item = next(row for row in document["item_data"] if "title" in row.get("text", {}))
    found = ask("search", "--model_path", shop_run, "--text", item["text"]["title"], "--k", 10, "--json")
    assert item["item_id"] in [row["item_id"] for row in found]
    shown = next(row for row in document["item_data"] if row.get("image", {}).get("views"))
    picture = shop.parent / shown["image"]["views"][0]
    options = ("--image", picture, "--space", "visual", "--k", 5, "--json", "--trust-plugins")
    found = ask("search", "--model_path", shop_run, *options)
    assert shown["item_id"] in [row["item_id"] for row in found]
    loaded = Recommender.load(shop_run, image_root=shop.parent)
    assert loaded.search(image=picture, k=5)["item_id"].to_pylist()


def test_c4_filters_by_availability_people_history_and_any_feature(shop_run, shop_model, tmp_path):
    items = {row["item_id"]: row for row in shop_model.dataset.items.to_pylist()}

    def listed(rule):
        path = tmp_path / "rules.json"
        path.write_text(json.dumps({"pipeline": {"rerank": {"rules": [rule]}}}))
        options = ("--config", path, "--user_id", "user3", "--k", 10, "--context", "country=fr")
        found = ask("recommend", "--model_path", shop_run, *options)
        return [row["item_id"] for row in found["users"][0]["recommendations"]]

    every = [f"item{n}" for n in range(0, 60, 2)]
    assert set(listed({"type": "availability", "items": every})) <= set(every)
    age = {row["user_id"]: row["continuous.age"] for row in shop_model.dataset.users.to_pylist()}["user3"]
    people = listed({"type": "demographic", "user": "user.continuous.age", "min": "item.continuous.price"})
    assert age is None or all((items[item]["continuous.price"] or 0) <= age for item in people)
    seen = set(shop_model.recommend(["user3"], 60, exclude_seen=False)["item_id"].to_pylist())
    seen -= set(shop_model.recommend(["user3"], 60)["item_id"].to_pylist())
    assert seen and not seen & set(listed({"type": "history"}))
    both = {"item.continuous.price": {"lt": 60}, "not": {"item.categorical.category": {"eq": "books"}}}
    rows = [items[item] for item in listed({"type": "where", "where": both})]
    assert rows and all(row["continuous.price"] < 60 and row["categorical.category"] != "books" for row in rows)
    ready = apply_rules(
        [{"user_id": "ann", "item_id": n, "score": 1 - n / 10} for n in range(6)],
        [{"item_id": n, "categorical": {"genre": "jazz" if n < 4 else "folk"}} for n in range(6)],
        rules=[DiversityRule(method="max_per_category", feature="item.categorical.genre", max=1)],
        k=2,
    )
    assert ready["item_id"].to_pylist() == [0, 4]


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_c5_an_online_shop_with_exact_numbers_as_parquet_and_json(kind, tmp_path):
    sizes = ("--n_users", 60, "--n_items", 25, "--n_interactions", 700, "--format", kind, "--seed", 4)
    for name in ("one", "two"):
        run("synth", "amazon", tmp_path / name, *sizes)
    places = [tmp_path / name for name in ("one", "two")]
    if kind == "json":
        places = [next(iter([*place.glob("*.json")] or [place])) if place.is_dir() else place for place in places]
    one, two = map(Dataset.read, places)
    assert (len(one.users), len(one.items), len(one.interactions)) == (60, 25, 700)
    assert one.fingerprint() == two.fingerprint(), "the same seed makes the same data"
    fitted = Recommender.from_config({"model": {"type": "item_knn"}}).fit(one, progress=False)
    assert len(fitted.recommend(None, 3)) > 100
    assert "interactions" in refused(
        "synth", "amazon", tmp_path / "x", "--n_users", 3, "--n_items", 3, "--n_interactions", 10
    )


def test_c6_features_in_feast_are_defined_read_at_inference_and_get_the_embeddings(tmp_path):
    run("synth", tmp_path / "data.json", "--users", 60, "--items", 20, "--interactions", 900, "--no-images")
    run("feast", "generate", "--data", tmp_path / "data.json", "--output", tmp_path / "repo")
    assert 'Field(name="categorical_occupation", dtype=String)' in (tmp_path / "repo" / "definitions.py").read_text()
    data = Dataset.read(tmp_path / "data.json")
    recommender = Recommender.from_config(small_config()).fit(data, progress=False)
    record = {"user_id": "new", "categorical": {"occupation": "chef"}}
    with feast_server() as server:
        server.values = {"new": {"categorical_occupation": "chef"}}
        online = recommender.with_config({"feast": {"url": server.url}})
        assert online.recommend(["new"], 5).equals(recommender.recommend([record], 5))
        run("feast", "push", "--model-path", recommender.save(tmp_path / "model"), "--url", server.url)
        pushed = [asked["push_source_name"] for path, asked, _ in server.asked if path == "/push"]
    assert pushed == ["user_embeddings_push", "item_embeddings_push"]


def test_c7_a_container_file_and_a_library_for_other_programs(tmp_path):
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER (?!root)", text, re.MULTILINE) and "download.pytorch.org/whl/cpu" in text
    assert "services" in (ROOT / "compose.yaml").read_text()
    users, items = [f"u{n}" for n in range(30)], [f"i{n}" for n in range(12)]
    rng = np.random.default_rng(0)
    import pandas as pd

    rows = pd.DataFrame({"user_id": rng.choice(users, 300), "item_id": rng.choice(items, 300)})
    data = Dataset.from_tables(pd.DataFrame({"user_id": users}), pd.DataFrame({"item_id": items}), rows)
    fitted = Recommender.from_config({"model": {"type": "ease"}}).fit(data, progress=False)
    served = Recommender.load(fitted.save(tmp_path / "model"))
    one, two = (model.recommend(["u1"], 5) for model in (served, fitted))
    assert one["item_id"].equals(two["item_id"]) and np.allclose(one["score"], two["score"], atol=1e-6)


def test_c8_local_providers_files_folders_mapped_tables_and_patterns(films, ml_100k, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet as pq

    whole = pq.read_table(ml_100k / "interactions.parquet")[:6000]
    (tmp_path / "log").mkdir()
    for part in range(2):
        table = whole[part * 3000 : part * 3000 + 3000].rename_columns(
            [{"user_id": "who", "item_id": "what"}.get(name, name) for name in whole.column_names]
        )
        pyarrow.csv.write_csv(table, tmp_path / "log" / f"part{part}.csv")
    columns = {"who": "user_id", "what": "item_id", "rating": "rating", "timestamp": "timestamp"}
    sources = {"interactions": [{"path": "log/*.csv", "columns": columns}]}
    config = {"data": {"sources": sources}, "model": {"type": "ease"}, "name": "mapped"}
    config["evaluation"] = {"baselines": []}
    (tmp_path / "config.json").write_text(json.dumps(config))
    mapped = Dataset.from_sources(tmp_path / "config.json")
    assert len(mapped.interactions) == 6000
    run("train", "--config", tmp_path / "config.json", "--output_dir", tmp_path)
    assert len(Recommender.load(tmp_path / "mapped").recommend(mapped.ids("user")[:1], 5)) == 5
    assert len(Dataset.read(ml_100k, DataConfig(max_users=20)).users) == 20, "a folder of tables"


def test_c9_paths_are_confined_urls_are_refused_and_models_are_reproducible(shop, shop_run, tmp_path):
    document = json.loads(shop.read_text())
    for item, name in zip(
        document["item_data"], ["../../secret.png", "/etc/hostname", "http://localhost:9/a.png"], strict=False
    ):
        item["image"] = {"views": [name]}
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes((shop.parent / "images").glob("*.png").__next__().read_bytes())
    path = tmp_path / "deep" / "er" / "data.json"
    path.write_text(json.dumps(document))
    message = refused("validate", path, "--set", "data.strict=true")
    for row, reason in ((0, "not within the image root"), (1, "not within the image root"), (2, "not allowed")):
        line = next(line for line in message.splitlines() if line.strip().startswith(f"/item_data/{row}/image/views"))
        assert reason in line
    manifest = json.loads((shop_run / "model" / "manifest.json").read_text())
    assert manifest["data"] == Dataset.read(shop).sorted().fingerprint() and len(manifest["id"]) >= 8
    files = {file.suffix for file in (shop_run / "model").rglob("*") if file.is_file()}
    assert not files & {".pkl", ".pickle", ".pt", ".pth", ".bin"}
    assert json.loads((shop_run / "model" / "config.json").read_text())["seed"] == 0
    with pytest.raises(AnyrecError):
        create_index("exact", dim=0)
