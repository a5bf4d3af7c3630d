"""Conditions against a plain evaluation record by record, and their faults."""

import datetime as dt
import operator

import numpy as np
import pyarrow as pa
import pytest
from asked import NOW, ask
from hypothesis import given, settings
from hypothesis import strategies as st

from anyrec.core.errors import ConfigError, InputError
from anyrec.pipeline.conditions.conditions import Condition
from anyrec.pipeline.conditions.constants import read_time

TAGS = ["a", "b", "c", "d"]
tag, tags = st.sampled_from(TAGS), st.none() | st.lists(st.sampled_from(TAGS), max_size=3)
number = st.none() | st.integers(-3, 3).map(float)
TIME = pa.timestamp("us", "UTC")
day = st.integers(0, 20).map(lambda days: dt.datetime(2024, 5, 20, tzinfo=dt.timezone.utc) + dt.timedelta(days=days))


def records(side):
    return st.lists(
        st.fixed_dictionaries(
            {
                "price": number,
                "kind": st.none() | tag,
                "tags": tags,
                "flag": st.none() | st.booleans(),
                "when": st.none() | st.lists(day, max_size=2),
            }
        ),
        min_size=1,
        max_size=6,
    )


def table(rows, side):
    return pa.table(
        {
            f"{side}_id": [f"{side[0]}{n}" for n in range(len(rows))],
            "continuous.price": pa.array([row["price"] for row in rows], pa.float64()),
            "categorical.kind": pa.array([row["kind"] for row in rows], pa.string()),
            "categorical.tags": pa.array([row["tags"] for row in rows], pa.list_(pa.string())),
            "other.flag": pa.array([row["flag"] for row in rows], pa.bool_()),
            "temporal.when": pa.array([row["when"] for row in rows], pa.list_(TIME)),
        }
    )


NAMES = {
    "continuous.price": "price",
    "categorical.kind": "kind",
    "categorical.tags": "tags",
    "other.flag": "flag",
    "temporal.when": "when",
}
sides = st.sampled_from(["item", "user"])


def feature(*columns):
    return st.builds(lambda side, column: f"{side}.{column}", sides, st.sampled_from(columns))


PRICE, KIND, MANY, WHEN = (
    feature(*names) for names in (["continuous.price"], ["categorical.kind"], ["categorical.tags"], ["temporal.when"])
)
numbers = st.integers(-3, 3) | PRICE | st.just("context.price")
TESTS = st.one_of(
    st.tuples(PRICE | st.just("context.price"), st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), numbers),
    st.tuples(PRICE, st.just("between"), st.lists(numbers, min_size=2, max_size=2)),
    st.tuples(PRICE, st.sampled_from(["in", "not_in"]), st.lists(st.integers(-3, 3), min_size=1) | PRICE),
    st.tuples(KIND | st.just("context.kind"), st.sampled_from(["eq", "ne"]), tag | KIND | st.just("context.kind")),
    st.tuples(
        KIND, st.sampled_from(["in", "not_in"]), st.lists(tag, min_size=1) | MANY | KIND | st.just("context.tags")
    ),
    st.tuples(
        MANY,
        st.sampled_from(["contains", "overlaps"]),
        tag | st.lists(tag, min_size=1) | MANY | KIND | st.just("context.tags"),
    ),
    st.tuples(feature("other.flag"), st.sampled_from(["eq", "ne"]), st.booleans() | feature("other.flag")),
    st.tuples(
        WHEN,
        st.sampled_from(["lt", "ge"]),
        st.sampled_from(["now", "now-3d", "2024-05-25", "2024-05-25T12:00:00+02:00"]) | WHEN,
    ),
    st.tuples(feature(*NAMES), st.just("is_null"), st.booleans()),
)
LEAVES = st.lists(TESTS, min_size=1, max_size=2).map(lambda made: {name: {op: value} for name, op, value in made})
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)
COMPARE = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def plainly(condition, world):
    """The language as docs/rules.md has it, of one user and one item."""
    found = []
    for key, value in condition.items():
        if key in ("any", "all"):
            found.append((any if key == "any" else all)(plainly(part, world) for part in value))
        elif key == "not":
            found.append(not plainly(value, world))
        else:
            found += [one_test(look_up(key, world), op, operand, world) for op, operand in value.items()]
    return all(found)


def look_up(name, world):
    side, column = name.split(".", 1)
    value = world[side].get(NAMES.get(column, column))
    return value[-1] if NAMES.get(column) == "when" and value else value


def one_test(left, op, operand, world):
    def value_of(one):
        if isinstance(one, str) and one.split(".")[0] in world:
            return look_up(one, world)
        if isinstance(one, str) and one[:3] in ("now", "202"):
            return dt.datetime.fromtimestamp(read_time(one, NOW) / 1e6, dt.timezone.utc)
        return one

    if op == "is_null":
        return (left in (None, [])) == operand
    if op == "between":
        return one_test(left, "ge", operand[0], world) and one_test(left, "le", operand[1], world)
    right = value_of(operand)
    if left in (None, []) or right in (None, []):
        return False
    if op in COMPARE:
        return COMPARE[op](left, right)
    left, right = ({*one} if isinstance(one, list) else {one} for one in (left, right))
    return {
        "in": bool(left & right),
        "not_in": not left & right,
        "overlaps": bool(left & right),
        "contains": left >= right,
    }[op]


@settings(max_examples=150, deadline=None)
@given(
    records("item"),
    records("user"),
    CONDITIONS,
    st.fixed_dictionaries({"price": number, "kind": st.none() | tag, "tags": tags}),
)
def test_a_condition_agrees_with_a_plain_evaluation_record_by_record(items, users, condition, context):
    request = ask(table(items, "item"), table(users, "user"), context=context)
    asked = Condition(condition)
    assert asked.check(request.model) == []
    found = asked.holds(request)
    expected = np.array(
        [[plainly(condition, {"item": item, "user": user, "context": context}) for item in items] for user in users]
    )
    assert found.shape == (expected.shape if "user." in str(condition) else expected[0].shape)
    assert (np.broadcast_to(found, expected.shape) == expected).all()
    some = np.arange(len(items))[::-2]
    assert (asked.holds(request, some) == found[..., some]).all()


ITEMS = {
    "continuous.price": [5.0, None, 50.0],
    "categorical.kind": ["a", "b", None],
    "text.title": ["A Robot in Space", "Gardens", None],
    "temporal.released": pa.array([[dt.datetime(2024, 5, 30)], [dt.datetime(2020, 1, 1)], None], pa.list_(TIME)),
    "temporal.with": pa.array([["i1"], ["i0", "i2"], []], pa.list_(pa.string())),
    "vector.of": [[1.0, 2.0], [0.0, 1.0], None],
    "deep.struct": [{"x": 1}, None, None],
}
USERS = {"categorical.likes": [["a", "b"], None], "continuous.age": [20.0, 60.0]}


@pytest.mark.parametrize(
    "condition, expected",
    [
        ({"item.continuous.price": {"lt": 20}}, [1, 0, 0]),
        ({"not": {"item.continuous.price": {"lt": 20}}}, [0, 1, 1]),  # a comparison with a missing value is false
        ({"item.continuous.price": {"ge": 5, "lt": 50}}, [1, 0, 0]),
        ({"item.categorical.kind": "a"}, [1, 0, 0]),
        ({"item.categorical.kind": {"value": "a"}}, [1, 0, 0]),
        ({"item.categorical.kind": {"ne": {"value": "item.categorical.kind"}}}, [1, 1, 0]),
        ({"item.temporal.released": {"ge": "now-30d"}}, [1, 0, 0]),
        ({"item.text.title": {"contains": "robot"}}, [1, 0, 0]),
        ({"item.text.title": {"overlaps": ["robot", "garden"]}}, [1, 1, 0]),
        ({"item.temporal.with": {"contains": "i1"}}, [1, 0, 0]),
        ({"item.temporal.with": {"is_null": True}}, [0, 0, 1]),
        ({"item.deep.struct": {"is_null": False}}, [1, 0, 0]),
        ({"item.id": {"in": ["i0", "i2"]}}, [1, 0, 1]),
        ({"context.hour": {"ge": 18}}, [1, 1, 1]),
        ({"context.device": "phone"}, [0, 0, 0]),
        ({"item.categorical.kind": {"in": "user.categorical.likes"}}, [[1, 1, 0], [0, 0, 0]]),
        ({"user.continuous.age": {"gt": 30}}, [[0, 0, 0], [1, 1, 1]]),
        ({"any": [{"user.continuous.age": {"gt": 30}}, {"item.continuous.price": {"lt": 20}}]}, [[1, 0, 0], [1, 1, 1]]),
    ],
)
def test_conditions_behave_as_documented(condition, expected):
    request = ask(ITEMS, USERS, context={"hour": 20})
    assert Condition(condition).check(request.model) == []
    assert Condition(condition).holds(request).astype(int).tolist() == expected


def test_integer_ids_are_compared_as_texts():
    request = ask({"item_id": [1, 2**60 + 1, 2**60 + 2]})
    assert Condition({"item.id": {"in": [1, 2**60 + 1]}}).holds(request).tolist() == [True, True, False]


def test_a_condition_is_evaluated_again_for_another_catalogue_or_time():
    cheap, fresh = (
        Condition({"item.continuous.price": {"lt": 20}}),
        Condition({"item.temporal.released": {"ge": "now-30d"}}),
    )
    assert [one.holds(ask(ITEMS)).tolist() for one in (cheap, fresh)] == [[True, False, False]] * 2
    assert cheap.holds(ask({"continuous.price": [50.0, 5.0]})).tolist() == [False, True]
    assert fresh.holds(ask(ITEMS, now=NOW + 400 * 86_400_000_000)).tolist() == [False] * 3


@pytest.mark.parametrize(
    "condition, where, said",
    [
        ({"item.continuous.prize": {"lt": 20}}, "/where/item.continuous.prize", "Did you mean 'item.continuous.price'"),
        (
            {"item.continuous.price": {"lt": "user.continuous.agee"}},
            "/where/item.continuous.price/lt",
            "user.continuous.age'",
        ),
        (
            {"item.continuous.price": {"lt": "cheap"}},
            "/where/item.continuous.price/lt",
            "expected a finite number; found 'cheap'",
        ),
        ({"item.categorical.kind": {"lt": "b"}}, "/where/item.categorical.kind/lt", "texts have no order"),
        ({"user.categorical.likes": {"eq": "a"}}, "/where/user.categorical.likes/eq", "contains or overlaps"),
        ({"item.temporal.released": {"ge": "last week"}}, "/where/item.temporal.released/ge", "expected a time"),
        (
            {"item.continuous.price": {"eq": "item.categorical.kind"}},
            "/where/item.continuous.price/eq",
            "numbers cannot be compared with texts",
        ),
        ({"any": [{"item.deep.struct": {"eq": 1}}]}, "/where/any/0/item.deep.struct/eq", "only is_null"),
        ({"item.text.title": {"contains": "user.categorical.likes"}}, "/where/item.text.title/contains", "constant"),
    ],
)
def test_a_fault_against_the_data_has_its_pointer(condition, where, said):
    (fault,) = Condition(condition).check(ask(ITEMS, USERS).model)
    assert fault.where == where and said in str(fault)


@pytest.mark.parametrize(
    "condition, where, said",
    [
        ({}, "", "at least one member"),
        ({"any": []}, "/any", "a list of conditions"),
        ({"any": [{"item.x/y.z": {"lessthan": 1}}]}, "/any/0/item.x~1y.z/lessthan", "there is no operator 'lessthan'"),
        ({"item.a.b": {"between": [1]}}, "/item.a.b/between", "two values"),
        ({"item.a.b": {"in": "x"}}, "/item.a.b/in", "a list of values or a feature"),
        ({"item.a.b": {"eq": None}}, "/item.a.b/eq", "found None"),
        ({"item.a.b": {"is_null": "yes"}}, "/item.a.b/is_null", "true or false"),
        ({"item.a.b": {}}, "/item.a.b", "no operator"),
        ({"items.a.b": {"eq": 1}}, "/items.a.b", "Did you mean 'item'"),
        ({"nott": {}}, "/nott", "Did you mean 'not'"),
    ],
)
def test_a_condition_of_the_wrong_form_is_refused_with_its_pointer(condition, where, said):
    with pytest.raises(ConfigError) as caught:
        Condition(condition)
    assert caught.value.faults[0].where == where and said in str(caught.value.faults[0])


def test_all_faults_of_form_are_reported_together_and_nesting_is_bounded():
    with pytest.raises(ConfigError) as caught:
        Condition({"item.a.b": {"lessthan": 1}, "any": [{}], "oops": 1})
    assert len(caught.value.faults) == 3
    deep = {"item.a.b": 1}
    for _ in range(5000):
        deep = {"not": deep}
    with pytest.raises(ConfigError, match="nested more than 32 deep"):
        Condition(deep)


def test_a_value_of_the_moment_of_the_wrong_type_is_an_error_of_the_request():
    with pytest.raises(InputError, match="expected a finite number; found 'late'"):
        Condition({"item.continuous.price": {"lt": "context.limit"}}).holds(ask(ITEMS, context={"limit": "late"}))
