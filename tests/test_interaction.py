"""Interactions give the same scores for shared items and for items of each user, one at a time or in batches."""

import pytest
import torch

from anyrec.core.discovery import discover

REGISTRY = discover()
NAMES = REGISTRY.names("interaction")


def make(name):
    torch.manual_seed(0)
    cls = REGISTRY.get("interaction", name)
    shape = (3, 8) if cls.reads == "tokens" else (8,)
    fields = {"fields": (["a", "b", "c"],) * 2} if cls.reads == "tokens" else {}
    return cls(8, **fields).eval(), torch.randn(5, *shape), torch.randn(7, *shape)


@pytest.mark.parametrize("name", NAMES)
def test_shared_and_own_candidates_score_the_same(name):
    interaction, users, items = make(name)
    shared = interaction.score(users, items)
    own = interaction.score(users, items.unsqueeze(0).expand(5, *items.shape))
    alone = torch.cat([interaction.score(users[u : u + 1], items[i : i + 1]) for u in range(5) for i in range(7)]).view(
        5, 7
    )
    assert shared.shape == (5, 7)
    assert torch.allclose(shared, own, atol=1e-6)
    assert torch.allclose(shared, alone, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if REGISTRY.get("interaction", n).factorised])
def test_a_factorised_score_is_the_dot_product_of_its_vectors(name):
    interaction, users, items = make(name)
    assert torch.allclose(
        interaction.score(users, items), interaction.user_vectors(users) @ interaction.item_vectors(items).T, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_has_the_dimension_that_the_interaction_declares(name):
    interaction, users, items = make(name)
    assert interaction.pair(users, items[:5]).shape == (5, interaction.pair_dim)


def test_cosine_divides_by_its_temperature():
    cls = REGISTRY.get("interaction", "cosine")
    vector = torch.randn(1, 8)
    assert cls(8, cls.Params(temperature=0.25)).score(vector, 3 * vector).item() == pytest.approx(4.0, abs=1e-5)
