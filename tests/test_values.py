"""Values in messages, texts that UTF-8 can hold, and the one parser of ISO times and of `key=value` options."""

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyrec.core.strict_json import UnusableJson, json_or_text, split_pair
from anyrec.core.values import is_unicode, show
from anyrec.data.formats.times import parse_time

DEEP = "[" * 100_000


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_a_shown_value_is_never_longer_than_the_limit(value):
    assert len(show(value)) <= 60 and len(show(value, 20)) <= 20


def test_a_value_without_a_repr_is_shown_by_its_type():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert show(10**5000) == "a whole number of 5001 digits"
    assert show([10**5000]) == "a list"
    assert show(deep) == "[[[[[...]]]]]"


def test_half_of_a_surrogate_pair_is_not_unicode():
    assert is_unicode("a\U0001f600") and not is_unicode("a\ud800")


@pytest.mark.parametrize(
    ("text", "pair"),
    [("a=1", ("a", "1")), ("a=b=c", ("a", "b=c")), ("a=", ("a", "")), ("a", None), ("=1", None), ("", None)],
)
def test_an_option_is_split_at_the_first_equals_sign(text, pair):
    assert split_pair(text) == pair


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("[1, 2]", [1, 2]), ("fr", "fr"), ("", ""), ('"1"', "1")])
def test_the_value_of_an_option_is_json_or_the_text_itself(text, value):
    assert json_or_text(text) == value


@pytest.mark.parametrize("text", [DEEP, "9" * 5000])
def test_json_that_python_cannot_hold_is_refused(text):
    with pytest.raises(UnusableJson, match="nested too deeply, or has thousands of digits"):
        json_or_text(text)


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.timezones() | st.none(),
)
def test_a_time_is_microseconds_since_1970_and_utc_without_a_zone(moment, zone):
    offset = moment.replace(tzinfo=zone).utcoffset() if zone else None
    if offset is not None and offset.seconds % 60:  # ISO 8601 has no seconds in an offset
        return
    text = moment.replace(tzinfo=zone).isoformat()
    wanted = moment.replace(tzinfo=timezone.utc) if zone is None else moment.replace(tzinfo=zone)
    since = wanted - datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert parse_time(text) == (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@pytest.mark.parametrize("text", ["", "soon", "2024-02-30", "2024-13-01", "2024-W10-1", "\ud800", "12:30"])
def test_a_text_that_is_no_time_has_none(text):
    assert parse_time(text) is None
