"""The formulas of docs/scale.md are those of what a training allocates and exchanges."""

from pathlib import Path

import pytest

from anyrec.core.processes import ALONE
from benchmarks.scale_simulation import compare, on_paper
from tests.gloo import run


def test_the_formulas_equal_the_counted_bytes_of_one_process() -> None:
    compare(ALONE)


@pytest.mark.slow
def test_the_formulas_equal_the_counted_bytes_of_four_processes() -> None:
    """tests/test_sharded.py counts those of two."""
    run(compare, 4, network=True)


def test_the_page_has_the_numbers_of_the_formulas() -> None:
    page = (Path(__file__).parent.parent / "docs/scale.md").read_text(encoding="utf-8")
    assert "\n".join(on_paper()) in page
