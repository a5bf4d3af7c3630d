"""Search by text and image: spaces, filters, personal search, errors of bad queries."""

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
from anyrec.retrieval.semantic.queries import Query

FILMS = [
    ("The Tin Galaxy", "Two robots and a smuggler cross space to save a princess from an empire.", "Sci-Fi"),
    ("Orbit of Fear", "The crew of a starship is hunted by an alien.", "Sci-Fi"),
    ("Paper Moonlight", "A baker and a florist fall in love over one summer in Paris.", "Romance"),
    ("Letters to Anna", "A soldier writes love letters to a girl he never met.", "Romance"),
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


def test_the_title_and_the_plot_of_an_item_find_it_first(fitted):
    for number, (title, plot, _) in enumerate(FILMS):
        assert ids(fitted.search(text=title, k=1, space="text")) == [f"f{number}"]
        assert f"f{number}" in ids(fitted.search(text=plot, k=2))


def test_words_that_no_item_has_find_items_of_their_meaning(fitted):
    found = fitted.search(text="space adventure with androids", k=2, space="text")
    assert set(ids(found)) == {"f0", "f1"} and found.column("rank").to_pylist() == [1, 2]
    assert ids(fitted.search(text="dangerous fish", k=1)) == ["f4"]
    assert set(ids(fitted.search(text="western", k=2))) == {"f6", "f7"}


def test_an_image_finds_its_own_item_first_and_then_items_that_look_like_it(fitted):
    for number in range(len(FILMS)):
        found = ids(fitted.search(image=fitted.dataset.root / f"{number}.png", k=2, space="visual"))
        assert found == [f"f{number}", f"f{number ^ 1}"]
        assert ids(fitted.search(image=fitted.dataset.root / f"{number}.png", k=1)) == [f"f{number}"]


def test_the_former_name_of_the_space_of_images_works_with_a_note(fitted, tmp_path):
    image = fitted.dataset.root / "0.png"
    assert fitted.search(image=image, k=3, space="looks").equals(fitted.search(image=image, k=3, space="visual"))
    fitted.save(tmp_path / "model")
    arguments = ("--model_path", tmp_path / "model", "--trust-plugins", "--image", image, "--space", "looks", "--table")
    code, shown, message = call("search", *arguments)
    assert code == 0 and "visual" in shown and message.count("'looks' is now called 'visual'") == 1


def test_every_space_returns_all_items_in_the_order_of_scores(fitted):
    picture = fitted.dataset.root / "0.png"
    for query in ({"text": "robots"}, {"image": picture}, {"text": "robots", "image": picture}):
        for space in ("auto", "tower"):
            found = fitted.search(**query, k=100, space=space)
            scores = found.column("score").to_numpy()
            assert sorted(ids(found)) == [f"f{n}" for n in range(8)] and (np.diff(scores) <= 0).all()
            assert ids(fitted.search(**query, k=3, space=space)) == ids(found)[:3]
    assert len(fitted.search(image=picture, space="image")) == 8


def test_a_text_and_an_image_together_find_items_that_match_both(fitted):
    both = fitted.search(text="love letters", image=fitted.dataset.root / "2.png", k=2, space="auto")
    assert set(ids(both)) == {"f2", "f3"}


def test_personal_weight_0_is_search_without_a_user_and_1_is_the_ranking_of_the_user(fitted):
    plain, liked = fitted.search(text="a story", k=8), fitted.recommend(["u2"], 8, exclude_seen=False)
    assert ids(fitted.search(text="a story", k=8, user="u2", personal=0)) == ids(plain)
    assert ids(fitted.search(text="a story", k=8, user="u2", personal=1)) == ids(liked)
    between = fitted.search(text="a story", k=8, user="u2", personal=0.5)
    assert sorted(ids(between)) == sorted(ids(plain))
    record = {"user_id": "new", "categorical": {"kind": "2"}}
    assert len(fitted.search(text="a story", user=record)) == 8


def test_filters_leave_only_eligible_items(fitted):
    where = {"item.categorical.genre": "Western"}
    assert set(ids(fitted.search(text="space robots", k=5, where=where))) == {"f6", "f7"}
    assert set(ids(fitted.search(text="space robots", k=5, candidates=["f2", "f5"], user="u1"))) == {"f2", "f5"}
    seen = {f"f{i}" for i in fitted.model.seen.take(np.array([2]))[1]}
    found = ids(fitted.search(text="space robots", k=8, user=fitted.dataset.ids("user")[2].as_py(), exclude_seen=True))
    assert set(found) == {f"f{n}" for n in range(8)} - seen


def test_the_error_of_a_bad_query_names_the_fault(fitted, tmp_path):
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


def test_items_without_texts_and_classical_models_cannot_be_searched_by_text():
    dataset = small_dataset()
    bare = Dataset(dataset.users, dataset.items.select(["item_id", "continuous.price"]), dataset.interactions)
    fitted = Recommender.from_config(small_config()).fit(bare, progress=False)
    classical = Recommender.from_config({"model": {"type": "item_knn"}}).fit(dataset, progress=False)
    for recommender in (fitted, classical):
        with pytest.raises(InputError, match="cannot be searched by text"):
            recommender.search(text="a nurse")
    with pytest.raises(InputError, match="cannot be searched by image"):
        fitted.search(image=__file__.replace("test_search.py", "../docs/demo.png"))


def test_a_trained_bag_of_words_can_be_searched_and_refuses_a_text_of_unknown_words():
    dataset = small_dataset()
    fitted = Recommender.from_config(small_config()).fit(dataset, progress=False)
    best = fitted.search(text="a thing for a baker", k=99, space="text")
    exact = best.filter(pc.greater(best.column("score"), 0.999))
    titles = fitted.dataset.items.column("text.title").to_pylist()
    assert set(ids(exact)) == {f"i{n:03d}" for n, title in enumerate(titles) if "baker" in title}
    with pytest.raises(InputError, match="none of its words"):
        fitted.search(text="qwertz")


def test_a_loaded_model_saves_item_vectors_and_computes_damaged_ones_again(fitted, tmp_path):
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
    searcher(again.model).space_items("text")
    from anyrec.retrieval.semantic import spaces

    class Refuses(spaces.Space):
        def item_vectors(self):
            raise AssertionError("computed a second time")

    loaded, original = Recommender.load(tmp_path / "model", trust_plugins=True), spaces.Space.item_vectors
    spaces.Space.item_vectors = Refuses.item_vectors
    try:
        assert loaded.search(text="a shark", k=8).equals(expected)
    finally:
        spaces.Space.item_vectors = original


def test_items_added_without_training_are_found(fitted):
    more = pa.table({"item_id": ["new"], "text.title": ["Fins"], "text.plot": ["A shark attacks a boat at the beach."]})
    wider = fitted.add_items(more)
    assert ids(wider.search(text="a shark attacks at the beach", k=2, space="text")) in (["new", "f4"], ["f4", "new"])
    assert "new" not in ids(fitted.search(text="a shark attacks at the beach", k=8))


def test_the_new_title_of_a_changed_item_is_found_though_vectors_are_saved(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model", trust_plugins=True)
    assert ids(loaded.search(text="submarine volcano", k=1, space="text")) != ["f3"]
    changed = loaded.add_items(
        [{"item_id": "f3", "text": {"title": "Robots", "plot": "A shark attacks a boat at the beach."}}],
        replace_known=True,
    )
    assert "f3" in ids(changed.search(text="a shark attacks a boat at the beach", k=2, space="text"))
    assert changed.search(text="a shark", k=8, space="text") != loaded.search(text="a shark", k=8, space="text")


def test_clip_has_one_space_for_texts_and_images(tmp_path):
    from tiny_clip import tiny_clip

    config = small_config(features={"image": {"type": "clip", "model": str(tiny_clip(tmp_path))}, "text": None})
    dataset = films(tmp_path)
    fitted = Recommender.from_config({**config, "split": {"protocol": "none"}}).fit(dataset, progress=False)
    assert len(fitted.search(text="robots")) == 8
    assert searcher(fitted.model).spaces_of(Query("robots")) == ["joint"]
    assert ids(fitted.search(image=tmp_path / "3.png", k=1)) == ["f3"]


def test_the_commands_show_titles_and_print_json(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    model = ("--model_path", tmp_path / "model", "--trust-plugins")
    code, shown, _ = call("search", *model, "--text", "a shark", "--top_k", 2, "--table")
    assert code == 0 and "Deep Teeth" in shown and "Horror" in shown
    where = json.dumps({"item.categorical.genre": "Western"})
    code, shown, _ = call("search", *model, "--text", "a shark", "--json", "--where", where, "--user", "u1")
    assert code == 0 and {row["item_id"] for row in json.loads(shown)} == {"f6", "f7"}
    code, shown, _ = call("similar", *model, "--item", "f0", "--item", "f2", "--top_k", 2, "--table")
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
