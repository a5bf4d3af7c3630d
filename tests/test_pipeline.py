"""The pipeline: merged sources, the ranker, rules, and traces."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import call, small_config, small_dataset

from anyrec.core.config import DataConfig
from anyrec.core.errors import AnyrecError, ConfigError, ModelError
from anyrec.data.partial import read_partial
from anyrec.pipeline.candidate_lists import lists_of_pairs, merge
from anyrec.pipeline.contracts import Lists, Rule, Source
from anyrec.pipeline.pipeline import Pipeline
from anyrec.pipeline.trace import FILTERED
from anyrec.recommender import Recommender
from anyrec.serving.batch import write_lists
from anyrec.serving.result import infer

SOURCES = [
    {"type": "model", "k": 20},
    {"type": "popularity", "k": 10},
    {"type": "item_to_item", "by": "next"},
    {"type": "item_to_item", "by": "vectors", "k": 7},
    {"type": "classical", "model": {"type": "ease", "l2": 10}},
]
STAGED = {
    "retrieve": {"k": 30, "sources": SOURCES},
    "rank": {"type": "mlp", "k": 20, "training": {"epochs": 2, "learning_rate": 0.01}},
    "rerank": {"k": 10},
}
HISTORY = {"features": {"history": {"window": 10, "layers": 1}}, "data": {"history": "watched"}}


class Broken(Source):
    type = "broken"

    def retrieve(self, request, k, allowed):
        raise RuntimeError("the shop is closed")


class Reversed(Rule):
    """Reverses the first k, without the first item of each list."""

    type = "reversed"

    def apply(self, request, lists, k):
        return Lists(
            np.concatenate([lists.items[:, k - 1 : 0 : -1], lists.items[:, k:]], 1),
            np.concatenate([lists.scores[:, k - 1 : 0 : -1], lists.scores[:, k:]], 1),
        )


class Even(Rule):
    """Bars items of odd rows."""

    type = "even"

    def allowed(self, request):
        return np.arange(len(request.items)) % 2 == 0


@pytest.fixture(scope="module")
def plain():
    return Recommender.from_config(small_config()).fit(small_dataset(), progress=False)


@pytest.fixture(scope="module")
def staged(plain):
    return plain.with_pipeline(STAGED, progress=False)


@pytest.fixture(scope="module")
def with_history():
    """A model that reads histories, with all stages; a record may contain a history."""
    data = small_dataset()
    watched = pa.array([[f"i{i:03d}"] for i in np.arange(60) % 40])
    data.users = data.users.append_column("temporal.watched", watched)
    data.roles["user.watched"] = "items"
    config = small_config(**HISTORY, pipeline=STAGED)
    return Recommender.from_config(config).fit(data, progress=False)


def behind(recommender, *, sources=(), rules=(), strict=False, **pipeline):
    """Return the recommender with added stages of this module."""
    other = recommender.with_pipeline({**pipeline, "strict": strict}, progress=False)
    other.pipeline.sources += sources
    other.pipeline.source_names += [one.type for one in sources]
    other.pipeline.rules += rules
    other.pipeline.rule_names += [one.type for one in rules]
    return other


def same(one, other):
    """Equal, except for the last bits of scores, which depend on the memory layout of vectors."""
    scores = [table["score"].to_numpy() for table in (one, other)]
    return one.drop("score").equals(other.drop("score")) and np.allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"exclude_seen": False}, {"candidates": ["i001", "i007", "i030"]}])
def test_the_model_alone_in_stages_gives_the_lists_that_it_gives_without(plain, options):
    alone = behind(plain, retrieve={"k": 40})
    assert same(alone.recommend(None, 10, **options), plain.recommend(None, 10, **options))


def test_an_answer_has_the_time_of_each_stage(staged):
    answer = staged.answer(["u001", "u002"], 5)
    assert list(answer.latency) == ["represent", "filter", "retrieve", "rank", "rerank", "total"]
    assert all(value >= 0 for value in answer.latency.values())
    assert answer.latency["total"] == pytest.approx(sum(answer.latency.values()) / 2)
    assert answer.warnings == [] and answer.trace is None


def test_a_stage_that_fails_is_skipped_with_a_warning(plain):
    failing = behind(plain, sources=[Broken()])
    answer = failing.answer(["u001"], 5)
    assert same(answer.table, plain.recommend(["u001"], 5))
    assert answer.warnings == ["The source 'broken' was skipped because it failed (RuntimeError: the shop is closed)."]


def test_a_ranker_that_fails_leaves_the_order_of_retrieval(staged, plain, monkeypatch):
    monkeypatch.setattr(staged.pipeline.ranker, "scores", lambda *_: 1 / 0)
    answer = staged.answer(["u001"], 5)
    assert "ranker" in answer.warnings[0]
    assert same(answer.table, plain.recommend(["u001"], 5))


def test_a_strict_pipeline_fails_with_its_stage(plain):
    failing = behind(plain, sources=[Broken()], strict=True)
    with pytest.raises(AnyrecError, match=r"source 'broken' failed.*the shop is closed"):
        failing.answer(["u001"], 5)


def test_lists_have_k_items_if_k_are_listable_even_if_sources_return_fewer(plain):
    few = behind(plain, retrieve={"sources": [{"type": "popularity", "k": 2}]}, rules=[Even()])
    got = few.recommend(None, 7).to_pandas()
    assert (got.groupby("user_id").size() == 7).all()
    assert got.item_id.str[1:].astype(int).mod(2).eq(0).all()
    seen = small_dataset().interactions.select(["user_id", "item_id"]).to_pandas()
    assert not len(got.merge(seen))
    assert len(few.recommend(["u001"], 7, candidates=["i002", "i003"])) <= 1


def test_a_user_without_listable_items_gets_no_list(staged):
    seen = small_dataset().interactions.to_pandas().query("user_id == 'u001'").item_id.tolist()
    answer = staged.answer(["u001"], 5, candidates=seen, trace=True)
    assert len(answer.table) == 0 and answer.warnings == []
    assert staged.answer([], 5, trace=True).table.num_rows == 0


def test_merging_puts_each_item_at_its_best_place_and_prefers_the_first_source():
    first = Lists(np.array([[3, 1, -1]]), np.array([[0.9, 0.8, -np.inf]], np.float32))
    second = Lists(np.array([[1, 4, 3]]), np.array([[9.0, 8.0, 7.0]], np.float32))
    merged = merge([first, second], 3, 5)
    assert merged.items.tolist() == [[3, 1, 4]]
    assert merged.places.tolist() == [[[0, 1, -1]], [[2, 0, 1]]]
    assert merged.scores.tolist() == [[[pytest.approx(0.9), pytest.approx(0.8), 0]], [[7, 9, 8]]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_merging_agrees_with_a_plain_loop(data):
    lists = [
        data.draw(st.lists(st.integers(0, 8), unique=True, max_size=9)) for _ in range(data.draw(st.integers(2, 4)))
    ]
    k = data.draw(st.integers(1, 9))
    made = [Lists(np.array([one], int).reshape(1, -1), np.ones((1, len(one)), np.float32)) for one in lists]
    best = {}
    for number, one in enumerate(lists):
        for place, item in enumerate(one):
            best[item] = min(best.get(item, (99, 99)), (place, number))
    wanted = sorted(best, key=best.__getitem__)[:k]
    merged = merge(made, k, 9)
    assert merged.items[0].tolist() == wanted
    assert merged.places[:, 0].tolist() == [[one.index(i) if i in one else -1 for i in wanted] for one in lists]


def test_lists_of_pairs_add_repeats_and_order_ties_by_item():
    made = lists_of_pairs(np.array([0, 0, 2, 0]), np.array([5, 3, 1, 5]), np.array([1.0, 2.0, 1.0, 1.0]), 3, 2)
    assert made.items.tolist() == [[3, 5], [-1, -1], [1, -1]]
    assert made.scores[0].tolist() == [2.0, 2.0]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_lists_of_pairs_are_the_same_by_a_dense_table_and_by_sorting(data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)), min_size=1))
    rows, items, scores = (np.array(part) for part in zip(*pairs, strict=True))
    k = data.draw(st.integers(1, 6))
    made = []
    with pytest.MonkeyPatch.context() as patch:
        for full in (0, 10**9):
            patch.setattr("anyrec.pipeline.candidate_lists.DENSE_RATIO", full)
            made.append(lists_of_pairs(rows, items, scores.astype(float), 4, k))
    table = np.zeros((4, 6))
    np.add.at(table, (rows, items), scores)
    for user in range(4):
        best = [item for item in np.argsort(-table[user], kind="stable")[:k] if table[user, item] > 0]
        for lists in made:
            assert [item for item in lists.items[user] if item >= 0] == best
            assert lists.scores[user, : len(best)].tolist() == table[user, best].tolist()


def test_popularity_counts_the_users_own_group(plain):
    by_job = behind(plain, retrieve={"sources": [{"type": "popularity", "group": "categorical.job"}]})
    source = by_job.pipeline.sources[0]
    data, train = by_job.dataset, by_job.split.train
    frame = pa.table({"user": data.user_rows[train], "item": data.item_rows[train]}).to_pandas()
    job = np.array(data.users["categorical.job"].to_pylist())[frame.user]
    for group, name in enumerate(source.groups, 1):
        counts = np.bincount(frame.item[job == name], minlength=40)
        assert source.counts[group].tolist() == counts.tolist()
    assert source.counts[0].sum() == len(train)


def test_next_items_count_by_their_distance(plain):
    after = behind(plain, retrieve={"sources": [{"type": "item_to_item", "by": "next", "within": 2, "neighbours": 39}]})
    source, data = after.pipeline.sources[0], after.dataset
    rows = after.split.train
    rows = rows[np.lexsort((data.times[rows], data.user_rows[rows]))]
    counts = np.zeros((40, 40))
    for user in range(60):
        items = data.item_rows[rows[data.user_rows[rows] == user]]
        for n, item in enumerate(items):
            for step, later in enumerate(items[n + 1 : n + 3], 1):
                counts[item, later] += 1 / step
    each = np.bincount(data.item_rows[rows], minlength=40)
    counts /= np.sqrt(np.outer(each, each))
    found = np.zeros((40, 40))
    for item, (near, like) in enumerate(zip(source.items, source.likeness, strict=True)):
        found[item, near[near >= 0]] = like[near >= 0]
    assert np.allclose(found, counts, atol=1e-6)


def test_the_history_source_returns_the_users_items_latest_or_most_frequent_first(plain):
    sources = [{"type": "history", "by": "recency"}]
    again = behind(plain, retrieve={"sources": sources})
    rows = again.dataset.user_rows == 3
    items = again.dataset.ids("item").take(pa.array(again.dataset.item_rows[rows])).to_pylist()
    trace = again.answer(["u003"], 8, exclude_seen=False, trace=True).trace.to_pandas()
    brought = trace[trace.by == "history"].set_index("item_id")["rank"]
    assert {item: n for n, item in enumerate(reversed(items), 1) if item in brought.index} == brought.to_dict()


def test_a_ranker_that_is_not_better_keeps_the_order_of_the_model(staged):
    [note] = [note for note in staged.notes if "anker" in note]
    assert "model's own order gives" in note
    measured = staged.pipeline.measured
    if measured["ranker"] <= measured["model"]:
        assert staged.pipeline.ranker.gate.item() == 0 and not staged.pipeline.ranker.linear.any()


def test_a_ranker_learns_from_the_signals_of_a_source(plain):
    """Planted: a source that knows the held-out items, which the model does not."""
    held = plain.dataset.item_rows[plain.model.split.validation], plain.dataset.user_rows[plain.model.split.validation]
    wanted = np.full(60, -1)
    wanted[held[1]] = held[0]

    class Oracle(Source):
        type = "oracle"

        def retrieve(self, request, k, allowed):
            return Lists(wanted[request.rows][:, None], np.ones((len(request.rows), 1), np.float32))

    from anyrec.core.config import RankConfig
    from anyrec.pipeline.ranking.ranker import make_ranker
    from anyrec.pipeline.ranking.train_ranker import train_ranker

    other = behind(plain, sources=[Oracle()], retrieve={"k": 40})
    other.pipeline.config.rank = RankConfig(type="dlrm", k=40)
    ranker = make_ranker(other.model, other.pipeline.config.rank, other.pipeline.source_names, other.registry)
    [note] = train_ranker(other.pipeline, ranker, other.model, other.split.validation, False)
    assert other.pipeline.measured["ranker"] > 0.95 > other.pipeline.measured["model"], note


@pytest.mark.parametrize("kind", ["mlp", "dlrm", "dcn", "deepfm", "attention", "dot"])
def test_any_interaction_ranks(plain, kind):
    config = {**STAGED, "rank": {"type": kind, "training": {"epochs": 1}}, "retrieve": {"k": 20}}
    assert len(plain.with_pipeline(config, progress=False).recommend(["u001"], 5)) == 5


@pytest.mark.parametrize("kind", ["mlp", "dlrm", "dcn", "deepfm", "dot"])
def test_a_ranker_scores_the_same_with_and_without_cached_item_terms(plain, kind, monkeypatch):
    config = {**STAGED, "rank": {"type": kind, "training": {"epochs": 1}}, "retrieve": {"k": 20}}
    made = plain.with_pipeline(config, progress=False)
    ranker, users = made.pipeline.ranker, [f"u{n:03d}" for n in range(1, 9)]
    with torch.no_grad():
        ranker.gate.fill_(1.0)
    monkeypatch.setattr("anyrec.pipeline.ranking.ranker.CACHE_BYTES", 0)
    for_candidates = made.recommend(users, 10, now=1)
    assert ranker._cached is None
    monkeypatch.undo()
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda user: made.recommend([user], 10, now=1), users))
    assert ranker._cached is not None
    assert same(pa.concat_tables(alone), for_candidates)
    more = made.add_items([{"item_id": "new", "categorical": {"tags": ["nurse"]}}])
    known = pa.array([f"i{n:03d}" for n in range(40)])
    assert same(more.recommend(users, 10, now=1, candidates=known), made.recommend(users, 10, now=1, candidates=known))
    assert "new" in more.recommend(users, 41, now=1, exclude_seen=False)["item_id"].to_pylist()


def test_training_a_ranker_discards_cached_item_terms(plain):
    made = plain.with_pipeline({**STAGED, "rank": {"type": "dcn", "training": {"epochs": 1}}}, progress=False)
    with torch.no_grad():
        made.pipeline.ranker.gate.fill_(1.0)
    made.recommend(["u001"])
    assert made.pipeline.ranker._cached is not None
    made.pipeline.ranker.train()
    assert made.pipeline.ranker._cached is None


def test_the_ranker_is_trained_on_positives_that_the_model_was_not_trained_on(plain):
    for changes in ({"training": {"epochs": 1, "refit": True}}, {"split": {"protocol": "none"}}):
        config = small_config(pipeline=STAGED, **{"training": {"epochs": 1}, **changes})
        made = Recommender.from_config(config).fit(small_dataset(), progress=False)
        learning = made.model.required_learning()
        rows = learning.ranker_rows(made.config)
        assert len(rows) and not len(np.intersect1d(rows, learning.final_split(made.config).train))
        assert len(np.unique(made.dataset.user_rows[rows])) == 12  # a fifth of the users
    assert any(note.startswith("Nothing validates") for note in made.notes)


@pytest.mark.parametrize("index", [{"type": "exact"}, {"type": "faiss"}])
def test_a_pipeline_is_saved_and_loaded_with_its_model(tmp_path, index):
    config = small_config(pipeline=STAGED, index=index)
    made = Recommender.from_config(config).fit(small_dataset(), progress=False)
    loaded = Recommender.load(made.save(tmp_path / "model"))
    assert same(loaded.recommend(None, 8), made.recommend(None, 8))
    assert same(loaded.answer(["u001"], 3, trace=True).trace, made.answer(["u001"], 3, trace=True).trace)


def test_an_index_of_another_model_is_refused(tmp_path):
    config = small_config(pipeline={}, index={"type": "faiss"})
    for seed in (1, 2):
        made = Recommender.from_config({**config, "seed": seed}).fit(small_dataset(), progress=False)
        made.save(tmp_path / f"model{seed}")
    (tmp_path / "model2" / "index").rename(tmp_path / "own")
    (tmp_path / "model1" / "index").rename(tmp_path / "model2" / "index")
    with pytest.raises(ModelError, match="belongs to another model"):
        Recommender.load(tmp_path / "model2")


def test_a_trace_records_the_events_of_all_stages(plain):
    made = behind(plain, retrieve={"k": 40, "sources": SOURCES[:2]}, rules=[Even(), Reversed()])
    answer = made.answer(["u005"], 4, trace=True)
    trace = answer.trace.to_pandas()
    everything = plain.recommend(["u005"], 40, exclude_seen=False).to_pandas().set_index("item_id")
    seen = set(small_dataset().interactions.to_pandas().query("user_id == 'u005'").item_id)
    even = [item for item in everything.index if int(item[1:]) % 2 == 0 and item not in seen]
    before = even[:4]
    assert answer.table["item_id"].to_pylist() == [*before[:0:-1], even[4]]

    filtered = trace[trace.event == FILTERED]
    own_best = list(everything.index[:4])
    assert set(filtered[filtered.by == "seen"].item_id) == seen & set(own_best)
    assert set(filtered[filtered.by == "even"].item_id) == {item for item in own_best if int(item[1:]) % 2}
    assert all(everything["rank"][row.item_id] == row["rank"] for _, row in filtered.iterrows())

    stage = trace[(trace.event == "stage") & (trace.by == "retrieve")].set_index("item_id")
    assert stage["rank"].to_dict() == {item: even.index(item) + 1 for item in answer.table["item_id"].to_pylist()}
    assert all(stage.score[item] == pytest.approx(everything.score[item]) for item in stage.index)
    removed = trace[trace.event == "removed"]
    assert removed[["item_id", "by", "before"]].to_numpy().tolist() == [[before[0], "reversed", 1]]
    moved = trace[trace.event == "moved"].set_index("item_id")
    assert {item: (row.before, row["rank"]) for item, row in moved.iterrows()} == {
        before[3]: (4, 1), before[2]: (3, 2), before[1]: (2, 3), even[4]: (5, 4)
    }  # fmt: skip
    sources = trace[(trace.event == "source") & (trace.by == "model")].set_index("item_id")
    assert sources["rank"].to_dict() == stage["rank"].to_dict()


def test_lists_of_all_users_in_a_file_equal_those_of_single_requests(staged, tmp_path, monkeypatch):
    monkeypatch.setattr("anyrec.pipeline.requests.MAX_USERS", 7)
    monkeypatch.setattr("anyrec.retrieval.embedding_files.ROWS", 100)
    done = write_lists(staged, tmp_path / "lists.parquet", 6, progress=False)
    table = pq.read_table(tmp_path / "lists.parquet")
    assert done["users"] == 60 and done["rows"] == len(table) == 360
    assert pq.ParquetFile(tmp_path / "lists.parquet").num_row_groups > 2
    monkeypatch.undo()
    for user in ("u000", "u041"):
        assert same(table.filter(pc.equal(table["user_id"], user)), staged.recommend([user], 6))


def test_a_user_with_a_history_with_features_or_with_an_unknown_id_gets_a_list(with_history):
    document = {
        "user_data": [
            {"user_id": "watcher", "temporal": {"watched": ["i001", "i002", "i003"]}},
            {"user_id": "nurse", "categorical": {"job": "nurse"}},
            {"user_id": "nobody"},
            {"user_id": "u004"},
        ]
    }
    request = read_partial(document, DataConfig(), with_history.dataset.roles)
    result = infer(with_history, request, 5, trace=True)
    assert result["warnings"] == []
    lists = [[r["item_id"] for r in user["recommendations"]] for user in result["users"]]
    assert all(len(items) == 5 for items in lists)
    assert not set(lists[0]) & {"i001", "i002", "i003"}
    assert lists[3] == with_history.recommend(["u004"], 5)["item_id"].to_pylist()
    origins = [{event["by"] for event in user["trace"]} for user in result["users"]]
    assert "item_to_item" in origins[0] and "item_to_item" not in origins[2]


def test_a_new_item_may_be_listed(staged):
    document = {
        "user_data": [{"user_id": "x", "categorical": {"job": "nurse"}}],
        "item_data": [{"item_id": "brand new", "categorical": {"tags": ["nurse", "all"]}}],
    }
    result = infer(staged, read_partial(document, DataConfig(), staged.dataset.roles), 41)
    assert "brand new" in [r["item_id"] for r in result["users"][0]["recommendations"]]
    assert result["warnings"] == []


def test_faults_of_a_pipeline_are_raised_before_training():
    sources = [{"type": "popularity", "group": "categorical.jobs"}, {"type": "classical", "model": {"type": "easy"}}]
    config = small_config(pipeline={"retrieve": {"sources": sources}})
    with pytest.raises(ConfigError, match=r"sources/1/model/type.*easy"):
        Recommender.from_config(config)
    config = small_config(pipeline={"retrieve": {"sources": sources[:1]}})
    with pytest.raises(ConfigError, match=r"sources/0/group.*categorical\.job"):
        Recommender.from_config(config).fit(small_dataset(), progress=False)
    unknown = {"rank": {"type": "nothing"}, "rerank": {"rules": [{"type": "no"}]}}
    with pytest.raises(ConfigError, match=r"(?s)/pipeline/rerank/rules/0.*/pipeline/rank"):
        Recommender.from_config(small_config(pipeline=unknown)).fit(small_dataset(), progress=False)


def test_a_classical_model_has_a_pipeline_but_no_ranker():
    config = small_config(model={"type": "ease"}, pipeline={"retrieve": {"sources": SOURCES[:3]}})
    made = Recommender.from_config(config).fit(small_dataset(), progress=False)
    alone = Recommender.from_config(small_config(model={"type": "ease"})).fit(small_dataset(), progress=False)
    assert made.recommend(None, 5)["item_id"].equals(alone.recommend(None, 5)["item_id"])
    with pytest.raises(ConfigError, match="/pipeline/rank"):
        Recommender.from_config({**config, "pipeline": STAGED}).fit(small_dataset(), progress=False)


def test_the_metrics_of_a_pipeline_with_the_model_alone_are_those_of_the_model(plain):
    alone = behind(plain, retrieve={"k": 40})
    staged, own = alone.evaluate_pipeline("test"), plain.metrics["test"]
    assert all(staged[name] == pytest.approx(own[name]) for name in staged)


def test_the_command_line_traces_and_writes_all_lists(staged, tmp_path):
    import jsonschema

    folder = staged.save(tmp_path / "model")
    (tmp_path / "request.json").write_text(json.dumps({"user_data": [{"user_id": "u001"}, {"user_id": "new"}]}))
    arguments = ["recommend", "--model-path", folder, "--top-k", 3]
    moment = ["--now", "2026-01-01", "--context", "country=fr", "--trace"]
    code, printed, message = call(*arguments, "--data", tmp_path / "request.json", *moment)
    assert code == 0, message
    result = json.loads(printed)
    with open("schemas/result.schema.json") as file:
        jsonschema.validate(result, json.load(file))
    assert result["latency_ms"]["total"] > 0 and result["users"][0]["trace"]
    code, _, message = call(*arguments, "--all", "--output", tmp_path / "lists.parquet")
    assert code == 0 and "60 users, 180 rows" in message
    assert pq.read_table(tmp_path / "lists.parquet").num_rows == 180
    for wrong in (["--all"], [], ["--data", "x", "--now", "soon"], ["--data", "x", "--context", "fr"]):
        assert call(*arguments, *wrong)[0] == 2
    assert Recommender.load(folder).pipeline.ranker is not None
    assert isinstance(Pipeline(staged.config.pipeline, staged.registry).ranker, type(None))
