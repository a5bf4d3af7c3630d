"""A request in any form gives the same answer, and an output is what its name says."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from small import call, small_config, small_dataset

from anyrec import Dataset, Recommender
from anyrec.core.errors import DataError, InputError


def numbered():
    """The small data with whole numbers for ids."""
    data = small_dataset()
    tables = {"users": data.users, "items": data.items, "interactions": data.interactions}
    for part, table in tables.items():
        for name in table.column_names:
            if name.endswith("_id"):
                place = table.column_names.index(name)
                numbers = pa.array([int(one[1:]) for one in table.column(name).to_pylist()])
                tables[part] = table = table.set_column(place, name, numbers)
    return Dataset(**tables, roles=data.roles)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    config = small_config(training={"epochs": 1, "batch_size": 128, "patience": None})
    model = Recommender.from_config(config).fit(numbered(), progress=False)
    return model, model.save(tmp_path_factory.mktemp("forms") / "model")


def write_forms(folder):
    (folder / "ids.json").write_text("[1, 2]")
    (folder / "records.json").write_text('[{"user_id": 1}, {"user_id": 2}]')
    (folder / "request.csv").write_text("user_id\n1\n2\n")
    (folder / "request.jsonl").write_text('{"user_id":1}\n{"user_id":2}\n')
    pq.write_table(pa.table({"user_id": [1, 2]}), folder / "request.parquet")
    (folder / "both").mkdir()
    (folder / "both" / "users.csv").write_text("user_id\n1\n2\n")
    return ["ids.json", "records.json", "request.csv", "request.jsonl", "request.parquet", "both"]


def test_every_form_of_a_request_file_gives_the_same_lists(fitted, tmp_path):
    model, place = fitted
    answers = []
    for name in write_forms(tmp_path):
        code, out, error = call("recommend", "--model-path", place, "--data", tmp_path / name, "--top-k", 3)
        assert code == 0, error
        answers.append(json.loads(out)["users"])
    assert all(answer == answers[0] for answer in answers)
    assert [one["user_id"] for one in answers[0]] == [1, 2]


def test_a_csv_of_interactions_is_the_history_of_its_users(fitted, tmp_path):
    model, place = fitted
    (tmp_path / "events.csv").write_text("user_id,item_id\n900,1\n900,2\n")
    code, out, error = call("recommend", "--model-path", place, "--data", tmp_path / "events.csv", "--top-k", 40)
    assert code == 0, error
    (user,) = json.loads(out)["users"]
    assert user["user_id"] == 900 and not {1, 2} & {one["item_id"] for one in user["recommendations"]}


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "json"])
@pytest.mark.parametrize("everyone", [False, True])
def test_an_output_file_is_written_in_the_format_of_its_name(fitted, tmp_path, ending, everyone):
    model, place = fitted
    (tmp_path / "ids.json").write_text("[1, 2]")
    who = ["--all"] if everyone else ["--data", tmp_path / "ids.json"]
    output = tmp_path / f"lists.{ending}"
    code, _, error = call("recommend", "--model-path", place, *who, "--top-k", 3, "-o", output)
    assert code == 0, error
    if ending == "csv":
        rows = pyarrow.csv.read_csv(output).to_pylist()
    elif ending == "parquet":
        rows = pq.read_table(output).to_pylist()
    elif ending == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        rows = json.loads(output.read_text())
        if not everyone:
            rows = [{"user_id": one["user_id"], **row} for one in rows["users"] for row in one["recommendations"]]
    expected = model.recommend(None if everyone else [1, 2], 3).to_pylist()
    assert [(row["user_id"], row["item_id"], row["rank"]) for row in rows] == [
        (row["user_id"], row["item_id"], row["rank"]) for row in expected
    ]


def test_an_output_in_no_format_is_refused_before_any_work(fitted, tmp_path):
    code, _, error = call("recommend", "--model-path", fitted[1], "--all", "-o", tmp_path / "lists.xlsx")
    assert code == 2 and "lists cannot be written as '.xlsx'" in error


@pytest.mark.parametrize("name", ["lists.xlsx", "lists.tsv", "lists.csv.gz"])
def test_a_result_is_not_written_under_the_name_of_another_format(fitted, tmp_path, name):
    (tmp_path / "ids.json").write_text("[1]")
    request = ("recommend", "--model-path", fitted[1], "--data", tmp_path / "ids.json")
    code, _, error = call(*request, "--output", tmp_path / name)
    assert code == 2 and "cannot be written as" in error and not (tmp_path / name).exists()
    assert call(*request, "--output", tmp_path / "lists.out")[0] == 0
    assert json.loads((tmp_path / "lists.out").read_text())["users"]


@pytest.mark.parametrize(
    ("request_text", "message"),
    [
        ('{"users": [{"user_id": 1}]}', "/users: unknown key. Did you mean 'user_data'"),
        ('[{"user_id": 1, "categorical.job": "nurse"}]', 'Write {"categorical": {"job": ...}}.'),
    ],
)
def test_a_misspelt_request_is_an_error_with_its_correction(fitted, tmp_path, request_text, message):
    (tmp_path / "request.json").write_text(request_text)
    code, _, error = call("recommend", "--model-path", fitted[1], "--data", tmp_path / "request.json")
    assert code == 2 and message in error


def test_ids_of_any_iterable_are_read(fitted):
    wanted = fitted[0].recommend([1, 2], 3)
    for ids in ((one for one in (1, 2)), iter([1, 2]), map(int, "12"), {1: 0, 2: 0}.keys(), range(1, 3)):
        assert fitted[0].recommend(ids, 3).equals(wanted)


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.fit("data.json"),
        lambda model: model.with_data([1]),
        lambda model: model.save(5),
        lambda model: Recommender.load(None),
        lambda model: Recommender.from_config([]),
        lambda model: Dataset.read(None),
    ],
)
def test_arguments_of_another_kind_are_input_errors(fitted, use):
    with pytest.raises(InputError, match=r"expected a (path|Dataset); found .*\. (Give|Read) "):
        use(fitted[0])


@pytest.mark.parametrize("path", ["x" * 300, "a\0b"])
def test_paths_that_the_system_does_not_take_are_input_errors(fitted, path):
    for use in (Dataset.read, Recommender.load, Recommender.from_config, fitted[0].save):
        with pytest.raises(InputError):
            use(path)
    with pytest.raises(DataError):
        fitted[0].recommend(Path(path))


def test_strict_on_the_command_line_turns_notes_into_errors(fitted, tmp_path):
    (tmp_path / "typo.json").write_text('{"user_id": 1, "categorical": {"jop": "nurse"}}')
    arguments = ["recommend", "--model-path", fitted[1], "--data", tmp_path / "typo.json"]
    code, out, _ = call(*arguments)
    assert code == 0 and "Did you mean 'categorical.job'" in json.loads(out)["notes"][0]
    code, _, error = call(*arguments, "--strict")
    assert code == 2 and "/user_data/0/categorical/jop" in error


def frames(columns):
    polars = pytest.importorskip("polars")
    return [pd.DataFrame(columns), polars.DataFrame(columns), pa.table(columns)]


def test_pandas_polars_and_arrow_tables_are_accepted_as_tables(fitted):
    model, _ = fitted
    people = frames({"user_id": [1, 900], "categorical.job": ["nurse", "nurse"]})
    assert len({str(model.recommend(one, 4).to_pylist()) for one in people}) == 1
    assert len({str(model.embed_users(one).to_pylist()) for one in people}) == 1
    pairs = frames({"user_id": [1, 2], "item_id": [3, 4]})
    assert len({str(model.score(one).to_pylist()) for one in pairs}) == 1
    things = frames({"item_id": [500], "categorical.tags": ["nurse"]})
    assert len({str(model.add_items(one).recommend([1], 41).to_pylist()) for one in things}) == 1
    (column, *_) = frames({"user_id": [1, 2]})
    assert model.recommend(column["user_id"], 3).equals(model.recommend([1, 2], 3))
    assert model.similar(column["user_id"], 3).equals(model.similar([1, 2], 3))


def test_values_of_several_types_in_one_column_are_a_data_error(fitted):
    model, _ = fitted
    with pytest.raises(DataError, match=r"text\.bio"):
        model.recommend(pd.DataFrame({"user_id": [1, 2], "text.bio": ["a", 1]}), 3)
    with pytest.raises(DataError, match="user_id"):
        model.recommend(pd.DataFrame({"user_id": ["a", 1]}), 3)


def test_tables_may_name_the_folder_of_their_images(tmp_path):
    data = small_dataset()
    assert Dataset.from_tables(data.users, data.items, data.interactions, root=tmp_path).root == tmp_path
