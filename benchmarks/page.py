"""What the page costs beside nothing: page.py [--json OUT] [--small], in a real Chromium (Debian: apt-get install chromium), driven by Playwright

- grid_frame_over_empty: 10,000 pictures, scrolled a little each frame; the 95th percentile of the time between two frames, over that of a grid of as many
  empty boxes in the same browser, by turns.
- map_frame_over_empty: 100,000 points, zoomed and moved each frame, over a canvas that draws as many boxes and does nothing else.
- first_result_over_api: from a click on a picture until the best result is on the screen, over the answer of the API alone, asked by the same browser.

Everything runs on the cores of one machine: the browser, which has no GPU, and the service that draws the thumbnails.
"""
import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from _report import interval, report, row
from playwright.sync_api import Page, sync_playwright
from service import serving

from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.feedback import Places
from image_similarity.gallery.gallery import Gallery

PICTURES, POINTS, TURNS, FRAMES, SEARCHES = 10_000, 100_000, 7, 240, 30
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def make_small() -> None:
    "Run as briefly as can be."
    global PICTURES, POINTS, TURNS, FRAMES, SEARCHES
    PICTURES, POINTS, TURNS, FRAMES, SEARCHES = 400, 2_000, 1, 20, 2


def make_galleries(root: Path) -> None:
    "`many`: so many names of 48 drawn pictures, and vectors; `points`: vectors with places on a map, and no files."
    files = sorted((sample_pets(root / ".drawn", n_breeds=4, n_per_breed=12, size=256) / "images").iterdir())
    rng, encoder = np.random.default_rng(0), create_encoder()
    links = [root / ".drawn" / "links" / f"{n:06}.jpg" for n in range(PICTURES)]
    links[0].parent.mkdir()
    for n, link in enumerate(links):
        os.link(files[n % len(files)], link)
    many = Gallery(root / "many", encoder)
    many.import_embeddings(links, rng.random((PICTURES, encoder.width), np.float32), [f"label {n % 20}" for n in range(PICTURES)])
    many.close()
    points = Gallery(root / "points")
    ids = points.import_embeddings([root / f"{n}.jpg" for n in range(POINTS)], rng.random((POINTS, 4), np.float32), [f"label {n % 20}" for n in range(POINTS)])
    centres = rng.uniform(-.8, .8, (40, 2))
    xy = np.clip(centres[np.arange(POINTS) % 40] + rng.normal(0, .06, (POINTS, 2)), -1, 1)
    points.catalogue.put_places(Places(np.array(ids), xy.astype(np.float32), [f"group {n % 40}" for n in range(POINTS)], np.zeros(POINTS, bool)))
    points.close()


# The milliseconds between frames, in each of which something is done: STEP is a function of the frame's number.
FRAMES_OF = """(frames) => new Promise((done) => {
    const act = STEP, times = [];
    let last = null;
    const frame = (now) => {
        if (last !== null) times.push(now - last);
        last = now;
        if (times.length === frames) return done(times);
        act(times.length);
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""
SCROLL = "(() => { const box = document.querySelector('.wall'); box.scrollTop = 0; return (n) => { box.scrollTop += 40; }; })()"
MOVE = """(() => {
    const plane = document.querySelector('.plane'), box = plane.getBoundingClientRect();
    return (n) => plane.dispatchEvent(new WheelEvent('wheel', {deltaY: n % 40 < 20 ? -12 : 12, clientX: box.left + box.width * .4, clientY: box.top + box.height * .6, cancelable: true}));
})()"""
EMPTY_GRID = """(n) => { document.body.innerHTML = '<div class="wall" style="height: 780px; overflow-y: auto"><div style="display: grid; grid-template-columns: repeat(7, 1fr); gap: 4px"></div></div>';
    document.querySelector('.wall').firstChild.innerHTML = '<div style="height: 190px; background: #ddd"></div>'.repeat(n); }"""
EMPTY_MAP = """(n) => { document.body.innerHTML = '<canvas class="plane" width="1000" height="700"></canvas>'; window.xs = Float32Array.from({length: n}, Math.random); window.ys = Float32Array.from({length: n}, Math.random); }"""
DRAW = """(() => {
    const pen = document.querySelector('canvas').getContext('2d');
    return (k) => { pen.clearRect(0, 0, 1000, 700); pen.fillStyle = '#17664f'; const scale = 1 + (k % 40) / 40; for (let i = 0; i < xs.length; i++) pen.fillRect(xs[i] * 1000 * scale, ys[i] * 700 * scale, 3, 3); };
})()"""


def frame_p95(page: Page, step: str) -> float:
    "Milliseconds."
    return float(np.percentile(page.evaluate(FRAMES_OF.replace("STEP", step), FRAMES), 95))


def over_empty(page: Page, address: str, view: str, step: str, make_empty: str, n: int, empty_step: str) -> tuple[list[float], list[float]]:
    "The 95th percentiles of ours and of the empty one, by turns."
    ours, empty = [], []
    for _ in range(TURNS):
        page.goto(f"{address}/whole?{view}")
        page.wait_for_selector("#stage:not([aria-busy])")
        page.wait_for_timeout(1000)
        ours.append(frame_p95(page, step))
        page.goto("about:blank")
        page.evaluate(make_empty, n)
        page.wait_for_timeout(500)
        empty.append(frame_p95(page, empty_step))
    return ours, empty


BARE = """async (id) => { const t = performance.now(); const r = await fetch('/v1/collections/many/search', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({item: id, top_k: 24, hide_duplicates: false})}); await r.json(); return performance.now() - t; }"""
WAITED = """(at) => new Promise((done) => {
    const t = performance.now(), tile = document.querySelectorAll('.grid li .open')[at];
    const look = () => { const seen = document.querySelector('.grid:not(.waiting) li .sure'); if (seen) requestAnimationFrame(() => done(performance.now() - t)); else requestAnimationFrame(look); };
    tile.click();
    look();
})"""


def first_results(page: Page, address: str) -> tuple[list[float], list[float]]:
    "What a person waits, and what the API takes, in milliseconds, for the same queries by turns."
    waited, bare = [], []
    for n in range(SEARCHES + 1):
        page.goto(f"{address}/?collection=many")
        page.wait_for_selector(".grid:not(.waiting) li")
        page.wait_for_load_state("networkidle")
        id = int(page.locator(".grid li").nth(n % 20).get_attribute("data-id"))
        if n % 2:
            bare.append(page.evaluate(BARE, id))
        waited.append(page.evaluate(WAITED, n % 20))
        if not n % 2:
            bare.append(page.evaluate(BARE, id))
    return waited[1:], bare[1:]  # the first reads what is kept from the disk


def measure() -> list[dict]:
    "All rows."
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("there is no Chromium on this PATH (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="page-") as folder, sync_playwright() as playwright:
        root = Path(folder)
        make_galleries(root)
        with serving(root) as (_, port):
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            page, address = browser.new_page(viewport={"width": 1280, "height": 860}), f"http://127.0.0.1:{port}"
            page.set_default_timeout(120_000)
            grid = over_empty(page, address, "collection=many&view=grid", SCROLL, EMPTY_GRID, PICTURES, SCROLL)
            chart = over_empty(page, address, "collection=points&view=map", MOVE, EMPTY_MAP, POINTS, DRAW)
            waited, bare = first_results(page, address)
            browser.close()
    ratio = lambda pair: interval(np.array(pair[0]) / np.array(pair[1]))
    return [
        row("grid_frame_over_empty", *ratio(grid), goal=1.5, better="lower", against=f"{PICTURES:,} empty boxes: p95 frame {np.median(grid[1]):.1f} ms, the grid {np.median(grid[0]):.1f} ms"),
        row("map_frame_over_empty", *ratio(chart), goal=1.5, better="lower", against=f"a canvas of {POINTS:,} boxes: p95 frame {np.median(chart[1]):.1f} ms, the map {np.median(chart[0]):.1f} ms"),
        row("first_result_over_api", *ratio((waited, bare)), goal=1.5, better="lower", against=f"the bare answer in {np.median(bare):.0f} ms; a person waits {np.median(waited):.0f} ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rows to this file")
    parser.add_argument("--small", action="store_true", help="as briefly as can be, to try it")
    args = parser.parse_args()
    if args.small:
        make_small()
    report(measure(), args.json)


if __name__ == "__main__":
    main()
