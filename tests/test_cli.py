"""The command line as a user runs it: the example lines, exit codes, errors without traceback."""

import json
from pathlib import Path

import jsonschema
import pytest
from forked import run_program
from small import call

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "datasets" / "synthetic" / "correlated_dataset.json"
BASELINES = 'evaluation.baselines=["popularity"]'
"""Others are fitted with several options, which takes most of the time."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    config = ROOT / "configs" / "correlated_dataset_config.json"
    smaller = ("--set", "training.epochs=2", "--set", "features.image.size=16", "--set", BASELINES)
    code, out, err = run_program("train.py", "--config", config, "--data", SAMPLE, "--output_dir", folder, *smaller)
    assert code == 0, err
    return folder / "correlated_dataset", out


def test_train_prints_towers_epochs_metrics_and_leaves_a_whole_run(trained):
    folder, out = trained
    for part in ("user tower:", "image.views (cnn)", "parameters:", "epoch   2", "ndcg@10", "saved:"):
        assert part in out
    assert {path.name for path in folder.iterdir()} == {
        "model",
        "config.json",
        "environment.json",
        "overview.json",
        "metrics.jsonl",
        "checkpoints",
        "split.json",
        "split.parquet",
        "evaluation",
        "baselines",
        "figures",
        "report.md",
        "report.html",
    }
    saved = json.loads((folder / "config.json").read_text())
    assert saved["features"]["image"]["size"] == 16 and saved["training"]["epochs"] == 2


@pytest.mark.parametrize("names", [("--model_path", "--top_k"), ("--model-path", "--top-k")])
def test_inference_answers_in_the_published_schema(trained, names):
    folder, _ = trained
    code, out, err = run_program(
        "inference.py", names[0], folder, "--data", "test_input.json", names[1], "4", "--embeddings"
    )
    assert code == 0, err
    result = json.loads(out)
    jsonschema.validate(result, json.loads((ROOT / "schemas" / "result.schema.json").read_text()))
    request = json.loads((ROOT / "test_input.json").read_text())
    assert [u["user_id"] for u in result["users"]] == [u["user_id"] for u in request["user_data"]]
    assert all(len(u["recommendations"]) == 4 and len(u["embedding"]) == 32 for u in result["users"])
    assert [i["item_id"] for i in result["items"]] == ["new_item"]
    assert len(result["scores"]) == len(request["user_data"])


def test_older_option_names_and_any_file_of_the_run_find_the_model(trained, tmp_path):
    folder, _ = trained
    for options in (
        (
            "--model_dir",
            folder.parent,
            "--model_name",
            folder.name,
            "--config_path",
            folder / "config.json",
        ),
        ("--model_path", folder / "model" / "model.safetensors"),
        ("--model_path", folder / "best_model.pth"),
    ):
        code, out, err = call(
            "recommend", *options, "--data_path", ROOT / "test_input.json", "--output", tmp_path / "out.json"
        )
        assert code == 0, err
        assert json.loads((tmp_path / "out.json").read_text())["top_k"] == 10


def test_embed_similar_and_evaluate(trained, tmp_path):
    folder, printed = trained
    assert call("embed", "--model_path", folder, "--output", tmp_path)[0] == 0
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "items.parquet").num_rows == 100
    code, out, _ = call("similar", "--model_path", folder, "--item", "item3", "--top_k", "2", "--json")
    assert code == 0 and [row["rank"] for row in json.loads(out)] == [1, 2]
    code, out, _ = call("evaluate", "--model_path", folder, "--data", SAMPLE)
    row = next(line for line in printed.splitlines() if line.split()[:1] == ["ndcg@10"])
    assert json.loads(out)["ndcg@10"] == pytest.approx(float(row.split()[2]), abs=6e-5)


def test_bad_input_is_reported_with_exit_code_2_and_nothing_is_overwritten(trained, tmp_path):
    folder, _ = trained
    before = (folder / "model" / "manifest.json").read_bytes()
    bad = tmp_path / "bad.json"
    bad.write_text(SAMPLE.read_text().replace('"user_id":"user7"', '"user_id":7', 1))
    code, out, err = run_program(
        "train.py", "--data", bad, "--output_dir", folder.parent, "--set", "name=correlated_dataset"
    )
    assert code == 2 and "Traceback" not in err
    assert "/user_data/7/user_id" in err and "unknown id" not in out
    assert (folder / "model" / "manifest.json").read_bytes() == before
    for arguments, expected in (
        (("train", "--data", SAMPLE, "--set", "fusion.type=gatedd"), "Did you mean 'gated'"),
        (
            ("train", "--data", SAMPLE, "--set", "fusion.type=attention", "--set", "fusion.heads=2"),
            "Did you mean 'num_heads'",
        ),
        (("train", "--data", SAMPLE, "--set", "trainin.epochs=3"), "Did you mean 'training'"),
        (
            (
                "train",
                "--data",
                SAMPLE,
                "--set",
                "training.optimizer.sparse=true",
                "--set",
                "training.optimizer.weight_decay=0.1",
            ),
            "weight_decay",
        ),
        (("train", "--data", tmp_path / "none.json"), "no such file"),
        (("train", "--data", SAMPLE, "--set", "epochs"), "expected key=value"),
        (("recommend", "--data", SAMPLE), "no model was named"),
        (("recommend", "--model_path", tmp_path, "--data", SAMPLE), "no model is here"),
        (("similar", "--model_path", folder, "--item", "nothing"), "knows no such item"),
        (("synth", tmp_path / "x.json", "--preferences", "pric"), "Did you mean 'price'"),
        (("schema", "cfg"), "config, dataset or result"),
        (("validate", bad), "/user_data/7/user_id"),
    ):
        code, _, message = call(*arguments)
        assert (code, expected in message) == (2, True), message


def test_init_writes_a_config_that_trains(tmp_path):
    code, out, _ = call("init", SAMPLE)
    assert code == 0
    (tmp_path / "cfg.json").write_text(out)
    code, out, message = call(
        "train", "--config", tmp_path / "cfg.json", "--data", SAMPLE, "--output", tmp_path, "--set", "training.epochs=1"
    )
    assert code == 0, message
    assert (tmp_path / "correlated_dataset" / "model" / "manifest.json").exists()


def test_validate_and_describe(tmp_path):
    code, _, err = run_program("-m", "anyrec.cli.app", "--help")
    assert code == 0
    code, out, _ = call("validate", SAMPLE)
    assert code == 0
    moved = tmp_path / "alone.json"
    moved.write_text(SAMPLE.read_text())
    config = tmp_path / "cfg.json"
    config.write_text('{"data": {"strict": true}}')
    code, _, message = call("validate", moved, "--config", config)
    assert code == 2 and "missing image" in message
    assert call("validate", moved, "--config", config, "--image_root", SAMPLE.parent)[0] == 0
    assert call("describe", SAMPLE)[0] == 0


def test_a_fresh_run_resumes_and_seed_and_image_root_reach_the_config(tmp_path):
    base = (
        "train",
        "--data",
        SAMPLE,
        "--output",
        tmp_path,
        "--seed",
        "3",
        "--set",
        "features.image=null",
        "--set",
        "dim=8",
        "--set",
        "training.scheduler.type=constant",
        "--set",
        BASELINES,
    )
    assert call(*base, "--set", "training.epochs=1")[0] == 0
    assert call(*base, "--set", "training.epochs=2", "--resume")[0] == 0
    run_dir = tmp_path / "model"
    assert json.loads((run_dir / "config.json").read_text())["seed"] == 3
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 2
