"""The vector cache: each value is computed once, and a new value does not rewrite all others."""

import hashlib
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from anyrec.core import vector_cache
from anyrec.core.vector_cache import cached_vectors, digest_of


def vectors(values, folder, computed=None, parameters="model"):
    """(values, 3) the cached vectors of whole numbers; `computed` collects those that were not in the cache."""

    def compute(places):
        found = [values[place] for place in places]
        if computed is not None:
            computed.extend(found)
        return torch.tensor([[value, value + 0.5, -value] for value in found], dtype=torch.float32)

    return cached_vectors([digest_of(str(value).encode()) for value in values], parameters, compute, folder)


def expected(values):
    return torch.tensor([[value, value + 0.5, -value] for value in values], dtype=torch.float32)


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_every_value_is_computed_once_in_any_order_of_requests(batches):
    computed = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            assert torch.equal(vectors(batch, Path(folder), computed), expected(batch))
        assert sorted(computed) == sorted({value for batch in batches for value in batch})


def test_a_new_value_is_added_at_the_end_of_the_files(tmp_path):
    vectors(range(1000), tmp_path)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    inodes = {file: file.stat().st_ino for file in files}
    vectors([1000], tmp_path)
    assert {file.suffix: file.stat().st_size - len(was) for file, was in files.items()} == {".keys": 24, ".rows": 12}
    assert all(file.read_bytes().startswith(was) and file.stat().st_ino == inodes[file] for file, was in files.items())
    computed = []
    assert torch.equal(vectors(range(1001), tmp_path, computed), expected(range(1001)))
    assert not computed


def test_other_parameters_have_vectors_of_their_own(tmp_path):
    vectors([1, 2], tmp_path)
    computed = []
    vectors([1, 2], tmp_path, computed, "another model")
    assert sorted(computed) == [1, 2]


def file(folder, ending):
    [found] = folder.glob(f"*{ending}")
    return found


@pytest.mark.parametrize("ending", [".keys", ".rows"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.33, 0.999])
def test_a_torn_file_loses_only_its_torn_end(tmp_path, ending, share):
    vectors(range(20), tmp_path)
    torn = file(tmp_path, ending)
    torn.write_bytes(torn.read_bytes()[: int(share * torn.stat().st_size)])
    computed = []
    for _ in range(2):
        assert torch.equal(vectors(range(25), tmp_path, computed), expected(range(25)))
    assert len(computed) == len(set(computed)) and (share < 0.9 or len(computed) == 6)


@pytest.mark.parametrize(("ending", "place"), [(".rows", 5 * 12 + 1), (".keys", 6 * 24 + 17), (".keys", 6 * 24)])
def test_a_damaged_vector_is_computed_again(tmp_path, ending, place):
    vectors(range(20), tmp_path)
    damaged = bytearray(file(tmp_path, ending).read_bytes())
    damaged[place] ^= 1
    file(tmp_path, ending).write_bytes(damaged)
    computed = []
    for _ in range(2):
        assert torch.equal(vectors(range(20), tmp_path, computed), expected(range(20)))
    assert len(computed) == 1


def test_vectors_that_never_reached_the_disk_are_computed_again(tmp_path):
    """After a power failure the keys can be there and the vectors zeros."""
    vectors(range(1, 20), tmp_path)
    rows = file(tmp_path, ".rows")
    rows.write_bytes(bytes(rows.stat().st_size))
    assert torch.equal(vectors(range(1, 20), tmp_path), expected(range(1, 20)))


def test_files_that_are_no_cache_are_replaced(tmp_path):
    vectors(range(20), tmp_path)
    file(tmp_path, ".keys").write_bytes(b"something else, and long enough for a record")
    computed = []
    for _ in range(3):
        assert torch.equal(vectors(range(20), tmp_path, computed), expected(range(20)))
    assert len(computed) == 40


def test_a_model_of_another_dimension_replaces_the_vectors(tmp_path):
    vectors(range(20), tmp_path)
    keys = [digest_of(str(value).encode()) for value in range(15, 25)]
    for _ in range(2):
        made = cached_vectors(keys, "model", lambda rows: torch.tensor([[row, row] for row in rows]), tmp_path)
        assert torch.equal(made, torch.tensor([[row, row] for row in range(10)]).float())


def test_the_files_of_earlier_versions_are_taken_over(tmp_path):
    name = hashlib.sha256(b"model").hexdigest()[:24]
    for start in (0, 10):
        keys = np.frombuffer(b"".join(digest_of(str(v).encode()) for v in range(start, start + 10)), np.int64)
        stored = {"keys": torch.from_numpy(keys.reshape(-1, 2).copy()), "rows": expected(range(start, start + 10))}
        save_file(stored, tmp_path / f"{name}-{start}.safetensors")
    (tmp_path / f"{name}.safetensors").write_bytes(b"damaged")
    computed = []
    assert torch.equal(vectors(range(20), tmp_path, computed), expected(range(20)))
    assert not computed and not list(tmp_path.glob("*.safetensors"))


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert torch.equal(vectors(range(20), tmp_path / "cache"), expected(range(20)))


def add_many(folder, start):
    for value in range(start, start + 60):
        vectors([value, value + 1], folder)


def test_processes_add_to_one_cache_at_once(tmp_path):
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        list(pool.map(partial(add_many, tmp_path), [0, 30, 60, 200]))
    computed = []
    assert torch.equal(vectors(range(121), tmp_path, computed), expected(range(121)))
    assert not computed


def test_what_was_computed_before_an_interruption_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_cache, "BLOCK", 4)
    keys = [digest_of(str(value).encode()) for value in range(20)]
    calls = []

    def interrupted(rows):
        calls.append(rows)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return expected(rows)

    with pytest.raises(KeyboardInterrupt):
        cached_vectors(keys, "model", interrupted, tmp_path)
    computed = []
    assert torch.equal(vectors(range(20), tmp_path, computed), expected(range(20)))
    assert len(computed) == 8


def test_no_values_have_no_vectors(tmp_path):
    assert vectors([], tmp_path).shape == (0, 0)
