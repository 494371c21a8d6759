"Attacks on the service with real input: what becomes large, what never ends, what is left when the disk is full or the folder gone."
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from image_similarity.gallery.gallery import Gallery

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


@pytest.fixture(scope="module")
def attack(benchmark_script):
    "`benchmarks/_attackers.py`."
    return benchmark_script("_attackers")


@pytest.fixture(scope="module")
def service(attack, tmp_path_factory):
    "With 6 pictures in the collection `sent`."
    with attack.serving(tmp_path_factory.mktemp("attacked") / "root") as found:
        assert found.http.put("/v1/collections/sent").status_code == 201
        attack.add(found.http, "sent", [attack.picture(i) for i in range(6)])
        yield found


@pytest.fixture(scope="module")
def guarded(attack, tmp_path_factory):
    "One that wants a token."
    with attack.serving(tmp_path_factory.mktemp("guarded") / "root", token=True) as found:
        yield found


@contextmanager
def in_this_process(root, token=None):
    "A service that is not watched from outside."
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    with running(create_app(root, token=token)) as address, httpx.Client(base_url=address, timeout=120, headers={"Authorization": f"Bearer {token}"} if token else {}) as client:
        yield SimpleNamespace(http=client, port=int(address.rsplit(":", 1)[1]), root=root)


@pytest.fixture
def near(tmp_path, idle_jobs):
    "With a collection `sent`, and jobs that do nothing."
    with in_this_process(tmp_path / "root") as found:
        assert found.http.put("/v1/collections/sent").status_code == 201
        yield found


def told(answer: httpx.Response, *statuses: int) -> str:
    "The message of an error."
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])
    assert set(answer.json()) == {"code", "message"} and len(answer.json()["message"]) <= 500 and answer.headers["x-content-type-options"] == "nosniff"
    return answer.json()["message"]


def is_well(service, attack) -> None:
    assert service.http.post("/v1/collections/sent/search", content=attack.picture(1), headers={"Content-Type": "image/jpeg"}).json()["results"][0]["id"] == 2


# --- what it becomes

@pytest.mark.long
def test_large_json_is_refused_before_it_is_parsed_and_holds_nobody_up(service, attack):
    attack.forget_peak(service.pid)
    before = attack.memory(service.pid)
    with attack.pings(service.port) as took:
        for body in (attack.wrong_where(5_000_000), attack.unknown_keys(1_500_000)):
            told(service.http.post("/v1/collections/sent/search", content=body, headers={"Content-Type": "application/json"}), 413)
        for body in (attack.wrong_where(300_000), attack.unknown_keys(70_000), b"[" * 900_000, b'{"item": ' + b"9" * 900_000 + b"}", json.dumps({"k" * 900_000: 1}).encode()):
            told(service.http.post("/v1/collections/sent/search", content=body, headers={"Content-Type": "application/json"}), 400, 422)
            told(service.http.post("/v1/collections/sent/match", content=body, headers={"Content-Type": "application/json"}), 400, 422)
        told(service.http.put("/v1/collections/other", content=attack.unknown_keys(70_000), headers={"Content-Type": "application/json"}), 413)
    assert max(took) < 5 and attack.memory(service.pid, "VmHWM") < before + 150
    is_well(service, attack)


@pytest.mark.long
def test_what_needs_no_token_takes_kilobytes(guarded, attack):
    stranger = httpx.Client(base_url=f"http://127.0.0.1:{guarded.port}", timeout=30)
    for body in (b"token=" + b"x" * 20_000_000, b"&".join([b"a=b"] * 100_000)):
        told(stranger.post("/login", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}), 413)
    attack.forget_peak(guarded.pid)
    before = attack.memory(guarded.pid)
    assert attack.trailers(guarded.port) < 8_000_000 # what the sockets hold
    assert attack.memory(guarded.pid, "VmHWM") < before + 64
    assert stranger.post("/login", data={"token": attack.TOKEN}).headers["location"] == "/"


@pytest.mark.long
def test_what_goes_wrong_is_told_with_headers_and_one_line(guarded, attack):
    for lines in (["Origin: http://["], ["Content-Length: " + "9" * 5000], ["Origin: http://[", "Content-Length: " + "1" * 5000]):
        with attack.connected(guarded.port) as connection:
            connection.sendall(attack.head(guarded.port, "POST", "/login", *lines, "Connection: close"))
            answer = b""
            while more := connection.recv(65536): answer += more
        assert attack.status(answer) == 400 and b"x-content-type-options: nosniff" in answer.lower() and b"Traceback" not in answer, answer
    assert not [line for line in guarded.log if line.startswith("Traceback")]


def test_an_unforeseen_error_is_told_with_headers_and_logged_in_one_line(tmp_path, monkeypatch, caplog):
    from image_similarity.service import collection_routes
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running

    def broken(*_): raise RuntimeError("nobody\nforesaw this")
    monkeypatch.setattr(collection_routes, "encoders", broken)
    with running(create_app(tmp_path)) as address: answer = httpx.get(f"{address}/v1")
    assert told(answer, 500) == "something went wrong in the service; its log says what"
    (record,) = [r for r in caplog.records if r.name == "image_similarity"]
    assert record.getMessage() == "GET /v1: RuntimeError: nobody foresaw this"


def archive(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items(): file.writestr(name.replace("_", "."), content)
    return out.getvalue()


def test_what_an_archive_says_is_cut_and_no_path_of_the_server_leaves(near, attack):
    service = near
    header = ",".join(["file", "label", *(f"column{i:06}" for i in range(300_000))]).encode()
    rows = {"a wrong row": header + b"\n1.jpg,cat\n", "no columns": header.replace(b"file,label", b"one,two") + b"\n" + b"," * 300_001 + b"\n", "the same twice": header + b",file\n" + b"," * 300_002 + b"\n"}
    for name, table in rows.items():
        for labels in ("csv", "auto"):
            answer = service.http.post("/v1/collections/zipped/train", params={"labels": labels}, content=archive(labels_csv=table, **{"1_jpg": attack.picture(1)}), headers={"Content-Type": "application/zip"})
            if labels == "csv": assert str(service.root) not in told(answer, 422) and "unpack" not in answer.text, answer.text
            else: assert answer.status_code == 202 and len(answer.content) < 3000 and str(service.root) not in answer.text and "unpack" not in answer.text, (name, answer.text[:300])
    for _ in range(5):
        others = {f"{'x' * 200}{i}_txt": b"no picture" for i in range(300)}
        assert service.http.post("/v1/collections/zipped/train", params={"labels": "none"}, content=archive(**others, **{"1_jpg": attack.picture(1)}), headers={"Content-Type": "application/zip"}).status_code == 202
    listed = service.http.get("/v1/jobs", params={"limit": 200})
    assert len(listed.content) < 40_000 and str(service.root) not in listed.text
    first, second = (service.http.get("/v1/jobs", params={"limit": 3, "after": after}).json() if after else service.http.get("/v1/jobs", params={"limit": 3}).json() for after in (None, listed.json()["jobs"][2]["id"]))
    assert [j["id"] for j in first["jobs"] + second["jobs"]] == [j["id"] for j in listed.json()["jobs"]][:6] and first["next"] == first["jobs"][-1]["id"]
    assert first["jobs"][0]["skipped_files"] == 300 and len(first["jobs"][0]["skipped"]) == 10
    assert len(service.http.get(f"/v1/jobs/{first['jobs'][0]['id']}").json()["skipped"]) == 300


# --- what never ends (each at its real length: slow)

@pytest.mark.soak
def test_a_body_that_never_ends_is_closed_and_so_is_an_answer_that_is_not_read(service, guarded, attack):
    asked = attack.head(service.port, "GET", "/healthz", "Content-Length: 1000000")
    stranger = attack.head(guarded.port, "GET", "/v1", "Content-Length: 1000000")
    half = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-More: "
    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(attack.open_for, port, begun, most=60) for port, begun in ((service.port, asked), (guarded.port, stranger), (service.port, half))]
    answered, refused, began = (end.result() for end in ends)
    assert answered < 15 and refused < 8 and began < 35, (answered, refused, began)
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection: # takes nothing of a great many answers
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked, sent = attack.head(service.port, "GET", "/openapi.json"), 0
        connection.settimeout(2)
        try:
            for _ in range(300): sent += connection.send(asked)
        except OSError: pass
        begun = time.monotonic()
        while time.monotonic() - begun < 60 and established(connection): time.sleep(1)
        assert 25 < time.monotonic() - begun < 45
    is_well(service, attack)


def established(connection: socket.socket) -> bool:
    "Whether the other side has not hung up."
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1


# --- pictures that are small as files

@pytest.mark.soak
def test_pictures_that_become_large_take_bounded_memory(service, attack):
    bomb = attack.grey_png()
    assert len(bomb) < 300_000
    attack.forget_peak(service.pid)
    before = attack.memory(service.pid)
    answer = service.http.post("/v1/collections/sent/search", content=bomb, headers={"Content-Type": "image/png"})
    assert answer.status_code in (200, 422) and attack.memory(service.pid, "VmHWM") < before + 700
    answer = service.http.post("/v1/collections/sent/items", files=[("files", ("bomb.png", bomb))]).json()
    if answer["items"]:
        id = answer["items"][0]["id"]
        attack.forget_peak(service.pid)
        with ThreadPoolExecutor(8) as pool: list(pool.map(lambda size: service.http.get(f"/v1/collections/sent/items/{id}/thumbnail", params={"size": size}), range(100, 108)))
        assert attack.memory(service.pid, "VmHWM") < before + 2_300
        assert service.http.delete(f"/v1/collections/sent/items/{id}").status_code == 204


# --- long work beside short work

@pytest.mark.soak
def test_searches_go_on_beside_a_crowd_that_looks_for_copies(service, attack):
    assert service.http.put("/v1/collections/crowd").status_code == 201
    attack.add(service.http, "crowd", [attack.picture(i) for i in range(200)])
    address = f"http://127.0.0.1:{service.port}/v1/collections/crowd/duplicates"
    begun, codes = time.monotonic(), []

    def ask(_):
        with httpx.Client(timeout=20) as client:
            try: codes.append(client.get(address).status_code)
            except httpx.TimeoutException: codes.append(None)

    with ThreadPoolExecutor(44) as pool:
        asked = [pool.submit(ask, i) for i in range(44)]
        time.sleep(1)
        for _ in range(10):
            assert service.http.get("/readyz", timeout=5).status_code == 200
            assert service.http.post("/v1/collections/sent/search", content=attack.picture(1), headers={"Content-Type": "image/jpeg"}, timeout=10).status_code == 200
        for one in asked: one.result()
    assert codes.count(429) >= 35 and set(codes) <= {200, 429, None}
    with httpx.Client(timeout=.3) as client: # who hangs up is not worked for
        with pytest.raises(httpx.TimeoutException): client.get(address)
    for _ in range(100):
        if not Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split(): break
        time.sleep(.1)
    assert not Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split() and time.monotonic() - begun < 120


# --- a full disk

@contextmanager
def small_disk(place: Path, size: str):
    "A file system of so many bytes. Root only."
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
    if done.returncode: pytest.skip("no file system can be mounted here")
    try: yield place
    finally: subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    "Leave no byte free."
    file = place / "ballast"
    with open(file, "wb", buffering=0) as stream:
        for size in (2**20, 4096, 1):
            try:
                while stream.write(bytes(size)): pass
            except OSError: pass
    assert shutil.disk_usage(place).free == 0
    return file


@pytest.mark.soak
def test_on_a_full_disk_a_service_searches_deletes_and_says_so(attack, tmp_path):
    with small_disk(tmp_path / "disk", "60m") as disk, attack.serving(disk / "root") as service:
        assert service.http.put("/v1/collections/sent").status_code == 201
        attack.add(service.http, "sent", [attack.picture(i) for i in range(6)])
        is_well(service, attack)
        ballast = fill(disk)
        before = sorted(str(f) for f in disk.rglob("*"))
        for _ in range(3):
            is_well(service, attack)
            assert service.http.post("/v1/collections/sent/search", json={"item": 1}).json()["results"]
            assert "disk is full" in told(service.http.post("/v1/collections/sent/items", files=[("files", ("a.jpg", attack.picture(99)))]), 507)
            assert "disk is full" in told(service.http.post("/v1/collections/other/train", content=archive(**{"1_jpg": attack.picture(1)}), headers={"Content-Type": "application/zip"}), 507)
            assert service.http.get("/readyz").json() == {"status": "ready", "disk": "full"}
        assert [f for f in map(str, disk.rglob("*")) if f not in before] == []
        for id in (6, 5, 4): assert service.http.delete(f"/v1/collections/sent/items/{id}").status_code == 204
        assert service.http.get("/v1/collections/sent").json()["items"] == 3
        ballast.unlink()
        assert service.http.get("/readyz").json() == {"status": "ready", "disk": "ok"}
        (id,) = attack.add(service.http, "sent", [attack.picture(99)])
        assert id == 7 and service.http.post("/v1/collections/sent/search", content=attack.picture(99), headers={"Content-Type": "image/jpeg"}).json()["results"][0]["id"] == 7


def test_on_a_full_disk_a_gallery_searches_removes_and_says_so(tmp_path, small, monkeypatch):
    with small_disk(tmp_path / "disk", "20m") as disk:
        import numpy as np
        rows = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
        gallery = Gallery(disk / "gallery")
        gallery.import_embeddings([f"{i}.jpg" for i in range(200)], rows[:200])
        gallery.search(rows[0], 1, metric="l2")
        gallery.import_embeddings(["last.jpg"], rows[200:201])
        ballast = fill(disk)
        before = {f.name for f in (disk / "gallery").rglob("*")}
        for i in range(3): assert [r.id for r in gallery.search(rows[i], 1, metric="l2")] == [i + 1]
        for _ in range(3):
            with pytest.raises(OSError, match="gallery.sqlite: the disk is full; make room") as error: gallery.import_embeddings([f"{i}.jpg" for i in range(200, 300)], rows[200:])
            assert "Errno" not in str(error.value) and "\n" not in str(error.value)
        assert {f.name for f in (disk / "gallery").rglob("*")} <= before
        assert gallery.remove(list(range(1, 41))) == 40 and gallery.remove(41) == 1
        assert [r.id for r in gallery.search(rows[41], 1, metric="l2")] == [42] and len(Gallery(disk / "gallery")) == 160
        ballast.unlink()
        assert gallery.import_embeddings(["new.jpg"], rows[299:]) and gallery.check().damage is None
        gallery.close()


# --- the folder of the service

@pytest.mark.soak
def test_a_service_whose_folder_was_moved_says_so_and_makes_none_anew(attack, tmp_path):
    with attack.serving(tmp_path / "root") as service:
        assert service.http.put("/v1/collections/sent").status_code == 201
        os.rename(tmp_path / "root", tmp_path / "moved")
        for answer in (service.http.get("/readyz"), service.http.get("/v1/collections"), service.http.get("/v1/collections/sent/items"), service.http.put("/v1/collections/more"), service.http.get("/v1/jobs"),
                       service.http.post("/v1/collections/sent/train", content=archive(**{"1_jpg": attack.picture(1)}), headers={"Content-Type": "application/zip"})):
            assert "was moved or deleted" in told(answer, 503)
        assert not (tmp_path / "root").exists()
        os.rename(tmp_path / "moved", tmp_path / "root")
        assert service.http.get("/readyz").status_code == 200 and service.http.get("/v1/collections").json()["collections"][0]["name"] == "sent"


def test_a_second_service_of_the_same_folder_is_refused_in_one_line(near):
    without_torch = "import sys; sys.modules['torch'] = None; from image_similarity.cli.commands import main; main()"  # which takes seconds to load: it is refused before
    done = subprocess.run([sys.executable, "-c", without_torch, "serve", str(near.root), "--port", "0"], capture_output=True, text=True, timeout=180)
    assert done.returncode == 2 and "another service is running there" in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_who_signs_out_is_out_and_sees_no_picture_from_the_cache(attack, tmp_path):
    with in_this_process(tmp_path, attack.TOKEN) as guarded: signs_out(guarded, attack)


def signs_out(guarded, attack):
    guarded.http.put("/v1/collections/sent")
    (id,) = attack.add(guarded.http, "sent", [attack.picture(1)])
    with httpx.Client(base_url=f"http://127.0.0.1:{guarded.port}") as browser, httpx.Client(base_url=f"http://127.0.0.1:{guarded.port}") as other:
        for one in (browser, other): one.post("/login", data={"token": attack.TOKEN})
        cookie, second = (dict(one.cookies) for one in (browser, other))
        assert cookie != second
        shown = browser.get(f"/v1/collections/sent/items/{id}/thumbnail")
        assert "no-cache" in shown.headers["cache-control"] and browser.get(f"/v1/collections/sent/items/{id}/thumbnail", headers={"If-None-Match": shown.headers["etag"]}).status_code == 304
        browser.post("/logout")
        stolen = httpx.Client(base_url=f"http://127.0.0.1:{guarded.port}", cookies=cookie)
        assert stolen.get("/v1").status_code == 401
        assert stolen.get(f"/v1/collections/sent/items/{id}/thumbnail", headers={"If-None-Match": shown.headers["etag"]}).status_code == 401
        assert other.get("/v1").status_code == 200


def test_a_label_that_would_not_be_found_again_is_refused(near, attack):
    for options in ({"label": "a\0b"}, {"metadata": {"a\0": 1}}, {"metadata": {"a": "b\0"}}):
        told(near.http.post("/v1/collections/sent/items", files=[("files", ("a.jpg", attack.picture(77)))], data={"options": json.dumps(options)}), 422)
