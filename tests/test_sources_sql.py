"""The providers of databases: SQLite, DuckDB and PostgreSQL, each against the real one."""

import sqlite3
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from databases import PASSWORD, postgresql_server

from anyrec.core.config import TableConfig
from anyrec.core.discovery import discover
from anyrec.core.errors import DataError, MissingDependency
from anyrec.data.sources.contract import Access
from anyrec.data.sources.open_table import open_table

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("adbc_driver_sqlite")
postgresql = pytest.importorskip("adbc_driver_postgresql.dbapi")

ROWS = [
    {"user_id": 12345678901234567, "item": "007", "stars": 4.5, "said": 'so "good"'},
    {"user_id": 2, "item": "8", "stars": None, "said": "two\nlines"},
    {"user_id": 3, "item": "", "stars": 3.0, "said": None},
]
CREATE = "CREATE TABLE log (user_id bigint, item varchar(20), stars double precision, said varchar(20))"
INSERT = "INSERT INTO log VALUES (12345678901234567, '007', 4.5, 'so \"good\"'), (2, '8', NULL, 'two\nlines'), (3, '', 3.0, NULL)"  # noqa: E501


def opened(database, columns=None, urls=True, root=".", **table):
    access = Access(Path(root), urls, columns and frozenset(columns))
    rows = open_table(TableConfig.model_validate({"database": str(database), **table}), access, discover())
    return rows.reader.read_all(), rows


@pytest.fixture(scope="module")
def server():
    with postgresql_server() as address:
        yield address


def execute(address, *statements):
    """Run statements on PostgreSQL, as a program with the right to change it does."""
    with postgresql.connect(address.replace(PASSWORD, quote(PASSWORD, safe=""))) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def database(request, tmp_path):
    """The address of a database with the table `log`."""
    if request.param == "sqlite":
        with sqlite3.connect(tmp_path / "shop.sqlite") as connection:
            connection.execute(CREATE)
            connection.execute(INSERT)
        connection.close()
        return f"sqlite:///{tmp_path}/shop.sqlite"
    if request.param == "duckdb":
        with duckdb.connect(tmp_path / "shop.duckdb") as connection:
            connection.execute(CREATE)
            connection.execute(INSERT)
        return f"duckdb:///{tmp_path}/shop.duckdb"
    address = request.getfixturevalue("server")
    execute(address, "DROP TABLE IF EXISTS log", CREATE, INSERT)
    return address


def test_a_table_and_a_query_are_the_same_rows_in_each_database(database):
    expected = pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]})
    for table in ({"table": "log"}, {"query": "select * from log -- all of it"}, {"query": " SELECT * FROM log ; "}):
        found, rows = opened(database, **table)
        assert found.replace_schema_metadata().cast(expected.schema).equals(expected) and found.to_pylist() == ROWS
        assert rows.names == list(ROWS[0]) and rows.version and not rows.untyped


def test_the_order_of_a_query_is_kept(database):
    found, _ = opened(database, query="select item, user_id as who from log order by user_id")
    assert found.to_pylist() == [
        {"item": row["item"], "who": row["user_id"]} for row in sorted(ROWS, key=lambda r: r["user_id"])
    ]


def test_only_the_columns_that_are_used_are_read_and_all_are_named(database):
    found, rows = opened(database, columns=["stars", "none"], table="log")
    assert found.column_names == ["stars"] and rows.names == list(ROWS[0])
    assert len(opened(database, columns=["none"], table="log")[0]) == 3


def test_an_empty_result_has_its_columns(database):
    found, rows = opened(database, query="select * from log where user_id = 99")
    assert len(found) == 0 and found.column_names == list(ROWS[0])


@pytest.mark.parametrize(
    "query",
    [
        "delete from log",
        "insert into log values (9, 'x', 1, 'y')",
        "drop table log",
        "/* select */ update log set stars = 1",
        "with gone as (delete from log returning *) select * from gone",
        "create table other as select * from log",
        "select 1; delete from log",
        "select * from log) as x; delete from log; select * from (select 1",
    ],
)
def test_queries_that_change_data_are_refused_and_change_nothing(database, query):
    with pytest.raises(DataError) as caught:
        opened(database, query=query)
    assert caught.value.exit_code == 2
    assert opened(database, table="log")[0].to_pylist() == ROWS
    if not query.startswith("select"):
        assert "does not only read" in str(caught.value) or "refuses the query" in str(caught.value)


def test_a_missing_table_is_named_with_those_that_are_there(database):
    for table in ({"table": "logs"}, {"query": "select * from logs"}):
        with pytest.raises(DataError, match=r"there is no table 'logs'.*Did you mean 'log'\?"):
            opened(database, **table)
    with pytest.raises(DataError, match=r"needs a query or the name of a table. Set `query` or `table`"):
        opened(database)


def test_a_wrong_query_is_an_error_with_what_the_database_says(database):
    with pytest.raises(DataError, match=r"the database refuses the query: .*starz"):
        opened(database, query="select starz from log")
    with pytest.raises(DataError, match="several columns called 'item'"):
        opened(database, query="select item, stars as item from log")


def test_no_message_holds_the_password(database, server):
    for table in (
        {"table": "none"},
        {"query": "selec"},
        {"query": "select 1/0 as a"},
        {},
        {"query": "delete from log"},
    ):
        try:
            found = opened(database, **table)[1]
        except DataError as error:
            assert PASSWORD not in str(error) and quote(PASSWORD, safe="") not in str(error)
        else:
            assert PASSWORD not in repr(found)


# SQLite


def test_cells_of_sqlite_may_have_any_type(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE log (a, b, c, d, e, f)")
        lines = [
            (n, n if n % 2 else n + 0.5, None, None if n < 90_000 else "late", n if n else "x", b"\0\1")
            for n in range(99_999)
        ]
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", lines)
    connection.close()
    found, rows = opened("shop.db", root=tmp_path, table="log")
    assert [str(field.type) for field in found.schema] == ["int64", "double", "string", "string", "string", "binary"]
    assert found.column("b").to_pylist() == [float(line[1]) for line in lines]
    assert found.column("d").to_pylist() == [line[3] for line in lines]
    assert found.column("e").to_pylist() == [str(line[4]) for line in lines] and rows.mixed == {"e": [0]}


def test_rows_that_sqlite_keeps_in_its_journal_are_read(tmp_path):
    writer = sqlite3.connect(tmp_path / "shop.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE log (a)")
    writer.execute("INSERT INTO log VALUES (1)")
    writer.commit()
    found, before = opened(tmp_path / "shop.db", table="log")
    assert found.to_pylist() == [{"a": 1}]
    writer.execute("INSERT INTO log VALUES (2)")
    writer.commit()
    found, after = opened(tmp_path / "shop.db", table="log")
    assert found.to_pylist() == [{"a": 1}, {"a": 2}] and before.version != after.version
    writer.close()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.db", None, "there is no such file"),
        ("text.db", b"a,b\n1,2\n", "this is no SQLite database"),
        ("duck.db", b"\0" * 8 + b"DUCK", "this is no SQLite database. Set `database` to duckdb:///FILE"),
        ("text.duckdb", b"a,b\n1,2\n" * 999, "not a valid DuckDB database"),
    ],
)
def test_files_that_are_no_databases_are_errors(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        opened(name, root=tmp_path, table="log")


# DuckDB


def test_a_query_of_duckdb_opens_other_files_only_if_addresses_are_allowed(tmp_path):
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with duckdb.connect(tmp_path / "shop.duckdb") as connection:
        connection.execute("CREATE TABLE log AS SELECT 1 AS a")
    query = f"select * from '{tmp_path}/log.csv'"
    with pytest.raises(DataError, match="disabled by configuration"):
        opened("shop.duckdb", root=tmp_path, urls=False, query=query)
    assert opened("shop.duckdb", root=tmp_path, query=query)[0].to_pylist() == [{"a": 1, "b": 2}]
    assert opened("duckdb://", root=tmp_path, query="select * from 'log.csv'")[0].to_pylist() == [{"a": 1, "b": 2}]
    with pytest.raises(DataError, match="addresses of other machines are not opened"):
        opened("duckdb://", root=tmp_path, urls=False, query="select 1")
    with pytest.raises(DataError, match="it begins with 'copy'"):
        opened("shop.duckdb", root=tmp_path, query=f"copy log to '{tmp_path}/out.csv'")
    assert not (tmp_path / "out.csv").exists()


# PostgreSQL


def test_types_of_postgresql_become_numbers_times_and_texts(server):
    values = {
        "price": ("numeric(10,2)", "1.50", 1.5),
        "huge": ("numeric(30,0)", "123456789012345678901", "123456789012345678901"),
        "small": ("numeric(9,0)", "7", 7), "free": ("numeric", "0.1", 0.1), "paid": ("money", "'3.25'", 3.25),
        "long": ("interval", "'1 day'", "1 day"), "host": ("inet", "'10.0.0.1'", "10.0.0.1/32"),
        "doc": ("jsonb", "'{\"a\": 1}'", '{"a": 1}'), "tags": ("text[]", "array['x','y']", ["x", "y"]),
        "page": ("xml", "'<a/>'", "<a/>"), "yes": ("boolean", "true", True),
    }  # fmt: skip
    created = ", ".join(f"{name} {kind}" for name, (kind, _, _) in values.items())
    row = ", ".join(value for _, value, _ in values.values())
    execute(
        server, "DROP TABLE IF EXISTS kinds", f"CREATE TABLE kinds ({created})", f"INSERT INTO kinds VALUES ({row})"
    )
    found, _ = opened(server, table="kinds")
    assert found.to_pylist() == [{name: value for name, (_, _, value) in values.items()}]


def test_a_schema_goes_before_the_name_of_a_table(server):
    execute(
        server,
        'CREATE SCHEMA "Web"',
        'CREATE TABLE "Web"."Clicks" ("userId" int)',
        'INSERT INTO "Web"."Clicks" VALUES (5)',
    )
    assert opened(server, table="Web.Clicks")[0].to_pylist() == [{"userId": 5}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((PASSWORD, "wr0ng-Zq9"), "password authentication failed for user .*PGPASSWORD"),
        ((f":{PASSWORD}", ""), "no password supplied.*PGPASSWORD"),
        (("reader:", "nobody:"), "refuses the connection"),
        (("/postgres", "/nothing"), 'database "nothing" does not exist'),
        (("127.0.0.1:", "127.0.0.1:1"), "cannot be reached|invalid port"),
        (("127.0.0.1", "nohost.invalid"), "cannot be reached: could not translate host name"),
    ],
)
def test_connections_that_fail_say_why(server, monkeypatch, change, message):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setattr("anyrec.core.secrets._WHOLE", {})
    with pytest.raises(DataError, match=message) as caught:
        opened(server.replace("postgresql://", "\0").replace(*change).replace("\0", "postgresql://"), table="log")
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "wr0ng-Zq9"):
        assert secret not in str(caught.value)


def test_the_password_may_come_from_the_environment(server, monkeypatch):
    execute(server, "DROP TABLE IF EXISTS log", CREATE, INSERT)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr("anyrec.core.secrets._WHOLE", {})
    address = server.replace(f":{PASSWORD}", "")
    assert opened(address, table="log")[0].to_pylist() == ROWS


def test_servers_need_permission(server):
    with pytest.raises(DataError, match=r"other machines are not opened. Set data.allow_urls") as caught:
        opened(server, urls=False, table="log")
    assert PASSWORD not in str(caught.value) and "reader" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "address"),
    [
        ("adbc_driver_sqlite", "sqlite:///shop.db"),
        ("duckdb", "duckdb:///shop.duckdb"),
        ("adbc_driver_postgresql", "postgresql://host/shop"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, module, address, tmp_path):
    (tmp_path / "shop.db").touch()
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingDependency, match=r"pip install 'anyrec\[sql\]'"):
        opened(address, root=tmp_path, table="log")
