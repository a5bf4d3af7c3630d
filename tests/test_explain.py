"""Explanations by masking: what has no influence has no share, and a planted cause is named."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from small import call, small_config, small_dataset

from anyrec.data.dataset import Dataset
from anyrec.recommender import Recommender
from anyrec.serving.explain import explain
from anyrec.serving.masking import user_variants
from anyrec.storage.parts import ModelParts


@pytest.fixture(scope="module")
def plain():
    return Recommender.from_config(small_config()).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def following():
    """Data with planted causes: item 2n + 1 follows 2n, among random items."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(300):
        causes = rng.permutation(10)[:4]
        users += [f"u{user:03d}"] * 8
        items += [f"i{2 * cause + part:02d}" for cause in causes for part in (0, 1)]
    times = pa.array(np.arange(len(users)) * 3_600_000_000, pa.timestamp("us", "UTC"))
    return Dataset(
        pa.table({"user_id": [f"u{n:03d}" for n in range(300)]}),
        pa.table({"item_id": [f"i{n:02d}" for n in range(20)], "text.title": [f"Title {n}" for n in range(20)]}),
        pa.table({"user_id": users, "item_id": items, "timestamp": times}),
    )


HISTORY = {"history": {"type": "history", "layers": 1}, "text": None}


def of(recommender, users, k=3):
    lists = recommender.recommend(users, k, exclude_seen=False)
    return lists, explain(recommender, users, lists)


def shares(explanation):
    return {(one.kind, one.name): one.share for one in explanation.reasons}


def item_effects(explanation):
    return {one.name: one.effect for one in explanation.reasons if one.kind == "item"}


def test_items_are_read_once_and_have_the_same_explanation_in_any_company(plain, monkeypatch):
    """Variants of items are kept: a second explanation prepares no items, whichever items are explained together."""
    alone = {(one.user_id, one.item_id): one for user in ("u003", "u001") for one in of(plain, [user], k=6)[1]}
    prepared = []
    prepare = type(plain.model).prepare

    def counted(model, side, table, *context):
        prepared.append((side, len(table)))
        return prepare(model, side, table, *context)

    monkeypatch.setattr(type(plain.model), "prepare", counted)
    for one in of(plain, ["u001", "u003"], k=6)[1]:
        assert shares(one) == pytest.approx(shares(alone[one.user_id, one.item_id]), abs=1e-5)
    assert sum(rows for side, rows in prepared if side == "item") == 0
    wider = plain.add_items([{"item_id": "a0", "text": {"title": "I work as a nurse"}}])  # another model: rows can move
    both = [one for one in of(wider, ["u001"], k=6)[1] if (one.user_id, one.item_id) in alone]
    assert len(both) >= 5
    for one in both:
        assert item_effects(one) == pytest.approx(item_effects(alone[one.user_id, one.item_id]), abs=1e-5)


def test_there_is_one_explanation_for_each_row_and_its_shares_sum_to_one(plain):
    lists, found = of(plain, ["u003", "u001"])
    assert [(one.user_id, one.item_id) for one in found] == list(
        zip(lists.column("user_id").to_pylist(), lists.column("item_id").to_pylist(), strict=True)
    )
    for one in found:
        assert sum(shares(one).values()) == pytest.approx(1)
        assert all(0 <= reason.share <= 1 and (reason.share > 0) == (reason.effect > 0) for reason in one.reasons)
        assert one.sentence.startswith("because ") and len(one.nearest) == 2
        assert {"categorical.job", "categorical.tags"} <= {reason.name for reason in one.reasons}


def test_an_effect_of_the_items_side_is_the_change_of_the_score_when_the_feature_is_absent(plain):
    lists, found = of(plain, ["u003"], 1)
    item = lists.column("item_id")[0].as_py()
    record = plain.dataset.items.filter(pc.equal(plain.dataset.items.column("item_id"), item))
    place = record.column_names.index("categorical.tags")
    masked = record.set_column(place, "categorical.tags", pa.nulls(1, record.schema.types[place]))
    model = plain.model
    with torch.inference_mode():
        user = model.represent(model.read_records("user", ["u003"]))
        items = (model.represent(model.read_records("item", one)) for one in (record, masked))
        whole, without = (model.scorer.score(user, one) for one in items)
    effect = next(one.effect for one in found[0].reasons if one.name == "categorical.tags")
    assert effect == pytest.approx(float(whole - without), abs=1e-5)


def test_a_masked_feature_without_influence_has_no_share(plain):
    """The job's vectors and its stand-in are made one and the same."""
    recommender = Recommender.from_config(small_config()).fit(small_dataset(), progress=False)
    tower = recommender.model.scorer.user
    token = tower.token_names.index("categorical.job")
    for parameter in tower.encoders[tower.features.index("categorical.job")].parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        tower.fusion.missing[token] = 0
    recommender = Recommender(
        recommender.config, recommender.registry, parts=ModelParts(recommender.model.recomputed())
    )
    for one in of(recommender, ["u001", "u002"])[1]:
        assert shares(one)["user", "categorical.job"] == 0


def test_a_record_is_explained_by_the_features_that_it_has(plain):
    record = {"user_id": "new", "categorical": {"job": "nurse"}}
    users = [record]
    lists = plain.recommend(users, 2)
    found = explain(plain, users, lists)
    assert {reason.name for reason in found[0].reasons if reason.kind == "user"} <= {"identity.id", "categorical.job"}
    assert any(reason.label == "job nurse" for reason in found[0].reasons) and found[0].nearest == ()


def test_the_planted_cause_is_the_main_reason_in_the_history(following):
    config = small_config(features=HISTORY, split={"protocol": "none"}, data={"history": "before"})
    config["training"] |= {"epochs": 12, "optimizer": {"learning_rate": 0.01}}
    recommender = Recommender.from_config(config).fit(following, progress=False)
    right = 0
    for cause in range(0, 20, 2):
        before = [*(f"i{(cause + step) % 20:02d}" for step in (5, 9, 13)), f"i{cause:02d}"]
        record = pa.table({"user_id": ["new"], "temporal.before": [before]})
        lists = pa.table({"user_id": ["new"], "item_id": [f"i{cause + 1:02d}"]})
        found = explain(recommender, record, lists)[0]
        had = [reason for reason in found.reasons if reason.kind == "history"]
        assert {one.name for one in had} == set(before) and found.nearest == ()
        right += had[0].name == before[-1] and had[0].label == f"Title {cause}" and had[0].label in found.sentence
    assert right >= 8


@pytest.mark.parametrize("window", [4, 50])
@pytest.mark.parametrize("options", [{"variant": "ligr"}, {"variant": "pre_norm"}, {"block": "gru"}])
def test_items_masked_in_blocks_give_the_vectors_of_histories_without_each_item(
    options, window, following, monkeypatch
):
    """What the variants have in common is computed once; that of windows that begin elsewhere is not."""
    monkeypatch.setattr("anyrec.encoders.history.VARIANTS_AT_A_TIME", 3)
    monkeypatch.setattr("anyrec.serving.masking.EVENTS_AT_A_TIME", 50)
    features = {"history": {"type": "history", "layers": 2, "window": window, **options}, "text": None}
    config = small_config(features=features, split={"protocol": "none"}, data={"history": "before"})
    config["training"] |= {"epochs": 1}
    model = Recommender.from_config(config).fit(following, progress=False).model
    had = [f"i{n:02d}" for n in (3, 7, 1, 7, 12, 5, 9, 9, 2, 14)]

    def records(*histories):
        return model.read_records("user", pa.table({"user_id": ["new"], "temporal.before": [list(histories)]}))

    with torch.inference_mode():
        found = user_variants(model, records(*had))
        masked = model.dataset.ids("item").take(pa.array(found.history)).to_pylist()
        alone = [model.represent(records(*(one for one in had if one != item))) for item in masked]
        complete = model.represent(records(*had))
    assert masked == ["i14", "i02", "i09", "i05", "i12", "i07", "i01", "i03"]
    assert torch.allclose(found.represented[0], complete[0], atol=1e-5)
    assert torch.allclose(found.represented[-len(masked) :], torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("interaction", ["dcn", "deepfm", "mlp"])
def test_rankers_that_read_tokens_or_vectors_are_explained_too(interaction):
    recommender = Recommender.from_config(small_config(interaction={"type": interaction})).fit(
        small_dataset(), progress=False
    )
    for one in of(recommender, ["u001", "u002"])[1]:
        assert sum(shares(one).values()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["ease", "item_knn"])
def test_a_classical_model_is_explained_by_the_items_of_the_history(name, following):
    recommender = Recommender.from_config({"model": {"type": name}, "split": {"protocol": "none"}}).fit(
        following, progress=False
    )
    known = recommender.dataset.ids("user")[:20].to_pylist()
    lists = recommender.recommend(known, 1, exclude_seen=False)
    found = explain(recommender, known, lists)
    for one in found:
        cause = int(one.item_id[1:]) ^ 1
        assert one.reasons[0].kind == "history" and f"i{cause:02d}" in [reason.name for reason in one.reasons[:2]]
        assert sum(shares(one).values()) == pytest.approx(1)


def test_a_model_that_reads_no_history_says_so(following):
    popular = Recommender.from_config({"model": {"type": "popularity"}}).fit(following, progress=False)
    assert "everyone" in of(popular, ["u001"])[1][0].sentence
    ease = Recommender.from_config({"model": {"type": "ease"}}).fit(following, progress=False)
    assert "nothing is known of this user" in of(ease, [{"user_id": "stranger"}])[1][0].sentence


def test_recommend_explain_prints_sentences_and_keeps_them_in_the_result(plain, tmp_path):
    import jsonschema

    plain.save(tmp_path / "model")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"user_data": [{"user_id": "u001"}, {"user_id": "u002"}]}))
    command = ("recommend", "--model_path", tmp_path / "model", "--data", request, "--top_k", 2, "--explain")
    code, shown, _ = call(*command)
    assert code == 0 and "u001" in shown and shown.count("because") == 4 and "Thing" in shown
    code, shown, _ = call(*command, "--output", tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    first = result["users"][0]["recommendations"][0]["explanation"]
    assert code == 0 and first["sentence"] in shown and first["reasons"][0]["share"] > 0
    schema = json.loads((Path(__file__).parent.parent / "schemas" / "result.schema.json").read_text())
    jsonschema.validate(result, schema)
