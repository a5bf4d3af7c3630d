"""The vector cache: each value is computed once, and a new value does not rewrite all others."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_a_new_value_leaves_the_file_of_many_as_it_is(tmp_path):
    vectors(range(1000), tmp_path)
    [large] = tmp_path.glob("*.safetensors")
    before = large.stat()
    for value in range(1000, 1064):
        vectors([value], tmp_path)
    after = large.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert len(list(tmp_path.glob("*.safetensors"))) <= 8
    computed = []
    assert torch.equal(vectors(range(1064), tmp_path, computed), expected(range(1064)))
    assert not computed


def test_other_parameters_have_vectors_of_their_own(tmp_path):
    vectors([1, 2], tmp_path)
    computed = []
    vectors([1, 2], tmp_path, computed, "another model")
    assert sorted(computed) == [1, 2]


def test_a_damaged_file_is_computed_again_and_removed(tmp_path):
    vectors(range(20), tmp_path)
    [damaged] = tmp_path.glob("*.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:100])
    computed = []
    assert torch.equal(vectors([3, 4], tmp_path, computed), expected([3, 4]))
    assert sorted(computed) == [3, 4] and not damaged.exists()


def test_the_one_file_of_an_older_version_is_read(tmp_path):
    vectors(range(20), tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    file.rename(tmp_path / f"{file.name[:24]}.safetensors")
    computed = []
    assert torch.equal(vectors(np.arange(20).tolist(), tmp_path, computed), expected(range(20)))
    assert not computed


def test_no_values_have_no_vectors(tmp_path):
    assert vectors([], tmp_path).shape == (0, 0)
