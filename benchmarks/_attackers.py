"What a hostile caller does, for `attacks.py` and for the tests: a real server as a process of its own, and requests made byte by byte."
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
from PIL import Image

TOKEN = "correct-horse-battery-staple"
SERVE = [sys.executable, "-c", "from image_similarity.cli.commands import main; main()", "serve"]


@contextmanager
def serving(root: Path, *options: str, token: bool = False, env: dict | None = None) -> Iterator[SimpleNamespace]:
    "`image_similarity serve` as a process: the process, its port, a client, and what it logs."
    more = []
    if token:
        file = Path(root).with_name(f"{Path(root).name}-token")
        file.write_text(TOKEN)
        more = ["--token-file", str(file)]
    process = subprocess.Popen([*SERVE, str(root), "--port", "0", *more, *options], stderr=subprocess.PIPE, text=True, env=env)
    log = []
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", line := process.stderr.readline())):
            assert line, "the service did not start"
        threading.Thread(target=lambda: log.extend(process.stderr), daemon=True).start()
        headers = {"Authorization": f"Bearer {TOKEN}"} if token else {}
        with httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=120, headers=headers) as client:
            for _ in range(1200):
                try:
                    if client.get("/readyz").status_code == 200: break
                except httpx.HTTPError: pass
                time.sleep(.1)
            yield SimpleNamespace(process=process, pid=process.pid, port=int(found[1]), http=client, log=log, root=Path(root))
    finally:
        process.terminate()
        process.wait(60)


def memory(pid: int, what: str = "VmRSS") -> float:
    "Megabytes of a process; `VmHWM` is the most that it ever had."
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what)) / 1024


def forget_peak(pid: int) -> None:
    "Let `VmHWM` begin anew."
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def connected(port: int, **options) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=options.get("timeout", 20))


def head(port: int, method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *lines, "", ""]).encode()


def status(answer: bytes) -> int | None:
    return int(answer.split(b" ", 2)[1]) if answer[:5] == b"HTTP/" else None


def trailers(port: int, megabytes: int = 60, seconds: float = 10) -> int:
    "Send trailers without an end; how many bytes were taken."
    line, sent, begun = b"X-Trailer: " + b"x" * 8000 + b"\r\n", 0, time.monotonic()
    with connected(port) as connection:
        connection.sendall(head(port, "POST", "/login", "Transfer-Encoding: chunked") + b"0\r\n")
        try:
            while sent < megabytes * 1_000_000 and time.monotonic() - begun < seconds:
                connection.sendall(line)
                sent += len(line)
        except OSError: pass
    return sent


def open_for(port: int, begun: bytes, piece: bytes = b"x", every: float = .5, most: float = 120) -> float:
    "Seconds that a connection stays open while a byte comes now and then."
    start = time.monotonic()
    with connected(port, timeout=.01) as connection:
        connection.sendall(begun)
        while time.monotonic() - start < most:
            try:
                connection.sendall(piece)
                while connection.recv(65536): pass
                break
            except TimeoutError: time.sleep(every)
            except OSError: break
    return time.monotonic() - start


def grey_png(side: int = 10_000) -> bytes:
    "A small file of so many 16-bit grey pixels squared."
    def chunk(kind, body): return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
    row, pack = bytes(1 + 2 * side), zlib.compressobj(9)
    packed = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", side, side, 16, 0, 0, 0, 0)) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def picture(seed: int, size=(64, 48), kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(out, kind, **options)
    return out.getvalue()


def add(http: httpx.Client, name: str, pictures: list[bytes]) -> list[int]:
    "The ids of pictures that are sent."
    ids = []
    for start in range(0, len(pictures), 100):
        answer = http.post(f"/v1/collections/{name}/items", files=[("files", (f"{i}.jpg", p)) for i, p in enumerate(pictures[start:start + 100], start)])
        answer.raise_for_status()
        ids += [item["id"] for item in answer.json()["items"]]
    return ids


@contextmanager
def pings(port: int, every: float = .01) -> Iterator[list[float]]:
    "Seconds that `/healthz`, which needs nothing but the event loop, takes meanwhile."
    took, stop = [], threading.Event()

    def ask():
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            while not stop.is_set():
                start = time.monotonic()
                client.get("/healthz")
                took.append(time.monotonic() - start)
                time.sleep(every)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(.2)
    took.clear()
    try: yield took
    finally:
        stop.set()
        thread.join()


def wrong_where(n: int) -> bytes:
    "A search with so many values that are none."
    return b'{"item": 1, "where": {"label": [' + b",".join([b"{}"] * n) + b"]}}"


def unknown_keys(n: int) -> bytes:
    return json.dumps({"item": 1, **{f"k{i}": 1 for i in range(n)}}).encode()
