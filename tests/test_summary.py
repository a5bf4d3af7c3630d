"""`describe` and the doctor agree: each number that both print is the same, on any data."""

import datetime as dt
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_dataset

from anyrec.core.config import Config
from anyrec.data.dataset import Dataset
from anyrec.data.describe import described_counts, described_features
from anyrec.data.doctor.examine import examine
from anyrec.data.formats.write_json import write_json
from anyrec.data.interpretation import interpretation

START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
OPTIONAL = {
    "interaction_type": st.sampled_from(["view", "buy", "dislike", None]),
    "rating": st.sampled_from([1.0, 2.5, 5.0, float("nan"), None]),
    "label": st.sampled_from([0, 1, None]),
    "weight": st.sampled_from([0.0, 0.5, 3.0, None]),
    "timestamp": st.one_of(st.none(), st.integers(0, 5).map(lambda hours: START + dt.timedelta(hours=hours))),
}
TYPES = {
    "interaction_type": pa.string(),
    "rating": pa.float64(),
    "label": pa.int8(),
    "weight": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
}


@st.composite
def datasets(draw):
    """Draw small data with any of the optional columns, repeated rows, and features that some records lack."""
    users, items = draw(st.integers(1, 25)), draw(st.integers(1, 25))
    pair = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=60))
    columns = {"user_id": [f"u{user}" for user, _ in pairs], "item_id": [f"i{item}" for _, item in pairs]}
    for name, values in OPTIONAL.items():
        if draw(st.booleans()):
            drawn = draw(st.lists(values, min_size=len(pairs), max_size=len(pairs)))
            if any(value is not None for value in drawn):
                columns[name] = pa.array(drawn, TYPES[name])
    codes = draw(st.lists(st.sampled_from([None, "", "a", "b"]), min_size=users, max_size=users))
    tags = draw(st.lists(st.lists(st.sampled_from("abc"), max_size=2), min_size=items, max_size=items))
    user_table = pa.table(
        {
            "user_id": [f"u{n}" for n in range(users)],
            "categorical.kind": pa.array(codes, pa.string()),
            "categorical.own": [f"own{n}" for n in range(users)],
            "continuous.age": pa.array([None if code is None else 3.0 for code in codes], pa.float64()),
        }
    )
    item_table = pa.table({"item_id": [f"i{n}" for n in range(items)], "categorical.tags": pa.array(tags)})
    return Dataset(user_table, item_table, pa.table(columns))


def number(text):
    return float(text.replace(",", ""))


def check_agreement(data):
    """Compare every number of the doctor's sentences that `describe` prints too. Returns the kinds that were found."""
    rows = dict(described_counts(data))
    shares = {f"{side} {name}": (share, what) for side, name, share, what in described_features(data)}
    findings = {(one.kind, one.text) for one in [*examine(data, images=False), *interpretation(data, Config().data)]}
    missing = {name: number((re.search(r"; ([\d,]+) without", text) or [0, "0"])[1]) for name, text in rows.items()}
    counts = dict(re.findall(r"(?:^|, )(\S+) \(([\d,]+)\)", rows.get("types", "")))
    for kind, text in findings:
        found = re.findall(r"\d(?:[\d,]*\d)?(?:\.\d+)?", text)
        if kind == "size":
            assert found[:3] == [rows["users"], rows["items"], rows["interactions"].split()[0]]
            assert f"({found[3]}% of all pairs" in rows["interactions"]
        elif kind == "repeated pairs":
            assert f"; {found[1]} repeat a pair" in rows["interactions"]
        elif kind == "very active users":
            assert rows["per user"].startswith(f"median {found[-1]},") and f"most {found[-2]}" in rows["per user"]
        elif kind == "meaning of types":
            assert dict(re.findall(r"'(\w+)' \(([\d,]+)", text)) == counts
            assert missing["types"] == number((re.search(r"no type \(([\d,]+)\)", text) or [0, "0"])[1])
        elif kind == "types that look negative":
            assert dict(re.findall(r"'(\w+)' \(([\d,]+)", text)).items() <= counts.items()
        elif kind in ("ratings not read", "meaning of weights"):
            name = "ratings" if kind.startswith("ratings") else "weights"
            assert re.search(r"from (\S+ to \S+?)(?=[;.]? |[;.]?$)", text)[1] == rows[name].split(",")[0]
        elif kind == "meaning of labels":
            labels = dict(re.findall(r"(\d) \(([\d,]+)\)", rows["labels"]))
            assert found[1::2][:1] and [number(labels.get("1", "0")), number(labels.get("0", "0"))] == [
                number(re.search(r"([\d,]+) are positive", text)[1]),
                number(re.search(r"([\d,]+) explicit", text)[1]),
            ]
        elif kind == "missing times":
            assert missing["times"] == number(found[1])
        elif kind == "equal times":
            assert rows["times"].startswith(re.search(r"same, (\S+)", text)[1])
        elif kind.startswith("constant ") and kind != "constant feature":
            name = {"interaction_type": "types", "rating": "ratings", "label": "labels"}[kind.split()[1]]
            assert number(found[0]) == len(data.interactions) - missing[name]
        elif kind in ("dead feature", "missing values", "constant feature", "unique categories"):
            side, name = re.search(r"(user|item) feature '(\S+)'", text).groups()
            share, what = shares[f"{side} {name}"]
            if kind == "missing values":
                assert share == re.search(r"[\d.]+%", text)[0]
            elif kind == "unique categories":
                assert what.removeprefix("several of ") == f"{found[0]} values"
            else:
                shown = re.search(r"([\d,]+) (of|users|items)", text)[1]
                assert share == f"{number(shown) / len(data.table(side)):.1%}"
        else:
            continue
    return {kind for kind, _ in findings}


@given(datasets())
@settings(max_examples=150, deadline=None)
def test_describe_and_the_doctor_agree_on_any_data(data):
    assert "size" in check_agreement(data)


def test_describe_and_the_doctor_agree_on_data_with_every_shared_number():
    data = small_dataset(users=80)
    rng, size = np.random.default_rng(0), len(data.interactions)
    rating = pa.array(np.where(rng.random(size) < 0.2, np.nan, 3.0), from_pandas=True)
    columns = {
        "user_id": pa.array(["u001"] * 450 + data.interactions["user_id"].to_pylist()[450:]),
        "item_id": data.interactions["item_id"].combine_chunks(),
        "rating": rating,
        "label": pa.array([None if n % 3 == 0 else n % 2 for n in range(size)], pa.int8()),
        "weight": pa.array([n % 4 / 2 for n in range(size)]),
        "interaction_type": pa.array([["view", "dislike", None][n % 3] for n in range(size)]),
    }
    users = data.users.append_column("categorical.own", pa.array([f"x{n}" for n in range(80)]))
    users = users.append_column("categorical.some", pa.array(["a" if n % 2 else None for n in range(80)]))
    found = check_agreement(Dataset(users, data.items, pa.table(columns), roles=data.roles))
    assert found >= {
        "size",
        "repeated pairs",
        "very active users",
        "meaning of types",
        "types that look negative",
        "ratings not read",
        "constant rating",
        "meaning of labels",
        "meaning of weights",
        "missing values",
        "constant feature",
        "unique categories",
    }
    times = data.interactions["timestamp"].to_pylist()
    timed = pa.table({**columns, "timestamp": pa.array([None if n % 5 == 0 else times[n] for n in range(size)])})
    assert "missing times" in check_agreement(Dataset(users, data.items, timed, roles=data.roles))
    same = pa.table({**columns, "timestamp": pa.array([START] * size, pa.timestamp("us", "UTC"))})
    assert "equal times" in check_agreement(Dataset(users, data.items, same, roles=data.roles))


@pytest.mark.parametrize("name", ["ml_100k", "ml_1m"])
def test_describe_and_the_doctor_agree_on_real_data(name, request):
    data = Dataset.read(request.getfixturevalue(name))
    assert {"size"} <= check_agreement(data)


def test_both_commands_print_what_reading_dropped(tmp_path):
    write_json(small_dataset(), tmp_path / "data.json")
    options = ("--set", "data.max_users=9", "--set", "data.unknown_ids=drop")
    printed = [call(command, tmp_path / "data.json", *options) for command in ("describe", "doctor")]
    assert [code for code, _, _ in printed] == [0, 0]
    notes = [[line for line in message.splitlines() if line.startswith("note:")] for _, _, message in printed]
    assert notes[0] == notes[1] != []
