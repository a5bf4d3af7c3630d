"""The data doctor: each finding is planted once, and a clean dataset has none of them."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from small import START, small_dataset

from anyrec.core.config import Config, DataConfig, SplitConfig
from anyrec.data.dataset import Dataset
from anyrec.data.doctor import near_duplicates
from anyrec.data.doctor.examine import as_lines, examine
from anyrec.data.doctor.leak_checks import rank_correlation
from anyrec.data.doctor.split_checks import check_split
from anyrec.data.findings import Finding
from anyrec.data.labels import label_interactions
from anyrec.data.split import Split, split_interactions

USERS, ITEMS, EACH = 100, 40, 8
TIME = pa.timestamp("us", "UTC")
LAST = Config(split=SplitConfig(protocol="leave_last_out"))
RANDOM = Config(split=SplitConfig(protocol="random"))


def clean(seed=0):
    """Data in which all users act in the same eight spells of ten days, so that the test comes after training."""
    data = small_dataset(users=USERS, items=ITEMS, each=EACH, seed=seed)
    rng = np.random.default_rng(seed)
    days = np.tile(np.arange(EACH), USERS) * 10 + rng.random(USERS * EACH) * 9
    return with_times(data, [START + dt.timedelta(days=float(day)) for day in days])


def with_column(table, name, values):
    values = values if isinstance(values, pa.Array) else pa.array(values)
    return table.drop_columns([name] if name in table.column_names else []).append_column(name, values)


def with_times(data, times):
    return changed(data, interactions=with_column(data.interactions, "timestamp", pa.array(times, TIME)))


def changed(data, **tables):
    kept = {"users": data.users, "items": data.items, "interactions": data.interactions}
    return Dataset(**{**kept, **tables}, root=data.root, roles=data.roles)


def with_feature(data, side, name, values):
    return changed(data, **{f"{side}s": with_column(data.table(side), name, values)})


def with_interaction(data, name, values):
    return changed(data, interactions=with_column(data.interactions, name, values))


def find(data, kind, config=None, **options):
    """The findings of one kind."""
    return [finding for finding in examine(data, config, **options) if finding.kind == kind]


def only(data, kind, config=None, **options):
    """The one finding of a kind; a clean dataset has none (`test_a_clean_dataset...`)."""
    found = find(data, kind, config, **options)
    assert len(found) == 1, examine(data, config, **options)
    return found[0]


def more(data, users, items):
    """The data with further interactions of user and item rows, in the spells of the others."""
    rng = np.random.default_rng(1)
    rows = data.interactions.take(pa.array(rng.integers(0, len(data.interactions), len(users))))
    rows = with_column(rows.drop_columns(["user_id"]), "user_id", data.ids("user").take(pa.array(users)))
    rows = with_column(rows.drop_columns(["item_id"]), "item_id", data.ids("item").take(pa.array(items)))
    rows = rows.select(data.interactions.column_names)
    return changed(data, interactions=pa.concat_tables([data.interactions, rows]).combine_chunks())


def item_counts(data, rows=slice(None)):
    return np.bincount(data.item_rows[rows], minlength=len(data.items)).astype(float)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("config", [Config(), LAST])
def test_a_clean_dataset_has_its_size_as_the_only_finding(seed, config):
    found = examine(clean(seed), config)
    assert [finding.kind for finding in found] == ["size"]
    assert "100 users, 40 items and 800 interactions, which fill 20.00%" in found[0].text


def test_clean_labels_and_ratings_are_not_a_leak():
    data = with_interaction(
        clean(), "label", pa.array(np.random.default_rng(0).integers(0, 2, USERS * EACH), pa.int8())
    )
    assert not [finding for finding in examine(data) if finding.kind.startswith("leak")]
    rated = Config(data=DataConfig(min_rating=3))
    assert not [finding for finding in examine(clean(), rated) if finding.kind.startswith("leak")]


def test_no_interactions_is_a_problem_and_ends_the_examination():
    data = clean()
    assert [f.kind for f in examine(changed(data, interactions=data.interactions.slice(0, 0)))] == ["no interactions"]


def test_features_alone_or_no_features_at_all_can_be_examined():
    data = clean()
    bare = changed(data, users=data.users.select(["user_id"]), items=data.items.select(["item_id"]))
    assert [finding.kind for finding in examine(bare)] == ["size"]


def test_findings_are_sorted_and_lines_can_be_limited():
    data = with_feature(clean(), "item", "continuous.sales", item_counts(clean()))
    data = with_interaction(with_feature(data, "user", "categorical.planet", ["earth"] * USERS), "rating", [3.0] * 800)
    found = examine(data)
    assert [finding.level for finding in found] == ["problem", "note", "note", "note"]
    assert [finding.kind for finding in found[1:]] == ["constant feature", "constant rating", "size"]
    lines = as_lines(found)
    assert len(lines) == 4 and lines[0].startswith("problem: The item feature 'continuous.sales'")
    assert as_lines(found, 2) == [*lines[:2], "... and 2 more findings."]
    assert as_lines(found, 4) == lines
    assert as_lines([]) == []


# counts


def test_a_long_tail_is_reported_with_its_shares():
    data = clean()
    data = more(data, np.arange(2000) % USERS, np.where(np.arange(2000) % 10 > 0, 7, 8))
    finding = only(data, "long tail")
    assert finding.level == "note"
    share = np.sort(item_counts(data))[-4:].sum() / len(data.interactions)
    assert f"the most popular 10% have {share:.0%}" in finding.text


def test_users_and_items_without_interactions_and_users_with_one_are_counted():
    data = clean()
    kept = np.isin(data.user_rows, range(90, 98), invert=True) & (data.item_rows != 3)
    kept[np.flatnonzero(data.user_rows == 5)[1:]] = False
    data = changed(data, interactions=data.interactions.filter(pa.array(kept)))
    assert "8.0% of the users (8 of 100)" in only(data, "users without interactions").text
    assert "2.5% of the items (1 of 40)" in only(data, "items without interactions").text
    assert "1.0% of the users (1 of 100)" in only(data, "users with one interaction").text


def test_a_user_with_extremely_many_interactions_is_named():
    data = more(clean(), np.full(1000, 17), np.arange(1000) % ITEMS)
    finding = only(data, "very active users")
    assert "user 'u017' made 1,008, where the median of all users is 8" in finding.text
    assert "1 user made 56%" in finding.text


def test_duplicate_rows_are_counted_and_a_later_return_is_not_a_duplicate():
    data = clean()
    rows = data.interactions
    assert (
        "1.2% of the interactions (10)"
        in only(
            changed(data, interactions=pa.concat_tables([rows, rows.slice(0, 10)]).combine_chunks()),
            "duplicate interactions",
        ).text
    )
    later = pc.add(rows.column("timestamp").slice(0, 10), dt.timedelta(days=1))
    again = with_column(rows.slice(0, 10), "timestamp", later.combine_chunks()).select(rows.column_names)
    assert not find(
        changed(data, interactions=pa.concat_tables([rows, again]).combine_chunks()), "duplicate interactions"
    )


def test_without_times_repeated_pairs_are_a_note():
    data = clean()
    rows = data.interactions.drop_columns(["timestamp"])
    assert not find(changed(data, interactions=rows), "repeated pairs")
    rows = pa.concat_tables([rows, rows.slice(0, 5)]).combine_chunks()
    assert "(5)" in only(changed(data, interactions=rows), "repeated pairs").text


def test_ids_that_look_like_floats_are_found_and_their_twins_are_a_problem():
    def renamed(name):
        data = clean()
        names = [name(number) for number in range(USERS)]
        rows = with_column(data.interactions, "user_id", pa.array(names).take(pa.array(data.user_rows)))
        return changed(data, users=with_column(data.users, "user_id", names), interactions=rows)

    finding = only(renamed(lambda number: f"{number}.0"), "float user ids")
    assert finding.level == "warning" and "100 of 100 user ids" in finding.text
    finding = only(renamed(lambda number: f"{number}.0" if number < 50 else str(number - 50)), "float user ids")
    assert finding.level == "problem" and "50 of them also occur without" in finding.text
    assert not find(renamed(lambda number: f"{number}.5"), "float user ids")
    finding = only(renamed(lambda number: float(number)), "float user ids")
    assert "decimal point" in finding.text


# values and times


@pytest.mark.parametrize(
    ("name", "values", "shown"),
    [
        ("interaction_type", pa.array(["buy"] * 800), "'buy'"),
        ("rating", pa.array([5.0] * 800), "5"),
        ("label", pa.array([1] * 800, pa.int8()), "1"),
    ],
)
def test_a_column_with_one_value_is_reported(name, values, shown):
    finding = only(with_interaction(clean(), name, values), f"constant {name}")
    assert finding.level == "note" and finding.text.endswith(f"are {shown}.")


def test_no_positive_interaction_is_a_problem():
    finding = only(clean(), "no positives", Config(data=DataConfig(positive_types={"gift": 1.0})))
    assert finding.level == "problem" and "800 interactions" in finding.text


def test_impossible_times_are_reported():
    data = clean()
    times = data.column("timestamp").to_pylist()
    future = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=400)
    finding = only(with_times(data, [future] * 8 + times[8:]), "times in the future")
    assert "1.0% of the timestamps (8)" in finding.text and str(future.year) in finding.text
    old = dt.datetime(1970, 1, 20, tzinfo=dt.timezone.utc)
    assert "as 1970-01-20" in only(with_times(data, [old] * 8 + times[8:]), "very old times").text
    assert "(8)" in only(with_times(data, [None] * 8 + times[8:]), "missing times").text
    found = examine(with_times(data, [START] * 800))
    assert "equal times" in [f.kind for f in found if f.level == "problem"]
    assert "ties in time" not in [finding.kind for finding in found]
    assert not {"equal times", "missing times"} & {f.kind for f in examine(with_times(data, [None] * 800))}


def test_times_at_equal_intervals_are_made_up():
    finding = only(small_dataset(), "made-up times")
    assert "exactly 3600 seconds" in finding.text
    assert not find(small_dataset(), "training on the future", LAST), "such times say nothing of it"


def test_ties_at_the_end_of_users_are_reported_if_they_decide_the_test():
    data = clean()
    times = data.column("timestamp").to_pylist()
    for user in range(30):
        times[user * EACH + 7] = times[user * EACH + 6]
    tied = with_times(data, times)
    assert "30% of the tested users" in only(tied, "ties in time", LAST).text
    assert not find(tied, "ties in time", RANDOM)
    for user in range(30):
        times[user * EACH + 7], times[user * EACH + 1] = times[user * EACH + 7] + dt.timedelta(1), times[user * EACH]
    assert not find(with_times(data, times), "ties in time", LAST), "ties further back decide nothing"


# features


def test_dead_sparse_and_constant_features_are_reported():
    data = clean()
    assert "1 of 100" not in examine(data)[0].text
    rare = pa.array([1.0] + [None] * 999)
    users = pa.table({"user_id": [f"u{n:04d}" for n in range(1000)], "continuous.rare": rare})
    wide = changed(
        data,
        users=users,
        interactions=with_column(data.interactions, "user_id", [f"u{n // 8:04d}" for n in range(800)]),
    )
    assert "present in 1 of 1,000 users" in only(wide, "dead feature").text
    blank = with_feature(data, "item", "text.note", ["", " "] * 20)
    assert "present in 0 of 40 items" in only(blank, "dead feature").text
    empty = with_feature(data, "item", "categorical.shops", pa.array([[]] * 40, pa.list_(pa.string())))
    assert "present in 0 of 40 items" in only(empty, "dead feature").text
    half = with_feature(data, "item", "continuous.weight", pa.array([None, 1.0, None, 2.0] * 10))
    assert "present in only 50.0%" in only(half, "missing values").text
    for same in (["x"] * 40, [1.5] * 40, [["a", "b"]] * 40, [True] * 40, [None, "x"] * 20):
        assert (
            "the same value in all"
            in only(with_feature(data, "item", "categorical.same", same), "constant feature").text
        )
    assert not find(with_feature(data, "item", "categorical.order", [["a", "b"], ["b", "a"]] * 20), "constant feature")


def test_columns_of_unusual_types_can_be_examined():
    data = with_feature(clean(), "item", "audio.meta", [{"length": 1.0}] * 40)
    data = with_feature(data, "item", "audio.vectors", [[[1.0, 2.0]]] * 40)
    data = with_feature(data, "user", "continuous.vector", [[1.0, float(n)] for n in range(USERS)])
    assert [finding.kind for finding in examine(data)] == ["size"]


def test_features_that_the_config_switches_off_are_not_examined():
    data = with_feature(clean(), "item", "continuous.sales", item_counts(clean()))
    assert find(data, "leak of the outcome")
    for features in ({"continuous": None}, {"continuous": {"fields": {"sales": None}}}):
        assert not find(data, "leak of the outcome", Config.model_validate({"features": features}))
        assert not find(data, "leak of the outcome", Config.model_validate({"item": {"features": features}}))
        assert find(data, "leak of the outcome", Config.model_validate({"user": {"features": features}}))


# equal and similar items

WORDS = ["amber", "bridge", "candle", "desert", "engine", "forest", "garden", "harbour", "island", "jacket", "kettle"]


def sentences(count, words=12, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, words)) for _ in range(count)]


def test_equal_texts_are_counted_whatever_their_case_and_punctuation():
    data = changed(clean(), items=clean().items.drop_columns(["text.title"]))
    texts = sentences(ITEMS)
    assert not {"equal texts", "similar texts"} & {
        f.kind for f in examine(with_feature(data, "item", "text.title", texts))
    }
    texts[3] = texts[9].title().replace(" ", " - ") + "!"
    finding = only(with_feature(data, "item", "text.title", texts), "equal texts")
    assert "2 items" in finding.text and "item 'i003' and item 'i009'" in finding.text
    assert finding.level == "note" and "0 of them also the same categories" in finding.text, "their prices differ"
    texts[20:22] = ["Same Thing", "same thing"]
    equal = with_feature(data, "item", "text.title", texts)
    for name in ("categorical.tags", "continuous.price"):
        values = data.items.column(name).to_pylist()
        equal = with_feature(equal, "item", name, [*values[:21], values[20], *values[22:]])
    finding = only(equal, "equal texts")
    assert finding.level == "warning" and "4 items" in finding.text and "2 of them also the same" in finding.text
    assert "item 'i020' and item 'i021'" in finding.text
    bare = changed(data, items=data.items.select(["item_id"]).append_column("text.title", pa.array(texts)))
    assert "categories" not in only(bare, "equal texts").text


def test_nearly_equal_texts_are_found_over_all_blocks(monkeypatch):
    monkeypatch.setattr(near_duplicates, "ROWS_AT_A_TIME", 16)
    data, texts = clean(), sentences(ITEMS, words=30)
    texts[35] = texts[2][:-1] + "x"
    finding = only(with_feature(data, "item", "text.plot", texts), "similar texts")
    assert "2 items" in finding.text and "item 'i002' and item 'i035'" in finding.text
    monkeypatch.setattr(near_duplicates, "MOST_TEXTS", 30)
    found = examine(with_feature(data, "item", "text.plot", texts))
    assert "first 30 of 40" in next(f.text for f in found if f.kind == "texts in part")
    assert "similar texts" not in [f.kind for f in found]


def test_texts_in_any_script_and_lists_of_texts_are_compared():
    data = changed(clean(), items=clean().items.drop_columns(["text.title"]))
    texts = [[text, None] for text in sentences(ITEMS)]
    texts[4] = texts[5] = ["Большой дом", "湖畔の家"]
    texts[6] = None
    assert "2 items" in only(with_feature(data, "item", "text.parts", texts), "equal texts").text
    texts[8:10] = [["One", None], [None, "one"]]
    assert "4 items" in only(with_feature(data, "item", "text.parts", texts), "equal texts").text
    assert not find(with_feature(data, "item", "text.parts", [None, ""] * 20), "equal texts")


def pictures(folder, count=12):
    """Pictures of noise, all different, and a dataset whose first items show them."""
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (8, 9, 3)).astype(np.uint8))
        noise.resize((90, 80), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(count)] + ["gone.png"] + [None] * (ITEMS - count - 1)
    return names


def with_images(folder, names):
    data = with_feature(clean(), "item", "image.photo", pa.array(names))
    data.root = folder
    return data


def image_kinds(data):
    return [finding.kind for finding in examine(data) if "image" in finding.kind]


def test_equal_and_similar_images_are_found_and_missing_files_skipped(tmp_path):
    names = pictures(tmp_path)
    assert image_kinds(with_images(tmp_path, names)) == []
    (tmp_path / "copy.png").write_bytes((tmp_path / "4.png").read_bytes())
    copied = with_images(tmp_path, [*names[:20], "copy.png", "4.png", *names[22:]])
    finding = only(copied, "equal images")
    assert "3 items" in finding.text and "one file is on 3 items" in finding.text
    assert image_kinds(copied) == ["equal images"], "equal images are not reported as similar too"
    assert not any("image" in f.kind for f in examine(copied, images=False))
    Image.open(tmp_path / "4.png").resize((200, 160)).save(tmp_path / "large.jpg", quality=85)
    finding = only(with_images(tmp_path, [*names[:20], "large.jpg", *names[21:]]), "similar images")
    assert finding.text.startswith("2 items") and "item 'i004' and item 'i020'" in finding.text


def test_two_views_of_one_item_and_flat_pictures_are_not_reported(tmp_path):
    names = pictures(tmp_path)
    for number, colour in enumerate(["white", "black", "grey"]):
        Image.new("RGB", (30, 30), colour).save(tmp_path / f"flat{number}.png")
    Image.open(tmp_path / "4.png").resize((200, 160)).save(tmp_path / "large.jpg", quality=85)
    views = [[name] if name else None for name in names]
    views[4] = ["4.png", "large.jpg", "4.png"]
    views[20:23] = [["flat0.png"], ["flat1.png"], ["flat2.png"]]
    assert image_kinds(with_images(tmp_path, views)) == []


def test_the_number_of_compared_images_is_limited_and_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "MOST_IMAGES", 5)
    names = pictures(tmp_path)
    data = with_images(tmp_path, [*names[:20], "4.png", "11.png", *names[22:]])
    assert "first 5 of 13 image files" in only(data, "images in part").text
    assert "2 items" in only(data, "equal images").text
    data.root = tmp_path / "nowhere"
    assert image_kinds(data) == ["images in part"]


# leaks


def test_a_list_of_the_held_out_items_is_reported_and_is_a_problem_if_it_is_kept():
    data = clean()
    owned = [[f"i{row:03d}" for row in data.item_rows[data.user_rows == user]] for user in range(USERS)]
    before = [items[:-2] for items in owned]
    assert not find(with_feature(data, "user", "temporal.liked", before), "leak of held-out ids", LAST)
    leaking = with_feature(data, "user", "temporal.liked", owned)
    finding = only(leaking, "leak of held-out ids", LAST)
    assert finding.level == "warning" and "100%" in finding.text
    assert only(leaking, "leak of held-out ids", Config(data=DataConfig(drop_leaks=False))).level == "problem"
    titles = [f"She bought i{data.item_rows[user * EACH + 7]:03d} at last" for user in range(USERS)]
    finding = only(with_feature(data, "user", "text.story", titles), "leak of held-out ids")
    assert finding.level == "problem" and "text.story" in finding.text


@pytest.mark.parametrize("of", [lambda n: n, lambda n: -np.log1p(n), lambda n: 3 * n + 1])
def test_an_item_feature_that_counts_the_interactions_is_a_leak(of):
    finding = only(with_feature(clean(), "item", "continuous.score", of(item_counts(clean()))), "leak of the outcome")
    assert finding.level == "problem"
    assert "'continuous.score'" in finding.text and "number of interactions" in finding.text


def test_a_count_of_training_interactions_is_not_a_leak():
    data = clean()
    split, _ = split_interactions(data, LAST.split, 0)
    counts = item_counts(data, split.train)
    assert rank_correlation(counts, item_counts(data)) > 0.7
    assert not find(with_feature(data, "item", "continuous.num_ratings", counts), "leak of the outcome", LAST)


def test_the_mean_rating_of_an_item_is_a_leak():
    data = clean()
    mean = np.bincount(data.item_rows, data.column("rating").to_numpy(), ITEMS) / item_counts(data)
    finding = only(with_feature(data, "item", "continuous.quality", mean), "leak of the outcome")
    assert finding.level == "problem" and "mean rating" in finding.text
    gaps = pa.array(mean, mask=np.arange(ITEMS) < 5)
    assert find(with_feature(data, "item", "continuous.quality", gaps), "leak of the outcome")


def test_a_name_that_says_counted_lowers_the_bound_and_is_not_a_leak_by_itself():
    data = clean()
    noisy = item_counts(data) + np.random.default_rng(0).normal(0, item_counts(data).std() / 2, ITEMS)
    assert 0.7 < rank_correlation(noisy, item_counts(data)) < 0.95
    assert not find(with_feature(data, "item", "continuous.shade", noisy), "leak of the outcome")
    assert only(with_feature(data, "item", "continuous.num_ratings", noisy), "leak of the outcome").level == "warning"
    unrelated = np.random.default_rng(1).random(ITEMS)
    assert not find(with_feature(data, "item", "continuous.avg_rating", unrelated), "leak of the outcome")


def test_a_users_own_count_is_a_warning():
    data = clean()
    data = more(
        data, np.repeat(np.arange(USERS), np.arange(USERS) % 20), np.arange((np.arange(USERS) % 20).sum()) % ITEMS
    )
    counts = np.bincount(data.user_rows, minlength=USERS).astype(float)
    assert only(with_feature(data, "user", "continuous.orders", counts), "leak of the outcome").level == "warning"


def labelled(share=0.5):
    """Each user likes everything or nothing; (users,) which."""
    likes = np.random.default_rng(3).random(USERS) < share
    data = clean()
    return with_interaction(data, "label", pa.array(likes[data.user_rows].astype(np.int8))), likes


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("categorical.churned", lambda likes: ["no" if like else "yes" for like in likes]),
        ("categorical.marks", lambda likes: [["all", "fan"] if like else ["all"] for like in likes]),
        ("continuous.status", lambda likes: likes.astype(float)),
        ("continuous.band", lambda likes: np.where(likes, 0.0, np.random.default_rng(0).choice([-1.0, 1.0], USERS))),
        ("categorical.reason", lambda likes: [None if like else f"complaint {n % 3}" for n, like in enumerate(likes)]),
    ],
)
def test_a_user_feature_that_equals_the_label_is_a_leak(name, make):
    data, likes = labelled()
    assert not find(data, "leak of the label")
    finding = only(with_feature(data, "user", name, make(likes)), "leak of the label")
    assert finding.level == "problem" and f"user feature '{name}'" in finding.text and "100%" in finding.text


def test_a_feature_of_many_values_is_not_a_leak_of_the_label_by_overfitting():
    data, likes = labelled()
    data = with_feature(data, "user", "categorical.name", [f"name {n}" for n in range(USERS)])
    data = with_feature(data, "user", "continuous.code", np.random.default_rng(0).random(USERS))
    assert not find(data, "leak of the label")
    weak = np.where(np.random.default_rng(0).random(USERS) < 0.8, likes, ~likes)
    assert not find(with_feature(data, "user", "categorical.hint", weak.astype(str)), "leak of the label")


def test_nothing_is_concluded_from_too_few_labels():
    data, likes = labelled(0.05)
    assert 0 < likes.sum() < 10
    assert not find(with_feature(data, "user", "categorical.fan", likes.astype(str)), "leak of the label")


def test_an_item_feature_that_reveals_low_ratings_is_a_leak_under_min_rating():
    data = clean()
    low = np.arange(ITEMS) % 3 == 0
    rated = with_interaction(data, "rating", np.where(low[data.item_rows], 1.0, 5.0))
    rated = with_feature(rated, "item", "categorical.flagged", low.astype(str))
    assert not find(rated, "leak of the label"), "without min_rating every rating is positive"
    finding = only(rated, "leak of the label", Config(data=DataConfig(min_rating=3)))
    assert "low rating" in finding.text and "item feature" in finding.text


# the split


def test_a_small_test_part_is_reported():
    data = small_dataset(users=30)
    assert "Only 30 users" in only(data, "small test").text
    assert not find(data, "small test", Config(split=SplitConfig(protocol="none")))


def late(data, items):
    """The data with each user's last interaction moved to one of `items`."""
    rows = data.item_rows.copy()
    rows[EACH - 1 :: EACH] = np.resize(items, USERS)
    return with_interaction(data, "item_id", data.ids("item").take(pa.array(rows)))


def test_items_that_only_the_test_has_are_reported():
    data = clean()
    rows = np.where(data.item_rows >= 35, data.item_rows % 35, data.item_rows)
    data = late(with_interaction(data, "item_id", data.ids("item").take(pa.array(rows))), np.arange(35, 40))
    assert "100% of the test interactions are with an item" in only(data, "new items in test", LAST).text


def test_users_that_only_the_test_has_are_reported():
    data = clean()
    rows = np.arange(USERS * EACH)
    split = Split(rows[: 50 * EACH], rows[:0], rows[50 * EACH :], "by user")
    found = check_split(data, label_interactions(data, DataConfig()), split)
    assert "100% of the test interactions are of a user" in next(f.text for f in found if f.kind == "new users in test")


def test_a_change_of_popularity_is_reported_with_the_change_by_chance():
    finding = only(late(clean(), np.arange(4)), "popularity drift", LAST)
    assert finding.level == "warning" and "by chance it would be 0." in finding.text


def test_a_change_of_the_items_features_is_reported():
    data = clean()
    new = np.arange(ITEMS) >= 20
    drifted = late(data, np.arange(20, 40))
    drifted = changed(drifted, items=drifted.items.drop_columns(["continuous.price"]))
    drifted = with_feature(drifted, "item", "continuous.year", np.where(new, 2020.0, 1990.0) + np.arange(ITEMS) % 5)
    drifted = with_feature(drifted, "item", "categorical.era", new.astype(str))
    drifted = with_feature(drifted, "item", "categorical.sort", np.where(np.arange(ITEMS) % 2, "odd", "even"))
    texts = [finding.text for finding in find(drifted, "feature drift", LAST)]
    assert len(texts) == 2 and "categorical.era" in texts[0] and "continuous.year" in texts[1]


def test_cold_protocols_do_not_report_the_new_records_that_they_ask_for():
    for protocol in ("cold_users", "cold_items"):
        kinds = {finding.kind for finding in examine(clean(), Config(split=SplitConfig(protocol=protocol)))}
        assert not {"new users in test", "new items in test", "popularity drift"} & kinds


def test_training_on_the_future_is_reported_for_users_who_act_at_different_times():
    data = clean()
    starts = np.repeat(np.arange(USERS) * 100, EACH)
    times = [
        time + dt.timedelta(hours=int(start))
        for time, start in zip(data.column("timestamp").to_pylist(), starts, strict=True)
    ]
    finding = only(with_times(data, times), "training on the future", LAST)
    assert finding.level == "note" and "% of the training interactions happened after" in finding.text
    assert find(data, "training on the future", RANDOM)


# real data


def test_movielens_100k_has_its_known_findings_and_no_leak(ml_100k):
    data = Dataset.read(ml_100k)
    for min_rating in (None, 4):
        found = examine(data, Config(data=DataConfig(min_rating=min_rating), split=LAST.split))
        assert [finding.kind for finding in found] == [
            "equal texts",
            "feature drift",
            "ties in time",
            "constant interaction_type",
            "long tail",
            "size",
            "training on the future",
        ]
    counted = with_feature(data, "item", "continuous.votes", item_counts(data))
    assert only(counted, "leak of the outcome").level == "problem"


@pytest.mark.slow
def test_movielens_1m_has_its_known_findings(ml_1m):
    found = examine(Dataset.read(ml_1m), images=False)
    kinds = [finding.kind for finding in found]
    assert "made-up times" in kinds, "the file gives an order in minutes, no dates"
    assert not [kind for kind in kinds if kind.startswith("leak")]
    assert all(
        isinstance(finding, Finding) and finding.text.endswith(".") and finding.advice.endswith(".")
        for finding in found
    )
