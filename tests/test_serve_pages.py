"""Lists over HTTP: pages without repeats whatever the pipeline, exactly k items, and true reasons for fallbacks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from anyrec.core.config import ServingConfig
from anyrec.recommender import Recommender
from anyrec.serving.live.pages import runs
from anyrec.serving.live.query import Query
from anyrec.serving.live.service import Service

ITEMS = small_dataset().items
PRICES = dict(zip(ITEMS["item_id"].to_pylist(), ITEMS["continuous.price"].to_pylist(), strict=True))
TAGS = "item.categorical.tags"
CHEAP = {"item.continuous.price": {"lt": 50}}
MMR, BOOST = {"type": "diversity"}, {"type": "boost", "where": {TAGS: {"contains": "nurse"}}, "factor": 3.0}
EXPLORE = {"type": "explore", "epsilon": 0.5, "positions": [1, 4, 8]}
PIPELINES = {
    "the model alone": {},
    "fewer candidates than are listed": {"retrieve": {"k": 7}},
    "calibrate": {"rerank": {"rules": [{"type": "calibrate", "feature": TAGS}]}},
    "quota": {"rerank": {"rules": [{"type": "quota", "feature": TAGS, "at_most": {"nurse": 0.3, "pilot": 2}}]}},
    "max_per_category": {
        "rerank": {"rules": [{"type": "diversity", "method": "max_per_category", "feature": TAGS, "max": 2}]}
    },
    "mmr among few": {"retrieve": {"k": 9}, "rerank": {"rules": [MMR], "k": 6}},
    "mmr, then boost": {"rerank": {"rules": [MMR, BOOST]}},
    "boost, then mmr": {"rerank": {"rules": [BOOST, MMR]}},
    "mmr, then explore": {"rerank": {"rules": [MMR, EXPLORE]}},
    "explore among few": {"rerank": {"rules": [EXPLORE], "k": 5}},
    "pin": {"rerank": {"rules": [{"type": "pin", "items": [{"item": "i005", "position": 6}]}]}},
}
"""Rules whose choice depends on the length of the list, on the candidates, or on neither."""
ONE = st.sampled_from(sorted(PRICES))
QUERIES = st.builds(
    Query,
    user_id=st.sampled_from([None, "u001", "u020", "newbie"]),
    user=st.sampled_from([None, {"categorical": {"job": "nurse"}}]),
    history=st.lists(ONE, max_size=3).map(tuple),
    exclude=st.lists(ONE, max_size=8).map(tuple),
    candidates=st.none() | st.lists(ONE, min_size=1, max_size=15).map(tuple),
    where=st.sampled_from([None, CHEAP]),
    include_seen=st.booleans(),
    now=st.just(0),
)


def trained(**changes):
    training = {"epochs": 1, "batch_size": 128, "patience": None}
    return Recommender.from_config(small_config(training=training, **changes)).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def recommender():
    return trained(features={"history": {"block": "mean"}})


@pytest.fixture(scope="module")
def services(recommender):
    """The model behind each pipeline."""
    return {
        name: Service(recommender.with_config({"pipeline": pipeline}) if pipeline else recommender, ServingConfig())
        for name, pipeline in PIPELINES.items()
    }


def page(service, query, k, offset=0):
    (found,) = service.lists([Query(**{**vars(query), "k": k, "offset": offset})])
    assert [one.rank for one in found.items] == list(range(offset + 1, offset + 1 + len(found.items)))
    return [one.item_id for one in found.items]


def eligible(service, query):
    """What a list of the query can contain, computed from the data."""
    rows = small_dataset().interactions.to_pylist()
    had = {one["item_id"] for one in rows if one["user_id"] == query.user_id} | set(query.history)
    return {
        item
        for item, price in PRICES.items()
        if item not in query.exclude
        and (query.candidates is None or item in query.candidates)
        and (query.where is None or (price is not None and price < 50))
        and (query.include_seen or item not in had)
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_pages_have_every_eligible_item_once(services, name):
    @settings(deadline=None, max_examples=3)
    @given(QUERIES, st.integers(3, 12))
    def check(query, k):
        service, expected = services[name], eligible(services[name], query)
        pages = [page(service, query, k, offset) for offset in range(0, len(expected) + k, k)]
        assert [len(one) for one in pages] == [max(0, min(k, len(expected) - n * k)) for n in range(len(pages))]
        assert {item for one in pages for item in one} == expected
        assert page(service, query, k) == pages[0]

    check()


def test_a_page_of_another_length_than_those_before_it_does_not_repeat_the_first_one(services):
    query = Query(user_id="u001", now=0)
    for service in services.values():
        first, second, third = page(service, query, 5), page(service, query, 7, 5), page(service, query, 7, 12)
        assert len({*first, *second, *third}) == 19


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 120), st.integers(0, 30))
def test_a_page_is_the_last_of_runs_that_begin_like_those_of_the_page_before(k, offset, steady, excluded):
    def lengths(start):
        query = Query(k=k, offset=start, exclude=tuple(range(excluded)))
        found = runs(query, steady)
        return [k] if found == [query] and start + k + excluded <= steady else [one.k for one in found], found

    sizes, found = lengths(offset)
    if found[0].offset:  # the page is cut out of one list
        assert found[0].wanted <= steady
        return
    assert sum(sizes) == offset + k and sizes[-1] == k and len(set(sizes[1:])) <= 1
    assert all(not one.exclude or one.wanted <= steady for one in found)
    if offset >= k:
        before, lists = lengths(offset - k)
        if not lists[0].offset and len(sizes) > 1 and sum(sizes[:-1]) == sum(before):
            assert sizes[:-1] == before or (sizes[0] == sum(before) and sizes[0] + excluded <= steady)


@settings(deadline=None, max_examples=12)
@given(
    st.sampled_from([None, "newbie"]),
    st.sampled_from([None, {}, {"categorical": {"job": "nurse"}}, {"categorical": {"hobby": "x"}}, {"continuous": {}}]),
    st.lists(ONE, max_size=2).map(tuple),
)
def test_a_list_that_is_not_personal_is_that_of_nobody(reading, user_id, user, history):
    for service in reading:
        (nobody,) = service.lists([Query(include_seen=True, now=0)])
        (found,) = service.lists([Query(user_id=user_id, user=user, history=history, include_seen=True, now=0)])
        assert nobody.fallback_reason
        if found.fallback_reason is not None:
            assert [one.item_id for one in found.items] == [one.item_id for one in nobody.items]
        else:
            assert history or (user or {}).get("categorical", {}).get("job")


@pytest.fixture(scope="module")
def reading(recommender):
    """Models that read features and histories, only features, only histories, and nothing."""
    models = [recommender, trained()]
    models += [Recommender.from_config({"model": {"type": one}}).fit(small_dataset()) for one in ("ease", "popularity")]
    return [Service(one, ServingConfig()) for one in models]
