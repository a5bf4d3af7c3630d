"""Ranks do not depend on how the work is cut into blocks, nor on where it is done."""

import numpy as np
import pytest
import torch

from anyrec.core.ranks import _count_in_bulk, _count_row_by_row
from anyrec.data.pairs import Pairs
from anyrec.evaluation import ranking
from anyrec.evaluation.ranking import rank_targets
from anyrec.model.scoring import top_k

USERS, ITEMS = 70, 50


@pytest.mark.parametrize("each", [1, 9])
def test_counting_row_by_row_equals_counting_in_bulk(each):
    rng = np.random.default_rng(each)
    scores = torch.tensor(rng.integers(0, 9, (USERS, ITEMS))).float()
    scores[torch.tensor(rng.random((USERS, ITEMS)) < 0.2)] = -torch.inf
    rows = torch.arange(USERS).repeat_interleave(each)
    wanted = torch.tensor(rng.integers(0, 9, len(rows))).float()
    assert torch.equal(_count_row_by_row(scores, rows, wanted), _count_in_bulk(scores, rows, wanted))


@pytest.mark.parametrize("sample", [None, 5])
def test_blocks_of_any_size_give_the_same_ranking(monkeypatch, sample):
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.integers(0, 9, (USERS, ITEMS)))
    targets, seen = (Pairs.of(rng.integers(0, USERS, 99), rng.integers(0, ITEMS, 99), USERS) for _ in range(2))
    sizes = []

    def score(users):
        sizes.append(len(users))
        return scores[users]

    whole = rank_targets(score, targets, seen, sample=sample)
    monkeypatch.setattr(ranking, "CELLS", 7 * ITEMS)
    sizes.clear()
    blocked = rank_targets(score, targets, seen, sample=sample)
    assert max(sizes[1:]) == 7
    for one, other in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_equal_scores_the_first_are_taken():
    generator = torch.Generator().manual_seed(0)
    for k in (1, 3, 7, 20):
        scores = torch.randint(0, 4, (50, 20), generator=generator).float()
        scores[torch.rand(50, 20, generator=generator) < 0.2] = -torch.inf
        values, places = top_k(scores, k)
        wanted = torch.sort(scores, dim=1, descending=True, stable=True)
        there = wanted.values[:, :k] > -torch.inf
        assert torch.equal(values, wanted.values[:, :k])
        assert torch.equal(places[there], wanted.indices[:, :k][there])
