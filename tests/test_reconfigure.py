"""Keys that are read after training can change for a saved model; all others are refused by name."""

from __future__ import annotations

import json

import pytest
from small import call, small_config, small_dataset

from anyrec import Recommender
from anyrec.core.errors import ConfigError, ModelError
from anyrec.model.result_tables import index_of

TRAINING = {"epochs": 1, "batch_size": 128, "patience": None}
ONLY = [{"type": "where", "where": {"item.categorical.tags": {"contains": "nurse"}}}]
RULES = {"pipeline": {"rerank": {"rules": ONLY}}}


def fitted(**changes) -> Recommender:
    return Recommender.from_config(small_config(training=TRAINING, **changes)).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fitted().save(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture
def loaded(folder):
    return Recommender.load(folder)


def listed(recommender, **options) -> set[str]:
    return set(recommender.recommend(None, 40, exclude_seen=False, **options)["item_id"].to_pylist())


def nurses() -> set[str]:
    rows = small_dataset().items.select(["item_id", "categorical.tags"]).to_pylist()
    return {row["item_id"] for row in rows if "nurse" in row["categorical.tags"]}


def request(folder):
    path = folder / "request.json"
    path.write_text(json.dumps({"user_data": [{"user_id": "u001"}]}))
    return path


def written(folder, config):
    path = folder / "changes.json"
    path.write_text(json.dumps(config))
    return path


def test_rules_are_given_to_a_loaded_model_and_the_model_stays_as_it_was(loaded):
    ruled = loaded.with_config(RULES)
    assert listed(ruled) == nurses() != listed(loaded)
    assert listed(ruled.with_config({"pipeline": None})) == listed(loaded)


def test_rules_are_given_on_the_command_line(folder, tmp_path):
    given = ("recommend", "--model-path", folder, "--data", request(tmp_path), "--include-seen", "--top-k", 40)
    for extra in (("--config", written(tmp_path, RULES)), ("--set", f"pipeline.rerank.rules={json.dumps(ONLY)}")):
        code, out, err = call(*given, *extra)
        assert code == 0, err
        shown = json.loads(out)["users"][0]["recommendations"]
        assert {one["item_id"] for one in shown} == nurses()


def test_the_index_and_the_evaluation_change(loaded, folder):
    changed = loaded.with_config({"index": {"type": "faiss", "kind": "flat"}, "evaluation": {"k": [3]}})
    assert index_of(changed.recommend(["u001"], 3)) == {"type": "faiss", "kind": "flat"}
    assert changed.config.evaluation.k == [3]
    assert changed.config.training == loaded.config.training
    assert set(changed.with_data(small_dataset()).evaluate("test")) >= {"ndcg@3"}
    code, _, message = call("recommend", "--model-path", folder, "--data", folder, "--set", "index.type=nosuch")
    assert code == 2 and "there is no index 'nosuch'" in message


def test_the_config_of_the_training_run_can_be_given_again(loaded, folder, tmp_path):
    same = small_config(training={**TRAINING, "device": "cpu"}, name="another", output_dir="elsewhere")
    assert listed(loaded.with_config(same)) == listed(loaded)
    assert loaded.with_config(same).config == loaded.config
    code, *_ = call(
        "recommend", "--model-path", folder, "--data", request(tmp_path), "--config", written(tmp_path, same)
    )
    assert code == 0


def test_what_cannot_change_is_refused_by_name_and_all_together(loaded, folder, tmp_path):
    wrong = {"dim": 8, "training": {"epochs": 9}, "features": {"text": None}, "evaluation": {"k": [3]}}
    with pytest.raises(ConfigError) as caught:
        loaded.with_config(wrong)
    assert [fault.where for fault in caught.value.faults] == ["/dim", "/features/text", "/training/epochs"]
    assert "the model has 16, this config 8" in str(caught.value)
    given = ("--model-path", folder, "--data", request(tmp_path), "--config", written(tmp_path, wrong))
    code, _, message = call("recommend", *given)
    assert code == 2 and "training.epochs cannot change after training" in message


def test_faults_of_the_result_are_reported(loaded):
    with pytest.raises(ConfigError, match="there is no rule 'nosuch'"):
        loaded.with_config({"pipeline": {"rerank": {"rules": [{"type": "nosuch"}]}}})


def test_names_that_the_data_lack_are_refused(loaded):
    with pytest.raises(ConfigError, match=r"no categorical feature 'categorical\.tag'"):
        loaded.with_config({"evaluation": {"category": "categorical.tag"}})


def test_a_stage_that_learns_needs_the_data_and_is_kept_when_only_rules_change(loaded, tmp_path):
    learns = {"pipeline": {"retrieve": {"sources": [{"type": "model"}, {"type": "item_to_item"}]}}}
    with pytest.raises(ModelError, match="learn from the data"):
        loaded.with_config(learns)
    staged = loaded.with_data(small_dataset()).with_config(learns)
    again = Recommender.load(staged.save(tmp_path / "model"))
    ruled = again.with_config(RULES)
    assert listed(ruled) == nurses()
    assert [source.type for source in ruled.pipeline.sources] == ["model", "item_to_item"]
    assert ruled.pipeline.sources == again.pipeline.sources


def test_a_named_index_replaces_the_former_with_its_options():
    former = fitted(index={"type": "faiss", "kind": "hnsw", "m": 8})
    assert former.with_config({"index": {"type": "faiss", "kind": "ivf"}}).config.index.options() == {"kind": "ivf"}
    assert former.with_config({"index": {"recall": 0.9}}).config.index.options() == {
        "kind": "hnsw",
        "m": 8,
        "recall": 0.9,
    }
