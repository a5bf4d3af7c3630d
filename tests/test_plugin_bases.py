"""Drop-in classes of every kind that derive from a built-in class or from a base class under another name."""

import importlib
import sys
from importlib import metadata

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ROOT
from small import call, small_config, small_dataset

from anyrec.core.class_sources import ancestry_of, read_source
from anyrec.core.discovery import KINDS, discover, read_folder
from anyrec.recommender import Recommender

BUILT_IN = {
    "encoder": ("hashed", {"features": {"text": {"type": "mine"}}}),
    "fusion": ("gated", {"fusion": {"type": "mine"}}),
    "interaction": ("dot", {"interaction": {"type": "mine"}}),
    "head": ("rating", {"heads": {"stars": {"type": "mine"}}}),
    "loss": ("bpr", {"loss": {"type": "mine"}}),
    "sampler": ("uniform", {"negatives": {"type": "mine"}}),
    "classical": ("item_knn", {"model": {"type": "mine"}}),
    "index": ("exact", {"index": {"type": "mine"}}),
    "source": ("popularity", {"pipeline": {"retrieve": {"sources": [{"type": "mine"}]}}}),
    "provider": ("files", {"data": {"sources": {"interactions": [{"path": "log.csv", "provider": {"type": "mine"}}]}}}),
    "tracker": ("tensorboard", {"tracking": {"mine": {"folder": "events"}}}),
    "rule": ("history", {"pipeline": {"rerank": {"rules": [{"type": "mine"}]}}}),
}
"""For each kind of component a built-in type, and a config that uses a class derived from it."""


def derived(kind):
    """The source of a drop-in class of a kind, which derives from a built-in one and changes only the name."""
    built_in = next(one for one in discover(drop_in=False).plugins(kind) if one.type == BUILT_IN[kind][0])
    return (
        f"from {built_in.module} import {built_in.class_name} as Base\n\n\n"
        f'class Mine(Base):\n    """A {kind} of our own."""\n\n    type = "mine"\n'
    )


@pytest.mark.parametrize("kind", BUILT_IN)
def test_a_class_that_derives_from_a_built_in_one_is_found_trains_is_saved_and_loaded(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(derived(kind))
    plugin = next(one for one in discover([tmp_path]).plugins() if one.type == "mine")
    built_in = next(one for one in discover(drop_in=False).plugins(kind) if one.type == BUILT_IN[kind][0])
    assert (plugin.kind, plugin.group, plugin.role) == (kind, built_in.group, built_in.role)
    assert not plugin.preferred, "the default of a group stays what it was"
    code, shown, _ = call("plugins", "mine", "--plugins", tmp_path)
    assert code == 0 and f"A {kind} of our own." in shown
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    config = small_config(**BUILT_IN[kind][1], training=training, plugins=[str(tmp_path)])
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    lists = fitted.recommend(["u001", "u002"], 5)
    loaded = Recommender.load(fitted.save(tmp_path / "model"), plugins=[tmp_path])
    assert len(lists) == 10 and loaded.recommend(["u001", "u002"], 5).equals(lists)


def test_there_is_a_test_of_every_kind():
    assert set(BUILT_IN) == set(KINDS.values()) - {"vector_database"}  # which no config names: test_plugin_docs.py


@pytest.mark.parametrize(
    "source",
    [
        "from anyrec import Encoder as Base\nclass Mine(Base):\n    type = 'mine'\n    group = 'text'\n",
        "import anyrec as ar\nclass Mine(ar.Encoder):\n    type = 'mine'\n    group = 'text'\n",
        "import anyrec\nBase = anyrec.Encoder\nclass Mine(Base):\n    type = 'mine'\n    group = 'text'\n",
        "import anyrec.encoders.text as texts\nclass Mine(texts.Hashed):\n    type = 'mine'\n",
        "from anyrec.encoders import text\nBase = text.Hashed\nclass _Half(Base):\n    pass\n"
        "class Mine(_Half):\n    type = 'mine'\n",
        "from anyrec.encoders.text_statistics import TextStatistics\nclass Mine(TextStatistics):\n    type = 'mine'\n",
        "import abc\nimport anyrec\nclass Mine(abc.ABC, anyrec.Encoder):\n    type = 'mine'\n    group = 'text'\n",
    ],
)
def test_a_base_class_is_recognised_under_any_name(source, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    assert [(one.kind, one.type, one.group) for one in read_folder(tmp_path).plugins] == [("encoder", "mine", "text")]


@pytest.mark.parametrize(
    "source",
    [
        "class Encoder:\n    pass\nclass Mine(Encoder):\n    type = 'mine'\n",
        "from torch import nn\nclass Mine(nn.Module):\n    type = 'mine'\n",
        "A = B\nB = A\nclass Mine(A):\n    type = 'mine'\n",
        "from anyrec.encoders.nothing import Hashed\nclass Mine(Hashed):\n    type = 'mine'\n",
        "class Mine(make_base()):\n    type = 'mine'\n",
        "class Mine(Mine):\n    type = 'mine'\n",
    ],
)
def test_a_class_with_another_base_is_no_component(source, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    found = read_folder(tmp_path)
    assert not found.plugins and not found.broken


def test_base_classes_of_an_installed_package_with_plugins_are_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "site" / "anyrec_base_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .encoder import Base\nraise SystemExit('imported')\n")
    (package / "encoder.py").write_text("from anyrec import Encoder\nclass Base(Encoder):\n    group = 'text'\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    point = metadata.EntryPoint("base", "anyrec_base_test", "anyrec")
    monkeypatch.setattr("anyrec.core.class_sources.entry_points", lambda group: [point])
    (tmp_path / "mine.py").write_text("from anyrec_base_test import Base\nclass Mine(Base):\n    type = 'mine'\n")
    (plugin,) = read_folder(tmp_path).plugins
    assert (plugin.kind, plugin.group) == ("encoder", "text") and "anyrec_base_test" not in sys.modules


def test_the_ancestry_of_every_built_in_component_is_that_of_python():
    import ast

    for plugin in discover(drop_in=False).plugins():
        path = ROOT / plugin.module.removeprefix("anyrec.").replace(".", "/")
        path = path if path.with_suffix(".py").is_file() else ROOT / plugin.module.replace(".", "/")
        source = read_source(ast.parse(path.with_suffix(".py").read_text()), plugin.module.rpartition(".")[0])
        names = [node.name for node in ancestry_of(plugin.class_name, source, KINDS).nodes]
        assert set(names) <= {one.__name__ for one in plugin.load().__mro__}


STATES = '''
import numpy as np
import pyarrow as pa
import torch
from anyrec import Encoder


class Stateful(Encoder):
    """Learns arrays of every rank and kind."""

    type = "stateful"
    group = "text"

    def fit(self, column):
        self.learned = {
            "scalar": np.float64(2.5) * np.ones(()),
            "number": np.float32(1.5),
            "vector": np.arange(4),
            "matrix": np.arange(6, dtype=np.float32).reshape(2, 3).T,
            "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
            "empty": np.zeros((0, 3), bool),
            "limits": np.array([-np.inf, 0.0, np.inf]),
            "tensor": torch.arange(8.0).reshape(2, 2, 2),
            "zero": torch.tensor(7),
            "texts": pa.array(["a", None]),
            "nested": {"inner": np.eye(2), "list": [np.ones(2), {"deep": torch.ones(1, 1)}], "plain": [1, "x"]},
        }

    def prepare(self, column):
        return torch.ones(len(column), 1)

    def state(self):
        return self.learned

    def restore(self, state):
        self.learned = state
'''


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.generic):
        return one == other
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return one.equals(other) if isinstance(one, pa.Array) else one == other


def test_arrays_of_any_rank_in_the_state_of_an_encoder_survive_saving(tmp_path):
    from anyrec.testing import check_encoder

    (tmp_path / "stateful.py").write_text(STATES)
    check_encoder(discover([tmp_path]).get("encoder", "stateful"))
    config = small_config(features={"text": {"type": "stateful"}}, plugins=[str(tmp_path)], user={"features": {}})
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    loaded = Recommender.load(fitted.save(tmp_path / "model"), plugins=[tmp_path])
    for side in ("user", "item"):
        before, after = (dict(model.model.scorer.tower(side).named_encoders()) for model in (fitted, loaded))
        for name, encoder in before.items():
            if encoder.type == "stateful":
                assert same(encoder.learned, after[name].learned)
    assert loaded.recommend(None, 3).equals(fitted.recommend(None, 3))


def test_arrays_of_any_rank_in_the_states_of_classical_models_and_sources_survive_saving(tmp_path):
    (tmp_path / "both.py").write_text(
        """
import numpy as np
from anyrec import Classical, Lists, Source

STATE = {"scalar": np.array(2.5), "vector": np.arange(3.0), "cube": np.arange(8).reshape(2, 2, 2)}


class Constant(Classical):
    type = "constant"

    def fit(self, history):
        self.learned = STATE

    def score(self, rows, matrix):
        return np.tile(np.arange(matrix.shape[1], dtype=np.float32), (len(rows), 1))

    def state(self):
        return self.learned

    def restore(self, state):
        self.learned = state


class First(Source):
    type = "first"

    def fit(self, model, positives):
        self.learned = STATE

    def retrieve(self, request, k, allowed):
        return Lists(np.zeros((len(request.ids), 0), np.int64), np.zeros((len(request.ids), 0), np.float32))

    def state(self):
        return self.learned

    def restore(self, state):
        self.learned = state
"""
    )
    pipeline = {"retrieve": {"sources": [{"type": "model"}, {"type": "first"}]}}
    config = {"model": {"type": "constant"}, "pipeline": pipeline, "plugins": [str(tmp_path)]}
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    loaded = Recommender.load(fitted.save(tmp_path / "model"), plugins=[tmp_path])
    for found in (loaded.model.scorer.classical, loaded.pipeline.sources[1]):
        assert found.learned.keys() == {"scalar", "vector", "cube"}
        assert same(found.learned["scalar"], np.array(2.5)) and found.learned["cube"].shape == (2, 2, 2)
