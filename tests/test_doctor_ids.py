"""Findings of the data doctor on ids: placeholders, tests, spaces; and on categories that are ids."""

import pyarrow as pa
import pytest
from small import call, small_dataset

from anyrec.core.errors import AnyrecError
from anyrec.data.dataset import Dataset
from anyrec.data.doctor.examine import examine
from anyrec.data.doctor.id_checks import check_ids, check_unique_categories
from anyrec.data.formats.write_json import write_json


def renamed(side, names):
    """The small data with other ids of the first records of one side."""
    data = small_dataset()
    ids = [*names, *data.ids(side).to_pylist()[len(names) :]]
    tables = {"users": data.users, "items": data.items}
    table = tables[f"{side}s"]
    tables[f"{side}s"] = table.set_column(0, f"{side}_id", pa.array(ids))
    place = data.interactions.column_names.index(f"{side}_id")
    rows = pa.array(ids).take(pa.array(data.rows(side)))
    return Dataset(**tables, interactions=data.interactions.set_column(place, f"{side}_id", rows), roles=data.roles)


def kinds(data):
    return {finding.kind: finding for finding in check_ids(data)}


def test_usual_ids_have_no_finding():
    assert not check_ids(small_dataset()) and not check_unique_categories(small_dataset())
    for names in (["u1", "nullable", "contest", "latest 3", "a b", "Testament", "42", "0", "robotics"], ["7", "8"]):
        assert not kinds(renamed("user", names))


@pytest.mark.parametrize("name", ["null", "None", "NaN", "N/A", "undefined", "", "-", "unknown", "-1", "NULL "])
def test_the_id_of_a_missing_value_is_a_problem_with_the_number_of_its_interactions(name):
    for side in ("user", "item"):
        data = renamed(side, [name])
        finding = kinds(data)[f"placeholder {side} ids"]
        own = int((data.rows(side) == 0).sum())
        assert finding.level == "problem" and f"The {side} id '{name}' stands for" in finding.text
        assert f"{own} interaction" in finding.text and f"({own / 480:.1%})" in finding.text
        assert finding in examine(data)


def test_a_whole_number_below_zero_is_a_placeholder():
    data = small_dataset()
    numbers = pa.array([-1, *range(1, 60)])
    rows = data.interactions.set_column(0, "user_id", numbers.take(pa.array(data.user_rows)))
    users = data.users.set_column(0, "user_id", numbers)
    (finding,) = check_ids(Dataset(users, data.items, rows, roles=data.roles))
    assert finding.kind == "placeholder user ids" and "'-1'" in finding.text


@pytest.mark.parametrize(
    "name",
    ["test", "test_user", "TEST-12", "user_test", "dummy item 3", "Guest", "anonymous", "bot7", "foobar", "xxxx"],
)
def test_ids_of_tests_and_shared_accounts_are_a_warning(name):
    finding = kinds(renamed("user", [name]))["test user ids"]
    assert finding.level == "warning" and f"'{name}' looks like a test" in finding.text


def test_many_ids_of_one_kind_are_counted_in_one_sentence_and_a_way_of_naming_is_no_finding():
    finding = kinds(renamed("user", [f"test_{n}" for n in range(5)]))["test user ids"]
    assert "'test_0', 'test_1', 'test_2' and 2 more look like" in finding.text
    assert not kinds(renamed("user", [f"test_{n}" for n in range(40)]))


def test_ids_with_spaces_around_them_are_found_and_their_twins_are_a_problem():
    finding = kinds(renamed("item", [" i900", "i901\t", "i902"]))["item ids with spaces"]
    assert finding.level == "warning" and "2 of 40 item ids begin or end with a space, as ' i900'." in finding.text
    finding = kinds(renamed("item", ["i039 "]))["item ids with spaces"]
    assert finding.level == "problem" and "1 of them also occur without it" in finding.text
    assert "one item counts as two" in finding.advice


def test_categories_that_are_different_in_each_record_are_reported():
    data = small_dataset()
    codes = [f"code {n}" for n in range(60)]
    for values, expected in (
        (codes, 60),
        ([*codes[:56], *codes[:4]], 56),
        ([[one, f"more {one}"] for one in codes], 120),
        ([*codes[:45], *codes[:15]], None),
        ([*codes[:19], *[None] * 41], None),
    ):
        users = data.users.append_column("categorical.code", pa.array(values))
        wider = Dataset(users, data.items, data.interactions, roles=data.roles)
        found = check_unique_categories(wider)
        assert [finding.kind for finding in found] == ["unique categories"] * (expected is not None)
        if expected is not None:
            assert f"{expected} of " in found[0].text and "user feature 'categorical.code'" in found[0].text


def test_the_command_reports_them(tmp_path):
    data = renamed("user", ["null", "test_user", " u002"])
    try:
        write_json(data, tmp_path / "data.json")
        code, out, message = call("doctor", tmp_path / "data.json", "--no-images")
    except AnyrecError as error:
        pytest.fail(str(error))
    assert code == 0, message
    for words in ("'null' stands for a missing value", "'test_user' looks like a test", "begins or ends with a space"):
        assert words in out
