"Collections of a service, without a server: whose files may go, which of them are served, and through which links."
import io
import warnings
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed")

from small_gallery import Tiny, paint
from starlette.datastructures import UploadFile
from starlette.testclient import TestClient

from image_similarity.gallery.gallery import Gallery
from image_similarity.service.app import create_app
from image_similarity.service.collection import Collections
from image_similarity.service.collection_routes import add_uploads
from image_similarity.service.databases import alone
from image_similarity.service.lanes import copies_kept
from image_similarity.service.protocol import AddOptions
from image_similarity.service.whole import details, remove


def made(place, *files):
    "A gallery of pictures, closed."
    gallery = Gallery(place, Tiny())
    gallery.add(list(files), progress=False)
    gallery.close()
    return place


@contextmanager
def collection_of(root, name="pets"):
    "One that is open and looks at pictures with an encoder that is not of this package."
    collections = Collections(root)
    collections[name].now().gallery.encoder = Tiny()
    yield collections[name]
    collections.close()


def sent(collection, *files): return add_uploads(collection, [UploadFile(io.BytesIO(f.read_bytes()), filename=f.name) for f in files], AddOptions.model_validate({}))


def test_of_what_cannot_be_read_only_what_was_sent_is_deleted(tmp_path):
    own = [paint(tmp_path / "mine" / f"{n}.png", n) for n in range(3)]
    place = made(tmp_path / "root" / "pets", *own)
    own[1].write_bytes(b"damaged since")
    catalogue = Gallery(place).catalogue
    catalogue.renew({**catalogue.fact("encoder"), "renewed": True})  # its vectors are forgotten, and are made anew by the next `add`
    catalogue.close()
    (tmp_path / "text.jpg").write_text("no picture")
    with collection_of(tmp_path / "root") as collection:
        answer = sent(collection, paint(tmp_path / "new.png", 7), tmp_path / "text.jpg")
        kept = [f for f in collection.pictures.rglob("*") if f.is_file()]
    assert own[1].read_bytes() == b"damaged since"
    assert ([i.file for i in answer.items], [s.file for s in answer.skipped], len(kept)) == (["new.png"], ["text.jpg"], 1)


def test_what_cannot_be_opened_or_look_at_pictures_is_refused_alone(tmp_path):
    root = tmp_path / "root"
    own = [paint(tmp_path / "mine" / f"{n}.png", n) for n in range(3)]
    for name in ("older", "strange"): made(root / name, *own)  # this package cannot make a `Tiny` again
    catalogue = Gallery(root / "older").catalogue
    catalogue.renew({**catalogue.fact("encoder"), "kind": "encoder", "reading": 1})  # whose pictures an earlier version read
    catalogue.close()
    (root / "damaged").mkdir()
    (root / "damaged" / "gallery.sqlite").write_text("no database at all")
    with warnings.catch_warnings(), TestClient(create_app(root), base_url="http://localhost") as client:
        warnings.simplefilter("ignore")  # of the older one
        assert client.put("/v1/collections/new").status_code == 201
        listed = {c["name"]: c["text"] for c in client.get("/v1/collections").json()["collections"]}
        assert [*listed] == ["new", "older", "strange"] and not listed["older"] and not listed["strange"]
        for name, says in (("older", "an earlier version read them"), ("strange", "looks at pictures with tiny")):
            answer = client.post(f"/v1/collections/{name}/search", content=own[0].read_bytes(), headers={"Content-Type": "image/png"})
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.json()["message"].startswith(f"{name}: cannot look at pictures") and says in answer.json()["message"] and str(tmp_path) not in answer.text
        assert sorted(r["id"] for r in client.post("/v1/collections/strange/search", json={"item": 1}).json()["results"]) == [2, 3]
        assert (client.get("/v1/collections/damaged").status_code, client.get("/readyz").status_code) == (500, 200)
        assert client.post("/v1/collections/new/items", files=[("files", ("0.png", own[0].read_bytes()))]).json()["items"][0]["status"] == "new"


@pytest.mark.parametrize("linked", ["the folder", "its parent"])
def test_a_root_that_is_a_link_is_served_as_where_it_leads(tmp_path, linked):
    made(tmp_path / "real" / "root" / "pets", paint(tmp_path / "mine.png", 1))
    (tmp_path / "link").symlink_to(tmp_path / "real" / "root" if linked == "the folder" else tmp_path / "real")
    with collection_of(tmp_path / "link" if linked == "the folder" else tmp_path / "link" / "root") as collection:
        answer = sent(collection, paint(tmp_path / "one.png", 2), paint(tmp_path / "two.png", 3))
        assert [i.file for i in answer.items] == ["one.png", "two.png"]
        opened = collection.now()
        told = details(collection, opened, answer.items[0].id, at_home=True)
        assert (told["sent"], told["path"]) == (True, None)
        assert remove(collection, [i.id for i in answer.items]) == 2
        assert not [f for f in collection.pictures.rglob("*") if f.is_file()]


@pytest.mark.long
def test_a_single_gallery_answers_what_reads_refuses_what_writes_and_stays_as_it_is(tmp_path):
    own = [paint(tmp_path / "mine" / f"{n}.png", n) for n in range(4)]
    own.append(tmp_path / "mine" / "again.png")
    own[4].write_bytes(own[0].read_bytes())
    place = made(tmp_path / "my.gallery", *own)
    def state(): return {f.relative_to(place).as_posix(): (f.stat().st_size, f.stat().st_mtime_ns, f.stat().st_ino) for f in [place, *place.rglob("*")]}
    before = state()
    app = create_app(place)
    with alone(place), alone(place), TestClient(app, base_url="http://localhost") as client:  # any number may read it
        app.state.service.collections["my_gallery"].now().gallery.encoder = Tiny()  # which this package cannot make
        at, picture = "/v1/collections/my_gallery", {"content": own[1].read_bytes(), "headers": {"Content-Type": "image/png"}}
        assert [c["items"] for c in client.get("/v1/collections").json()["collections"]] == [5]
        for rest in ("", "/items", "/items/1", "/items/1/image", "/items/1/thumbnail", "/items/1/full", "/items/1/details", "/items/1/ranking", "/items/1/recommendations", "/table", "/feedback"):
            assert client.get(at + rest).status_code == 200, rest
        assert client.post(f"{at}/search", **picture).json()["results"][0]["id"] == 2
        assert client.post(f"{at}/search", json={"item": 1, "top_k": 1}).json()["results"][0]["id"] == 5
        assert client.post(f"{at}/argue", json={"item": 1, "right": [2], "wrong": [3]}).status_code == 200
        assert client.post(f"{at}/export", json={"ids": [1, 2], "kind": "zip"}).status_code == 200
        copies = client.get(f"{at}/duplicates").json()["groups"]
        assert [sorted([g["keep"]["id"], *(c["item"]["id"] for c in g["copies"])]) for g in copies] == [[1, 5]]
        files = {"files": [("files", ("0.png", own[0].read_bytes()))]}
        writing: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/items", files), ("DELETE", "/items/1", {}), ("DELETE", "", {}), ("PUT", "", {}), ("POST", "/duplicates", {}), ("POST", "/decisions", {"json": {"first": 1, "second": 5, "verdict": "keep both"}}),
            ("POST", "/map", {}), ("PUT", "/map", {}), ("POST", "/inspection", {}), ("POST", "/labels", {"json": {"changes": [{"ids": [1], "label": "a"}]}}), ("POST", "/exclusions", {"json": {"ids": [1]}}),
            ("POST", "/removals", {"json": {"ids": [1]}}), ("POST", "/feedback/answers", {"json": {"item": 1, "label": "a"}}), ("POST", "/feedback/refit", {}),
        ]
        for method, rest, sent in writing:
            answer = client.request(method, at + rest, **sent)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden") and "served as it is" in answer.json()["message"], (method, rest, answer.text)
        assert client.get("/v1/jobs").json()["jobs"] == []
        assert state() == before
    assert state() == before


def test_what_was_decided_about_equal_files_is_open_again_when_another_comes_for_the_page_and_the_command(tmp_path):
    own = [paint(tmp_path / "mine" / "0.png", 0)]
    for n in (1, 2):
        own.append(tmp_path / "mine" / f"{n}.png")
        own[n].write_bytes(own[0].read_bytes())
    place = made(tmp_path / "root" / "pets", *own[:2])
    app = create_app(tmp_path / "root")
    with TestClient(app, base_url="http://localhost") as client:
        collection = app.state.service.collections["pets"]
        def decided(): assert client.post("/v1/collections/pets/decisions", json={"first": 1, "second": 2, "verdict": "keep both"}).status_code == 204
        def shown():  # files on the page, and those that the command tells
            copies_kept(place, collection.copies, lambda *_: None)
            return [[1 + len(g["copies"]) for g in client.get("/v1/collections/pets/duplicates/kept").json()["groups"]], [1 + len(g.copies) for g in Gallery(place).duplicates(progress=False)]]
        assert shown() == [[2], [2]]
        decided()
        assert shown() == [[], []]
        Gallery(place, Tiny()).add(own[2], progress=False)
        assert shown() == [[3], [3]]
        decided()  # of all three
        assert shown() == [[], []]
