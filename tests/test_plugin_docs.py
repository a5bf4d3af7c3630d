"""The examples of docs/plugins.md: each is a plugin that is found, keeps its contract and trains."""

import json
import re
import sys
from importlib import metadata

import pytest
from conftest import ROOT
from small import small_config, small_dataset

from anyrec.core.discovery import KINDS, discover
from anyrec.core.hooks import HOOKS
from anyrec.recommender import Recommender
from anyrec.testing import check_encoder, check_fusion, check_index

PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
CHECKS = {"encoder": check_encoder, "fusion": check_fusion, "index": check_index}
EXAMPLES = {
    name: (code, json.loads(config))
    for code, name, config in re.findall(
        r"```python\n(# plugins/(\w+)\.py\n.*?)```\n\n```json\n(.*?)```", PAGE, re.DOTALL
    )
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    for name, (code, _) in EXAMPLES.items():
        (folder / f"{name}.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def own(folder):
    """The plugins of the page by name."""
    registry = discover([folder])
    assert not registry.broken
    return {plugin.type: plugin for plugin in registry.plugins() if plugin.origin.startswith(str(folder))}


def test_the_page_has_an_example_of_each_kind(own):
    assert set(own) == set(EXAMPLES)
    assert {plugin.kind for plugin in own.values()} == set(KINDS.values()) == set(HOOKS)
    for hook in HOOKS.values():
        assert f"`{hook}`" in PAGE
    for base in KINDS:
        assert f"`{base}`" in PAGE


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_keeps_its_contract_trains_and_answers(own, folder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = own[name]
    if plugin.kind in CHECKS:
        CHECKS[plugin.kind](plugin.load())
    config = small_config(**EXAMPLES[name][1], plugins=[str(folder)])
    recommender = Recommender.from_config(config).fit(small_dataset(), progress=False)
    lists = recommender.recommend(["u001", "u002"], 5)
    assert len(lists) == 10
    loaded = Recommender.load(recommender.save(tmp_path / "model"), plugins=[folder])
    assert loaded.recommend(["u001", "u002"], 5).equals(lists)
    if plugin.kind == "vector_database":
        done = loaded.push_items(f"table:{tmp_path}/items.sqlite/items", fields=["categorical.tags"], progress=False)
        assert (done.items, done.recall) == (40, 1.0)
    if plugin.kind == "head":
        assert "liked" in recommender.score(lists.select(["user_id", "item_id"])).column_names


def test_the_package_of_the_page_is_found(own, tmp_path, monkeypatch):
    (package := tmp_path / "anyrec_length").mkdir()
    (package / "__init__.py").write_text(re.search(r"```python\n(# anyrec_length/.*?)```", PAGE, re.DOTALL)[1])
    (package / "encoder.py").write_text(EXAMPLES["length"][0])
    monkeypatch.syspath_prepend(tmp_path)
    point = metadata.EntryPoint("length", "anyrec_length", "anyrec")
    monkeypatch.setattr("anyrec.core.hooks.entry_points", lambda group: [point])
    registry = discover(warn=False)
    for name in ("anyrec_length", "anyrec_length.encoder"):
        sys.modules.pop(name, None)
    assert not registry.broken
    assert [p.origin for p in registry.plugins("encoder") if p.type == "length"] == ["package anyrec_length"]
