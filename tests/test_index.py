"""Every index keeps the contract; the exact one finds what is nearest, to the last tie."""

from __future__ import annotations

import pytest

from anyrec.plugins import discover
from anyrec.testing import check_index

KINDS = [("exact", {})]


@pytest.mark.parametrize(("name", "params"), KINDS)
def test_an_index_keeps_the_contract(name, params):
    check_index(discover().get("index", name), params)
