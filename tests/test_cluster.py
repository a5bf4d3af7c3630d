"""The section `cluster` of the config says where a command runs, and changes nothing of a model."""

import sys

import pytest

from anyrec.core.config import ClusterConfig, Config
from anyrec.core.discovery import discover
from anyrec.core.effects import chosen_by_user, idle_keys
from anyrec.core.errors import ConfigError, MissingDependency
from anyrec.core.load_config import load_config
from anyrec.core.ray_cluster import ray_workers

REGISTRY = discover()
RAY = {"type": "ray", "address": "auto", "workers": 2, "cpus": 2, "gpus": 1, "max_restarts": 5}


@pytest.mark.parametrize(("type", "idle"), [("none", set(RAY) - {"type"}), ("ray", set())])
def test_what_only_ray_reads_is_refused_without_ray(type, idle):
    """`shard_rows` is read by the processes of torchrun as well."""
    config = Config.model_validate({"cluster": {**RAY, "type": type, "shard_rows": 100}})
    found = chosen_by_user(idle_keys(config, REGISTRY), config, config)
    assert {one.path for one in found} == {("cluster", key) for key in idle} and all(one.is_fault for one in found)


@pytest.mark.parametrize("address", ["", "somewhere", "ray://head:10001", "http://head:1", "head:1; rm -rf"])
def test_an_address_is_auto_or_a_host_with_its_port(address):
    with pytest.raises(ConfigError, match="/cluster/address"):
        load_config({"cluster": {"type": "ray", "address": address}})
    for good in ("auto", "10.0.0.1:6379", "head.local:6379", "[::1]:6379"):
        assert load_config({"cluster": {"type": "ray", "address": good}})[0].cluster.address == good


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_refused_at_once(address):
    pytest.importorskip("ray", reason="pip install 'anyrec[scale]'")
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers"),
        ray_workers(ClusterConfig(type="ray", address=address)),
    ):
        pass


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependency, match=r"pip install 'anyrec\[scale\]'"),
        ray_workers(ClusterConfig(type="ray")),
    ):
        pass
