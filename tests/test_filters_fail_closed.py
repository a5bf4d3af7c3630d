"""Filters fail closed: invalid options are refused when the config is checked, and a failure refuses the request."""

import datetime as dt
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked import ask
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config, small_dataset

from anyrec.core.config import PipelineConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import AnyrecError, ConfigError, DataError, InputError
from anyrec.pipeline.conditions.conditions import Condition
from anyrec.pipeline.conditions.features import known_types, values_of
from anyrec.pipeline.contracts import Rule
from anyrec.pipeline.pipeline import Pipeline
from anyrec.pipeline.reranking.item_files import ItemFile
from anyrec.recommender import Recommender

REGISTRY = discover()


class BrokenFilter(Rule):
    type = "broken_filter"

    def allowed(self, request):
        raise ZeroDivisionError("no luck")


class BrokenMask(Rule):
    type = "broken_mask"

    def allowed(self, request):
        return np.ones(3)


class BrokenOrder(Rule):
    type = "broken_order"

    def apply(self, request, lists, k):
        raise ZeroDivisionError("no luck")


@pytest.fixture(scope="module")
def recommender():
    made = Recommender.from_config(small_config(pipeline={}, training={"epochs": 1})).fit(
        small_dataset(), progress=False
    )
    for rule in (BrokenFilter, BrokenMask, BrokenOrder):
        made.registry.add_class("rule", rule, "test")
    return made


def answer(recommender, *rules, **options):
    document = {"rerank": {"rules": list(rules)}, **options.pop("pipeline", {})}
    pipeline = Pipeline(PipelineConfig.model_validate(document), recommender.registry)
    pipeline.check(recommender.model)
    return pipeline.answer(recommender.model, ["u000"], 5, **options)


@pytest.mark.parametrize("strict", [False, True])
def test_a_filter_that_fails_refuses_the_request_and_is_named(recommender, strict):
    with pytest.raises(AnyrecError, match=r"filter 'broken_filter' failed \(ZeroDivisionError: no luck\)"):
        answer(recommender, {"type": "broken_filter"}, pipeline={"strict": strict})


def test_a_filter_whose_mask_has_another_shape_refuses_the_request(recommender):
    with pytest.raises(AnyrecError, match=r"filter 'broken_mask' failed .* its mask is float64"):
        answer(recommender, {"type": "broken_mask"})


def test_a_value_of_the_moment_of_the_wrong_type_refuses_the_request_and_names_the_filter(recommender):
    rule = {"type": "where", "where": {"item.continuous.price": {"lt": "context.limit"}}}
    for value in ("late", float("nan"), 10**400, {"a": 1}, [1, 2], True):
        with pytest.raises(InputError, match=r"filter 'where': /context.limit|filter 'where': /item.continuous.price"):
            answer(recommender, rule, context={"limit": value})


def test_a_reordering_that_fails_is_skipped_with_a_warning_or_refuses_by_on_error(recommender):
    plain = answer(recommender).table
    found = answer(recommender, {"type": "broken_order"})
    assert found.table.equals(plain) and "rule 'broken_order' was skipped" in found.warnings[0]
    assert answer(recommender, {"type": "broken_order", "on_error": "skip"}).table.equals(plain)
    with pytest.raises(AnyrecError, match="rule 'broken_order' failed"):
        answer(recommender, {"type": "broken_order", "on_error": "refuse"})


def test_a_filter_cannot_be_skipped(recommender):
    rules = [{"type": "broken_filter", "on_error": "skip"}, {"type": "history", "on_error": "skip"}]
    with pytest.raises(ConfigError) as caught:
        answer(recommender, *rules)
    assert [fault.where for fault in caught.value.faults] == [f"/pipeline/rerank/rules/{n}/on_error" for n in (0, 1)]


@pytest.mark.parametrize(
    "rule, where",
    [
        ({"type": "history", "within_days": 1e300}, "/within_days"),
        ({"type": "history", "within_days": float("inf")}, "/within_days"),
        ({"type": "history", "within_days": 10**30}, "/within_days"),
        ({"type": "history", "types": ["bye"]}, "/types/0"),
        ({"type": "availability", "feature": "item.continuous.price", "values": [1, "x"]}, "/values/1"),
        ({"type": "availability", "feature": "item.continuous.price", "values": [float("nan")]}, "/values"),
        ({"type": "availability", "items": ["i003"], "values": [1]}, ""),
        ({"type": "availability", "items": ["i003"], "missing": "drop"}, ""),
        ({"type": "availability", "items": ["\ud800"]}, "/items/0"),
        ({"type": "availability", "since": "now-99999999999999999999d"}, "/since"),
        ({"type": "availability", "until": "now+" + "9" * 400 + "w"}, "/until"),
        ({"type": "where", "where": {"item.continuous.price": {"lt": float("nan")}}}, "/where"),
        ({"type": "where", "where": {"item.continuous.price": {"lt": 10**400}}}, "/where"),
        ({"type": "where", "where": {"item.continuous.price": {"lt": float("-inf")}}}, "/where"),
        ({"type": "where", "where": {"item.id": "a\udc80"}}, "/where"),
        ({"type": "where", "where": {"context.hour": {"lt": "soon"}}}, "/where/context.hour/lt"),
        ({"type": "where", "where": {"context.hour": {"between": [1, "now"]}}}, "/where/context.hour/between"),
        ({"type": "where", "where": {"context.hour": {"ge": True}}}, "/where/context.hour/ge"),
        ({"type": "http", "url": "http://localhost:99999"}, "/url"),
        ({"type": "freshness", "feature": "item.temporal.restocked", "half_life_days": 1e-300}, "/half_life_days"),
        ({"type": "explore", "positions": [10**9]}, "/positions/0"),
    ],
)
def test_options_that_would_fail_at_a_request_are_refused_at_the_check(recommender, rule, where):
    with pytest.raises(ConfigError) as caught:
        answer(recommender, rule)
    assert caught.value.faults[0].where.startswith(f"/pipeline/rerank/rules/0{where}")


def test_a_history_filter_is_refused_for_a_model_without_events():
    request = ask({"categorical.kind": ["a", "b"]})
    request.model.history = None
    rule = REGISTRY.get("rule", "history")
    with pytest.raises(ConfigError, match="not the types, times and numbers"):
        rule(rule.Params(at_least=2)).check(request.model)
    rule(rule.Params()).check(request.model)


# -- every Arrow type --------------------------------------------------------------------------------------------------

DAY = dt.date(2024, 5, 1)
COLUMNS = {
    "null": pa.nulls(2),
    "bool": pa.array([True, None]),
    "uint64": pa.array([2**64 - 1, None], pa.uint64()),
    "int8": pa.array([1, None], pa.int8()),
    "half": pa.array([np.float16(1), None], pa.float16()),
    "nan": pa.array([1.0, float("nan")]),
    "decimal": pa.array([1, None], pa.decimal128(30, 2)),
    "string": pa.array(["a", None]),
    "large_string": pa.array(["a", None], pa.large_string()),
    "string_view": pa.array(["a", None], pa.string_view()),
    "dictionary": pa.array(["a", None]).dictionary_encode(),
    "numbers": pa.array([1, None]).dictionary_encode(),
    "binary": pa.array([b"a", None]),
    "date32": pa.array([DAY, None], pa.date32()),
    "date64": pa.array([DAY, None], pa.date64()),
    **{unit: pa.array([dt.datetime(2024, 5, 1), None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    "zone": pa.array([dt.datetime(2024, 5, 1), None], pa.timestamp("us", "UTC")),
    "far": pa.array([2**62, None], pa.timestamp("s")),
    "time": pa.array([dt.time(3), None]),
    "duration": pa.array([dt.timedelta(1), None]),
    "struct": pa.array([{"a": 1}, None]),
    "list": pa.array([["a", "b"], []]),
    "dictionary_list": pa.ListArray.from_arrays([0, 1, 1], pa.array(["a"]).dictionary_encode()),
    "fixed_list": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
    "nested": pa.array([[[1]], None]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
}
CONSTANTS = {"number": 1, "text": "a", "time": "2024-05-01", "flag": True}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_arrow_type_is_compared_or_refused(name):
    request = ask({f"extra.{name}": COLUMNS[name]})
    feature = f"item.extra.{name}"
    kind = known_types(request.model)[feature].kind
    for operator in ("eq", "ne", "lt", "in", "not_in", "contains", "overlaps"):
        for constant in (*CONSTANTS.values(), 10**30, 0.5, ""):
            condition = Condition({feature: {operator: [constant] if "in" in operator else constant}})
            if not condition.check(request.model):
                assert condition.holds(request).shape == (2,)
    assert Condition({feature: {"is_null": False}}).holds(request).tolist() == [name != "null", False]
    if kind in CONSTANTS and not known_types(request.model)[feature].many and name not in ("far", "uint64"):
        assert Condition({feature: CONSTANTS[kind]}).holds(request).tolist() == [True, False]


def test_times_of_all_units_are_microseconds_and_none_overflows():
    table = pa.table({name: COLUMNS[name] for name in ("s", "ms", "us", "ns", "zone", "date32", "date64", "far")})
    read = [values_of(table, name, 2).data[0] for name in table.column_names]
    assert read[:7] == [1_714_521_600_000_000.0] * 7 and read[7] == 2.0**62 * 1e6


# -- files of a rule ---------------------------------------------------------------------------------------------------


def test_an_item_file_that_is_not_a_regular_file_is_a_fault_and_never_blocks(tmp_path):
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "link.txt")
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(10**12)
    names = ["fifo.txt", "folder.txt", "link.txt", "huge.txt", "none.txt", "a\0b.txt", "\ud800.txt", "x" * 5000]
    for path in [*(str(tmp_path / name) for name in names), "/dev/null", "/dev/zero", "", "."]:
        (fault,) = ItemFile(path).check("/file")
        assert "cannot be read" in fault.what


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", '[{"item_id": "i1"}, 3]'),
        ("b.json", '["i1", null]'),
        ("c.json", '[{"item_id": {"a": 1}}]'),
        ("d.json", "[" * 100_000 + "]" * 100_000),
        ("e.json", "[1.5]"),
        ("f.json", "[true]"),
        ("g.json", '["\\ud800"]'),
        ("h.json", "9" * 5000),
        ("i.jsonl", '{"item_id": "i1"}\n[1]\n'),
        ("j.csv", "item_id,item_id\n1,2\n"),
        ("k.csv", "id\n1\n"),
        ("l.csv", ""),
        ("m.txt", b"\xff\xfe"),
        ("n.parquet", "PAR1"),
    ],
)
def test_an_item_file_of_another_form_is_a_fault(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="cannot be read"):
        ItemFile(str(tmp_path / name)).table()


@pytest.mark.parametrize("kind", [pa.float64(), pa.binary(), pa.list_(pa.string()), pa.bool_(), pa.date32()])
def test_a_parquet_file_whose_ids_are_neither_texts_nor_integers_is_a_fault(tmp_path, kind):
    pq.write_table(pa.table({"item_id": pa.nulls(2, kind)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="expected texts or integers"):
        ItemFile(str(tmp_path / "a.parquet")).table()


def test_a_parquet_file_of_categories_is_read(tmp_path):
    pq.write_table(pa.table({"item_id": pa.array(["i1", "i0"]).dictionary_encode()}), tmp_path / "a.parquet")
    assert ItemFile(str(tmp_path / "a.parquet")).rows(pa.array(["i0", "i1"])).tolist() == [1, 0]


# -- any options -------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 2.5, 1e300, 5e-324, 2**63, 10**9, 10**30, 10**400, float("nan"), float("inf"), True, None]
TEXTS = ["", "a", "i003", "now-30d", "now-1e9d", "\ud800", "\0", "9999-12-31T23:59:59-23:00", "x" * 500]
NAMES = ["item.continuous.price", "user.continuous.age", "context.hour", "item.id"]
ODD = st.sampled_from([*NUMBERS, *TEXTS, *NAMES, [], {}, ["a", 3], [None], [[1]], {"value": "user.x"}])
RULES = {
    "history": ["types", "within_days", "at_least", "only"],
    "availability": ["feature", "values", "items", "since", "until", "mode", "missing"],
    "demographic": ["user", "item", "min", "max", "missing", "missing_user"],
    "freshness": ["feature", "half_life_days", "method", "weight", "unit", "missing"],
    "explore": ["method", "positions", "pool", "epsilon", "prior_clicks", "prior_misses"],
    "quota": ["feature", "at_least", "at_most", "missing"],
    "diversity": ["method", "feature", "max", "relevance", "missing"],
    "calibrate": ["feature", "weight", "alpha"],
    "boost": ["where", "factor", "add"],
    "pin": ["items"],
    "where": ["where"],
}
FEATURES = ["item.continuous.price", "item.categorical.tags", "user.continuous.age", "item.id", "context.hour"]
TESTS = st.dictionaries(
    st.sampled_from(["eq", "ne", "lt", "between", "in", "not_in", "contains", "is_null"]), ODD, min_size=1
)
CONDITION = st.recursive(
    st.dictionaries(st.sampled_from(FEATURES), TESTS | ODD, min_size=1, max_size=2),
    lambda inner: (
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=2)}) | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=4,
)
VALUE = ODD | st.lists(ODD, max_size=2) | CONDITION | st.sampled_from(FEATURES)
DOCUMENT = st.sampled_from(sorted(RULES)).flatmap(
    lambda kind: st.fixed_dictionaries({"type": st.just(kind)}, optional=dict.fromkeys(RULES[kind], VALUE))
)


@settings(max_examples=300, deadline=None)
@given(DOCUMENT, st.sampled_from([{}, {"hour": 3}, {"hour": "late"}, {"hour": [1, 2]}]))
def test_a_checked_rule_fails_at_a_request_only_because_of_the_requests_own_values(recommender, rule, context):
    try:
        answer(recommender, rule, context=context, pipeline={"strict": True})
    except ConfigError:
        return
    except InputError as error:
        assert "'hour'" in str(error) or "context.hour" in json.dumps(rule, default=str), error
