"""What the page in the browser asks the server for: its files, thumbnails, features, data, the map, runs, figures."""

import asyncio
import base64
import io
import json
import re
import uuid
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from shops import photo_shop
from small import small_config, small_dataset

pytest.importorskip("fastapi", reason="pip install 'anyrec[serve]'")
from fastapi.testclient import TestClient

from anyrec.cli.run import RunInputs, train_run
from anyrec.cli.terminal import ResultsOnly
from anyrec.core.config import Config, ServingConfig
from anyrec.core.errors import OutputError
from anyrec.recommender import Recommender
from anyrec.serving.form import form_of
from anyrec.serving.http import catalogue
from anyrec.serving.http.activity import Activity
from anyrec.serving.http.app import make_app
from anyrec.serving.http.keys import new_key, read_keys
from anyrec.serving.http.page import TYPES
from anyrec.serving.http.runs import follow
from anyrec.serving.http.watch import Watch, make_watch_app, watched
from anyrec.serving.item_map import item_map
from anyrec.serving.live.service import Service
from anyrec.serving.runs import Run, Runs


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The folder of a data set with photos, and of a run that was trained on it."""
    folder = tmp_path_factory.mktemp("shop")
    photo_shop(folder)
    config = Config.model_validate(small_config(name="shop", output_dir=str(folder / "models")))
    train_run(RunInputs(config, folder / "data.json"), ResultsOnly())
    return folder


@pytest.fixture(scope="module")
def recommender(shop):
    return Recommender.load(shop / "models" / "shop", image_root=shop)


def client_of(recommender, keys=None, **limits):
    service = Service(recommender, ServingConfig(**limits), None)
    return TestClient(make_app(service, keys=keys), raise_server_exceptions=False)


@pytest.fixture
def client(recommender):
    with client_of(recommender) as found:
        yield found


def picture_of(colour, size=(40, 30)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


# -- the page's files --------------------------------------------------------------------------------------------------


def test_the_page_and_its_files_come_with_the_package_and_name_nothing_outside(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html") and "style" not in re.findall(r"<(\w+)", page.text)
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page.text)
    named = re.findall(r'(?:src|href)="/page/([^"]+)"', page.text)
    assert "main.js" in named and "style.css" in named
    for name in [
        *named,
        *(f"{one}.js" for one in ("people", "list", "choose", "items", "map", "data", "training", "live", "api")),
    ]:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].split(";")[0] in TYPES.values(), name
        assert not re.search(r"""(?:import|from|fetch\()\s*["'`]https?:""", answer.text), name
        again = client.get(f"/page/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
    for name in ("__init__.py", "..%2fapp.py", "nothing.js", "index.html", "LICENSE.uplot"):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_page_needs_no_key_and_what_it_shows_does(recommender, tmp_path):
    key = new_key(tmp_path / "keys.json", "page", ("read",))
    with client_of(recommender, keys=read_keys(tmp_path / "keys.json")) as client:
        assert client.get("/").status_code == client.get("/page/main.js").status_code == 200
        paths = ("/v1/page", "/v1/features", "/v1/data", "/v1/map", "/v1/runs", "/v1/live", "/v1/live/stream")
        for path in (*paths, "/v1/items/i001/image/photo", "/v1/runs/shop/report", "/v1/runs/shop/events"):
            assert client.get(path).status_code == 401, path
        for path in paths[:-1]:
            assert client.get(path, headers={"authorization": f"Bearer {key}"}).status_code == 200, path


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_thumbnail_is_small_and_kept_by_the_browser(client):
    answer = client.get("/v1/items/i001/image/photo", params={"size": 32})
    assert answer.headers["content-type"] == "image/webp" and "max-age" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.content)) as image:
        assert max(image.size) == 32
    again = client.get("/v1/items/i001/image/photo?size=32", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert client.get("/v1/users/u001/image/face").status_code == 200
    assert client.get("/v1/items/i001").headers["cache-control"] == "no-store"


def test_a_user_that_came_since_the_training_has_a_thumbnail(recommender):
    face = recommender.dataset.users["image.face"][3].as_py()
    with client_of(recommender, image_names=True) as client:
        client.put("/v1/users", json={"users": [{"user_id": "new", "image": {"face": face}}]})
        assert client.get("/v1/users/new/image/face").content == client.get("/v1/users/u003/image/face").content


def test_pictures_that_cannot_be_read_are_named(recommender, shop):
    (shop / "broken.png").write_bytes(b"no picture")
    with client_of(recommender, image_names=True) as client:
        for name in ("broken.png", "gone.png", "/etc/passwd"):
            for side, feature in (("item", "photo"), ("user", "face")):
                record = {f"{side}_id": "new", "image": {feature: name}}
                answers = [
                    client.put(f"/v1/{side}s", json={f"{side}s": [record]}),
                    client.post("/v1/embed", json={f"{side}s": [record]}),
                ]
                for answer in answers:
                    assert answer.status_code == 200 and answer.json()["warnings"], answer.text


def test_only_pictures_within_the_image_root_are_shown(client, recommender, shop):
    (shop.parent / "secret.png").write_bytes(picture_of("red"))
    (shop / "photos" / "link.png").symlink_to(shop.parent / "secret.png")
    (shop / "photos" / "text.png").write_text("no picture")
    names = (
        "../secret.png",
        str(shop.parent / "secret.png"),
        "photos/link.png",
        "photos/text.png",
        "photos",
        "gone.png",
    )
    names += ("http://127.0.0.1:1/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA")
    records = [{"item_id": f"x{n}", "image": {"photo": name}} for n, name in enumerate(names)]
    for allowed in (True, False):
        with client_of(recommender, image_names=allowed) as client:
            assert client.put("/v1/items", json={"items": records}).status_code == 200
            for n in range(len(names)):
                answer = client.get(f"/v1/items/x{n}/image/photo")
                assert answer.status_code == 404 and "secret" not in answer.text, names[n]
    for path in (
        "items/i001/image/nothing",
        "items/gone/image/photo",
        "items/i001/image/photo?n=1",
        "users/i001/image/face",
    ):
        assert client.get(f"/v1/{path}").status_code == 404, path
    assert client.get("/v1/items/i001/image/photo?size=5000").status_code == 422


def opened_by(client, name):
    """Return the routes by which a request has the picture `name` opened: its answer differs from that without it."""
    item, user = {"item_id": "n1", "image": {"photo": name}}, {"user_id": "n2", "image": {"face": name}}
    bare = {"items": [{"item_id": "n1"}], "users": [{"user_id": "n2"}]}
    found = set()
    expected, answer = (client.post("/v1/embed", json=one).json() for one in (bare, {"items": [item], "users": [user]}))
    for side in ("items", "users"):
        if answer[side] != expected[side]:
            found.add(f"embed {side}")
    warned = [answer["warnings"]]
    record = {"image": {"face": [name]}}
    answer, expected = (client.post("/v1/recommend", json={"user": one}).json() for one in (record, {}))
    if answer["items"] != expected["items"]:
        found.add("recommend")
    warned.append(answer["warnings"])
    new = uuid.uuid4().hex
    event = {"event_id": new, "user_id": new, "item_id": new, "user": record, "item": {"image": {"photo": name}}}
    accepted = client.post("/v1/events", json={"events": [event]}).json()
    warned.append(accepted.get("warnings", []))
    warned.append(client.put("/v1/items", json={"items": [item]}).json()["warnings"])
    warned.append(client.put("/v1/users", json={"users": [user]}).json()["warnings"])
    for route, one in (("put", "n1"), ("events", new)):
        if client.get(f"/v1/items/{one}/image/photo").status_code == 200:
            found.add(route)
    assert all(warned) or found, warned
    return found


def test_no_file_or_address_that_a_request_names_is_opened_unless_the_config_says_so(recommender, shop):
    photo = recommender.dataset.items["image.photo"][3].as_py()
    outside = shop.parent / "outside.png"
    outside.write_bytes((shop / photo).read_bytes())
    careless = recommender.with_config({"data": {"allow_urls": True, "allow_outside_root": True}})
    for model in (recommender, careless):
        with client_of(model) as client:
            for name in (photo, str(shop / photo), str(outside), outside.as_uri(), "http://127.0.0.1:1/a.png"):
                assert not opened_by(client, name), name
            assert client.get("/v1/items/i001/image/photo").status_code == 200  # pictures of the training stay
    with client_of(careless, image_names=True) as client:
        assert opened_by(client, photo) == {"embed items", "embed users", "recommend", "put", "events"}
    with client_of(careless, image_names=True) as client:
        assert not opened_by(client, str(outside))


def test_a_record_that_is_read_and_put_back_keeps_its_picture_and_one_without_it_does_not(recommender, tmp_path):
    def thumbnail(client, side, key):
        return client.get(f"/v1/{side}s/{key}/image/{'photo' if side == 'item' else 'face'}")

    def vector(client, side, key):
        return client.post("/v1/embed", json={f"{side}_ids": [key]}).json()[f"{side}s"][0]["embedding"]

    for side, key, other in (("item", "i001", "i002"), ("user", "u001", "u002")):
        with client_of(recommender) as client:
            before, trained = thumbnail(client, side, key).content, vector(client, side, key)
            read = client.get(f"/v1/{side}s/{key}").json()
            feature = next(iter(read["image"]))
            record = {name: value for name, value in read.items() if name == f"{side}_id" or isinstance(value, dict)}
            put = client.put(f"/v1/{side}s", json={f"{side}s": [record]})
            assert put.json()["warnings"] == [] and thumbnail(client, side, key).content == before
            assert vector(client, side, key) == pytest.approx(trained, abs=1e-4)
            same = {f"{side}_id": key, "image": {feature: [read["image"][feature]]}}  # also alone, as a list, and again
            assert client.put(f"/v1/{side}s", json={f"{side}s": [same]}).json()["warnings"] == []
            assert thumbnail(client, side, key).status_code == 200
            theirs = client.get(f"/v1/{side}s/{other}").json()["image"]
            text = {"text": {"title" if side == "item" else "bio": "x"}}
            wrong = client.put(f"/v1/{side}s", json={f"{side}s": [{f"{side}_id": key, "image": theirs, **text}]})
            assert wrong.json()["warnings"] and thumbnail(client, side, key).status_code == 404
            # A put replaces the whole record: what it leaves out is gone.
            client.put(f"/v1/{side}s", json={f"{side}s": [{f"{side}_id": other, **text}]})
            assert thumbnail(client, side, other).status_code == 404
    with client_of(Recommender.load(recommender.save(tmp_path / "model"))) as client:  # its folder was not named
        read = client.get("/v1/items/i001").json()
        record = {"item_id": "i001", "image": read["image"]}
        assert client.put("/v1/items", json={"items": [record]}).json()["warnings"]


def test_a_model_whose_folder_of_images_was_not_named_shows_none_and_says_how(shop):
    with client_of(Recommender.load(shop / "models" / "shop")) as client:
        answer = client.get("/v1/items/i001/image/photo")
        assert answer.status_code == 404 and "--image_root" in answer.json()["detail"]


def test_a_list_is_made_for_an_uploaded_picture(client, recommender, shop):
    """The picture of a user who is known, sent as an upload, gives the list of a record that names the file."""
    face = recommender.dataset.users["image.face"][3].as_py()
    expected = recommender.recommend([{"user_id": "new", "image": {"face": face}}], 6)["item_id"].to_pylist()
    upload = base64.b64encode((shop / face).read_bytes()).decode()
    answer = client.post("/v1/recommend", json={"images": {"face": upload}, "k": 6, "explain": True}).json()
    assert [one["item_id"] for one in answer["items"]] == expected and answer["fallback"] is False
    assert {reason["name"] for reason in answer["items"][0]["explanation"]["reasons"]} >= {"image.face"}
    of_known = client.post("/v1/recommend", json={"user_id": "u003", "images": {"face": upload}, "k": 6}).json()
    assert len(of_known["items"]) == 6 and not of_known["warnings"]
    for wrong, status in ((base64.b64encode(b"text").decode(), 415), ("no base64!", 422)):
        refused = client.post("/v1/recommend", json={"images": {"face": wrong}})
        assert refused.status_code == status and "/images/face" in refused.json()["detail"]


# -- features, data, map -----------------------------------------------------------------------------------------------


def test_the_form_has_every_feature_with_its_known_values(client, recommender):
    found = client.get("/v1/features").json()
    assert [one["name"] for one in found["user"]] == recommender.dataset.features("user")
    kinds = {one["name"]: one for side in ("user", "item") for one in found[side]}
    ages = np.array(recommender.dataset.users["continuous.age"].to_pylist())
    age = kinds["continuous.age"]
    assert (age["kind"], age["min"], age["max"], age["median"]) == ("number", ages.min(), ages.max(), np.median(ages))
    jobs = recommender.dataset.users["categorical.job"].to_pylist()
    assert kinds["categorical.job"]["values"] == sorted(set(jobs), key=lambda job: (-jobs.count(job), jobs.index(job)))
    assert kinds["categorical.tags"]["many"] and not kinds["categorical.job"]["many"]
    others = {name: one["kind"] for name, one in kinds.items() if one["kind"] not in ("choice", "number")}
    assert others == {
        "text.bio": "text", "text.title": "text", "image.face": "picture", "image.photo": "picture",
        "temporal.spending": "numbers", "temporal.restocked": "times",
    }  # fmt: skip
    assert form_of(recommender, "user") == found["user"]


def test_values_of_a_category_are_found_by_their_letters(client, recommender):
    jobs = recommender.dataset.users["categorical.job"].to_pylist()
    every = sorted(set(jobs), key=lambda job: (-jobs.count(job), jobs.index(job)))

    def found(**query):
        return client.get("/v1/features/values", params={"feature": "categorical.job", **query}).json()

    assert found() == {"values": every, "total": len(every)}
    with_r = [job for job in every if "r" in job]
    assert found(q="R") == {"values": with_r, "total": len(with_r)}
    assert found(q="er", k=1)["total"] == len([job for job in every if "er" in job])
    assert found(q="k")["values"] == sorted(
        [job for job in every if "k" in job], key=lambda job: not job.startswith("k")
    )
    assert found(q="(")["values"] == []
    assert found(feature="categorical.tags", side="item")["total"] > 0
    wrong = client.get("/v1/features/values?feature=categorical.jobs")
    assert wrong.status_code == 422 and "categorical.job" in wrong.json()["detail"]
    assert client.get("/v1/features/values").status_code == 422


def test_the_data_are_those_of_the_training_with_what_the_doctor_found(client):
    data = client.get("/v1/data").json()
    assert data["source"] == "training" and dict(data["counts"])["users"] == "60"
    assert {finding["level"] for finding in data["findings"]} <= {"problem", "warning", "note"} and data["findings"]
    dataset = small_dataset()
    by_name = {(one["side"], one["name"]): one for one in data["features"]}
    bio = by_name["user", "text.bio"]
    assert bio["present"] == pytest.approx(1 - dataset.users["text.bio"].null_count / 60)
    job = by_name["user", "categorical.job"]["chart"]
    jobs = dataset.users["categorical.job"].to_pylist()
    assert dict(zip(job["labels"], job["counts"], strict=True)) == {one: jobs.count(one) for one in set(jobs)}
    for one in by_name.values():
        if one["chart"] and one["chart"]["kind"] != "values":
            assert len(one["chart"]["edges"]) == len(one["chart"]["counts"]) + 1
    prices = by_name["item", "continuous.price"]["chart"]
    assert sum(prices["counts"]) == np.isfinite(dataset.items["continuous.price"].to_numpy()).sum()
    assert sum(data["activity"]["user"]["counts"]) == 60 and sum(data["timeline"]["counts"]) == 480


def test_a_model_without_its_run_shows_what_it_keeps_of_the_data(recommender, tmp_path):
    moved = recommender.save(tmp_path / "alone")
    with client_of(Recommender.load(moved)) as client:
        data = client.get("/v1/data").json()
        assert data["source"] == "model" and data["findings"] is None and data["timeline"] is None
        assert dict(data["counts"])["interactions"].startswith("480")
        assert client.get("/v1/runs").json() == {"current": "", "runs": []}


def test_the_data_of_another_model_in_the_same_folder_are_not_shown(shop, recommender):
    path = shop / "models" / "shop" / "overview.json"
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "model": "another"}))
    try:
        with client_of(Recommender.load(shop / "models" / "shop", image_root=shop)) as client:
            assert client.get("/v1/data").json()["source"] == "model"
    finally:
        path.write_text(text)


def test_the_map_has_each_item_where_the_principal_components_put_it(client, recommender):
    found = client.get("/v1/map").json()
    vectors = recommender.model.embeddings("item").astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = vectors - vectors.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    places = np.column_stack([found["x"], found["y"]])
    for axis in (0, 1):
        assert abs(np.corrcoef(places[:, axis], expected[:, axis])[0, 1]) == pytest.approx(1, abs=1e-4)
    assert found["explained"] == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-4)
    assert np.abs(places).max() == pytest.approx(1, abs=1e-3) and len(found["item_ids"]) == found["items"] == 40


def test_the_map_is_coloured_by_the_first_value_of_a_category(client, recommender):
    found = client.get("/v1/map", params={"feature": "categorical.tags"}).json()
    tags = recommender.dataset.items["categorical.tags"].to_pylist()
    assert [found["kinds"][kind] for kind in found["kind"]] == [one[0] for one in tags]
    assert client.get("/v1/map", params={"feature": "categorical.tag"}).status_code == 422
    assert found["picture"] == "photo" and all(found["pictured"])
    users = np.bincount(recommender.model.seen.items, minlength=40)
    assert found["popularity"] == pytest.approx([(users < one).mean() for one in users])


def test_a_model_without_vectors_has_no_map_and_says_so():
    config = small_config(model={"type": "popularity"})
    fitted = Recommender.from_config(config).fit(small_dataset(), progress=False)
    with client_of(fitted) as client:
        answer = client.get("/v1/map")
        assert answer.status_code == 422 and answer.json()["detail"]


def test_an_added_item_is_on_the_map(recommender):
    wider = recommender.add_items([{"item_id": "zzz", "text": {"title": "A new thing"}}])
    assert "A new thing" in item_map(wider.model)["titles"] and len(item_map(recommender.model)["titles"]) == 40


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_have_their_curves_metrics_settings_and_report(client, shop):
    listed = client.get("/v1/runs").json()
    assert listed["current"] == "shop" and [run["name"] for run in listed["runs"]] == ["shop"]
    run = client.get("/v1/runs/shop").json()
    lines = (shop / "models" / "shop" / "metrics.jsonl").read_text().splitlines()
    assert run["epochs"] == [json.loads(line) for line in lines] and len(lines) == 3
    assert run["settings"]["training.epochs"] == 3 and "ndcg@10" in run["metrics"]["test"]
    assert client.get("/v1/runs/shop/report").text == (shop / "models" / "shop" / "report.html").read_text()
    for name in ("..", "gone", ".", "photos"):
        assert client.get(f"/v1/runs/{name}/report").status_code == 404


def test_folders_that_are_no_runs_are_not_listed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert [run.name for run in Runs(tmp_path).all()] == ["run"]
    assert [run.name for run in Runs(tmp_path, "begins").all()] == ["begins", "run"]
    assert Runs(tmp_path / "gone").all() == [] and Run(tmp_path / "gone").epochs() == []


def write_epochs(folder, entries):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))


def test_a_run_is_followed_while_it_trains_until_its_end(tmp_path):
    training = [True]

    async def news():
        found = []
        async for name, value in follow(Run(tmp_path), lambda: False, lambda: training[0], every=0.01):
            if name:
                found.append((name, value.get("epoch")))
            if len(found) == 0:
                write_epochs(tmp_path, [{"epoch": 1}])
            elif len(found) == 1:
                write_epochs(tmp_path, [{"epoch": 1}, {"epoch": 2}])
            elif len(found) == 2:
                write_epochs(tmp_path, [{"epoch": 1, "again": True}])  # another training into the same folder
            elif len(found) == 4:
                training[0] = False
        return found

    found = asyncio.run(asyncio.wait_for(news(), 20))
    assert found == [("epoch", 1), ("epoch", 2), ("restart", None), ("epoch", 1), ("end", None)]


def test_the_page_of_a_training_has_its_section_alone(tmp_path):
    watch = Watch()
    write_epochs(tmp_path, [{"epoch": 1, "loss": 2.0}])
    with TestClient(make_watch_app(tmp_path, watch)) as client:
        assert client.get("/v1/page").json()["sections"] == ["training"]
        assert client.get("/").status_code == 200 and client.get("/page/training.js").status_code == 200
        assert client.get("/v1/recommend").status_code == 404
        watch.training = False
        events = client.get(f"/v1/runs/{tmp_path.name}/events").text
        assert events.startswith('event: epoch\ndata: {"epoch": 1, "loss": 2.0}\n\nevent: end\n')


def test_the_terminal_of_a_training_shows_no_requests_of_its_page(tmp_path, caplog):
    with caplog.at_level("INFO"), watched(tmp_path, 0) as address, urlopen(f"{address}/v1/page") as answer:
        assert json.load(answer)["training"] is True
    assert not [record for record in caplog.records if record.name.startswith("anyrec")]


def test_a_port_that_is_in_use_is_an_error_before_training(tmp_path):
    with watched(tmp_path, 0) as address, pytest.raises(OutputError, match="--watch-port"):
        watched(tmp_path, int(address.rsplit(":", 1)[1])).__enter__()


# -- what happens now --------------------------------------------------------------------------------------------------


def test_activity_counts_seconds_latencies_and_events():
    now = [1000.2]
    activity = Activity(now=lambda: now[0])
    for n in range(101):
        activity.listing({"rank": float(n), "total": 2.0 * n}, fallback=n == 0)
    activity.request(200)
    activity.request(500)
    activity.events([{"user_id": "u", "item_id": "i"}, {"user_id": "u", "item_id": "j", "timestamp": 5.0}], 2)
    activity.events([{"user_id": "u", "item_id": "i"}], 0)
    now[0] = 1001.7
    found = activity.summary()
    assert found["seconds"][-1] == 1000 and found["requests"][-1] == 2 and found["events"][-1] == 2
    assert sum(found["requests"]) == 2 and len(found["seconds"]) == 120
    assert found["stages"] == {"rank": {"p50": 50, "p90": 90, "p99": 99}, "total": {"p50": 100, "p90": 180, "p99": 198}}
    assert found["totals"] == {"lists": 101, "fallbacks": 1, "events": 2, "failures": 1}
    assert [(one["item_id"], one["timestamp"]) for one in found["recent"]] == [("j", 5.0), ("i", 1000.2)]


def test_activity_stays_small_and_forgets(recommender):
    now = [0.0]
    activity = Activity(now=lambda: now[0])
    for n in range(5000):
        now[0] = n
        activity.request(200)
        activity.listing({"total": 1.0}, fallback=False)
        activity.events([{"user_id": n, "item_id": n}], 1)
    found = activity.summary()
    assert found["lists"] == 1000 and len(found["recent"]) == 30 and sum(found["requests"]) <= 120
    now[0] += 1000
    assert sum(activity.summary()["requests"]) == 0


def test_experiments_are_reported_from_the_log_of_the_server(recommender, tmp_path, monkeypatch):
    experiment = {"name": "lists", "variants": {"a": {}, "b": {}, "never": {"share": 0.0001}}}
    config = ServingConfig.model_validate({"experiments": [experiment]})
    with TestClient(make_app(Service(recommender, config, tmp_path))) as client:
        assert client.get("/v1/experiments").json()["experiments"][0]["rates"] == {}
        for n in range(6):
            client.post("/v1/recommend", json={"user_id": f"u{n:03}"})
        client.post("/v1/events", json={"events": [{"event_id": "1", "user_id": "u001", "item_id": "i004"}]})
        (found,) = client.get("/v1/experiments").json()["experiments"]
        assert set(found["rates"]) == {"a", "b", "never"} and found["rates"]["never"]["rate"] is None
        assert sum(one["users"] for one in found["rates"].values()) == 6
        assert sum(one["converted"] for one in found["rates"].values()) == 1 and found["conclusion"]
        monkeypatch.setattr(catalogue, "experiment_report", None)  # nothing came since: the log is not read again
        assert client.get("/v1/experiments").json()["experiments"] == [found]
    with client_of(recommender) as client:
        assert client.get("/v1/experiments").json() == {"experiments": []}


def test_the_live_figures_follow_requests_and_events(client):
    client.post("/v1/recommend", json={"user_id": "u001"})
    client.post("/v1/recommend", json={})
    client.post("/v1/events", json={"events": [{"event_id": "1", "user_id": "u001", "item_id": "i004"}]})
    live = client.get("/v1/live").json()
    assert live["totals"] == {"lists": 2, "fallbacks": 1, "events": 1, "failures": 0}
    assert live["recent"][0]["title"].startswith("Thing 4") and live["model"]["name"] == "shop"
    assert set(live["stages"]) >= {"represent", "retrieve", "total"}
