"""A rule is refused when the config is checked, or it works in every request."""

import json
from pathlib import Path

import numpy as np
import pytest
from hostile import FUZZ, VALUES, encode, from_schema, mutated, refusal
from hypothesis import given
from hypothesis import strategies as st
from small import small_config, small_dataset

from anyrec.core.errors import ConfigError
from anyrec.core.load_config import load_config
from anyrec.pipeline.pipeline import Pipeline
from anyrec.recommender import Recommender

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "schemas" / "config.schema.json").read_text())
LOCAL = [name for name in SCHEMA["$defs"] if name.startswith("rule:") and name != "rule:http"]
FEATURES = [
    "item.categorical.tags",
    "item.continuous.price",
    "item.temporal.restocked",
    "item.text.title",
    "user.categorical.job",
    "user.continuous.age",
    "user.temporal.spending",
    "context.day",
    "context.tags",
    "item.item_id",
    "user.user_id",
    "item.nope",
]
OPERATORS = ["eq", "ne", "lt", "le", "gt", "ge", "between", "in", "not_in", "contains", "overlaps", "is_null", "near"]
CONSTANTS = st.sampled_from(["nurse", "all", 3, 50.5, True, None, "2024-02-01", "i001", *FEATURES]) | VALUES
OPERANDS = CONSTANTS | st.lists(CONSTANTS, max_size=3)
TESTS = st.deferred(
    lambda: st.dictionaries(
        st.sampled_from(FEATURES),
        st.dictionaries(st.sampled_from(OPERATORS), OPERANDS, min_size=1, max_size=2),
        min_size=1,
        max_size=2,
    )
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=4,
)


@st.composite
def rules(draw):
    """A rule by the schema, its features and conditions those of the data more often than not."""
    rule = draw(st.sampled_from(LOCAL).flatmap(lambda name: from_schema(SCHEMA["$defs"][name], SCHEMA)))
    for key in rule:
        if key == "where":
            rule[key] = draw(CONDITIONS)
        elif key in ("feature", "by") or key.endswith("feature"):
            rule[key] = draw(st.sampled_from(FEATURES))
        elif key in ("items", "item"):
            rule[key] = draw(st.lists(st.sampled_from(["i001", "i002", "nope"]), min_size=1, max_size=3))
    return draw(mutated(st.just(rule), most=1)) if draw(st.booleans()) else rule


@pytest.fixture(scope="module")
def model():
    config = small_config(pipeline={}, training={"epochs": 1, "batch_size": 128})
    return Recommender.from_config(config).fit(small_dataset(), progress=False)


@FUZZ
@given(parts=st.lists(rules(), min_size=1, max_size=2))
def test_a_rule_is_refused_before_any_request_or_works_in_all(model, parts):
    text = encode({"defaults": "fixed", "pipeline": {"rerank": {"rules": parts}}}).decode()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    made = []

    def check():
        config, _ = load_config(document, registry=model.registry)
        made.append(Pipeline(config.pipeline, model.registry))
        made[0].check(model.model)

    error = refusal(check)
    if error is not None:
        assert isinstance(error, ConfigError)
        return
    people = [{"user_id": "new"}, {"user_id": "u001"}, {"user_id": "old", "continuous": {"age": 1e300}}]
    for users in (["u001", "u002"], people):
        answer = made[0].answer(
            model.model, model.read_records("user", users), 5, context={"day": "monday", "tags": ["nurse"]}
        )
        assert not [warning for warning in answer.warnings if "skipped" in warning]
        scores = np.asarray(answer.table["score"])
        assert not np.isnan(scores).any()
