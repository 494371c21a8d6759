"Several services over one PostgreSQL: what one is sent the others find, no job is done twice, and one that dies leaves nothing undone."
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack

import httpx
import pytest
from conftest import QUICK_JOB

pytest.importorskip("fastapi", reason="the service is not installed")

from image_similarity.drawing.pets import sample_pets
from image_similarity.gallery.gallery import Gallery
from image_similarity.service.app import create_app
from image_similarity.service.server import running


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    return sorted((sample_pets(tmp_path_factory.mktemp("drawn"), n_breeds=3, n_per_breed=5, size=96) / "images").iterdir())


@pytest.fixture
def root(tmp_path, server, address):
    "With a collection of its own, and one in PostgreSQL; the queue is there too."
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "collections.toml").write_text(f'jobs = "{address}_jobs"\n[collections]\npets = "{address}"\n')
    return tmp_path / "served"


def zipped(files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files: archive.write(file, f"{file.name.rsplit('_', 1)[0]}/{file.name}")
    return buffer.getvalue()


def ended(client, ids, within=240):
    until = time.monotonic() + within
    while time.monotonic() < until:
        jobs = [client.get(f"/v1/jobs/{id}").json() for id in ids]
        if all(job["state"] not in ("queued", "running") for job in jobs): return jobs
        time.sleep(.1)
    raise AssertionError(jobs)


def begun(client, archive, labels="none"):
    return client.post("/v1/collections/pets/train", params={"labels": labels}, content=archive, headers={"Content-Type": "application/zip"}).raise_for_status().json()["id"]


@pytest.mark.long
def test_two_services_are_one(root, address, pets):
    with ExitStack() as stack:
        one, two = (stack.enter_context(httpx.Client(base_url=stack.enter_context(running(create_app(root))), timeout=120)) for _ in range(2))
        assert one.get("/v1/collections").json() == {"collections": []}
        assert [client.put("/v1/collections/pets").status_code for client in (one, two)] == [201, 200]
        added = one.post("/v1/collections/pets/items", files=[("files", (f.name, f.read_bytes())) for f in pets[:4]]).json()
        assert [item["status"] for item in added["items"]] == ["new"] * 4
        found = two.post("/v1/collections/pets/search", json={"item": added["items"][0]["id"]}).json()["results"]
        assert {r["id"] for r in found} == {item["id"] for item in added["items"][1:]}
        assert two.get(f"/v1/collections/pets/items/{added['items'][0]['id']}/image").status_code == 200
        ids = [begun(client, zipped(pets[i:i + 5])) for i, client in zip((0, 5), (one, two))]
        jobs = ended(two, ids)
        assert [job["state"] for job in jobs] == ["done"] * 2, jobs
        assert sum(job["result"]["added"] for job in jobs) == 6 and len(Gallery(address)) == 10  # four were there
        assert [job["id"] for job in one.get("/v1/jobs").json()["jobs"]] == ids[::-1]
        refused = one.delete("/v1/collections/pets")
        assert refused.status_code == 403 and "take it out of collections.toml" in refused.json()["message"]


@pytest.mark.soak
def test_a_model_is_trained_for_all(root, address, pets, quick_jobs):
    with ExitStack() as stack:
        one, two = (stack.enter_context(httpx.Client(base_url=stack.enter_context(running(create_app(root))), timeout=120)) for _ in range(2))
        job, = ended(one, [begun(two, zipped(pets), "auto")])
        assert (job["state"], job["message"]) == ("done", None) and job["result"]["added"] == 15 and len(Gallery(address)) == 15
        for client in (one, two):
            assert client.get("/v1/collections/pets").json()["kind"] == "model"
            assert client.post("/v1/collections/pets/search", json={"item": 1, "top_k": 3}).json()["compared_by"] == "probability"
        assert [f for f in (root / "pets").iterdir() if f.suffix == ".sqlite"] == []  # a model, and no gallery


SERVE = "import sys; from image_similarity.service import job_runner; job_runner._COMMAND = {}; from image_similarity.cli.commands import main; sys.argv = ['image_similarity', 'serve', {!r}, '--port', '0']; main()"


def started(root) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen([sys.executable, "-c", SERVE.format(QUICK_JOB, str(root))], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("serving"): return process, line.split(" at ")[1].split()[0]
    raise AssertionError("it did not start")


@pytest.mark.soak
def test_what_a_service_that_is_killed_leaves_another_does(root, address, pets):
    (first, place), (second, other) = started(root), started(root)
    try:
        with httpx.Client(base_url=place, timeout=60) as one, httpx.Client(base_url=other, timeout=60) as two:
            one.put("/v1/collections/pets").raise_for_status()
            ids = [begun(one, zipped(pets[i:i + 5])) for i in (0, 5, 10)]
            while not any(two.get(f"/v1/jobs/{id}").json()["state"] == "running" for id in ids): time.sleep(.02)
            os.kill(first.pid, signal.SIGKILL)
            jobs = ended(two, ids)
            assert [job["state"] for job in jobs] == ["done"] * 3, jobs
        gallery = Gallery(address)
        assert len(gallery) == 15 and len(set(gallery.files)) == 15
    finally:
        for process in (first, second):
            process.terminate()
            process.wait(30)
            process.stderr.close()
