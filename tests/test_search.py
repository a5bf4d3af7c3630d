"""Search by text and picture: spaces, filters, personal search, what it says of bad queries."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from small import call, small_config, small_dataset

from anyrec.core.errors import ConfigError, DataError, InputError
from anyrec.data.dataset import Dataset
from anyrec.pipeline.item_search import searcher
from anyrec.recommender import Recommender

FILMS = [
    ("The Tin Galaxy", "Two robots and a smuggler cross space to save a princess from an empire.", "Sci-Fi"),
    ("Orbit of Fear", "The crew of a starship is hunted by an alien.", "Sci-Fi"),
    ("Paper Moonlight", "A baker and a florist fall in love over one summer in Paris.", "Romance"),
    ("Letters to Anna", "A soldier writes love letters to a girl whom he never met.", "Romance"),
    ("Deep Teeth", "A shark attacks swimmers at a quiet beach.", "Horror"),
    ("The Cellar Door", "A family moves into a house haunted by ghosts.", "Horror"),
    ("Saddle and Dust", "A sheriff and an outlaw meet for a duel in a desert town.", "Western"),
    ("Gold River", "Cowboys drive their cattle north and find gold.", "Western"),
]
COLOURS = {"Sci-Fi": (20, 30, 120), "Romance": (230, 120, 160), "Horror": (15, 10, 10), "Western": (220, 160, 60)}


def films(root, users=24, seed=0):
    """Each user likes one kind of film; posters have the colour of the kind, with noise."""
    rng = np.random.default_rng(seed)
    for number, (_, _, genre) in enumerate(FILMS):
        picture = np.clip(np.array(COLOURS[genre]) + rng.normal(0, 20, (24, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(root / f"{number}.png")
    pairs = [(u, i) for u in range(users) for i in range(len(FILMS)) if i // 2 == u % 4 or rng.random() < 0.2]
    return Dataset(
        pa.table({"user_id": [f"u{u}" for u in range(users)], "categorical.kind": [str(u % 4) for u in range(users)]}),
        pa.table(
            {
                "item_id": [f"f{n}" for n in range(len(FILMS))],
                "text.title": [title for title, _, _ in FILMS],
                "text.plot": [plot for _, plot, _ in FILMS],
                "categorical.genre": [genre for _, _, genre in FILMS],
                "image.poster": [f"{n}.png" for n in range(len(FILMS))],
            }
        ),
        pa.table({"user_id": [f"u{u}" for u, _ in pairs], "item_id": [f"f{i}" for _, i in pairs]}),
        root,
    )


@pytest.fixture(scope="module")
def fitted(minilm, tmp_path_factory):
    root = tmp_path_factory.mktemp("films")
    features = {"text": {"type": "sentence", "model": str(minilm)}}
    config = small_config(features=features, split={"protocol": "none"})
    return Recommender.from_config(config).fit(films(root), progress=False)


def ids(table):
    return table.column("item_id").to_pylist()


def test_an_items_own_title_and_plot_find_it_first(fitted):
    for number, (title, plot, _) in enumerate(FILMS):
        assert ids(fitted.search(text=title, k=1, space="text")) == [f"f{number}"]
        assert f"f{number}" in ids(fitted.search(text=plot, k=2))


def test_words_that_no_item_holds_find_what_they_mean(fitted):
    found = fitted.search(text="space adventure with androids", k=2, space="text")
    assert set(ids(found)) == {"f0", "f1"} and found.column("rank").to_pylist() == [1, 2]
    assert ids(fitted.search(text="dangerous fish", k=1)) == ["f4"]
    assert set(ids(fitted.search(text="western", k=2))) == {"f6", "f7"}


def test_a_picture_finds_itself_and_then_what_looks_like_it(fitted):
    for number in range(len(FILMS)):
        found = ids(fitted.search(image=fitted.dataset.root / f"{number}.png", k=2, space="looks"))
        assert found == [f"f{number}", f"f{number ^ 1}"]
        assert ids(fitted.search(image=fitted.dataset.root / f"{number}.png", k=1)) == [f"f{number}"]


def test_every_space_gives_all_items_in_order_of_score(fitted):
    picture = fitted.dataset.root / "0.png"
    for query in ({"text": "robots"}, {"image": picture}, {"text": "robots", "image": picture}):
        for space in ("auto", "tower"):
            found = fitted.search(**query, k=100, space=space)
            scores = found.column("score").to_numpy()
            assert sorted(ids(found)) == [f"f{n}" for n in range(8)] and (np.diff(scores) <= 0).all()
            assert ids(fitted.search(**query, k=3, space=space)) == ids(found)[:3]
    assert len(fitted.search(image=picture, space="image")) == 8


def test_a_text_and_a_picture_together_find_what_has_both(fitted):
    both = fitted.search(text="love letters", image=fitted.dataset.root / "2.png", k=2, space="auto")
    assert set(ids(both)) == {"f2", "f3"}


def test_personal_weight_0_is_plain_search_and_1_the_users_ranking(fitted):
    plain, liked = fitted.search(text="a story", k=8), fitted.recommend(["u2"], 8, exclude_seen=False)
    assert ids(fitted.search(text="a story", k=8, user="u2", personal=0)) == ids(plain)
    assert ids(fitted.search(text="a story", k=8, user="u2", personal=1)) == ids(liked)
    between = fitted.search(text="a story", k=8, user="u2", personal=0.5)
    assert sorted(ids(between)) == sorted(ids(plain))
    record = {"user_id": "new", "categorical": {"kind": "2"}}
    assert len(fitted.search(text="a story", user=record)) == 8


def test_filters_leave_only_what_is_eligible(fitted):
    where = {"item.categorical.genre": "Western"}
    assert set(ids(fitted.search(text="space robots", k=5, where=where))) == {"f6", "f7"}
    assert set(ids(fitted.search(text="space robots", k=5, candidates=["f2", "f5"], user="u1"))) == {"f2", "f5"}
    seen = {f"f{i}" for i in fitted.model.seen.take(np.array([2]))[1]}
    found = ids(fitted.search(text="space robots", k=8, user=fitted.dataset.ids("user")[2].as_py(), exclude_seen=True))
    assert set(found) == {f"f{n}" for n in range(8)} - seen


def test_search_says_what_is_wrong_with_a_query(fitted, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for query, word in [
        ({}, "nothing to look for"),
        ({"text": "  "}, "empty"),
        ({"image": tmp_path / "none.png"}, "no such file"),
        ({"image": broken}, "cannot be read"),
        ({"text": "a", "space": "txt"}, "no space 'txt'"),
        ({"text": "a", "space": "image"}, "cannot be searched by text in the space 'image'"),
        ({"text": "a", "space": "joint"}, "cannot be searched by text in the space 'joint'"),
        ({"text": "a", "personal": 1.5}, "between 0 and 1"),
        ({"text": "a", "exclude_seen": True}, "--user"),
    ]:
        with pytest.raises(InputError, match=word):
            fitted.search(**query)
    with pytest.raises(DataError, match="no such user"):
        fitted.search(text="a", user="nobody")
    with pytest.raises(ConfigError, match="genr"):
        fitted.search(text="a", where={"item.categorical.genr": "Western"})


def test_items_without_texts_and_classical_models_say_that_there_is_nothing_to_search_by():
    dataset = small_dataset()
    bare = Dataset(dataset.users, dataset.items.select(["item_id", "continuous.price"]), dataset.interactions)
    fitted = Recommender.from_config(small_config()).fit(bare, progress=False)
    classical = Recommender.from_config({"model": {"type": "item_knn"}}).fit(dataset, progress=False)
    for recommender in (fitted, classical):
        with pytest.raises(InputError, match="cannot be searched by text"):
            recommender.search(text="a nurse")
    with pytest.raises(InputError, match="cannot be searched by image"):
        fitted.search(image=__file__.replace("test_search.py", "../docs/demo.png"))


def test_a_trained_bag_of_words_is_searched_too_and_names_a_text_it_does_not_know():
    dataset = small_dataset()
    fitted = Recommender.from_config(small_config()).fit(dataset, progress=False)
    best = fitted.search(text="a thing for a baker", k=99, space="text")
    exact = best.filter(pc.greater(best.column("score"), 0.999))
    titles = fitted.dataset.items.column("text.title").to_pylist()
    assert set(ids(exact)) == {f"i{n:03d}" for n, title in enumerate(titles) if "baker" in title}
    with pytest.raises(InputError, match="none of its words"):
        fitted.search(text="qwertz")


def test_a_loaded_model_keeps_its_spaces_beside_it_and_a_damaged_one_is_made_anew(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    expected = fitted.search(text="a shark", k=8)
    for damage in (None, b"", b"x" * 500):
        loaded = Recommender.load(tmp_path / "model", trust_plugins=True)
        assert loaded.search(text="a shark", k=8).equals(expected)
        kept = list((tmp_path / "model" / "search").glob("*.safetensors"))
        assert [path.name for path in kept] == ["text-text.safetensors"]
        if damage is not None:
            kept[0].write_bytes(damage)
    again = Recommender.load(tmp_path / "model", trust_plugins=True)
    searcher(again.model).place("text")
    from anyrec.retrieval.semantic import spaces

    class Refuses(spaces.Space):
        def items(self):
            raise AssertionError("computed a second time")

    loaded, original = Recommender.load(tmp_path / "model", trust_plugins=True), spaces.Space.items
    spaces.Space.items = Refuses.items
    try:
        assert loaded.search(text="a shark", k=8).equals(expected)
    finally:
        spaces.Space.items = original


def test_items_added_without_training_are_found(fitted):
    more = pa.table({"item_id": ["new"], "text.title": ["Fins"], "text.plot": ["A shark attacks a boat at the beach."]})
    wider = fitted.add_items(more)
    assert ids(wider.search(text="a shark attacks at the beach", k=2, space="text")) in (["new", "f4"], ["f4", "new"])
    assert "new" not in ids(fitted.search(text="a shark attacks at the beach", k=8))


def test_clip_holds_texts_and_pictures_in_one_space(tmp_path):
    from test_image_encoders import tiny_clip

    config = small_config(features={"image": {"type": "clip", "model": str(tiny_clip(tmp_path))}, "text": None})
    dataset = films(tmp_path)
    fitted = Recommender.from_config({**config, "split": {"protocol": "none"}}).fit(dataset, progress=False)
    assert len(fitted.search(text="robots")) == 8
    assert searcher(fitted.model).places_of("robots", None) == ["joint"]
    assert ids(fitted.search(image=tmp_path / "3.png", k=1)) == ["f3"]


def test_the_commands_show_titles_and_print_json(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    model = ("--model_path", tmp_path / "model", "--trust-plugins")
    code, shown, _ = call("search", *model, "--text", "a shark", "--top_k", 2)
    assert code == 0 and "Deep Teeth" in shown and "Horror" in shown
    where = json.dumps({"item.categorical.genre": "Western"})
    code, shown, _ = call("search", *model, "--text", "a shark", "--json", "--where", where, "--user", "u1")
    assert code == 0 and {row["item_id"] for row in json.loads(shown)} == {"f6", "f7"}
    code, shown, _ = call("similar", *model, "--item", "f0", "--item", "f2", "--top_k", 2)
    assert code == 0 and "like The Tin Galaxy (f0)" in shown and "like Paper Moonlight (f2)" in shown
    code, shown, _ = call("similar", *model, "--item", "f0", "--top_k", 2, "--json")
    assert code == 0 and [row["rank"] for row in json.loads(shown)] == [1, 2]
    for arguments, word in [
        (("search", *model), "nothing to look for"),
        (("search", *model, "--text", "a", "--where", "{"), "not valid JSON"),
        (("search", *model, "--text", "a", "--image", "nowhere.png"), "cannot be read"),
    ]:
        code, _, message = call(*arguments)
        assert code == 2 and word in message
