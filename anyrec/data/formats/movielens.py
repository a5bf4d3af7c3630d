"""MovieLens, in GroupLens's own files or as Parquet, as tables of the published format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from anyrec.core.config import DataConfig
from anyrec.core.errors import DataError, Fault
from anyrec.data.checks.row_limits import apply_limits
from anyrec.data.formats.times import TIME
from anyrec.data.formats.write_json import write_json
from anyrec.data.tables import Tables

FIRST_MINUTE = 1_000_000_000 // 60
"""The time of position 0 in a copy that has an order but no times: September 2001, one minute for each position."""
GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
AGES = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56 and over"}


def is_movielens(path: Path) -> bool:
    """Return whether a folder holds MovieLens in one of the forms that `read_movielens` reads."""
    if (path / "u.data").is_file() or (path / "ratings.dat").is_file():
        return True
    if (path / "ratings.csv").is_file() and (path / "movies.csv").is_file():
        return True
    items = path / "items.parquet"
    try:
        return items.is_file() and {"item_id", "title", "genres"} <= set(pq.read_schema(items).names)
    except (pa.ArrowException, OSError):  # a damaged file: the reader of tables reports it
        return False


def convert_movielens(source: Path, destination: Path, options: DataConfig | None = None) -> Tables:
    """Read a MovieLens folder and write it as one JSON file, with image paths relative to that file.

    Args:
        source: The folder.
        destination: The file.
        options: The config's `data` section, whose limits of users, items and interactions are applied.

    Returns:
        What was written.

    Raises:
        DataError: If the folder cannot be read as MovieLens.
    """
    dataset = apply_limits(read_movielens(source), options or DataConfig())
    if "image.poster" in dataset.items.column_names:
        prefix = os.path.relpath(source.resolve(), destination.resolve().parent)
        posters = pc.binary_join_element_wise(prefix, dataset.items.column("image.poster"), "/")
        place = dataset.items.column_names.index("image.poster")
        moved = dataset.items.set_column(place, "image.poster", posters)
        write_json(Tables(dataset.users, moved, dataset.interactions), destination)
    else:
        write_json(dataset, destination)
    return dataset


def read_movielens(source: Path) -> Tables:
    """Read a MovieLens folder; posters are relative to it. Raises DataError for files that are not MovieLens."""
    try:
        return _movielens(source)
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"cannot be read as MovieLens: {reason}."
        hint = "Unpack the archive again, or name the files users, items and interactions."
        raise DataError(Fault(str(source), what, hint, "unreadable")) from None


def _movielens(source: Path) -> Tables:
    if (source / "u.data").is_file():
        users, items, interactions = _raw_100k(source)
    elif (source / "ratings.dat").is_file():
        users, items, interactions = _raw_1m(source)
    elif (source / "ratings.csv").is_file():
        return _since_2015(source)
    else:
        users, items, interactions = (
            pq.read_table(source / f"{part}.parquet") for part in ("users", "items", "interactions")
        )
    return Tables(_users(users), _items(items, source), _interactions(interactions), source)


def _since_2015(source: Path) -> Tables:
    """Read ratings.csv and movies.csv, as latest, latest-small, 20M, 25M and 32M have them; users have no features.

    tags.csv is left out: nothing shows which tags came before a held-out rating.
    """
    ratings = pyarrow.csv.read_csv(source / "ratings.csv").rename_columns({"userId": "user_id", "movieId": "item_id"})
    cells = pyarrow.csv.ConvertOptions(column_types={"title": pa.string(), "genres": pa.string()})
    movies = pyarrow.csv.read_csv(source / "movies.csv", convert_options=cells)
    titles = pc.utf8_trim_whitespace(movies["title"])
    genres = pc.if_else(pc.equal(movies["genres"], "(no genres listed)"), None, movies["genres"])
    year = pc.struct_field(pc.extract_regex(titles, r"[(](?P<year>[0-9]{4})[^(]*[)]$"), "year")
    items = pa.table({"item_id": movies["movieId"], "title": titles, "genres": genres, "year": year})
    users = pa.table({"user_id": pc.unique(ratings["user_id"].cast(pa.int64()))})
    unused = [name for name in ("tags.csv", "links.csv", "genome-scores.csv") if (source / name).is_file()]
    notes = [f"Read as MovieLens: ratings.csv and movies.csv; not used: {', '.join(unused) or 'nothing'}."]
    return Tables(users, _items(items, source), _interactions(ratings), source, notes=notes)


def _users(table: pa.Table) -> pa.Table:
    """Return the users with features named by group; ages in the bands of MovieLens are categories."""
    columns = {"user_id": table["user_id"].cast(pa.int64())}
    if table.num_columns == 1:
        return pa.table(columns)
    ages = table["age"].cast(pa.int64())
    if set(pc.unique(ages).to_pylist()) - set(AGES):
        columns["continuous.age"] = ages.cast(pa.float64())
    else:
        columns["categorical.age"] = pa.array([AGES.get(age, str(age)) for age in ages.to_pylist()])
    for name in ("gender", "occupation"):
        columns[f"categorical.{name}"] = table[name].cast(pa.string())
    zips = table["zip"].cast(pa.string())
    columns["categorical.region"] = pc.utf8_slice_codeunits(zips, 0, 1)
    columns["categorical.area"] = pc.utf8_slice_codeunits(zips, 0, 3)
    return pa.table(columns)


def _items(table: pa.Table, source: Path) -> pa.Table:
    """Return the items with features named by group."""
    ids = table["item_id"].cast(pa.int64())
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"item_id": ids, "text.title": _filled(table["title"])}
    names = table.column_names
    if "plot" in names:
        columns["text.plot"] = _filled(table["plot"])
    genres = table["genres"]
    separator = "|" if pc.any(pc.match_substring(genres, "|")).as_py() else " "
    columns["categorical.genres"] = pc.split_pattern(_filled(genres), separator)
    for name in ("director", "writer", "actors"):
        if name in names:
            people = pc.replace_substring_regex(_filled(table[name]), r"\s*\([^)]*\)", "")
            columns[f"categorical.{name}"] = pc.split_pattern_regex(people, r"\s*[,|]\s*")
    if "rated" in names:
        columns["categorical.rated"] = _filled(table["rated"].cast(pa.string()))
    year = next((name for name in ("year", "release_year") if name in names), None)
    if year:
        texts = pc.utf8_trim_whitespace(table[year].cast(pa.string()))
        good = pc.fill_null(pc.match_substring_regex(texts, r"^\d{4}(\.0)?$"), False)
        columns["continuous.year"] = pc.if_else(good, texts, None).cast(pa.float64())
    folder = source / "posters"
    if folder.is_dir():
        there = {path.stem for path in folder.glob("*.jpg")}
        columns["image.poster"] = pa.array(
            [f"posters/{i}.jpg" if str(i) in there else None for i in ids.to_pylist()], pa.string()
        )
    return pa.table(columns)


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts; an empty text or "N/A" becomes null."""
    column = column.cast(pa.string())
    absent = pc.or_(pc.equal(pc.utf8_trim_whitespace(column), ""), pc.equal(column, "N/A"))
    return pc.if_else(pc.fill_null(absent, True), None, column)


def _interactions(table: pa.Table) -> pa.Table:
    """Return the interactions. Without timestamps their positions become times."""
    columns = {
        "user_id": table["user_id"].cast(pa.int64()),
        "item_id": table["item_id"].cast(pa.int64()),
        "interaction_type": pa.array(np.full(len(table), "rating")),
    }
    if "timestamp" in table.column_names:
        times = table["timestamp"]
        seconds = times.cast(pa.int64()) if not pa.types.is_timestamp(times.type) else None
        columns["timestamp"] = (
            times.cast(pa.timestamp("us")).cast(TIME) if seconds is None else seconds.cast(pa.timestamp("s")).cast(TIME)
        )
    else:
        minutes = pc.add(table["position"].cast(pa.int64()), FIRST_MINUTE)
        columns["timestamp"] = pc.multiply(minutes, 60).cast(pa.timestamp("s")).cast(TIME)
    if "rating" in table.column_names:
        columns["rating"] = table["rating"].cast(pa.float64())
    return pa.table(columns)


def _raw_100k(source: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Read MovieLens 100K: u.data, u.item and u.user."""
    ratings = np.loadtxt(source / "u.data", np.int64)
    items, genres, titles, years = [], [], [], []
    for line in (source / "u.item").read_text("latin-1").splitlines():
        fields = line.split("|")
        items.append(int(fields[0]))
        titles.append(fields[1])
        years.append(fields[2][-4:] or None)
        genres.append("|".join(name for name, flag in zip(GENRES, fields[5:24], strict=True) if flag == "1"))
    users = [line.split("|") for line in (source / "u.user").read_text("latin-1").splitlines()]
    return (
        pa.table(
            {
                "user_id": [int(u[0]) for u in users],
                "age": [int(u[1]) for u in users],
                "gender": [u[2] for u in users],
                "occupation": [u[3] for u in users],
                "zip": [u[4] for u in users],
            }
        ),
        pa.table({"item_id": items, "title": titles, "genres": genres, "release_year": pa.array(years, pa.string())}),
        pa.table(dict(zip(("user_id", "item_id", "rating", "timestamp"), ratings.T, strict=True))),
    )


def _raw_1m(source: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Read MovieLens 1M or 10M: ratings.dat, movies.dat and users.dat."""

    def rows(name: str) -> list[list[str]]:
        return [line.split("::") for line in (source / name).read_text("latin-1").splitlines()]

    movies, ratings = rows("movies.dat"), np.array(rows("ratings.dat"), np.float64)
    if (source / "users.dat").is_file():
        users = rows("users.dat")
        people = pa.table(
            {
                "user_id": [int(u[0]) for u in users],
                "gender": [u[1] for u in users],
                "age": [int(u[2]) for u in users],
                "occupation": [u[3] for u in users],
                "zip": [u[4] for u in users],
            }
        )
    else:  # MovieLens 10M has no features of users
        people = pa.table({"user_id": np.unique(ratings[:, 0].astype(np.int64))})
    return (
        people,
        pa.table(
            {
                "item_id": [int(m[0]) for m in movies],
                "title": [m[1] for m in movies],
                "genres": [m[2] for m in movies],
                "year": [m[1][-5:-1] for m in movies],
            }
        ),
        pa.table(dict(zip(("user_id", "item_id", "rating", "timestamp"), ratings.T, strict=True))),
    )
