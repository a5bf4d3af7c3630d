"""Commands and Python calls without data: the config names the tables, relative to its own folder."""

import json

import pytest
from small import call

from anyrec import Config, Recommender
from anyrec.core.errors import ConfigError, ModelError


@pytest.fixture
def shop(tmp_path):
    """A folder with two tables and a config that names them."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [f"c{n % 12},p{(n * 7 + n // 12) % 10},2024-01-{n % 28 + 1:02d}" for n in range(120)]
    (folder / "log.csv").write_text("customer,product,day\n" + "\n".join(rows) + "\n")
    (folder / "products.csv").write_text("id;name;price\n" + "".join(f"p{n};Thing {n};{n},50\n" for n in range(10)))
    sources = {
        "items": [{
            "path": "products.csv",
            "columns": {"id": "item_id", "name": "text.title", "price": {"to": "continuous.price", "decimal": ","}},
        }],
        "interactions": [
            {"path": "log.csv", "columns": {"customer": "user_id", "product": "item_id", "day": "timestamp"}}
        ],
    }  # fmt: skip
    config = {
        "name": "m", "model": {"type": "popularity"}, "evaluation": {"report": False, "baselines": []},
        "data": {"sources": sources},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def test_every_data_command_reads_the_tables_of_the_config(shop):
    for command in ("validate", "describe", "doctor"):
        code, out, err = call(command, "--config", shop / "cfg.json")
        assert code == 0, err
        assert "12 users" in out or command == "doctor" or "12" in out


def test_a_run_is_trained_evaluated_and_repeated_from_its_saved_config(shop, tmp_path, monkeypatch):
    code, out, err = call("train", "--config", shop / "cfg.json", "--output", tmp_path / "runs")
    assert code == 0, err
    saved = tmp_path / "runs" / "m" / "config.json"
    monkeypatch.chdir(tmp_path)
    code, again, err = call("train", "--config", saved, "--output", tmp_path / "again")
    assert code == 0, err
    models = [Recommender.load(tmp_path / name / "m") for name in ("runs", "again")]
    assert models[0].model.fingerprint == models[1].model.fingerprint
    code, _, err = call("evaluate", "--model-path", tmp_path / "runs" / "m")
    assert code == 2 and "outside its folder" in err and "--trust-plugins" in err
    for more in (["--trust-plugins"], ["--config", shop / "cfg.json"], ["--config", saved]):
        code, out, err = call("evaluate", "--model-path", tmp_path / "runs" / "m", "--json", *more)
        assert code == 0 and "ndcg@10" in out, err


def test_data_on_the_command_line_takes_precedence_and_is_said(shop):
    code, out, err = call("describe", "datasets/synthetic/correlated_dataset.json", "--config", shop / "cfg.json")
    assert code == 0 and "is read, and not the tables of data.sources" in err


def test_without_data_and_sources_the_error_says_what_to_do(tmp_path):
    for arguments in (["describe"], ["train", "--output", tmp_path]):
        code, _, err = call(*arguments)
        assert code == 2 and "the config names no tables" in err and "--data" in err


def test_python_reads_the_tables_of_a_config(shop, tmp_path, monkeypatch):
    recommender = Recommender.from_config(shop / "cfg.json").fit(progress=False)
    assert len(recommender.dataset.items) == 10
    recommender.save(tmp_path / "model")
    assert len(Recommender.load(tmp_path / "model", trust_plugins=True).with_data().dataset.interactions) == 120
    with pytest.raises(ModelError, match="outside its folder"):
        Recommender.load(tmp_path / "model").with_data()
    monkeypatch.chdir(shop)
    document = json.loads((shop / "cfg.json").read_text())
    for config in (document, Config.model_validate(document)):
        fitted = Recommender.from_config(config).fit(progress=False)
        assert (
            fitted.config.data.sources.root == str(shop) and fitted.model.fingerprint == recommender.model.fingerprint
        )


def test_an_open_question_of_the_config_is_refused_before_anything_is_read(shop):
    document = json.loads((shop / "cfg.json").read_text())
    document["data"]["sources"]["interactions"][0]["columns"]["product"] = "?item_id"
    with pytest.raises(ConfigError, match="the meaning of this column is not decided"):
        Recommender.from_config(document)
