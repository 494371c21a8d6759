"""What a hostile caller can do to a service and its galleries: attacks.py [--json OUT] [--small] [--only replacement trailers body where pixels copies disk bits]

Each attack meets a server of its own on the loopback, and a real folder; nothing of the machine but a small file system in memory (for the full disk, as root) is touched.

- replacement: one process adds pictures' vectors one by one and is told of 1,000 ids, while another puts a freshly trained model in the place of their
  collection, as the job of a service does. Twenty times. How many of the ids are gone.
- trailers, body: without a token, trailers without an end (megabytes that the server grows by), and a body of which a byte comes now and then (seconds until it is closed).
- where: a search with millions of wrong values: how long nothing else is answered.
- pixels: a PNG of 200 kB and 100 million 16-bit pixels, searched with once, and shown as four thumbnails at once: megabytes that the server grows by.
- copies: how much slower one search in a hundred gets while others look for copies.
- disk: searches that fail on a full disk.
- bits: random flips of a bit in a gallery's vectors that `check` notices, of 24.

Pictures are drawn. With --only, what the file given by --json says of the others is kept.
"""
import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
from _attackers import add, forget_peak, grey_png, head, memory, open_for, picture, pings, serving, trailers, unknown_keys, wrong_where
from _report import measured_before, report, row

from image_similarity.drawing.pets import sample_pets
from image_similarity.gallery.gallery import Gallery

TIMES, TOLD, CROWD, SEARCHES = 20, 1_000, 600, 100


def make_small() -> None:
    "Run as briefly as can be."
    global TIMES, TOLD, CROWD, SEARCHES
    TIMES, TOLD, CROWD, SEARCHES = 2, 100, 60, 20


ADD = """
import sys, numpy as np
from image_similarity.gallery.gallery import Gallery
folder, name, n, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
gallery = Gallery(folder)
for i in range(n): print(*gallery.import_embeddings([f"{folder}/../added/{name}_{i}.jpg"], np.full((1, width), i, np.float32)), flush=True)
"""


def lost_after_replacement(place: Path) -> int:
    "Ids that were told and are gone, of all rounds."
    from image_similarity.encoders.encoder import create_encoder
    from image_similarity.finder.training import fit_finder
    from image_similarity.images.datasets import labelled_images
    from image_similarity.service.collection import Collections
    from image_similarity.service.job_work import put_in_place

    images = sample_pets(place / "pets", n_breeds=2, n_per_breed=4, size=96) / "images"
    finder, _, _ = fit_finder(labelled_images(images, valid_pct=.25), create_encoder(), augment=1, epochs=1)
    collections = Collections(place / "root")
    collections.create("pets")
    collection = collections["pets"]
    with collection.writing() as opened: opened.gallery.add(images, labels="name", progress=False)
    width, lost = opened.gallery.encoder.width, 0
    for turn in range(TIMES):
        adder = subprocess.Popen([sys.executable, "-c", ADD, str(collection.folder), str(turn), str(TOLD), str(width)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ids = [int(adder.stdout.readline())]
        reader = threading.Thread(target=lambda: ids.extend(int(line) for line in adder.stdout))
        reader.start()
        while reader.is_alive(): put_in_place(collection, finder.clearn, finder.slearn) # again and again, until all are added
        if adder.wait() or len(ids) != TOLD: raise RuntimeError(f"the one who adds was told {len(ids)} ids: {adder.stderr.read()[-500:]}")
        gallery = Gallery(collection.folder)
        lost += len(set(ids) - set(gallery.ids))
        gallery.remove(ids)
        gallery.close()
    collections.close()
    return lost


def replacement(place: Path) -> list[dict]:
    return [row("lost_after_replacement", lost_after_replacement(place), goal=0, better="lower")]


def trailer(place: Path) -> list[dict]:
    with serving(place / "root", token=True) as service:
        before = memory(service.pid)
        forget_peak(service.pid)
        trailers(service.port)
        return [row("trailer_peak_mb", memory(service.pid, "VmHWM") - before, goal=64, better="lower")]


def body(place: Path) -> list[dict]:
    with serving(place / "root", token=True) as service, ThreadPoolExecutor(3) as pool:
        asked = [head(service.port, "GET", path, "Content-Length: 1000000") for path in ("/healthz", "/v1")] + [head(service.port, "POST", "/login", "Content-Length: 3000")]
        return [row("body_open_seconds", max(pool.map(lambda begun: open_for(service.port, begun, every=3), asked)), goal=30, better="lower")]


def where(place: Path) -> list[dict]:
    with serving(place / "root") as service:
        service.http.put("/v1/collections/sent").raise_for_status()
        add(service.http, "sent", [picture(i) for i in range(3)])
        bodies = [wrong_where(5_000_000), unknown_keys(1_500_000), wrong_where(300_000), unknown_keys(70_000), b"[" * 900_000]
        with pings(service.port) as took:
            for sent in bodies: service.http.post("/v1/collections/sent/search", content=sent, headers={"Content-Type": "application/json"})
        return [row("where_loop_blocked_ms", 1000 * max(took), goal=100, better="lower")]


def pixels(place: Path) -> list[dict]:
    bomb = grey_png()
    with serving(place / "root") as service:
        service.http.put("/v1/collections/sent").raise_for_status()
        add(service.http, "sent", [picture(i) for i in range(3)])
        ask = lambda: service.http.post("/v1/collections/sent/search", content=bomb, headers={"Content-Type": "image/png"})
        before = memory(service.pid)
        forget_peak(service.pid)
        if ask().status_code not in (200, 422): raise RuntimeError("neither found nor refused")
        one = memory(service.pid, "VmHWM") - before
        id, = service.http.post("/v1/collections/sent/items", files=[("files", ("bomb.png", bomb))]).json()["items"] or [{"id": None}]
        forget_peak(service.pid)
        before, four = memory(service.pid), 0.
        if id["id"] is not None:
            with ThreadPoolExecutor(4) as pool: list(pool.map(lambda size: service.http.get(f"/v1/collections/sent/items/{id['id']}/thumbnail", params={"size": size}), range(100, 104)))
            four = memory(service.pid, "VmHWM") - before
        return [row("pixels_peak_mb", one, goal=600, better="lower"), row("four_thumbnails_peak_mb", four, goal=2000, better="lower")]


def copies(place: Path) -> list[dict]:
    with serving(place / "root") as service:
        service.http.put("/v1/collections/crowd").raise_for_status()
        add(service.http, "crowd", [picture(i) for i in range(CROWD)])
        address, stop = f"http://127.0.0.1:{service.port}/v1/collections/crowd/duplicates", threading.Event()
        asked = [picture(i) for i in range(20)]

        def search(i: int) -> float:
            start = time.perf_counter()
            answer = service.http.post("/v1/collections/crowd/search", content=asked[i % 20], headers={"Content-Type": "image/jpeg"})
            if answer.status_code != 200: raise RuntimeError(answer.text)
            return time.perf_counter() - start

        def insist() -> None:
            with httpx.Client(timeout=5) as client:
                while not stop.is_set():
                    try: time.sleep(5 * (client.get(address).status_code == 429)) # as the answer asks for
                    except httpx.HTTPError: pass

        for i in range(20): search(i)
        quiet = [search(i) for i in range(SEARCHES)]
        crowd = [threading.Thread(target=insist, daemon=True) for _ in range(44)]
        for one in crowd: one.start()
        time.sleep(2)
        busy = [search(i) for i in range(SEARCHES)]
        stop.set()
        for one in crowd: one.join()
        return [row("search_p99_under_duplicates_over_quiet", float(np.percentile(busy, 99) / np.percentile(quiet, 99)), goal=3, better="lower")]


def disk(place: Path) -> list[dict]:
    (place / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(place / "disk")], capture_output=True).returncode:
        print("a full disk: no file system can be mounted here (root is wanted); left out", file=sys.stderr)
        return []
    try:
        with serving(place / "disk" / "root") as service:
            service.http.put("/v1/collections/sent").raise_for_status()
            ids = add(service.http, "sent", [picture(i) for i in range(6)])
            with open(place / "disk" / "ballast", "wb", buffering=0) as ballast:
                for size in (2**20, 1):
                    try:
                        while ballast.write(bytes(size)): pass
                    except OSError: pass
            answers = [service.http.post("/v1/collections/sent/search", content=picture(i), headers={"Content-Type": "image/jpeg"}) for i in range(6)]
            answers += [service.http.post("/v1/collections/sent/search", json={"item": id}) for id in ids]
            answers += [service.http.delete(f"/v1/collections/sent/items/{ids[-1]}")]
            answers += [service.http.post("/v1/collections/sent/search", json={"item": id}) for id in ids[:-1]]
            return [row("full_disk_search_errors", sum(answer.status_code not in (200, 204) for answer in answers), goal=0, better="lower")]
    finally: subprocess.run(["umount", "-l", str(place / "disk")], check=True)


def bits(place: Path) -> list[dict]:
    random, noticed = np.random.default_rng(0), 0
    gallery = Gallery(place / "gallery")
    gallery.import_embeddings([f"{i}.jpg" for i in range(50)], random.normal(size=(50, 2560)).astype(np.float32))
    gallery.close()
    for _ in range(24):
        id, bit = int(random.integers(1, 51)), int(random.integers(2560 * 32))
        with closing(sqlite3.connect(place / "gallery" / "gallery.sqlite")) as file:
            whole = file.execute("SELECT pooled FROM vectors WHERE id = ?", [id]).fetchone()[0]
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            for vector in (bytes(flipped), whole):
                file.execute("UPDATE vectors SET pooled = ? WHERE id = ?", [vector, id])
                file.commit()
                if vector is not whole:
                    opened = Gallery(place / "gallery")
                    noticed += opened.check().damaged_vectors == [id]
                    opened.close()
    return [row("flipped_bits_noticed", noticed, goal=24)]


PARTS = {"replacement": replacement, "trailers": trailer, "body": body, "where": where, "pixels": pixels, "copies": copies, "disk": disk, "bits": bits}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--small", action="store_true", help="show in a moment that it runs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    args = parser.parse_args()
    if args.small: make_small()
    rows = []
    for part in args.only:
        place = Path(tempfile.mkdtemp(prefix="attacks-"))
        try: rows += PARTS[part](place)
        finally: shutil.rmtree(place, ignore_errors=True)
        print(*(f"{r['name']:<42}{r['value']:10.4g}" for r in rows[-2:]), sep="\n", file=sys.stderr)
    report([*rows, *measured_before(args.json, {r["name"] for r in rows})] if args.only != list(PARTS) else rows, args.json)
