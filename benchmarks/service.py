"""What a service costs beside the bare encoder and FAISS, and whether it lasts: service.py [--json OUT] [--data DIR] [--small] [--soak SECONDS] [--only load soak]

- load: 1, 8 and 32 clients ask `image_similarity serve`, each with its next photo as soon as it has an answer. Beside it, by turns, the same photos through
  the same encoder in this process, as fast as it can: `embed` of all of them, then one search of raw FAISS. Both decode every JPEG. The clients run in
  this process and on the same cores, so their work counts against the service.
- soak: four clients search and one adds pictures for ten minutes, while one model after the other is trained, two at least. Errors, the slowest answers,
  and the growth of memory: the server's from its first model to its last, each opened and searched for a while, and the largest that a training took.

With --only, what the file given by --json says of the other is kept.
"""
import argparse
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import faiss
import httpx
import numpy as np
from _data import add_arguments, data_folder
from _report import interval, measured_before, report, row
from PIL import Image

from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder, embed
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.encoder import compared_rows

CLIENTS, SECONDS, TURNS = (1, 8, 32), 4, 5


def make_small() -> None:
    "Run as briefly as can be."
    global CLIENTS, SECONDS, TURNS
    CLIENTS, SECONDS, TURNS = (2,), 1, 1


def photos(data: Path, n: int) -> list[Path]:
    "The first so many."
    return sorted(f for f in (data / "imagenet_sample").rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))[:n]


@contextmanager
def serving(root: Path):
    "`image_similarity serve` as a process of its own: the process and its port."
    command = [sys.executable, "-c", "from image_similarity.cli.commands import main; main()", "serve", str(root), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", line := process.stderr.readline())):
            assert line, "the service did not start"
        port = int(found[1])
        threading.Thread(target=process.stderr.read, daemon=True).start()
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


class Caller:
    "One client: searches by picture over a connection that stays open. As light as it can be, since it works on the cores of the service."

    def __init__(self, port: int):
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.connection.makefile("rb")
        self.head = (f'POST /v1/collections/photos/search?options=%7B%22top_k%22%3A10%7D HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n'
                     "Content-Type: image/jpeg\r\nContent-Length: ").encode()

    def __call__(self, picture: bytes) -> tuple[int, bytes]:
        self.connection.sendall(b"".join((self.head, b"%d\r\n\r\n" % len(picture), picture)))
        line, length = self.answers.readline(), 0
        if not line:
            raise ConnectionError("the service has hung up")
        status = int(line.split()[1])
        while (line := self.answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self.answers.read(length)


def asked(port: int, pictures: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    "Answers a second, and the seconds that each took."
    took, stop = [], time.perf_counter() + seconds

    def client(first: int):
        call, i = Caller(port), first
        while (start := time.perf_counter()) < stop:
            status, _ = call(pictures[i % len(pictures)])
            assert status == 200, status
            took.append(time.perf_counter() - start)
            i += clients

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / (time.perf_counter() - start), took


def bare(encoder, index, pictures: list[bytes], clients: int, seconds: float) -> float:
    "Answers a second of encoder and FAISS: one picture at a time for one client, all there are for several."
    done, start, at = 0, time.perf_counter(), 0
    n = 1 if clients == 1 else 128
    while time.perf_counter() - start < seconds:
        batch = [pictures[(at + i) % len(pictures)] for i in range(n)]
        index.search(compared_rows(embed(batch, encoder, progress=False).pooled, "means"), 10)
        done, at = done + n, at + n
    return done / (time.perf_counter() - start)


def load_rows(folder: Path, files: list[Path]) -> list[dict]:
    "Throughput and latency, beside the bare encoder."
    encoder, pictures = create_encoder(), [f.read_bytes() for f in files[:256]]
    gallery = Gallery(folder / "photos", encoder)
    gallery.add(files, progress=False)
    index = faiss.IndexFlatIP(encoder.nf)
    index.add(compared_rows(gallery.pooled, "means"))
    gallery.close()
    rows = []
    with serving(folder) as (_, port):
        own = json.loads(Caller(port)(pictures[3])[1])["results"]
        expected = index.search(compared_rows(embed([pictures[3]], encoder, progress=False).pooled, "means"), 10)[0][0]
        assert np.allclose([r["score"] for r in own], expected, atol=1e-3), "not the same results"
        for clients in CLIENTS:
            asked(port, pictures, clients, 1), bare(encoder, index, pictures, clients, 1)
            ratios, speeds, bares, took = [], [], [], []
            for _ in range(TURNS):
                bares.append(bare(encoder, index, pictures, clients, SECONDS))
                speed, times = asked(port, pictures, clients, SECONDS)
                speeds.append(speed)
                took += times
                ratios.append(speed / bares[-1])
            against = f"the bare encoder and FAISS, {np.median(bares):.0f} a second"
            rows += [row(f"throughput_ratio_{clients}", *interval(ratios), goal=0.8 if clients > 1 else None, against=against),
                     row(f"throughput_{clients}", *interval(speeds), against=f"{clients} clients, answers a second"),
                     row(f"p50_ms_{clients}", *interval(np.multiply(took, 1000)), better="lower"),
                     row(f"p99_ms_{clients}", *interval(np.multiply(took, 1000), lambda v: np.percentile(v, 99)), better="lower")]
            print(rows[-4]["name"], f"{rows[-4]['value']:.3f}", against, flush=True)
    return rows


def megabytes(pid: int) -> float:
    "What a process holds in memory; 0 when it has ended."
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) / 1024 if found else 0


def children(pid: int) -> list[int]:
    "The processes that a process has started, from whichever thread."
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:
            pass  # this thread has ended
    return found


def archive_of(files: list[Path]) -> bytes:
    "A zip with class folders, of drawn pets."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            archive.write(file, f"{file.name.rsplit('_', 1)[0]}/{file.name}")
    return buffer.getvalue()


SETTLING = 30  # seconds in which the service opens a new model and uses it
TRAININGS = 2  # at least; as many as there is time for


class Soak:
    "Clients that search, one that adds, and trainings."

    def __init__(self, port: int, pid: int, pictures: list[bytes], seconds: float, archive: bytes):
        self.port, self.pid, self.pictures, self.archive = port, pid, pictures, archive
        self.start, self.end = time.perf_counter(), time.perf_counter() + seconds
        self.took, self.errors, self.added = [], [], 0
        self.trained = []  # of each training: when it was done, and the most megabytes that its process held
        self.memory = []   # when, and the server's megabytes
        self.most = 0      # megabytes of the training at work

    def going(self) -> bool:
        return time.perf_counter() < self.end

    def search(self, first: int):
        call, i = Caller(self.port), first
        while self.going():
            start = time.perf_counter()
            try:
                status, answer = call(self.pictures[i % len(self.pictures)])
                if status != 200:
                    self.errors.append(f"search: {status} {answer[:200]}")
            except OSError as e:
                self.errors.append(f"search: {e!r}")
                call = Caller(self.port)
            self.took.append(time.perf_counter() - start)
            i += 1
            time.sleep(0.1)

    def add(self):
        rng = np.random.default_rng(0)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1", timeout=300) as client:
            while self.going():
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).resize((320, 240)).save(buffer, "JPEG")
                answer = client.post("/collections/photos/items", files={"files": ("new.jpg", buffer.getvalue())})
                if answer.status_code == 200:
                    self.added += 1
                else:
                    self.errors.append(f"add: {answer.text[:200]}")
                time.sleep(1)

    def train(self):
        "The first makes the gallery a model, which needs torch; the others must not need more."
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1", timeout=300) as client:
            while self.going():
                self.most = 0
                job = client.post("/collections/photos/train", content=self.archive, headers={"Content-Type": "application/zip"}).json()
                while self.going() and job.get("state") in ("queued", "running"):
                    time.sleep(1)
                    job = client.get(f"/jobs/{job['id']}").json()
                if job.get("state") == "done" and not job["message"]:
                    self.trained.append((time.perf_counter(), self.most))
                elif self.going():
                    return self.errors.append(f"train: {job}")
                time.sleep(max(0, min(SETTLING, self.end - time.perf_counter())))
            if job.get("state") in ("queued", "running"):
                client.post(f"/jobs/{job['id']}/cancel")
        if len(self.trained) < TRAININGS:
            self.errors.append(f"train: {len(self.trained)} of {TRAININGS} trainings ended in this time")

    def watch(self):
        while self.going():
            self.memory.append((time.perf_counter(), megabytes(self.pid)))
            self.most = max([self.most, *map(megabytes, children(self.pid))])
            time.sleep(0.5)

    def run(self):
        def noted(work):
            try:
                work()
            except Exception as e:
                self.errors.append(f"{e!r}")

        work = [lambda i=i: self.search(64 * i) for i in range(4)] + [self.add, self.train, self.watch]
        threads = [threading.Thread(target=noted, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def settled(self) -> list[float]:
        "The server's megabytes with each model, in the second half of the time that it had for itself: medians."
        spans = [(at + SETTLING / 2, at + SETTLING) for at, _ in self.trained if at + SETTLING <= self.end]
        return [float(np.median([m for t, m in self.memory if first <= t <= last])) for first, last in spans]


def growth_rows(name: str, megabytes: list[float], of: str) -> list[dict]:
    "From the first to the last; nothing when there is one only."
    if len(megabytes) < 2:
        return []
    return [row(name, megabytes[-1] / megabytes[0] - 1, goal=0.1, better="lower", against=f"MB of {of}: {', '.join(f'{m:.0f}' for m in megabytes)}")]


def soak_rows(folder: Path, files: list[Path], seconds: float) -> list[dict]:
    "Whether it lasts."
    Gallery(folder / "photos", create_encoder()).add(files[:300], progress=False)
    pets = sorted((sample_pets(folder / "drawn", n_breeds=4, n_per_breed=8, size=160) / "images").iterdir())
    with serving(folder) as (process, port):
        soak = Soak(port, process.pid, [f.read_bytes() for f in files[:256]], seconds, archive_of(pets))
        soak.run()
    for error in soak.errors[:10]:
        print(error)
    what = f"{seconds:.0f} s, {len(soak.took):,} searches, {soak.added} pictures added, {len(soak.trained)} models trained"
    return [row("soak_errors", len(soak.errors), goal=0, better="lower", against=what),
            *growth_rows("soak_memory_growth", soak.settled(), "the server with each model"),
            *growth_rows("soak_training_growth", [most for _, most in soak.trained], "each training at most"),
            row("soak_p99_ms", *interval(np.multiply(soak.took, 1000), lambda v: np.percentile(v, 99)), better="lower", against="4 clients, with adding and training")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file")
    add_arguments(parser, "imagenet_sample")
    parser.add_argument("--soak", type=float, help="seconds of soaking: 600")
    parser.add_argument("--only", nargs="*", choices=["load", "soak"], default=["load", "soak"])
    args = parser.parse_args()

    if args.small: make_small()
    files, soak, rows = photos(data_folder(args), 1000), args.soak or (3 if args.small else 600), []
    for name, measure in (("load", lambda folder: load_rows(folder, files)), ("soak", lambda folder: soak_rows(folder, files, soak))):
        folder = Path(tempfile.mkdtemp(prefix="service-benchmark-"))
        try:
            if name in args.only:
                rows += measure(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    report(rows + measured_before(args.json, {row["name"] for row in rows}), args.json)


if __name__ == "__main__":
    main()
