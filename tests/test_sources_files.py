"""The provider `files`: formats, packing, encodings and dialects, and the rows of several files."""

import bz2
import gzip
import io
import json
import lzma
import sys
import tempfile
import zipfile

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from anyrec.core.config import TableConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import ConfigError, DataError, MissingDependency
from anyrec.data.sources.contract import Access
from anyrec.data.sources.open_table import open_table, without_secrets

ROWS = [
    {"user": "u1", "item": "007", "stars": "4.5", "said": 'so "good", really'},
    {"user": "ü2", "item": "8", "stars": None, "said": "two\nlines"},
]
CSV = 'user,item,stars,said\nu1,007,4.5,"so ""good"", really"\nü2,8,,"two\nlines"\n'


def opened(path, root=".", columns=None, faults=None, **table):
    access = Access(root, columns=columns and frozenset(columns))
    rows = open_table(TableConfig.model_validate({"path": str(path), **table}), access, discover())
    found = rows.reader.read_all().to_pylist()
    if access.faults:
        raise access.faults.error()
    return found, rows


def zipped(data, name="log.csv"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def packed(data, codec):
    with tempfile.NamedTemporaryFile() as file:
        with pa.output_stream(file.name, compression=codec) as stream:
            stream.write(data)
        return file.read()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("log.csv", bytes),
        ("log.csv.gz", gzip.compress),
        ("log.csv.bz2", bz2.compress),
        ("log.csv.xz", lzma.compress),
        ("log.csv.zst", lambda data: packed(data, "zstd")),
        ("log.csv.lz4", lambda data: packed(data, "lz4")),
        ("log.zip", zipped),
        ("log", gzip.compress),
        ("log.csv.gz", lambda data: gzip.compress(data[:40]) + gzip.compress(data[40:])),
    ],
)
def test_packed_files_are_unpacked_whatever_their_name(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(CSV.encode()))
    found, rows = opened(name, tmp_path)
    assert found == ROWS and rows.untyped and rows.notes == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_recognised(tmp_path, encoding):
    (tmp_path / "log.csv").write_bytes(CSV.encode(encoding))
    found, rows = opened("log.csv", tmp_path)
    assert found == ROWS and bool(rows.notes) == ("utf-8" not in encoding)


def test_other_encodings_are_declared_and_the_error_says_how(tmp_path):
    (tmp_path / "log.csv").write_bytes(CSV.encode("latin-1"))
    with pytest.raises(DataError, match=r"log.csv line 3, byte 1: this is not UTF-8 text.*format.encoding.*cp1252"):
        opened("log.csv", tmp_path)
    assert opened("log.csv", tmp_path, format={"encoding": "latin-1"})[0] == ROWS
    with pytest.raises(DataError, match="there is no encoding 'latin-99'"):
        opened("log.csv", tmp_path, format={"encoding": "latin-99"})


@pytest.mark.parametrize("separator", [";", "\t", "|", "::"])
def test_the_separator_is_found_and_said(tmp_path, separator):
    lines = [["user", "item", "said"], ["u1", "i1", "a, b"], ["u2", "i2", "c, d"]]
    (tmp_path / "log.csv").write_text("".join(separator.join(cells) + "\n" for cells in lines))
    found, rows = opened("log.csv", tmp_path)
    assert found == [{"user": "u1", "item": "i1", "said": "a, b"}, {"user": "u2", "item": "i2", "said": "c, d"}]
    assert "seems to be separated by" in rows.notes[0]


def test_a_dialect_is_declared(tmp_path):
    (tmp_path / "log.txt").write_text("# made by a till\n# on Monday\n1 ~ 'a ~ b'\n2 ~ 'it\\'s'\n".replace(" ~ ", "~"))
    dialect = {"separator": "~", "quote": "'", "escape": "\\", "header": ["user", "said"], "skip": 2}
    found, rows = opened("log.txt", tmp_path, format=dialect)
    assert found == [{"user": "1", "said": "a~b"}, {"user": "2", "said": "it's"}]
    assert rows.place(1, "user") == "log.txt line 4, column 'user'"


def test_only_the_columns_that_are_used_are_read_and_all_are_named(tmp_path):
    names = [f"c{number}" for number in range(5_000)]
    (tmp_path / "wide.csv").write_text(",".join(names) + "\n" + ",".join(["1"] * 5_000) + "\n")
    found, rows = opened("wide.csv", tmp_path, columns=["c7", "c4999", "none"])
    assert found == [{"c7": "1", "c4999": "1"}] and rows.names == names


def test_rows_of_another_width_are_faults_with_their_lines(tmp_path):
    (tmp_path / "log.csv").write_text('a,b\n"1\n",2\n3,4,5\n6\n')
    with pytest.raises(DataError) as caught:
        opened("log.csv", tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["log.csv line 4", "log.csv line 5"]


def test_a_quote_that_is_not_closed_is_a_fault(tmp_path):
    (tmp_path / "log.csv").write_text('a,b\n1,2\n3,"4\n5,6\n')
    with pytest.raises(DataError, match=r"log.csv line 3: a cell that begins with a quote"):
        opened("log.csv", tmp_path)
    assert len(opened("log.csv", tmp_path, format={"quote": None})[0]) == 3


def test_rows_longer_than_a_block_are_read(tmp_path):
    long = "x" * (5 << 20)
    (tmp_path / "log.csv").write_text(f"a,b\n1,2\n3,{long}\n4,5\n")
    assert [row["b"] for row in opened("log.csv", tmp_path)[0]] == ["2", long, "5"]


LINES = [{"user": 12345678901234567, "when": "2024-01-01", "tags": ["a", "b"], "more": {"price": 1.5}}, {"user": 2}]


@pytest.mark.parametrize(
    "text",
    [
        "\n\n".join(map(json.dumps, LINES)),
        json.dumps(LINES, indent=2),
        "\n".join(map(repr, LINES)),
        "\ufeff" + "\n".join(map(json.dumps, LINES)),
    ],
    ids=["lines with blank lines", "a list", "Python objects", "a byte order mark"],
)
def test_json_lines_and_lists_of_objects_are_the_same_table(tmp_path, text):
    (tmp_path / "log.json").write_text(text)
    found, rows = opened("log.json", tmp_path)
    assert found == [LINES[0], {"user": 2, "when": None, "tags": None, "more": None}] and not rows.untyped


def test_columns_of_several_types_are_texts_and_said(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": 1, "b": 1}\n{"a": "x", "b": 2}\n{"a": {"c": true}, "b": 3}\n')
    found, rows = opened("log.jsonl", tmp_path)
    assert [row["a"] for row in found] == ["1", "x", '{"c":true}'] and [row["b"] for row in found] == [1, 2, 3]
    assert rows.mixed == {"a": [1, 2]}


def test_lines_that_are_no_objects_are_faults(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n[2]\n{"a" 3}\n')
    with pytest.raises(DataError) as caught:
        opened("log.jsonl", tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["log.jsonl row 2", "log.jsonl row 3"]


def test_long_json_is_parsed_in_pieces_of_one_type(tmp_path, monkeypatch):
    monkeypatch.setattr("anyrec.data.sources.json_stream.PIECE", 40)
    lines = [{"a": n, "b": None if n < 5 else f"2024-01-0{n}"} for n in range(9)] + [{"c": 1.5}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = opened("log.jsonl", tmp_path)[0]
    assert found == [{"a": None, "b": None, "c": None, **line} for line in lines]


def test_typed_files_are_read_by_their_first_bytes(tmp_path):
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    pyarrow.parquet.write_table(table, tmp_path / "one.bin")
    pyarrow.feather.write_feather(table, tmp_path / "two.bin")
    with pa.ipc.new_stream(tmp_path / "three.bin", table.schema) as writer:
        writer.write_table(table)
    for name in ("one", "two", "three"):
        found, rows = opened(f"{name}.bin", tmp_path, columns=["b"])
        assert found == [{"b": "x"}, {"b": None}] and rows.names == ["a", "b"] and not rows.untyped


def test_a_folder_of_partitions_is_one_table(tmp_path):
    for year, values in (("2023", [1]), ("2024", [2, 3])):
        folder = tmp_path / "events" / f"year={year}"
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pa.table({"a": values}), folder / "part.parquet")
    (tmp_path / "events" / "_SUCCESS").write_text("")
    found, rows = opened("events", tmp_path)
    assert found == [{"a": 1, "year": "2023"}, {"a": 2, "year": "2024"}, {"a": 3, "year": "2024"}]
    assert rows.place(2, "a") == "part.parquet row 2, column 'a'"


def test_files_of_a_pattern_follow_one_another_and_may_differ_in_columns(tmp_path):
    (tmp_path / "b.csv").write_text("x,z\n3,c\n")
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    found, rows = opened("?.csv", tmp_path)
    assert found == [
        {"x": "1", "y": "a", "z": None}, {"x": "2", "y": "b", "z": None}, {"x": "3", "y": None, "z": "c"},
    ]  # fmt: skip
    assert rows.place(2, "x") == "b.csv line 2, column 'x'"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.csv", None, "there is no such file"),
        ("no*.csv", None, "no file matches this pattern"),
        ("log.csv", b"", "this file is empty"),
        ("log.csv.gz", gzip.compress(CSV.encode())[:30], "cannot be"),
        ("log.parquet", b"PAR1 cut off", "cannot be read as Parquet"),
        ("log.zip", zipped(b"a,b\n1,2\n")[:60], "cannot be unpacked"),
    ],
)
def test_files_that_cannot_be_read_are_errors(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        opened(name, tmp_path)


def test_addresses_need_a_provider_and_permission(tmp_path):
    with pytest.raises(ConfigError, match="no provider reads addresses of the scheme 'gopher'"):
        opened("gopher://example.org/log.csv")
    with pytest.raises(ConfigError, match="no provider is known"):
        open_table(TableConfig(database="warehouse"), Access(), discover())
    assert without_secrets("https://me:word@host:1/a.csv?token=x#y") == "https://host:1/a.csv"
    (tmp_path / "log.csv").write_text(CSV)
    assert opened((tmp_path / "log.csv").as_uri())[0] == ROWS


# Spreadsheets


def spreadsheet(path):
    """Write a spreadsheet of two sheets, the first with a header, an empty row, numbers, a date and mixed cells."""
    kinds = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    rows = [["user", "item", "stars", "mixed"], ["u1", 7, 4.5, 1], None, ["u2", 8, None, "x"]]
    cells = ""
    for number, row in enumerate(rows, 1):
        inner = "".join(
            f'<c r="{"ABCD"[place]}{number}"><v>{cell}</v></c>'
            if isinstance(cell, (int, float))
            else f'<c r="{"ABCD"[place]}{number}" t="inlineStr"><is><t>{cell}</t></is></c>'
            for place, cell in enumerate(row or [])
            if cell is not None
        )
        cells += f'<row r="{number}">{inner}</row>'
    sheet = f'<worksheet xmlns="{kinds}"><sheetData>{{}}</sheetData></worksheet>'
    names = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in ((1, "Log"), (2, "Other")))
    targets = "".join(
        f'<Relationship Id="r{n}" Type="{relations}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in (1, 2)
    )
    package = "http://schemas.openxmlformats.org/package/2006"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{package}/content-types"/>')
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
            f'Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{kinds}" xmlns:r="{relations}"><sheets>{names}</sheets></workbook>'
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">{targets}</Relationships>'
        )
        archive.writestr("xl/worksheets/sheet1.xml", sheet.format(cells))
        archive.writestr("xl/worksheets/sheet2.xml", sheet.format(""))


class Workbook:
    """What the reader of spreadsheets needs of the package, with the cells of `spreadsheet`."""

    sheet_names = ("Log", "Other")

    @classmethod
    def from_filelike(cls, file):
        assert file.read(2) == b"PK"
        return cls()

    def get_sheet_by_name(self, name):
        return self

    def to_python(self, skip_empty_area):
        assert skip_empty_area is False
        return [["user", "item", "stars", "mixed"], ["u1", 7.0, 4.5, 1.0], ["", "", "", ""], ["u2", 8.0, "", "x"]]


@pytest.mark.parametrize("installed", [True, False], ids=["the package", "a stand-in for it"])
def test_a_sheet_is_a_table(tmp_path, monkeypatch, installed):
    if installed:
        pytest.importorskip("python_calamine")
    else:
        package = type("package", (), {"CalamineWorkbook": Workbook, "CalamineError": ValueError})
        monkeypatch.setitem(sys.modules, "python_calamine", package)
    spreadsheet(tmp_path / "log.xlsx")
    found, rows = opened("log.xlsx", tmp_path)
    assert found == [
        {"user": "u1", "item": 7, "stars": 4.5, "mixed": "1"}, {"user": "u2", "item": 8, "stars": None, "mixed": "x"},
    ]  # fmt: skip
    assert rows.place(1, "user") == "log.xlsx row 4, column 'user'"
    assert rows.mixed == {"mixed": [1]} and "the first of 2 sheets is read, 'Log'" in rows.notes[0]
    assert opened("log.xlsx", tmp_path, columns=["item"], format={"sheet": "Log"})[0] == [{"item": 7}, {"item": 8}]
    with pytest.raises(DataError, match="this spreadsheet has no sheet 'Lgo'"):
        opened("log.xlsx", tmp_path, format={"sheet": "Lgo"})


def test_without_the_package_of_spreadsheets_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    spreadsheet(tmp_path / "log.xlsx")
    with pytest.raises(MissingDependency, match=r"pip install 'anyrec\[excel\]'"):
        opened("log.xlsx", tmp_path)


def test_lines_of_a_user_and_items_are_pairs(tmp_path):
    (tmp_path / "train.txt").write_text("0 5 7\n1\n2 5\n")
    found, rows = opened("train.txt", tmp_path, format={"type": "adjacency"})
    assert found == [
        {"user_id": "0", "item_id": "5"},
        {"user_id": "0", "item_id": "7"},
        {"user_id": "2", "item_id": "5"},
    ]
    assert rows.untyped
