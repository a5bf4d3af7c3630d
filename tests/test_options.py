"""Options of components that no other test sets: each has the effect that its description promises."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from small import small_config, small_dataset

from anyrec import Recommender
from anyrec.core.config import DataConfig
from anyrec.core.discovery import discover
from anyrec.data.dataset import Dataset
from anyrec.data.leaks import drop_leaks
from anyrec.data.positives import Positives
from anyrec.data.split import Split

REGISTRY = discover()


def params(kind, name, /, **options):
    return REGISTRY.params(kind, name, options)


def component(kind, name, /, *arguments, **options):
    return REGISTRY.get(kind, name)(*arguments, params(kind, name, **options))


def prepared(name, column, **options):
    """The tensor that an encoder prepares of a column it was fitted on, and the built encoder."""
    encoder = REGISTRY.get("encoder", name)(params("encoder", name, **options), 8)
    encoder.fit(column)
    values = encoder.encode_column(column)
    encoder.build()
    return values, encoder


# Data


@pytest.mark.parametrize(("leak_share", "kept"), [(0.4, False), (0.6, True)])
def test_a_list_of_ids_leaks_if_it_names_more_than_leak_share_of_the_held_out_items(leak_share, kept):
    users = pa.table({"user_id": ["a", "b"], "temporal.liked": pa.array([["x"], ["z"]])})
    items = pa.table({"item_id": ["x", "y", "z"]})
    interactions = pa.table({"user_id": ["a", "b", "a", "b"], "item_id": ["z", "z", "x", "y"]})
    data = Dataset(users, items, interactions, roles={"user.liked": "items"})
    split = Split(
        np.array([0, 1]), np.array([], np.int64), np.array([2, 3]), "file"
    )  # one of two held-out items is named
    found, warnings = drop_leaks(data, split, DataConfig(leak_share=leak_share))
    assert ("temporal.liked" in found.users.column_names) == kept and bool(warnings) != kept


# Losses


def test_margins_bound_where_a_pair_adds_no_loss():
    positive, negative = torch.tensor([2.0]), torch.tensor([[0.5]])
    triplet = [float(component("loss", "triplet", margin=m)(positive, negative, None, None)) for m in (1.0, 1.5, 2.5)]
    assert triplet == pytest.approx([0.0, 0.0, 1.0])
    contrastive = component("loss", "contrastive", margin=3.0)(positive, negative, None, None)
    assert float(contrastive) == pytest.approx(((3 - 2) ** 2 + (3 + 0.5) ** 2) / 2)


def test_gamma_reduces_the_weight_of_easy_cases_and_0_is_cross_entropy():
    positive, negative = torch.tensor([3.0]), torch.tensor([[-1.0]])
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731

    def focal(gamma):
        return float(component("loss", "focal", gamma=gamma)(positive, negative, None, None))

    assert focal(0.0) == pytest.approx(-math.log(sigmoid(3)) - math.log(1 - sigmoid(-1)), rel=1e-5)
    expected = -((1 - sigmoid(3)) ** 3) * math.log(sigmoid(3)) - sigmoid(-1) ** 3 * math.log(1 - sigmoid(-1))
    assert focal(3.0) == pytest.approx(expected, rel=1e-5)


# Interaction and fusion


def test_the_temperature_of_a_cosine_is_trained_only_on_request():
    def names(**options):
        cls = REGISTRY.get("interaction", "cosine")
        return [name for name, _ in cls(4, params("interaction", "cosine", **options)).named_parameters()]

    assert names() == [] and names(learn_temperature=True) == ["log_scale"]


@pytest.mark.parametrize("name", ["simple", "adaptive_mimic"])
def test_layer_norm_is_in_the_fusion_only_if_it_is_on(name):
    def norms(on):
        options = {"layer_norm": on, **({"hidden_dims": [8]} if name == "simple" else {})}
        fusion = REGISTRY.get("fusion", name)(["a", "b"], 8, 8, params("fusion", name, **options))
        return sum(isinstance(one, torch.nn.LayerNorm) for one in fusion.modules())

    assert norms(True) > norms(False)


# Encoders


@pytest.mark.parametrize("encoding", ["piecewise", "periodic"])
def test_bins_is_the_number_of_columns_that_a_number_becomes(encoding):
    column = pa.array(np.linspace(0, 1, 200))
    few, many = (prepared("continuous", column, encoding=encoding, bins=bins)[1] for bins in (4, 16))
    sizes = [sum(p.numel() for p in one.parameters()) for one in (few, many)]
    assert sizes[0] < sizes[1]


def test_hidden_dim_is_the_width_of_a_sequence_encoder():
    column = pa.array([[1.0, 2.0, 3.0], [4.0]] * 5)
    sizes = []
    for width in (4, 64):
        _, encoder = prepared("sequence", column, pooling="gru", hidden_dim=width)
        sizes.append(encoder.project.in_features)
    assert sizes == [4, 64]


def test_positions_tell_two_orders_of_the_same_items_apart():
    def positional(on):
        training = {"epochs": 1, "batch_size": 128, "patience": None}
        features = {"history": {"layers": 1, "window": 8, "use_position": on}}
        recommender = Recommender.from_config(small_config(features=features, training=training))
        scorer = recommender.fit(small_dataset(), progress=False).model.scorer
        return [name for name, _ in scorer.named_parameters() if "position" in name]

    assert positional(True) and not positional(False)


def test_layout_and_histogram_weigh_the_parts_of_the_visual_descriptor(tmp_path):
    from dataclasses import replace

    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")

    def descriptor(**options):
        encoder = REGISTRY.get("encoder", "visual_descriptor")(params("encoder", "visual_descriptor", **options), 8)
        encoder.context = replace(encoder.context, root=tmp_path)
        return encoder.encode_column(pa.array(["a.png"])).values[0].square()

    whole = descriptor()
    for name in ("layout", "histogram"):
        without, doubled = descriptor(**{name: 0.0}), descriptor(**{name: 2.0})
        part = (without == 0) & (whole > 0)
        assert part.any() and not part.all()
        assert torch.allclose(doubled[part].sum(), 4 * whole[part].sum(), rtol=1e-4)
        assert torch.allclose(without[~part], whole[~part], rtol=1e-4)


def test_max_tokens_is_how_much_of_a_text_is_read(minilm):
    text = "one two three four five six seven eight nine ten"
    same = " ".join(["one two three", *text.split()[3:][::-1]])
    column = pa.array([text, same])
    options = {"model": str(minilm)}
    short = prepared("sentence", column, **options, max_tokens=5)[0].values  # 3 words and the marks of begin and end
    whole = prepared("sentence", column, **options)[0].values
    assert torch.allclose(short[0], short[1], atol=1e-5) and not torch.allclose(whole[0], whole[1], atol=1e-2)


# Classical models and sources


def test_most_words_bounds_the_vocabulary_of_content_knn():
    data = small_dataset()

    def rank(most_words):
        config = {"model": {"type": "content_knn", "most_words": most_words}}
        vectors = Recommender.from_config(config).fit(data, progress=False).model.scorer.classical.vectors
        return np.linalg.matrix_rank(vectors)

    assert rank(1) == 1 < rank(10) <= 10 < rank(50_000)


def test_most_groups_is_the_number_of_groups_with_a_popularity_of_their_own():
    def counts(most_groups):
        source = {"type": "popularity", "group": "categorical.job", "most_groups": most_groups}
        config = {"model": {"type": "popularity"}, "pipeline": {"retrieve": {"sources": [source]}}}
        fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
        return len(fitted.pipeline.sources[0].counts) - 1  # the first row is of all users

    assert [counts(n) for n in (1, 3, 100)] == [1, 3, 4]


def test_only_neighbours_of_the_latest_items_are_retrieved():
    data = small_dataset()

    def retrieved(latest):
        source = {"type": "item_to_item", "latest": latest, "neighbours": 2}
        config = {"model": {"type": "popularity"}, "pipeline": {"retrieve": {"k": 40, "sources": [source]}}}
        fitted = Recommender.from_config(config).fit(data, progress=False)
        trace = fitted.answer(["u001"], 40, trace=True, exclude_seen=False, now=0).trace.to_pylist()
        return {row["item_id"] for row in trace if row["event"] == "source" and row["by"] == "item_to_item"}

    one, all_ = retrieved(1), retrieved(100)
    assert len(one) <= 2 < len(all_) and one <= all_


# Negatives


@pytest.mark.parametrize("tries", [0, 3])
def test_the_probabilities_of_popularity_sampling_are_those_of_its_tries(tries):
    """User 0 had the popular items 0 to 3. The more tries, the less often the uniform draw is needed."""
    generator = torch.Generator().manual_seed(0)
    users, items = torch.tensor([0, 0, 0, 0] + [1] * 4 + [2] * 2), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4, 5])
    positives = Positives(users, items, 3, 8)
    sampler = component("sampler", "popularity", positives, tries=tries, alpha=1.0)
    batch = torch.zeros(400, dtype=torch.int64)
    found = sampler.sample(batch, torch.zeros_like(batch), 50, generator)
    counts = torch.bincount(found.items.flatten(), minlength=8).double()
    expected = torch.zeros(8, dtype=torch.float64)
    for item in range(8):
        drawn = found.items == item
        if drawn.any():
            expected[item] = found.log_q.expand_as(found.items)[drawn][0].exp() / 50
    assert torch.allclose(counts / counts.sum(), expected, atol=0.01) and counts[:4].sum() == 0
    uniform = counts[6] / counts.sum()  # nobody had item 6: only the uniform draw finds it
    assert uniform < 0.01 + (0.8**1 if tries == 0 else 0.8**4) / 4


# Indexes


VECTORS = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)


def index(name, /, **options):
    cls = pytest.importorskip({"faiss": "faiss", "qdrant": "qdrant_client"}.get(name, name)) and REGISTRY.get(
        "index", name
    )
    made = cls(16, "dot", params("index", name, **options))
    made.build(VECTORS)
    return made


def recall(made):
    exact = np.argsort(-(VECTORS[:50] @ VECTORS.T), axis=1)[:, :10]
    keys, _ = made.search(VECTORS[:50], 10)
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(keys, exact, strict=True)])


@pytest.mark.parametrize(
    ("name", "poor", "good"),
    [
        ("annoy", {"trees": 1, "search_k": 20}, {"trees": 50, "search_k": 20_000}),
        ("usearch", {"connectivity": 2, "expansion_add": 2}, {"connectivity": 32, "expansion_add": 200}),
        (
            "faiss",
            {"kind": "hnsw", "m": 4, "ef_search": 16, "ef_construction": 4},
            {"kind": "hnsw", "m": 16, "ef_search": 64, "ef_construction": 200},
        ),
    ],
)
def test_options_of_a_graph_or_a_forest_trade_recall_for_time(name, poor, good):
    assert recall(index(name, **poor)) + 0.05 < recall(index(name, **good)) > 0.9


def test_a_graph_built_by_all_cores_finds_as_much_as_one_built_by_one():
    assert recall(index("usearch", build_threads=0)) > 0.9


def test_qdrant_is_given_its_options_of_the_graph_and_of_the_disk(monkeypatch):
    pytest.importorskip("qdrant_client")
    from qdrant_client import QdrantClient

    seen = []
    create = QdrantClient.create_collection
    monkeypatch.setattr(QdrantClient, "create_collection", lambda *a, **o: (seen.append(o), create(*a, **o))[1])
    index("qdrant", connectivity=8, expansion_add=50, on_disk=True)
    [options] = seen
    assert (options["hnsw_config"].m, options["hnsw_config"].ef_construct) == (8, 50)
    assert options["vectors_config"].on_disk is True
