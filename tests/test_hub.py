"""Models on the Hugging Face Hub: published and downloaded through a Hub on this machine, and read from its cache."""

import json
import os
import shutil

import pytest
import yaml
from hub_server import TOKEN, hub_server
from small import call, small_dataset

from anyrec import Recommender
from anyrec.core.errors import InputError, ModelError
from anyrec.storage.hub import model_folder


@pytest.fixture(scope="module")
def recommender():
    card = {"license": "apache-2.0", "data": 'A generated shop: "quotes"\n# and: lines', "intended_use": "Tests."}
    config = {"name": "shop", "model": {"type": "ials", "factors": 8, "iterations": 3}, "card": card}
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The state of the Hub that the client of this process talks to, with an empty cache."""
    from huggingface_hub import constants

    with hub_server() as (address, hub):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("ANYREC_CACHE", str(tmp_path / "anyrec-cache"))
        yield hub


def header(text):
    """The metadata of a model card."""
    return yaml.safe_load(text.split("---\n")[1])


def test_a_published_model_is_the_same_after_its_download(recommender, hub):
    address = recommender.push_to_hub("me/shop", message="First")
    assert "/me/shop/commit/" in address and hub.messages == ["First"] and hub.private["me/shop"]
    for name in ("me/shop", "hf://me/shop", "hf://me/shop@main"):
        loaded = Recommender.from_pretrained(name)
        assert loaded.recommend(["u001"], 5).equals(recommender.recommend(["u001"], 5))
        assert loaded.metrics == recommender.metrics


def test_a_revision_is_a_branch_or_a_commit_and_replaced_files_are_deleted(recommender, hub):
    recommender.push_to_hub("me/shop")
    first = hub.branches["me/shop"]["main"]
    hub.commit("me/shop", "main", {**hub.commits[first], "stale.txt": b"from another program"})
    other = Recommender.from_config({"model": {"type": "ease"}}).fit(small_dataset(), progress=False)
    other.push_to_hub("me/shop")
    other.push_to_hub("me/shop", revision="ease")
    newest = hub.commits[hub.branches["me/shop"]["main"]]
    assert "stale.txt" not in newest and ".gitattributes" in newest
    types = {
        revision: Recommender.from_pretrained("me/shop", revision=revision).config.model.type
        for revision in (None, "ease", first)
    }
    assert types == {None: "ease", "ease": "ease", first: "ials"}
    with pytest.raises(ModelError, match="no such revision"):
        Recommender.from_pretrained("me/shop", revision="v9")


def test_a_model_is_published_openly_only_if_the_caller_says_so(recommender, hub):
    recommender.push_to_hub("me/open", private=False)
    assert not hub.private["me/open"]
    before = dict(hub.branches["me/open"])
    with pytest.raises(InputError, match=r"is public.*private=False"):
        recommender.push_to_hub("me/open")
    assert hub.branches["me/open"] == before


def test_without_a_token_or_a_repository_the_error_says_so(recommender, hub, monkeypatch):
    recommender.push_to_hub("me/shop")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(ModelError, match="no such repository, or it is private"):
        Recommender.from_pretrained("me/shop")
    with pytest.raises(InputError, match="401"):
        recommender.push_to_hub("me/second")
    hub.private["me/data"], hub.branches["me/data"] = False, {}
    hub.commit("me/data", "main", {"data.csv": b"a,b\n"})
    with pytest.raises(ModelError, match="no model of anyrec"):
        Recommender.from_pretrained("me/data")


def test_offline_the_cache_answers(recommender, hub, monkeypatch, tmp_path):
    recommender.push_to_hub("me/shop")
    online = Recommender.from_pretrained("me/shop")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for folder in ("", "anyrec-cache"):  # with and without the links in the cache of anyrec
        if folder:
            shutil.rmtree(tmp_path / folder)
        assert Recommender.from_pretrained("me/shop").recommend(k=3).equals(online.recommend(k=3))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        Recommender.from_pretrained("me/other")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        recommender.push_to_hub("me/shop")


def test_a_damaged_download_is_refused(recommender, hub):
    recommender.push_to_hub("me/shop")
    files = hub.commits[hub.branches["me/shop"]["main"]]
    hub.commit("me/shop", "main", {**files, "seen.arrow": files["seen.arrow"][:-8] + b"\0" * 8})
    with pytest.raises(ModelError, match=r"seen\.arrow"):
        Recommender.from_pretrained("me/shop")


def test_a_downloaded_model_is_not_trusted(hub, tmp_path):
    (tmp_path / "own-plugins").mkdir()
    own = Recommender.from_config({"model": {"type": "ials", "factors": 4}, "plugins": [str(tmp_path / "own-plugins")]})
    own.fit(small_dataset(), progress=False).push_to_hub("me/plugins")
    loaded = Recommender.from_pretrained("me/plugins")
    assert not loaded.model.context.trusted and any("not trusted" in note for note in loaded.notes)
    assert Recommender.from_pretrained("me/plugins", trust_plugins=True).model.context.trusted


def test_folders_go_first_and_have_no_revisions(recommender, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recommender.save_pretrained("me/shop")
    loaded = Recommender.from_pretrained("me/shop")
    assert loaded.recommend(k=3).equals(recommender.recommend(k=3))
    with pytest.raises(ModelError, match="no revisions"):
        Recommender.from_pretrained("me/shop", revision="main")
    for wrong in ("hf://shop", "hf://me/shop/extra"):
        with pytest.raises(ModelError, match="no model of the Hub"):
            model_folder(wrong)
    with pytest.raises(ModelError, match="two revisions"):
        model_folder("hf://me/shop@v1", revision="v2")


def test_commands_publish_and_read_models_of_the_hub(recommender, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recommender.save("models/shop/model")
    code, out, message = call("push", "me/shop", "--model-path", "models/shop", "--set", "card.license=mit")
    assert code == 0 and "me/shop" in out, message
    assert header(hub.commits[hub.branches["me/shop"]["main"]]["README.md"].decode())["license"] == "mit"
    code, out, message = call("recommend", "--model-path", "hf://me/shop", "--user-id", "u001", "--json")
    assert code == 0, message
    expected = recommender.recommend(["u001"], 10).column("item_id").to_pylist()
    assert [one["item_id"] for one in json.loads(out)["users"][0]["recommendations"]] == expected
    code, _, message = call("recommend", "--model-path", "hf://me/nothing", "--user-id", "u001")
    assert code == 2 and "no such repository" in message
    small = tmp_path / "more.json"
    small.write_text(json.dumps({"user_data": [{"user_id": "new"}], "item_data": [], "interactions": []}))
    code, _, message = call("update", "--data", small, "--model-path", "hf://me/shop")
    assert code == 2 and "--output" in message


def test_the_card_has_metadata_metrics_data_use_and_licences(recommender, tmp_path):
    text = (recommender.save(tmp_path / "model") / "README.md").read_text(encoding="utf-8")
    found = header(text)
    assert found["library_name"] == "anyrec" and found["license"] == "apache-2.0"
    result = found["model-index"][0]["results"][0]
    assert result["dataset"]["split"] == "test"
    assert {one["type"]: one["value"] for one in result["metrics"]} == pytest.approx(recommender.metrics["test"])
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert manifest["data"] in text and "Tests." in text and "apache-2.0" in text and "## Limitations" in text
    from huggingface_hub import ModelCard

    assert ModelCard(text).data.to_dict()["model-index"]  # as the Hub's own library reads it


def test_a_card_without_details_says_that_they_are_not_stated(tmp_path):
    plain = Recommender.from_config({"model": {"type": "popularity"}}).fit(small_dataset(), progress=False)
    text = (plain.save(tmp_path / "model") / "README.md").read_text(encoding="utf-8")
    assert "license" not in header(text) and text.count("not stated") == 3
    assert os.path.getsize(tmp_path / "model" / "README.md") < 10_000
