"""What runs on Ray gives the files of one machine, for any number of workers, also if one of them dies.

One start of Ray serves all tests: it takes several seconds of processor time.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small import call, small_config, small_dataset

from anyrec import Dataset, Recommender, tune
from anyrec.cli import ray_train
from anyrec.cli.run import train_run
from anyrec.cli.terminal import out
from anyrec.core.config import ClusterConfig
from anyrec.core.errors import ConfigError, DataError, Fault, ModelError
from anyrec.core.parallel import one_thread_elsewhere
from anyrec.core.ray_map import map_in_order
from anyrec.data.formats.write_json import write_json
from anyrec.serving.batch import write_lists, write_vectors
from tests.gloo import run

ray = pytest.importorskip("ray", reason="pip install 'anyrec[scale]'")

USERS = 2100
ON_ONE, ON_TWO = (ClusterConfig(type="ray", workers=workers) for workers in (1, 2))
RULES = [
    {"type": "where", "where": {"item.continuous.price": {"lt": 60}}},
    {"type": "diversity"},
    {"type": "explore", "positions": [2, 5], "epsilon": 0.5},
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    from anyrec.core.ray_cluster import VARIABLES

    os.environ.update(VARIABLES, RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0")  # a process less for each training
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved pipeline with a ranker, rules and random draws, and users for three blocks of requests."""
    folder = tmp_path_factory.mktemp("ray")
    pipeline = {
        "retrieve": {"k": 20, "sources": [{"type": "model"}, {"type": "popularity"}]},
        "rank": {"k": 10},
        "rerank": {"rules": RULES},
    }
    training = {"epochs": 1, "batch_size": 1024, "patience": None}
    features = {"history": {"layers": 1, "window": 8}}
    config = small_config(pipeline=pipeline, features=features, training=training)
    recommender = Recommender.from_config(config).fit(small_dataset(users=USERS), progress=False)
    return recommender.save(folder / "model")


def test_workers_have_the_priority_of_this_process():
    """Ray's own default is 15 lower: a training starves if anything else works on the machine."""
    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def on_ray(workers):
    return ("--set", "cluster.type=ray", "--set", f"cluster.workers={workers}")


@pytest.mark.slow
def test_lists_of_all_users_are_the_same_file(model, tmp_path):
    common = ("recommend", "--model-path", model, "--all", "--now", "2024-06-01", "--context", "country=fr")
    common = (*common, "--where", '{"item.continuous.price": {"gt": 40}}')
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    assert call(*common, "-o", here)[0] == 0
    code, _, message = call(*common, "-o", there, *on_ray(2))
    assert code == 0 and f"{USERS:,} users" in message, message
    assert here.read_bytes() == there.read_bytes() and len(here.read_bytes()) > 1000


@pytest.mark.slow
def test_embeddings_of_records_are_the_same_files(model, tmp_path, monkeypatch):
    """On as many threads, of which the last bits of matrix products depend.

    New items, and users with unseen categories and with events, some of them of unknown items.
    """
    monkeypatch.setattr("anyrec.serving.batch.EMBEDDED", 16)
    records = [{"user_id": f"u{n:03d}", "categorical": {"job": ["nurse", "smith"][n % 2]}} for n in range(50, 70)]
    events = [{"user_id": f"u{n:03d}", "item_id": f"i{n:03d}"} for n in range(50, 60)]  # there are 40 items
    events += [{"user_id": "u051", "item_id": f"i{n:03d}"} for n in range(7)]
    items = [{"item_id": f"new {n}", "text": {"title": f"Thing {n}"}} for n in range(17)]
    document = {"user_data": records, "item_data": items, "interactions": events}
    (tmp_path / "request.json").write_text(json.dumps(document))
    recommender, options = Recommender.load(model), {"form": "numpy", "progress": False}
    options["data"] = tmp_path / "request.json"
    with one_thread_elsewhere():
        here = write_vectors(recommender, tmp_path / "here", **options)
    there = write_vectors(recommender, tmp_path / "there", **options, cluster=ON_TWO)
    assert here == there and here["warnings"]
    for name in here["files"]:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name


def test_embeddings_of_known_records_do_not_depend_on_the_blocks(model, tmp_path, monkeypatch):
    recommender = Recommender.load(model)
    whole = write_vectors(recommender, tmp_path / "whole", progress=False)
    monkeypatch.setattr("anyrec.serving.batch.EMBEDDED", 600)
    assert write_vectors(recommender, tmp_path / "blocks", progress=False) == whole
    for name in whole["files"]:
        one, other = (pq.read_table(tmp_path / folder / name) for folder in ("whole", "blocks"))
        assert one.equals(other) and len(one) in (USERS, 40)


def dies_once_and_fails(folder, job):
    """Return the job. The worker that gets job 3 first is killed, and job 6 is refused."""
    if job == 3 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 6:
        raise DataError([Fault("/user_data/3", "it is wrong.", "Correct it.", "shape")], {"shape": 7})
    return job


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_an_error_is_raised_here_with_its_faults(tmp_path):
    found = []
    with pytest.raises(DataError) as error:
        for one in map_in_order(ON_TWO, partial(Path, tmp_path), dies_once_and_fails, lambda workers: range(8)):
            found.append(one)
    assert (tmp_path / "killed").exists() and found == list(range(6)), "nothing is lost or done twice"
    assert error.value.counts == {"shape": 7} and error.value.faults[0].where == "/user_data/3"
    assert error.value.exit_code == 2


def test_more_workers_than_the_cluster_has_room_for_are_refused():
    with pytest.raises(ConfigError, match="99 workers") as error:
        list(map_in_order(ClusterConfig(type="ray", workers=99), dict, max, lambda workers: range(5)))
    assert error.value.faults[0].where == "/cluster/workers"


def test_what_workers_cannot_load_is_refused(model, tmp_path):
    recommender = Recommender.load(model)
    changed = recommender.add_items([{"item_id": "new", "text": {"title": "Thing"}}])
    with pytest.raises(ModelError, match="not saved"):
        write_lists(changed, tmp_path / "lists.parquet", progress=False, cluster=ON_TWO)
    other = recommender.with_config({"index": {"type": "faiss"}}, progress=False)
    with pytest.raises(ModelError, match="anyrec index"):
        write_vectors(other, tmp_path / "vectors", progress=False, cluster=ON_TWO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("recommend", "--user-id", "u001", "--set", "cluster.type=ray"),
        ("recommend", "--all", "-o", "lists.parquet", "--set", "cluster.workers=2"),
        ("embed", "--set", "cluster.gpus=1"),
        ("search", "--text", "thing", "--set", "cluster.type=ray"),
        ("evaluate", "--set", "cluster.type=ray"),
    ],
)
def test_a_cluster_is_refused_if_the_command_does_not_use_it(model, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, message = call(*arguments, "--model-path", model)
    assert code == 2 and "cluster" in message, message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_run_the_trials_of_a_study_and_then_train_its_final_model_together(tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="pip install 'anyrec[tune]'")
    monkeypatch.chdir(tmp_path)
    write_json(small_dataset(users=40, items=24, each=6), Path("data.json"))
    training = {"epochs": 2, "batch_size": 128, "patience": None}
    config = small_config(dim=8, training=training, evaluation={"baselines": [], "report": False})
    Path("cfg.json").write_text(json.dumps({**config, "name": "ray"}))
    together = []

    def train_here(inputs):  # the tests below train on workers
        together.append(inputs)
        train_run(inputs, out)

    monkeypatch.setattr(ray_train, "train_on_ray", train_here)
    search = {"dim": [8, 16], "id_dropout": {"low": 0.0, "high": 0.5}}
    options = ("--search", "dim=8,16", "--search", "id_dropout=0.0..0.5", "--trials", "4", *on_ray(2))
    code, _, message = call("tune", "--config", "cfg.json", "--data", "data.json", *options)
    assert code == 0, message
    assert [(one.run_dir, one.config.cluster.workers, one.resume) for one in together] == [
        (Path("models/ray"), 2, True)
    ]
    data = Dataset.read("data.json")
    found = tune({**config, "name": "ray"}, data, trials=4, search=search, resume=True, final=False)
    here = tune({**config, "name": "here"}, data, trials=1, search={"dim": [8, 16]}, final=False)
    assert [(one.number, one.state) for one in found.trials] == [(number, "complete") for number in range(4)]
    assert found.trials[0].objectives == pytest.approx(here.trials[0].objectives, abs=1e-6)
    assert Recommender.load("models/ray").config.dim == found.best.values["dim"]


MORTAL = '''
"""A loss that kills the second process once, after the first epoch."""

import os
import signal
from pathlib import Path

from anyrec.classifier.losses import BPR


class Mortal(BPR):
    """BPR, until it dies."""

    type = "mortal"

    def forward(self, positive, negative, valid, weight):
        mark, saved = Path("killed"), Path("models", "killed", "checkpoints")
        if os.environ.get("RANK") == "1" and not mark.exists() and any(saved.glob("*")):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(positive, negative, valid, weight)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with data, a config and a plugin."""
    folder = tmp_path_factory.mktemp("trained")
    write_json(small_dataset(), folder / "data.json")
    (folder / "losses").mkdir()
    (folder / "losses" / "mortal.py").write_text(MORTAL)
    changes = {"loss": {"type": "mortal"}, "plugins": ["losses"], "evaluation": {"baselines": [], "report": False}}
    (folder / "cfg.json").write_text(json.dumps(small_config(**changes)))
    return folder


def train(data, name, *options):
    return call("train", "--config", "cfg.json", "--data", data, "--set", f"name={name}", *options)


def train_whole(_, folder):
    os.chdir(folder)
    assert train("data.json", "whole")[0] == 0


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit_of_the_weights_that_processes_without_ray_train(folder, monkeypatch):
    monkeypatch.chdir(folder)
    code, printed, message = train("data.json", "killed", *on_ray(2))
    assert code == 0 and (folder / "killed").exists() and "A worker died" in message, message
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("epoch")] == ["1", "2", "3"]
    assert "saved: models/killed/model" in printed
    assert not (folder / "models" / "killed" / "ray").exists()
    run(train_whole, 2, folder)  # the mark is there: nobody dies
    first, second = ((folder / "models" / name / "model" / "model.safetensors") for name in ("killed", "whole"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_bad_data_ends_the_training_with_its_faults_and_without_a_restart(folder, monkeypatch):
    monkeypatch.chdir(folder)
    document = json.loads((folder / "data.json").read_text())
    document["interactions"][3]["item_id"] = "nothing"
    (folder / "bad.json").write_text(json.dumps(document))
    code, printed, message = train("bad.json", "bad", *on_ray(1))
    assert code == 2 and "/interactions/3/item_id" in message and "Traceback" not in printed + message
    assert not (folder / "models" / "bad").exists()
