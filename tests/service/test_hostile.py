"""The service as somebody meets it who wants it to fall: a real server, and requests made to break it."""
import io
import json
import shutil
import socket
import struct
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.errors import Unsatisfiable
from conftest import IDLE_JOB
from PIL import Image

from image_similarity.images.memory import MAX_PIXELS
from image_similarity.service import job_runner

TOKEN = "correct-horse-battery-staple"
settings.register_profile("service", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
settings.load_profile("service")


def limits():
    from image_similarity.service.protocol import Limits
    return Limits(query_bytes=300_000, upload_bytes=600_000, upload_files=4, archive_bytes=500_000)


@contextmanager
def serving(root: Path, **options):
    "A service on a real socket: its address, a client, and its folder."
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running

    app = create_app(root, limits=limits(), **options)
    with running(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield SimpleNamespace(root=root, address=address, http=client, app=app)


@pytest.fixture(scope="module")
def service(small, tmp_path_factory):
    "With a model that knows 24 drawn pets, as the collection `model`, and a few pictures sent to the collection `sent`. Jobs do nothing: a process for each would be most of the work."
    root = tmp_path_factory.mktemp("service") / "root"
    shutil.copytree(small.folder, root)
    (root.parent / "secret.jpg").write_bytes(picture(99))
    with pytest.MonkeyPatch.context() as patch, serving(root) as found:
        patch.setattr(job_runner, "_COMMAND", IDLE_JOB)
        assert found.http.put("/v1/collections/sent").status_code == 201
        send(found, [("files", (f"{i}.jpg", picture(i))) for i in range(3)])
        yield found


def picture(seed=0, size=(64, 48), kind="JPEG", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(out, kind, **options)
    return out.getvalue()


def send(service, files, **options):
    return service.http.post("/v1/collections/sent/items", files=files, **options)


def search(service, body, **headers):
    return service.http.post("/v1/collections/sent/search", content=body, headers={"Content-Type": "image/jpeg", **headers})


def shown(service, id, view): return service.http.get(f"/v1/collections/sent/items/{id}/{view}")


def told(answer: httpx.Response, *statuses: int) -> dict:
    "The error of an answer; every one has the same form."
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    said = answer.json()
    assert set(said) == {"code", "message"} and said["message"] and said["message"].isprintable()
    return said


def is_well(service) -> None:
    "It still answers, and still finds."
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert search(service, picture(1)).json()["results"]


def raw(service, head: bytes, body: bytes = b"", cut: bool = False) -> bytes:
    "Send bytes as they are, perhaps hang up, and read whatever comes back."
    address = urlsplit(service.address)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head)
        try:
            connection.sendall(body)
            if cut: connection.shutdown(socket.SHUT_WR)
        except OSError: pass # it has heard enough, and perhaps hung up
        found = b""
        try:
            while piece := connection.recv(65536): found += piece
        except ConnectionResetError: pass
        return found


def status(answer: bytes) -> int: return int(answer.split(b" ", 2)[1])


def head(service, method, path, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {urlsplit(service.address).netloc}", *lines, "", ""]).encode()


# --- everything that the OpenAPI document allows, and what it does not

def _within_reach(case, sent: str) -> None:
    "Let most requests meet something that is there, and none be so long that the HTTP server refuses it by itself."
    if "name" in (case.path_parameters or {}) and case.method in ("GET", "POST"): case.path_parameters["name"] = sent
    if isinstance((case.path_parameters or {}).get("id"), int): case.path_parameters["id"] = 1 + case.path_parameters["id"] % 4
    for name, value in (case.query or {}).items():
        if isinstance(value, str): case.query[name] = value[:2000]


@pytest.mark.parametrize("right, wrong", [(1, 1), pytest.param(3, 2, marks=pytest.mark.long), pytest.param(12, 6, marks=pytest.mark.soak)])
def test_every_operation_answers_as_its_document_says(service, right, wrong):
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    @schemathesis.serializer("application/zip")
    def as_it_is(_, value): return value

    document = service.app.openapi()
    schema = schemathesis.openapi.from_dict(document)
    checks, tried = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance], set()
    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode, examples in ((GenerationMode.POSITIVE, right), (GenerationMode.NEGATIVE, wrong)):
            @settings(max_examples=examples)
            @given(operation.as_strategy(generation_mode=mode))
            def ask(case):
                _within_reach(case, sent="sent" if case.method != "DELETE" else "gone")
                case.call_and_validate(base_url=service.address, checks=checks, timeout=180)

            try: ask()
            except Unsatisfiable: assert mode is GenerationMode.NEGATIVE and not operation.body and not list(operation.iter_parameters()), operation # nothing in it could be wrong
        tried.add((operation.method.upper(), operation.path))
    assert tried == {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    is_well(service)


# --- pictures that are none

BASE = [picture(0, (24, 16)), picture(0, (24, 16), "PNG"), picture(0, (24, 16), "GIF"), picture(0, (24, 16), "WEBP"), picture(0, (24, 16), "TIFF"), picture(0, (24, 16), "BMP")]
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["set", "delete", "insert", "cut"]), st.integers(0, 255), st.integers(1, 60)), min_size=1, max_size=5)


def mutated(content: bytes, changes) -> bytes:
    content = bytearray(content)
    for place, how, value, length in changes:
        at = int(place * len(content))
        if how == "set": content[at:at + 1] = [value]
        if how == "delete": del content[at:at + length]
        if how == "insert": content[at:at] = bytes([value]) * length
        if how == "cut": del content[max(at, 1):]
    return bytes(content)


@settings(max_examples=120)
@given(base=st.sampled_from(BASE), changes=changes)
def test_a_damaged_picture_is_searched_with_or_refused(service, base, changes):
    answer = search(service, mutated(base, changes))
    if answer.status_code != 200: assert told(answer, 422)["code"] == "bad_image"


@settings(max_examples=40)
@given(base=st.sampled_from(BASE), changes=changes)
def test_a_damaged_picture_is_added_or_skipped(service, base, changes):
    answer = send(service, [("files", ("x.jpg", mutated(base, changes)))])
    found = answer.json()
    assert answer.status_code == 200 and len(found["items"]) + len(found["skipped"]) == 1
    for item in found["items"]: # what was taken can be shown
        for view in ("image", "thumbnail"):
            assert Image.open(io.BytesIO(shown(service, item["id"], view).content)).format == "JPEG"


@settings(max_examples=40)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_found(service, content):
    for answer in (search(service, content), service.http.post("/v1/collections/sent/train", content=content, headers={"Content-Type": "application/zip"})):
        if answer.status_code != 200: told(answer, 422)


@settings(max_examples=60)
@given(changes=changes)
def test_a_damaged_archive_is_refused_whole_or_taken(service, changes):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(2): archive.writestr(f"{i}.jpg", picture(i, (12, 8)))
    answer = service.http.post("/v1/collections/archived/train", content=mutated(out.getvalue(), changes), headers={"Content-Type": "application/zip"})
    if answer.status_code != 202: assert told(answer, 422)["code"] == "bad_archive"
    left = [f for f in (service.root / ".service" / "jobs").rglob("*") if f.name == "archive.zip" or f.name.startswith(".unpack-")]
    assert left == []


def test_a_picture_of_too_many_pixels_is_refused_unopened(service):
    side = int(MAX_PIXELS ** .5) + 1
    chunk = lambda kind, body: struct.pack(">L", len(body)) + kind + body + struct.pack(">L", __import__("zlib").crc32(kind + body))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert "pixels" in told(search(service, bomb), 422)["message"]


# --- what pictures carry

def test_nothing_that_a_picture_says_of_its_maker_is_passed_on(service):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a secret description", 6
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    carried = {"jpg": picture(7, exif=exif, comment=b"a secret comment", xmp=b"<x:xmpmeta>a secret packet</x:xmpmeta>", icc_profile=b"a secret profile" * 10),
               "png": picture(8, kind="PNG", exif=exif), "webp": picture(9, kind="WEBP", exif=exif, xmp=b"a secret packet"),
               "gif": picture(10, kind="GIF", comment=b"a secret comment"), "gif2": picture(11, kind="GIF", comment=b"a secret comment " * 8_000)}
    for name, content in carried.items():
        assert b"secret" in content
        (item,) = send(service, [("files", (f"{name}.jpg", content))]).json()["items"]
        for view in ("image", "thumbnail", "thumbnail?size=16"):
            answer = shown(service, item["id"], view)
            assert answer.status_code == 200, (name, answer.text)
            seen = Image.open(io.BytesIO(answer.content))
            assert b"secret" not in answer.content and not seen.getexif() and set(seen.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}, (name, seen.info)
        if name == "jpg": assert Image.open(io.BytesIO(shown(service, item["id"], "image").content)).size == (48, 64) # turned upright


# --- names and paths

@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "a\0.jpg", "x" * 5000 + ".jpg", "\u202egpj.exe", "<img src=x onerror=alert(1)>.jpg", "", "."])
def test_the_name_of_a_file_is_only_shown(service, name):
    before = {p for p in service.root.parent.rglob("*") if ".service" not in p.parts}
    form = (b'--b\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\nContent-Type: image/jpeg\r\n\r\n' + picture(hash(name) % 1000) + b"\r\n--b--\r\n")
    answer = service.http.post("/v1/collections/sent/items", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    if answer.status_code == 200:
        for item in answer.json()["items"]: assert "/" not in item["file"] and "\\" not in item["file"] and item["file"].isprintable() and len(item["file"]) <= 255
    else: told(answer, 400, 422)
    new = {p for p in service.root.parent.rglob("*") if ".service" not in p.parts} - before
    assert {p for p in new if p.suffix not in (".sqlite-wal", ".sqlite-shm")} <= {p for p in new if (service.root / "sent") in p.parents}


TRAVERSALS = ["/static/../collection.py", "/static/%2e%2e/collection.py", "/static/..%2fcollection.py", "/static/%2e%2e%2f%2e%2e%2fetc/passwd", "/static//etc/passwd", "/static/..%5ccollection.py",
              "/static/%00", "/v1/collections/..", "/v1/collections/%2e%2e", "/v1/collections/..%2f..%2fetc", "/v1/collections/.service", "/v1/collections/sent/../../etc", "/v1/collections/pets",
              "/v1/collections/sent/items/..%2f..%2fsecret.jpg/image", "/v1/collections/sent/items/%2e%2e/image", "/v1/collections/sent%00/items", "/v1/jobs/..%2f..%2f", "/v1/jobs/..",
              "//etc/passwd", "/..", "/%2e%2e/%2e%2e/etc/passwd", "/v1/collections/sent/items/1/image/../../../../secret.jpg"]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(service, path):
    found = raw(service, head(service, "GET", path, "Connection: close"))
    assert status(found) in (400, 403, 404, 405, 422), found[:300]
    assert b"root:" not in found and b"def " not in found and picture(99) not in found


def test_collections_are_made_only_where_they_belong(service):
    for name in ("..", ".hidden", "a%2fb", "a%5cb", "%00", "-x", "x" * 65, "a b", "ä"):
        answer = service.http.put(f"/v1/collections/{name}")
        assert answer.status_code in (404, 405, 422), (name, answer.text)
    assert not (service.root.parent / "gallery.sqlite").exists()


# --- who asks

def ask(service, **headers):
    return service.http.get("/v1/collections", headers=headers)


def test_a_name_that_is_not_ours_is_refused(service):
    "DNS rebinding: a page makes its own name lead to 127.0.0.1."
    port = urlsplit(service.address).port
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "0.0.0.0", "[::2]", "localhost@evil.example", "evil.example#localhost",
                 "localhost/evil", "LOCALHOST.", "", "a b"):
        answer = raw(service, f"GET /v1/collections HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert status(answer) in (400, 403), (host, answer[:200])
    for host in ("localhost", f"LOCALHOST:{port}", "127.0.0.1:1", "[::1]:80"): assert ask(service, Host=host).status_code == 200
    two = raw(service, head(service, "GET", "/v1/collections", "Host: evil.example", "Connection: close"))
    assert status(two) in (400, 403)
    assert status(raw(service, b"GET /v1/collections HTTP/1.0\r\n\r\n")) in (400, 403)
    whole = raw(service, b"GET http://evil.example/v1/collections HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert status(whole) in (400, 403, 404)


def test_a_page_of_another_site_is_refused(service):
    own = urlsplit(service.address).netloc
    for origin in ("http://evil.example", "null", f"http://{own}.evil.example", f"http://evil.example:{own.split(':')[1]}", f"http://{own}@evil.example", "http://localhost:1", "file://", ""):
        assert told(ask(service, Origin=origin), 403)["code"] == "forbidden", origin
    told(ask(service, **{"Sec-Fetch-Site": "cross-site"}), 403)
    assert ask(service, Origin=service.address).status_code == 200
    for method in ("PUT", "DELETE"): # what a form or a fetch of a foreign page could do harm with
        told(service.http.request(method, "/v1/collections/sent", headers={"Origin": "http://evil.example"}), 403)
    answer = service.http.options("/v1/collections", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"})
    assert answer.status_code == 403 and not any(name.startswith("access-control") for name in answer.headers)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    "A service that wants a token."
    with serving(tmp_path_factory.mktemp("guarded"), token=TOKEN, hosts=["pets.example.org"]) as found:
        assert found.http.put("/v1/collections/sent", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 201
        yield found


def test_everything_but_four_addresses_wants_the_token(guarded):
    for path, methods in guarded.app.openapi()["paths"].items():
        for method in methods:
            answer = guarded.http.request(method.upper(), path.replace("{name}", "sent").replace("{id}", "1"))
            if path in ("/healthz", "/readyz"): assert answer.status_code == 200
            else: assert told(answer, 401)["code"] == "unauthorized" and answer.headers["www-authenticate"] == "Bearer", path
    for path in ("/openapi.json", "/metrics", "/v1/", "/v1/collections/sent/items/1/image", "/nothing", "/healthz/", "/static", "/login/x", "/Healthz"):
        assert guarded.http.get(path).status_code == 401, path
    assert guarded.http.get("/static/../v1").status_code == 401
    answer = guarded.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN.upper()}", "Bearer \xff\xfe", f"Bearer x {TOKEN}"])
def test_a_wrong_token_opens_nothing(guarded, header):
    told(guarded.http.get("/v1", headers=[(b"Authorization", header.encode("latin-1"))]), 401)


def test_the_cookie_is_for_this_site_only_and_does_not_hold_the_token(guarded):
    wrong = guarded.http.post("/login", data={"token": "x" * 20})
    assert (wrong.status_code, wrong.headers["location"]) == (303, "/login?failed=1") and "set-cookie" not in wrong.headers
    for form in ({}, {"token": ""}, {"token": [TOKEN, "x"]}, {"other": TOKEN}): assert guarded.http.post("/login", data=form).status_code == 303
    with httpx.Client(base_url=guarded.address) as browser:
        right = browser.post("/login", data={"token": TOKEN})
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie and TOKEN not in cookie
        assert browser.get("/v1").status_code == 200
        told(browser.get("/v1", headers={"Origin": "http://evil.example"}), 403)
        browser.post("/logout")
        told(browser.get("/v1"), 401)
    name = cookie.split("=")[0]
    for value in ("", "x", "0" * 64): told(guarded.http.get("/v1", headers={"Cookie": f"{name}={value}"}), 401)


def test_names_and_addresses_with_a_token(guarded):
    with_token = {"Authorization": f"Bearer {TOKEN}"}
    for host, right in (("pets.example.org", True), ("PETS.example.org:443", True), ("192.168.1.7", True), ("evil.example", False), ("pets.example.org.evil.example", False)):
        assert (ask(guarded, Host=host, **with_token).status_code == 200) == right, host


def test_every_answer_tells_browsers_what_they_may_do(service, guarded):
    for answer in (ask(service), service.http.get("/nothing"), service.http.get("/"), service.http.get("/v1/collections/sent/items/1/image"), ask(service, Origin="http://evil.example"), guarded.http.get("/v1")):
        assert "default-src 'none'" in answer.headers["content-security-policy"] and "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff" and "server" not in answer.headers
        assert answer.headers["cache-control"].split(",")[0] in ("no-store", "private", "no-cache")


# --- how much, and how slowly

def test_a_body_over_the_limit_is_refused(service):
    most = limits()
    for path, limit, kind in (("search", most.query_bytes, "image/jpeg"), ("items", most.upload_bytes, "multipart/form-data; boundary=b"), ("train", most.archive_bytes, "application/zip")):
        path = f"/v1/collections/sent/{path}"
        whole = (b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + b"x" * limit) if "multipart" in kind else b"x" * (limit + 1)
        assert told(service.http.post(path, content=whole, headers={"Content-Type": kind}), 413)["code"] == "too_large"
        assert told(service.http.post(path, content=(whole[i:i + 65536] for i in range(0, len(whole), 65536)), headers={"Content-Type": kind}), 413)["code"] == "too_large" # chunked: no length is said
    json_body = json.dumps({"text": "x" * most.query_bytes}).encode()
    told(service.http.post("/v1/collections/sent/search", content=json_body, headers={"Content-Type": "application/json"}), 413)
    told(service.http.put("/v1/collections/other", content=b'{"encoder": "' + b"x" * most.query_bytes + b'"}', headers={"Content-Type": "application/json"}), 413)
    is_well(service)


def test_a_length_that_lies_is_not_believed(service):
    path = "/v1/collections/sent/search"
    for lines, body in ((["Content-Type: image/jpeg", "Content-Length: 10", "Connection: close"], b"x" * 1000), # more than it says: the rest is no request
                        (["Content-Type: image/jpeg", "Content-Length: 1000", "Connection: close"], b"x" * 10), # less
                        (["Content-Type: image/jpeg", "Content-Length: -1", "Connection: close"], b""), (["Content-Type: image/jpeg", "Content-Length: abc", "Connection: close"], b""),
                        (["Content-Type: image/jpeg", "Content-Length: 99999999999999999999999", "Connection: close"], b"x"),
                        (["Content-Type: image/jpeg", "Content-Length: 5", "Content-Length: 6", "Connection: close"], b"xxxxxx"),
                        (["Content-Type: image/jpeg", "Content-Length: 5", "Transfer-Encoding: chunked", "Connection: close"], b"0\r\n\r\n"),
                        (["Content-Type: image/jpeg", "Transfer-Encoding: chunked", "Connection: close"], b"fffffffffffffff\r\nx"),
                        (["Content-Type: image/jpeg", "Transfer-Encoding: chunked", "Connection: close"], b"zz\r\n\r\n")):
        answer = raw(service, head(service, "POST", path, *lines), body, cut=True)
        assert not answer or status(answer) in (400, 413, 422), (lines, answer[:200])
    is_well(service)


def test_too_many_files_and_broken_forms_are_refused(service):
    told(send(service, [("files", (f"{i}.jpg", picture(i, (8, 8)))) for i in range(5)]), 400, 413)
    told(send(service, [("pictures", ("a.jpg", picture()))]), 422)
    told(send(service, {"files": ("a.jpg", picture())}, data={f"field{i}": "x" for i in range(20)}), 400, 413)
    told(send(service, {"files": ("a.jpg", picture())}, data={"options": "x" * 200_000}), 400, 413, 422)
    told(send(service, {"files": ("a.jpg", picture())}, data={"options": "{"}), 400)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=b", "text/plain", ""):
        told(service.http.post("/v1/collections/sent/items", content=b"--b\r\nContent-Disposition: form-data\r\n\r\nx", headers={"Content-Type": kind}), 400, 415, 422)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"item": 1e999}', b'{"item": NaN}', b'{"item": 99999999999999999999}', b'{"item": 1, "item": {"a": 1}}', b"\xff\xfe", b'"' + b"a" * 1000,
                                  b"[" * 100_000, b'{"mixture": [' + b'{"item": 1},' * 20 + b'{"item": 1}]}', b'{"item": 1, "where": {"a": {"b": 1}}}', b'{"item": 1, "top_k": true}',
                                  b'{"text": "\\ud800"}', b'{"item": 1, "where": {"label": "\\u0000"}}', b'{"item": 1, "where": {"a\'; DROP TABLE items; --": 1}}', b'{"item": 1, "where": {"\\ud800": 1}}'])
def test_json_that_is_odd_is_refused_or_answered(service, body):
    answer = service.http.post("/v1/collections/sent/search", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code != 200: told(answer, 400, 404, 422)
    is_well(service)


def test_a_slow_sender_keeps_nobody_waiting(service):
    address = urlsplit(service.address)
    slow = []
    try:
        for i in range(20):
            slow.append(connection := socket.create_connection((address.hostname, address.port)))
            if i % 2: connection.sendall(head(service, "POST", f"/v1/collections/sent/{['search', 'train'][i % 4 // 2]}", f"Content-Type: {['image/jpeg', 'application/zip'][i % 4 // 2]}", "Content-Length: 1000"))
            else: connection.sendall(b"POST /v1/collections/sent/search HTTP/1.1\r\nHost: lo") # not even a whole head
            connection.sendall(b"x")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda i: search(service, picture(i)), range(8)))
        assert [a.status_code for a in answers] == [200] * 8
    finally:
        for connection in slow: connection.close()
    is_well(service)
    for _ in range(100): # what they had begun to send is not kept
        if not list((service.root / ".service" / "jobs").rglob("archive.zip")): break
        time.sleep(.1)
    assert not list((service.root / ".service" / "jobs").rglob("archive.zip"))


def test_a_sender_who_stops_half_way_is_given_up(service, monkeypatch):
    from image_similarity.service import gates

    monkeypatch.setattr(gates, "PATIENCE", .5)
    address = urlsplit(service.address)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head(service, "POST", "/v1/collections/sent/search", "Content-Type: image/jpeg", "Content-Length: 1000") + b"x")
        assert status(connection.recv(65536)) == 408


def test_a_sender_who_trickles_is_given_up_and_a_steady_one_is_not(service, monkeypatch):
    from image_similarity.service import gates

    monkeypatch.setattr(gates, "PATIENCE", .5)
    monkeypatch.setattr(gates, "SLOWEST", 500)
    address, photo = urlsplit(service.address), picture(1)
    def sent(path, kind, body, piece, pause):
        "Status, and how many bytes had been sent when it came."
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            connection.sendall(head(service, "POST", path, f"Content-Type: {kind}", f"Content-Length: {len(body)}"))
            for at in range(0, len(body), piece):
                connection.sendall(body[at:at + piece])
                connection.settimeout(pause)
                try: return status(connection.recv(65536)), at + piece
                except TimeoutError: pass
            connection.settimeout(20)
            return status(connection.recv(65536)), len(body)
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + photo + b"\r\n--b--\r\n"
    for path, kind, body in (("search", "image/jpeg", photo), ("train", "application/zip", photo), ("items", "multipart/form-data; boundary=b", form)):
        answer, n = sent(f"/v1/collections/sent/{path}", kind, body, 1, .05)  # at most 20 bytes a second, and never silent for long
        assert answer == 408 and n < 30, (path, answer, n)
    steady, _ = sent("/v1/collections/sent/search", "image/jpeg", photo, len(photo) // 20, .05)  # the whole takes longer than the patience
    assert steady == 200
    assert not list((service.root / ".service" / "jobs").rglob("archive.zip"))


def test_a_head_without_end_and_one_that_takes_for_ever_are_given_up(service, monkeypatch):
    from image_similarity.service import connections

    endless = raw(service, head(service, "GET", "/healthz")[:-2] + b"X-More: ", b"x" * 2_000_000)
    assert not endless or status(endless) == 431
    monkeypatch.setattr(connections, "PATIENCE", .5)
    address = urlsplit(service.address)
    for begun in (b"", b"GET /healthz HT", head(service, "GET", "/healthz")[:-2] + b"X-More: x"):
        with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
            connection.sendall(begun)
            assert connection.recv(65536)[:12] == (b"HTTP/1.1 408" if begun else b"") # a browser that connects before it asks would take it for the answer
    is_well(service)


def test_a_query_that_is_not_waited_for_harms_nobody(service):
    address = urlsplit(service.address)
    for _ in range(10):
        with socket.create_connection((address.hostname, address.port)) as connection:
            body = picture(3)
            connection.sendall(head(service, "POST", "/v1/collections/sent/search", "Content-Type: image/jpeg", f"Content-Length: {len(body)}") + body)
    is_well(service)


def test_pictures_that_are_all_alike_are_not_all_compared(service, monkeypatch):
    "Each with each would take minutes."
    from image_similarity.service import answers

    assert service.http.put("/v1/collections/alike").status_code == 201
    for first in range(0, 12, 4):
        files = [("files", (f"{i}.png", picture(i, (96, 96), "PNG"))) for i in range(first, first + 4)] # noise: of one kind for every encoder
        assert len(service.http.post("/v1/collections/alike/items", files=files).json()["items"]) == 4
    compared, compare = [], answers.compare
    monkeypatch.setattr(answers, "LAID", 5)
    monkeypatch.setattr(answers, "compare", lambda *pair: compared.append(pair) or compare(*pair))
    found = service.http.post("/v1/collections/alike/search", json={"item": 1, "top_k": 12, "hide_duplicates": True}).json()
    assert len(compared) == 5 and len(found["results"]) + found["hidden_duplicates"] == 11


def test_methods_and_upgrades_that_are_not_known(service):
    for method in ("TRACE", "CONNECT", "PATCH", "BREW", "PROPFIND"):
        answer = raw(service, head(service, method, "/v1/collections", "Connection: close"))
        assert status(answer) in (400, 404, 405), (method, answer[:200])
    upgrade = raw(service, head(service, "GET", "/v1/collections", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert not upgrade or status(upgrade) in (200, 400, 403, 404, 426)
    is_well(service)
    long = raw(service, head(service, "GET", "/" + "a" * 100_000, "Connection: close"))
    assert not long or status(long) in (400, 404, 414, 431)
    many = raw(service, head(service, "GET", "/v1", *(f"X-{i}: {'a' * 1000}" for i in range(200)), "Connection: close"))
    assert not many or status(many) in (200, 400, 431)
    is_well(service)
