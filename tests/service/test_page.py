"The page in a real Chromium, on a real server: what a reader does with it, what it says when something is wrong, and who can use it."
import base64
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode, urlsplit
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from image_similarity.images.console import percent

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "image_similarity" / "service" / "static"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
TOKEN = "correct-horse-battery-staple"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
TILES = ".grid:not(.waiting) li"


# --- a server, a browser

@pytest.fixture(scope="module")
def root(small, tmp_path_factory):
    "The folder of the collections: `pets`, a model, and two empty ones whose encoder takes small pictures, to train in."
    from image_similarity.gallery.gallery import Gallery
    root = tmp_path_factory.mktemp("collections")
    small.finder.save(root / "pets")
    Gallery(root / "parts", small.encoder, regions=True).add(small.data.files[:6], progress=False)
    for name in "learning", "stopped":
        gallery = Gallery(root / name, small.encoder)
        gallery.import_embeddings([], np.zeros((0, gallery.encoder.width)))
        gallery.close()
    return root


@pytest.fixture(scope="module")
def server(root):
    pytest.importorskip("fastapi", reason="the service: pip install 'image_similarity[serve]'")
    from image_similarity.service.protocol import Limits
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    with running(create_app(root, limits=Limits(query_bytes=100_000))) as address: yield address


@pytest.fixture(scope="module")
def api(server):
    with httpx.Client(base_url=server, timeout=60) as client: yield client


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: pip install 'image_similarity[dev]'")
    if CHROMIUM is None: pytest.skip("there is no Chromium on this PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def opened(chromium, server, **settings):
    "A page of its own; what goes wrong in it unseen, or leaves this machine, fails the test."
    context = chromium.new_context(base_url=server, viewport=DESKTOP, **settings)
    context.set_default_timeout(20_000)
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda e: wrong.append(f"uncaught: {e}"))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" and "Failed to load resource" not in m.text else None)
    page.on("dialog", lambda d: (wrong.append(f"a dialog: {d.message}"), d.dismiss()))
    page.on("request", lambda r: None if r.url.startswith((server, "blob:", "data:")) else wrong.append(f"asked for {r.url}"))
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def page(chromium, server):
    with opened(chromium, server) as page: yield page


def show(page, **asked):
    "Open the page with `asked` in its address."
    page.goto(f"/?{urlencode(asked, doseq=True)}")
    settled(page)


def settled(page):
    "Wait until the page shows what it was asked for."
    page.wait_for_selector("#results:not([aria-busy])")


def counted(page, n):
    "Wait until so many pictures are shown. While an answer is on its way the grid is empty, or holds twelve places for pictures."
    page.wait_for_function("([tiles, n]) => document.querySelectorAll(tiles).length === n", arg=[TILES, n])


def held_back(page, held):
    "The request that a route has held back, as soon as there is one."
    while not held: page.wait_for_timeout(20)
    return held.pop()


def check(page):
    "Nobody is shut out: axe finds nothing, in light and in dark, and at a phone's width there is no sideways scrolling."
    from axe_playwright_python.sync_playwright import Axe
    for size, scheme in (DESKTOP, "light"), (PHONE, "dark"):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")


DROP = """([name, type, content]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name, {type}));
    %s
}"""

def drop(page, file, type="image/jpeg"):
    page.evaluate(DROP % """for (const kind of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));""", as_sent(file, type))


def paste(page, file, type="image/jpeg"):
    page.evaluate(DROP % "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true}));", as_sent(file, type))


def as_sent(file, type): return [file.name, type, base64.b64encode(file.read_bytes()).decode()]


def read(page):
    "The grid: label (if any item has one), file and figure of each tile."
    def part(li, name): return " ".join(li.locator(name).all_inner_texts()) or None
    return [tuple(part(li, name) for name in (".label", ".file", ".sure")) for li in page.locator(TILES).all()]


def told(answer):
    "The same of an answer of the API."
    by = answer["compared_by"]
    def figure(r):
        if by == "probability": return f"pair {percent(r['pair_probability'])}" if r["probability"] is None else f"match {percent(r['probability'])}"
        if by == "marks": return f"log odds {r['score']:.2f}"
        return f"cosine {r['score']:.2f}" if by == "cosine" else f"{r['score']:.1f} σ above average"
    labelled = any(r["label"] for r in answer["results"])
    return [(r["label"] or "no label" if labelled else None, r["file"], figure(r)) for r in answer["results"]]


def searched(api, file, **options):
    return api.post("/v1/collections/pets/search", content=file.read_bytes(), headers={"Content-Type": "image/jpeg"},
                    params={"options": json.dumps({"top_k": 24, **options})}).json()


# --- asking

@pytest.mark.parametrize("give", [drop, paste, lambda page, file: page.set_input_files("#file", file)], ids=["drop", "paste", "choose"])
def test_a_picture_is_searched_with(page, api, small, give):
    show(page, collection="pets")
    give(page, small.query)
    page.wait_for_selector(f"{TILES} .sure")
    assert read(page) == told(searched(api, small.query))
    assert page.locator(".query-file").inner_text() == small.query.name
    assert page.locator("#query-image").evaluate("image => image.decode().then(() => image.naturalWidth)") == Image.open(small.query).width
    predicted = searched(api, small.query)["query"]["predicted"]
    assert predicted["label"] in page.locator(".query-class").inner_text()
    assert page.locator("#live").inner_text().startswith("24 pictures found. Most similar: ")
    assert all(page.locator("img:not(.overlay)").evaluate_all("images => images.map(image => image.alt)"))
    assert page.locator(f"{TILES} img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    check(page)


def test_the_collection_is_shown_and_each_of_its_pictures_can_be_the_query(page, api):
    show(page, collection="pets")
    items = api.get("/v1/collections/pets/items").json()["items"]
    assert page.locator(f"{TILES} .file").all_inner_texts() == [i["file"] for i in items[:24]]
    check(page)
    page.locator(f"{TILES} .open").nth(3).click()
    page.wait_for_selector(f"{TILES} .sure")
    assert f"item={items[3]['id']}" in page.url
    assert read(page) == told(api.post("/v1/collections/pets/search", json={"item": items[3]["id"], "top_k": 24}).json())


def test_what_is_not_quite_sure_is_not_called_100_percent(page):
    def sure(route):
        answer = route.fetch().json()
        for result, probability in zip(answer["results"], (1, .9996, .9994, .0004)): result["probability"] = probability
        route.fulfill(json=answer)
    page.route("**/search*", sure)
    show(page, collection="pets", item=1)
    assert [figure for *_, figure in read(page)][:4] == ["match 100.0%", "match >99.9%", "match 99.9%", "match 0.0%"]
    page.locator(f"{TILES} .open").nth(1).click()
    page.wait_for_selector("#compare[open]")
    assert page.locator("#compare-title").inner_text() == ">99.9% likely to match"


def test_more_is_shown_when_asked_for(page, api):
    show(page, collection="pets", item=1, count=6)
    assert len(read(page)) == 6
    page.get_by_role("button", name="Show more").click()
    page.wait_for_selector(f"{TILES}:nth-child(12)")
    assert read(page) == told(api.post("/v1/collections/pets/search", json={"item": 1, "top_k": 12}).json())
    assert page.evaluate("[...document.activeElement.closest('ul').children].indexOf(document.activeElement.closest('li'))") == 6


@pytest.mark.long
def test_words_are_searched_with_alone_and_beside_a_picture(page, api, small):
    pytest.importorskip("sentence_transformers", reason="words: pip install 'image_similarity[text]'")
    api.put("/v1/collections/words")
    api.post("/v1/collections/words/items", files=[("files", (f.name, f.read_bytes())) for f in small.data.files[:6]])
    show(page, collection="words")
    page.keyboard.press("/")
    page.keyboard.type("a brown dog")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{TILES} .sure", timeout=90_000) # the text encoder is loaded
    assert "text=a+brown+dog" in page.url
    assert read(page) == told(api.post("/v1/collections/words/search", json={"text": "a brown dog"}).json())
    check(page)
    drop(page, small.query)
    page.wait_for_selector("#mix-row:not([hidden])")
    page.locator("#mix").fill("0.8")
    page.wait_for_url("**mix=0.8**")
    settled(page)
    mixture = [{"image": base64.b64encode(small.query.read_bytes()).decode(), "weight": .2}, {"text": "a brown dog", "weight": .8}]
    answer = api.post("/v1/collections/words/search", json={"mixture": mixture}).json()
    assert answer["compared_by"] == "mixture"
    assert [file for _, file, _ in read(page)] == [r["file"] for r in answer["results"]]
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#compare[open]")
    assert page.locator("#pair-query .role").inner_text() == "Query, and “a brown dog”" and page.locator(".overlay").count() == 0
    check(page)
    page.keyboard.press("Escape")
    page.wait_for_selector("#compare", state="hidden")
    second = read(page)[1][1]
    page.get_by_role("button", name="More like this").nth(1).click()
    page.wait_for_function("name => document.querySelector('.query-file').textContent === name", arg=second) # it keeps its name
    assert page.locator("#text").input_value() == "" and "mix=" not in page.url
    page.go_back()
    page.wait_for_selector("#mix-row:not([hidden])")
    settled(page)
    page.get_by_role("button", name="Clear").click()
    settled(page)
    assert "picture=" not in page.url and "text=" in page.url
    page.locator("#text").fill("")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "Say in a few words" in page.inner_text("#text-wrong")


# --- going on, and back

def test_more_like_this_and_back_and_forward_and_a_reload(page, api, small):
    show(page, collection="pets")
    drop(page, small.query)
    page.wait_for_selector(f"{TILES} .sure")
    first = read(page)
    page.get_by_role("button", name="More like this").nth(1).click()
    page.wait_for_function("file => document.querySelector('.query-file').textContent === file", arg=first[1][1])
    settled(page)
    second, item = read(page), int(re.search(r"item=(\d+)", page.url)[1])
    assert second == told(api.post("/v1/collections/pets/search", json={"item": item, "top_k": 24}).json())
    assert first[1][1] not in [file for _, file, _ in second]
    page.go_back()
    page.wait_for_function("name => document.querySelector('.query-file').textContent === name", arg=small.query.name)
    settled(page)
    assert read(page) == first
    page.reload()
    settled(page)
    assert read(page) == first and page.locator(".query-file").inner_text() == small.query.name
    page.go_forward()
    page.wait_for_function("file => document.querySelector('.query-file').textContent === file", arg=first[1][1])
    settled(page)
    assert read(page) == second


def test_a_picture_of_another_browser_is_asked_for_again(page, small):
    show(page, collection="pets", picture="nowhere")
    assert page.locator(".panel h3").inner_text() == "This picture is no longer in this browser"
    check(page)
    drop(page, small.query)
    page.wait_for_selector(f"{TILES} .sure")


def test_recommended_pictures_of_an_item_and_back(page, api):
    show(page, collection="pets", item=1)
    similar = read(page)
    page.get_by_role("button", name="Recommended").click()
    page.wait_for_selector("#results-title >> text=Recommended")
    settled(page)
    expected = api.get("/v1/collections/pets/items/1/recommendations", params={"top_k": 24}).json()["results"]
    assert read(page) == told({"results": expected, "compared_by": "probability"})
    assert "view=recommended" in page.url and page.get_by_role("button", name="Recommended").get_attribute("aria-pressed") == "true"
    assert page.locator("#threshold-row").is_visible() and not page.locator("#filters").is_visible() # what is less similar than asked for is not recommended either
    least = min(.99, [r["pair_probability"] if r["probability"] is None else r["probability"] for r in expected][len(expected) // 2])
    page.locator("#threshold").fill(f"{least:.2f}")
    above = sum((r["pair_probability"] if r["probability"] is None else r["probability"]) >= float(f"{least:.2f}") for r in expected)
    assert 0 < above < len(expected)
    counted(page, above)
    page.locator("#threshold").fill("0")
    counted(page, len(expected))
    check(page)
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#compare[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#compare", state="hidden")
    page.get_by_role("button", name="Most similar").click()
    page.wait_for_selector("#results-title >> text=Most similar")
    settled(page)
    assert read(page) == similar
    page.go_back()
    page.wait_for_selector("#results-title >> text=Recommended")
    page.get_by_role("button", name="More like this").first.click()
    page.wait_for_selector("#results-title >> text=Most similar")
    assert "view=" not in page.url


@pytest.mark.long
def test_what_is_there_twice(page, api, small):
    api.put("/v1/collections/twice")
    photo = Image.open(small.query).convert("RGB").resize((400, 400))
    def encoded(image, kind):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()
    sent = [("whole.png", encoded(photo, "PNG")), ("mirrored.png", encoded(ImageOps.mirror(photo), "PNG")), ("other.jpg", small.data.files[0].read_bytes())]
    api.post("/v1/collections/twice/items", files=[("files", f) for f in sent], data={"options": '{"label": "scanned"}'})
    api.post("/v1/collections/twice/items", files=[("files", ("small.jpg", encoded(photo.resize((200, 200)), "JPEG")))], data={"options": '{"label": "from a phone"}'})
    page.set_default_timeout(120_000) # copies are looked for in a process of their own, which lets all others go first
    show(page, collection="twice")
    page.get_by_role("button", name="Duplicates").click()
    page.wait_for_selector(".job[data-state=done]") # what was found until then may be less
    settled(page)
    assert page.locator(".copies h3").all_inner_texts() == ["The same photo, 3 times"]
    files, notes = (page.locator(f".copies {part}").all_inner_texts() for part in (".file", ".note"))
    group, = api.get("/v1/collections/twice/duplicates", timeout=120).json()["groups"]
    assert set(files) == {"whole.png", "mirrored.png", "small.jpg"} and files == [group["keep"]["file"], *(c["item"]["file"] for c in group["copies"])]
    assert notes[0].startswith("keep: ") and sorted(notes[1:]) == sorted(c["relation"] for c in group["copies"]) and any("mirrored" in note for note in notes)
    check(page)
    page.get_by_label("scanned").check()
    page.wait_for_selector(".copies h3 >> text=The same photo, 2 times")
    page.get_by_label("scanned").uncheck()
    page.get_by_label("from a phone").check()
    page.wait_for_selector(".panel h3 >> text=No duplicates")
    check(page)
    page.get_by_role("button", name="All pictures").click()
    page.get_by_label("from a phone").uncheck()
    counted(page, 4)
    page.get_by_role("button", name="Duplicates").click()
    page.locator(".copies .open").first.click()
    page.wait_for_selector(f"{TILES} .sure")
    assert "item=" in page.url and "view=" not in page.url


# --- comparing

def test_the_explanation_lies_over_both_pictures(page, api, small):
    show(page, collection="pets")
    drop(page, small.query)
    page.wait_for_selector(f"{TILES} .sure")
    best = read(page)[0]
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#pair-match .overlay")
    first = searched(api, small.query)["results"][0]
    assert best[2] == f"pair {percent(first['pair_probability'])}" and first["probability"] is None # of fewer than five classes only that of the pair is known
    assert page.locator("#compare-title").inner_text() == f"As a {best[2]} likely to match; in this collection it cannot be said: {first['reason']}"
    for figure in "#pair-query", "#pair-match":
        picture, overlay = (page.locator(f"{figure} {image}") for image in ("img:not(.overlay)", ".overlay"))
        assert picture.bounding_box() == overlay.bounding_box()
        sides = [image.evaluate("i => i.decode().then(() => i.naturalWidth / i.naturalHeight)") for image in (picture, overlay)]
        assert sides[0] == pytest.approx(sides[1], abs=.02) # so that object-fit lays one over the other
    page.locator("#opacity").fill("0.25")
    assert page.locator("#pair-query .overlay").evaluate("o => getComputedStyle(o).opacity") == "0.25"
    check(page)
    page.locator("#overlay").uncheck()
    assert page.locator(".overlay").count() == 0 and not page.locator("#opacity").is_visible()
    page.locator("#overlay").check()
    page.wait_for_selector("#pair-match .overlay")
    assert page.locator("#pair-match .overlay").evaluate("o => o.style.opacity") == "0.25"


def test_a_comparison_is_in_the_address_and_back_closes_it(page):
    show(page, collection="pets", item=1)
    page.locator(f"{TILES} .open").nth(2).click()
    page.wait_for_selector("#compare[open]")
    assert "match=" in page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#pair-match .role').textContent.startsWith('Result 4 ')")
    page.reload()
    page.wait_for_selector("#compare[open]")
    assert page.locator("#pair-match .role").inner_text().startswith("Result 4 ")
    page.go_back()
    page.wait_for_selector("#compare", state="hidden")
    assert "match=" not in page.url and len(read(page)) == 23


# --- refining

def test_a_label_a_threshold_and_clearing_them(page, api):
    show(page, collection="pets", item=1)
    everything = read(page)
    label, other = (found["label"] for found in api.get("/v1/collections/pets").json()["labels"][:2])
    page.get_by_label(label).check()
    settled(page)
    assert 0 < len(read(page)) < len(everything)
    assert {found for found, *_ in read(page)} == {label} and "label=" in page.url
    page.get_by_label(other).check()
    page.wait_for_function("() => new Set([...document.querySelectorAll('.grid .label')].map(l => l.textContent)).size === 2")
    page.get_by_role("button", name="Clear filters").click()
    settled(page)
    assert read(page) == everything

    answer = api.post("/v1/collections/pets/search", json={"item": 1, "top_k": 24, "threshold": .5}).json()
    page.locator("#threshold").fill("0.5")
    settled(page)
    assert 0 < len(answer["results"]) < len(everything) and all(r["probability"] is None and r["pair_probability"] >= .5 for r in answer["results"])
    assert read(page) == told(answer) and f"{answer['below_threshold']} not similar enough" in page.locator("#results-note").inner_text()
    page.go_back()
    counted(page, len(everything))
    assert page.locator("#threshold").input_value() == "0"


@pytest.fixture(scope="module")
def sure(small, tmp_path_factory):
    "A server with a model that was calibrated on many classes, and its finder."
    from dataclasses import replace

    from image_similarity.finder.finder import SimilarityFinder
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    root = tmp_path_factory.mktemp("sure")
    finder = SimilarityFinder.load(small.finder.save(root / "pets"))
    spent = tuple(np.linspace(0, .9, 30).tolist())
    finder._own = replace(finder._own, world=replace(finder._own.world, classes=30, spent=spent, spent_new=spent, searched=len(finder)))
    finder.save(root / "pets")
    finder = SimilarityFinder.load(root / "pets")
    with running(create_app(root)) as address: yield SimpleNamespace(address=address, finder=finder)


@pytest.mark.long
def test_a_set_that_holds_a_match_is_asked_for_and_promised(chromium, sure):
    picture = sure.finder.files[0]
    found = sure.finder.search(picture, coverage=.8)
    with httpx.Client(base_url=sure.address, timeout=60) as api:
        ask = lambda **options: api.post("/v1/collections/pets/search", json={"item": 1, **options})
        answer = ask(coverage=.8, top_k=50).json()
        assert [r["id"] for r in answer["results"]] == [r.id for r in found] and answer["coverage"] == found.coverage and "80%" in found.coverage
        assert "cut to its first 1" in ask(coverage=.8, top_k=1).json()["coverage"] and len(found) > 1
        refusal = ask(coverage=.99)
        assert refusal.status_code == 422 and "cannot be shown" in refusal.json()["message"]
    with opened(chromium, sure.address) as page:
        show(page, collection="pets", item=1)
        page.locator("#coverage").select_option("0.8")
        counted(page, len(found))
        assert found.coverage in page.locator("#results-note").inner_text() and "coverage=0.8" in page.url
        assert "1 active" in page.locator("#refine-count").inner_text()
        page.go_back()
        page.wait_for_function("([tiles, n]) => document.querySelectorAll(tiles).length > n", arg=[TILES, len(found)])
        assert page.locator("#coverage").input_value() == "0"


def test_a_model_that_can_promise_nothing_says_so_on_the_page(page):
    show(page, collection="pets", item=1, coverage=.9) # three classes are too few
    assert "five or more classes" in page.locator(".panel").inner_text()
    page.locator("#coverage").select_option("0")
    page.wait_for_selector(f"{TILES} .sure")


def test_nothing_is_similar_enough(page):
    show(page, collection="pets", item=1, threshold=1)
    assert page.locator(".panel h3").inner_text() == "Nothing is similar enough"
    check(page)
    page.get_by_role("button", name="Show them anyway").click()
    page.wait_for_selector(f"{TILES} .sure")


@pytest.mark.long
def test_copies_are_looked_for_in_the_background_and_decided_about_once(page, api, small, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n, file in enumerate(small.data.files[:2]):
        photo = Image.open(file).convert("RGB").resize((240, 240))
        photo.save(folder / f"{n}.png")
        photo.save(folder / f"{n}_small.jpg", quality=60)
    sent = [("files", (f.name, f.read_bytes())) for f in sorted(folder.iterdir())]
    api.put("/v1/collections/tidied")
    api.post("/v1/collections/tidied/items", files=sent)
    assert api.get("/v1/collections/tidied/duplicates/kept").status_code == 404
    page.set_default_timeout(120_000)
    show(page, collection="tidied", view="duplicates")
    page.wait_for_selector(".copies")
    page.wait_for_selector(".job[data-state=done] >> text=2 photos there more than once.")
    page.wait_for_function("() => document.querySelectorAll('.copies').length === 2")
    check(page)
    job, = api.get("/v1/jobs?collection=tidied").json()["jobs"]
    assert (job["kind"], job["state"], job["result"]["copies"]) == ("duplicates", "done", 2)
    kept = api.get("/v1/collections/tidied/duplicates/kept").json()
    assert (kept["total"], kept["partial"], kept["stale"]) == (2, False, False)
    page.get_by_role("button", name="not copies: ").first.click()
    page.wait_for_function("() => document.querySelectorAll('.copies').length === 1")
    page.get_by_role("button", name="keep both: ").click()
    page.wait_for_selector(".panel h3 >> text=No duplicates")
    show(page, collection="tidied", view="duplicates") # kept and decided: nothing is looked for again
    page.wait_for_selector(".panel h3 >> text=No duplicates")
    assert len(api.get("/v1/jobs?collection=tidied").json()["jobs"]) == 1
    api.post("/v1/collections/tidied/items", files=[("files", ("new.jpg", sent[0][1][1] + b"0"))])
    assert api.get("/v1/collections/tidied/duplicates/kept").json()["stale"]
    show(page, collection="tidied", view="duplicates")
    page.get_by_role("button", name="Look for copies again").click()
    page.wait_for_selector(".copies")
    while any(j["state"] in ("queued", "running") for j in api.get("/v1/jobs?collection=tidied").json()["jobs"]): page.wait_for_timeout(200) # or else it is not deleted
    assert api.delete("/v1/collections/tidied").status_code == 204
    api.put("/v1/collections/tidied")
    assert api.get("/v1/collections/tidied/duplicates/kept").status_code == 404


def test_near_duplicates_are_hidden_and_metadata_filters(page, api, small, tmp_path):
    api.put("/v1/collections/copies")
    picture = Image.open(small.query).convert("RGB")
    picture.save(tmp_path / "original.png")
    picture.resize((200, 200)).save(tmp_path / "larger.jpg")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    others = [f for f in small.data.files if f != small.query][:3]
    for year, files in (2020, [tmp_path / "original.png", tmp_path / "larger.jpg", others[0]]), (2021, [tmp_path / "mirrored.png", *others[1:]]):
        api.post("/v1/collections/copies/items", files=[("files", (f.name, f.read_bytes())) for f in files], data={"options": json.dumps({"metadata": {"year": year}})})
    show(page, collection="copies")
    page.locator(TILES, has_text="original.png").locator(".open").click()
    page.wait_for_selector(f"{TILES} .sure")
    assert {file for _, file, _ in read(page)[:2]} == {"larger.jpg", "mirrored.png"}
    page.get_by_label("Hide near-duplicates").check()
    page.wait_for_function("() => document.querySelector('#results-note').textContent.includes('2 near-duplicates hidden')")
    assert {file for _, file, _ in read(page)} == {f.name for f in others}
    page.get_by_label("year").select_option("2020")
    counted(page, 1)
    assert read(page)[0][1] == others[0].name and "meta.year=2020" in page.url
    page.reload()
    settled(page)
    assert len(read(page)) == 1 and page.get_by_label("year").evaluate("s => s.selectedOptions[0].textContent") == "2020"
    check(page)


# --- what a reader trips over

def test_results_are_seen_and_old_ones_are_not_there_to_be_clicked(page):
    show(page, collection="pets")
    page.set_viewport_size({"width": 700, "height": 420})
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    held = []
    page.route("**/search*", lambda route: held.append(route))
    page.locator(f"{TILES} .open").nth(20).click()
    page.wait_for_selector(".grid.waiting")
    assert page.locator(TILES).count() == 0 # nothing of before stands under the title of what comes
    held_back(page, held).continue_()
    page.wait_for_selector(f"{TILES} .sure")
    settled(page)
    seen = "(() => { const box = document.querySelector('.grid:not(.waiting) li .open').getBoundingClientRect(); return box.top >= 0 && box.top < innerHeight; })()"
    assert page.evaluate(seen)
    page.unroute("**/search*")
    page.set_viewport_size(PHONE)
    before = page.url
    page.locator(f"{TILES} .more").nth(3).click()
    page.wait_for_function("url => location.href !== url", arg=before)
    settled(page)
    page.wait_for_selector(f"{TILES} .sure")
    assert page.evaluate(seen)


def test_counts_say_what_they_count(page, api):
    label = api.get("/v1/collections/pets").json()["labels"][0]
    show(page, collection="pets", item=1, count=2, label=label["label"])
    assert page.inner_text("#results-note") == f"2 of {label['items']} pictures labelled {label['label']}"
    show(page, collection="pets", label=label["label"])
    assert page.inner_text("#results-note").startswith(f"{label['items']} pictures labelled {label['label']}.")


def test_another_collection_is_asked_nothing(page, small):
    show(page, collection="pets")
    drop(page, small.query)
    page.wait_for_selector(f"{TILES} .sure")
    page.select_option("#collection", "learning")
    page.wait_for_function("() => !location.search.includes('picture=')")
    settled(page)
    assert page.locator("#query-image").is_hidden()
    button, command = page.locator(".panel-actions button").first.bounding_box(), page.locator(".command").first.bounding_box()
    assert button["y"] < command["y"] # first what most will do


def test_what_is_the_matter_is_said(page, server):
    show(page, collection="pets")
    page.locator("#create-open").click()
    page.locator("#create-name").fill("my pets!")
    page.get_by_role("button", name="Create").click()
    assert "cannot be a name" in page.inner_text("#create-wrong") and "cannot be changed later" in page.inner_text("#encoder-rule")
    check(page)
    page.keyboard.press("Escape")
    assert httpx.post(f"{server}/logout").headers["location"] == "/" # nobody had to sign in
    assert httpx.get(f"{server}/login").headers["location"] == "/"


def test_moved_pictures_are_told_with_the_command(page):
    page.route("**/thumbnail*", lambda route: route.fulfill(status=404, json={"code": "not_found", "message": "gone"}))
    show(page, collection="pets")
    page.wait_for_selector(".gone code")
    assert page.inner_text(".gone code") == "image_similarity index FOLDER --gallery pets"
    check(page)


def test_a_training_is_seen_from_everywhere(page):
    page.route("**/v1/jobs?limit=20", lambda route: route.fulfill(json={"jobs": [{"id": "1", "collection": "learning", "kind": "train", "state": "running", "percent": 40}], "next": None}))
    for address in "/?collection=pets", "/whole?collection=pets":
        page.goto(address)
        page.wait_for_selector(".working a")
        assert page.inner_text(".working a") == "Training learning, 40%"


@pytest.mark.long
def test_the_square_that_was_looked_at_is_drawn(page, small, tmp_path):
    Image.open(small.query).convert("RGB").resize((240, 120)).save(tmp_path / "wide.png")
    show(page, collection="pets")
    drop(page, tmp_path / "wide.png", "image/png")
    page.wait_for_selector(f"{TILES} .sure")
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#pair-query .look", timeout=60_000)
    look, stage = page.locator("#pair-query .look").bounding_box(), page.locator("#pair-query .stage").bounding_box()
    assert abs(look["width"] - look["height"]) < 1 and look["width"] < stage["width"] and abs(look["x"] + look["width"] / 2 - stage["x"] - stage["width"] / 2) < 1


def test_a_finger_finds_every_button_and_swipes(page):
    page.set_viewport_size(PHONE)
    show(page, collection="pets", item=1)
    small_ones = page.evaluate("[...document.querySelectorAll('button, select, a.button')].filter(b => b.offsetParent && b.getBoundingClientRect().height < 43.9).map(b => b.outerHTML)")
    assert small_ones == []
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#compare[open]")
    box = page.locator("#compare").bounding_box()
    assert box["width"] >= PHONE["width"] - 1 and box["height"] >= PHONE["height"] - 1
    swipe = """(to) => { const at = (x) => [new Touch({identifier: 1, target: document.querySelector('.pair'), clientX: x, clientY: 200})], pair = document.querySelector('.pair');
        pair.dispatchEvent(new TouchEvent('touchstart', {touches: at(200), changedTouches: at(200)})); pair.dispatchEvent(new TouchEvent('touchend', {touches: [], changedTouches: at(to)})); }"""
    page.evaluate(swipe, 60)
    page.wait_for_function("() => document.querySelector('#pair-match .role').textContent.startsWith('Result 2 ')")
    page.evaluate(swipe, 320)
    page.wait_for_function("() => document.querySelector('#pair-match .role').textContent.startsWith('Result 1 ')")


# --- keys

def test_everything_by_keyboard(page, api):
    show(page, collection="pets", item=1)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == ("text" if api.get("/v1/collections/pets").json()["text"] else "choose-other")
    page.locator(f"{TILES} .open").first.focus()
    current = "[...document.querySelectorAll('.grid li')].indexOf(document.activeElement.closest('li'))"
    columns = page.evaluate("new Set([...document.querySelectorAll('.grid li')].map(li => li.offsetLeft)).size")
    for key, place in ("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("ArrowUp", 0), ("ArrowUp", 0), ("End", 22), ("Home", 0), ("ArrowRight", 1):
        page.keyboard.press(key)
        assert page.evaluate(current) == place, key
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "more" and page.evaluate(current) == 1
    page.keyboard.press("Tab")
    assert page.evaluate(current) == -1 # one tile is in the order of Tab, not all
    page.keyboard.press("Shift+Tab"); page.keyboard.press("Shift+Tab")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth")
    assert ring == "solid3px"
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare[open]")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('#pair-match .role').textContent.startsWith('Result 3 ')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#compare", state="hidden")
    page.wait_for_function(f"() => {current} === 2") # back where the comparison was
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    check(page)
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")


# --- what it says when something is wrong

@pytest.mark.long
def test_an_empty_collection_shows_commands_that_work(page, api, small, tmp_path):
    api.put("/v1/collections/nothing-yet")
    show(page, collection="nothing-yet")
    assert page.locator(".panel h3").inner_text() == "nothing-yet is empty"
    check(page)
    shutil.copy(small.data.files[0], tmp_path / "cat.jpg")
    shutil.copy(small.data.files[1], tmp_path / "dog.jpg")
    command = shlex.split(page.locator(".command code").first.inner_text().replace("\\\n", " "))
    assert command[0] == "curl"
    if shutil.which("curl"):
        subprocess.run(["curl", "--fail", "--silent", *command[1:]], cwd=tmp_path, check=True, capture_output=True)
        page.reload()
        settled(page)
        assert page.locator(f"{TILES} .file").all_inner_texts() == ["cat.jpg", "dog.jpg"]


def test_while_it_searches(page):
    held = []
    page.route("**/search*", lambda route: held.append(route))
    page.goto("/?collection=pets&item=1")
    page.wait_for_selector(".grid.waiting")
    assert page.locator("#results-note").inner_text() == "Searching…" and page.locator("#live").inner_text() == "Searching"
    assert page.locator("#results").get_attribute("aria-busy") == "true"
    check(page)
    page.emulate_media(reduced_motion="reduce")
    assert page.locator(".waiting .open").first.evaluate("o => getComputedStyle(o).animationName") == "none"
    held_back(page, held).continue_()
    settled(page)
    assert len(read(page)) == 23


def test_a_file_that_is_no_picture(page, small, tmp_path):
    (tmp_path / "letter.jpg").write_text("Dear reader,")
    show(page, collection="pets")
    drop(page, tmp_path / "letter.jpg")
    page.wait_for_selector(".panel")
    assert page.locator(".panel h3").inner_text() == "This picture cannot be read"
    page.wait_for_selector(".no-preview:visible") # the browser finds out by itself
    check(page)
    with page.expect_file_chooser() as chooser: page.get_by_role("button", name="Choose another picture").click()
    chooser.value.set_files(small.query)
    page.wait_for_selector(f"{TILES} .sure")


@pytest.mark.long
def test_a_picture_that_is_too_large_can_be_made_smaller(page, api, small, tmp_path):
    large = tmp_path / "large.bmp"
    Image.open(small.query).convert("RGB").resize((512, 512)).save(large)
    assert large.stat().st_size > api.get("/v1").json()["limits"]["query_bytes"] > 50_000
    show(page, collection="pets")
    drop(page, large, "image/bmp")
    page.wait_for_selector(".panel")
    assert page.locator(".panel h3").inner_text() == "This picture is too large"
    assert "786 kB" in page.locator(".panel p").first.inner_text() # 512 × 512 × 3
    check(page)
    page.get_by_role("button", name="Make it smaller and search").click()
    page.wait_for_selector(f"{TILES} .sure")
    assert read(page)[0][0] == searched(api, small.query)["results"][0]["label"]
    assert page.locator(".query-file").inner_text() == "large.bmp"


@pytest.mark.long
def test_the_server_is_gone_and_comes_back(chromium, small, tmp_path):
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    small.finder.save(tmp_path / "pets")
    with ExitStack() as first:
        address = first.enter_context(running(create_app(tmp_path)))
        with opened(chromium, address) as page:
            show(page, collection="pets")
            first.close()
            drop(page, small.query)
            for _ in range(2):
                settled(page)
                assert page.locator(".panel h3").inner_text() == "The server is not responding"
                assert page.locator(".query-file").inner_text() == small.query.name
                page.get_by_role("button", name="Try again").click()
            check(page)
            with running(create_app(tmp_path), urlsplit(address).port), httpx.Client(base_url=address) as api:
                page.get_by_role("button", name="Try again").click()
                page.wait_for_selector(f"{TILES} .sure")
                assert read(page) == told(searched(api, small.query))


@pytest.mark.parametrize("asked, title", [({"collection": "nowhere"}, "Collection not found"), ({"collection": "pets", "item": 10**9}, "Picture not found")])
def test_what_is_not_there(page, asked, title):
    show(page, **asked)
    assert page.locator(".panel h3").inner_text() == title
    check(page)
    page.get_by_role("button", name="Show the collection").click()
    page.wait_for_selector(TILES)


def test_addresses_that_make_no_sense_do_no_harm(page):
    show(page, collection="../..", item="x", count="-3", threshold="7", mix="nan", match="0", **{"meta.": "?"})
    assert page.locator("#results .panel, .grid").count() == 1 and page.locator("#collection").input_value()


# --- adding

def test_a_collection_is_made_and_filled(page, api, small, tmp_path):
    show(page, collection="pets")
    page.get_by_role("button", name="New collection").click()
    page.wait_for_selector("#create[open]")
    check(page)
    page.get_by_label("Name").fill("garden")
    page.get_by_role("button", name="Create").click()
    page.wait_for_selector(".panel >> text=garden is empty")
    assert page.locator("#collection").input_value() == "garden"

    (tmp_path / "notes.txt").write_text("not a picture")
    page.locator("#add-open").click()
    page.set_input_files("#add-files", [*small.data.files[:3], tmp_path / "notes.txt"])
    page.get_by_label("Label for all of them").fill("cat")
    check(page)
    page.locator("#add-go").click()
    page.wait_for_selector("#add-outcome >> text=3 pictures added.")
    assert "notes.txt" in page.locator("#add-outcome li").inner_text()
    check(page)
    page.set_input_files("#add-files", small.data.files[:4])
    page.locator("#add-go").click()
    page.wait_for_selector("#add-outcome >> text=1 picture added, 3 already there.")
    page.keyboard.press("Escape")
    settled(page)
    assert page.locator(f"{TILES} .file").all_inner_texts() == [f.name for f in small.data.files[:4]]
    assert page.locator(f"{TILES} .label").all_inner_texts() == ["cat"] * 4 # the label was still in its field
    assert len(api.get("/v1/collections/garden/items").json()["items"]) == 4


def zipped(file, small, labels, *others):
    "A zip with a folder of pictures for each label, and others (name, content)."
    with ZipFile(file, "w") as archive:
        for picture, label in zip(small.data.files, small.data.labels):
            if label in labels: archive.write(picture, f"{label}/{picture.name}")
        for name, content in others: archive.writestr(name, content)
    return file


@pytest.mark.soak
def test_training_by_a_zip(page, api, small, tmp_path, quick_jobs):
    labels = sorted(set(small.data.labels))[:2]
    show(page, collection="learning")
    page.locator("#add-open").click()
    page.set_input_files("#add-files", zipped(tmp_path / "evil.zip", small, labels, ("../outside.jpg", b"")))
    check(page)
    page.get_by_role("button", name="Upload and train").click()
    page.wait_for_function("() => document.querySelector('#add-wrong').textContent.includes('outside.jpg')")
    check(page)
    page.set_input_files("#add-files", zipped(tmp_path / "pets.zip", small, labels, (f"{labels[0]}/notes.txt", "no picture"), (f"{labels[0]}/broken.jpg", b"\xff\xd8 torn off")))
    page.get_by_role("button", name="Upload and train").click()
    page.wait_for_selector(".job progress")
    assert not page.locator("#add").is_visible()
    check(page)
    page.reload()
    page.wait_for_selector(".job progress") # it goes on, and is seen to
    page.wait_for_selector(".job[data-state=done]", timeout=240_000)
    settled(page)
    assert f"{sum(label in labels for label in small.data.labels)} pictures added" in page.locator(".stage-name").inner_text()
    page.get_by_text("2 files skipped").click()
    left_out = " ".join(page.locator(".skipped li").all_inner_texts())
    assert "notes.txt" in left_out and "broken.jpg" in left_out
    check(page)
    assert api.get("/v1/collections/learning").json()["kind"] == "model"
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector(f"{TILES} .sure")
    assert all(figure.endswith("%") for *_, figure in read(page))


@pytest.mark.long
def test_a_training_is_cancelled(page, api, small, tmp_path):
    show(page, collection="stopped")
    page.locator("#add-open").click()
    page.set_input_files("#add-files", zipped(tmp_path / "pets.zip", small, set(small.data.labels)))
    page.get_by_role("button", name="Upload and train").click()
    page.locator(".job").get_by_role("button", name="Cancel").click()
    page.wait_for_selector(".job[data-state=cancelled]")
    check(page)
    assert api.get("/v1/jobs", params={"collection": "stopped"}).json()["jobs"][0]["state"] == "cancelled"
    page.get_by_role("button", name="Dismiss").click()
    assert page.locator(".job").count() == 0


def test_several_dropped_files_are_offered_to_the_collection(page, small):
    show(page, collection="pets")
    page.evaluate("""() => {
        const transfer = new DataTransfer();
        for (const name of ["a.jpg", "b.jpg"]) transfer.items.add(new File(["x"], name, {type: "image/jpeg"}));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }""")
    page.wait_for_selector("#add[open]")
    assert page.locator("#add-title").inner_text() == "Add to pets" and page.locator("#add-chosen").inner_text().startswith("2 pictures")


def test_names_from_files_are_text_and_nothing_else(page, api, small):
    api.put("/v1/collections/odd")
    name, label, value = "<img src=x onerror=alert(1)>.jpg", "<b>bold</b>'\"&amp;", "</option><script>alert(2)</script>"
    for file, kind in zip(small.data.files[:2], (label, "plain")):
        api.post("/v1/collections/odd/items", files=[("files", (name, file.read_bytes()))], data={"options": json.dumps({"label": kind, "metadata": {"<i>": value + kind}})})
    show(page, collection="odd")
    assert page.locator(f"{TILES} .label").first.inner_text() == label
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector(f"{TILES} .sure")
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#compare[open]")
    shown = page.locator("#pair-match .file").inner_text()
    assert "onerror=alert(1)" in shown
    assert page.locator("main b, main i, img[src=x], main script, dialog i, dialog script").count() == 0
    assert value in page.locator("#facts").inner_text()


# --- who may come in

@pytest.fixture(scope="module")
def guarded(small, tmp_path_factory):
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    root = tmp_path_factory.mktemp("guarded")
    small.finder.save(root / "pets")
    with running(create_app(root, token=TOKEN)) as address: yield address


def test_the_token_is_asked_for_and_the_search_goes_on_after_it(chromium, guarded, small):
    with opened(chromium, guarded) as page:
        page.goto("/")
        assert page.url == f"{guarded}/login"
        check(page)
        page.get_by_label("Token").fill("not the token, but long")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/login?failed=1")
        assert page.locator("#failed").inner_text() == "Wrong token. Try again."
        check(page)
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector(TILES)
        show(page, collection="pets")
        assert page.locator(f"{TILES} img").first.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0 # pictures come with the cookie
        page.context.clear_cookies()
        drop(page, small.query)
        page.wait_for_url("**/login")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector(f"{TILES} .sure")
        assert page.locator(".query-file").inner_text() == small.query.name
        searched_at = page.url
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector(TILES)
        page.goto(searched_at)
        settled(page)
        assert page.locator(".panel h3").inner_text() == "This picture is no longer in this browser"


# --- what is shipped

class Outside(HTMLParser):
    "Collects what the service's content security policy forbids."
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "style" or (tag == "script" and "src" not in named): self.found.append(tag)
        self.found += [name for name in named if name == "style" or name.startswith("on")]
        self.found += [value for name, value in attributes if name in ("src", "href", "action") and not value.startswith(("/", "#"))]


@pytest.mark.parametrize("name", ["index.html", "login.html"])
def test_pages_hold_no_code_no_style_and_nothing_from_elsewhere(name):
    parser = Outside()
    parser.feed((STATIC / name).read_text(encoding="utf-8"))
    assert parser.found == []


@pytest.mark.parametrize("file", sorted(STATIC.glob("*.js")), ids=lambda file: file.name)
def test_scripts_write_text_not_markup(file):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3\.org/2000/svg)", file.read_text(encoding="utf-8"))


@pytest.mark.long
def test_the_wheel_holds_the_page_and_what_editors_read(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n"):
        if name.startswith("image_similarity/") or name in ("setup.py", "settings.ini", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    wheel, = tmp_path.glob("*.whl")
    held = ZipFile(wheel).namelist()
    assert {name.rsplit("/", 1)[1] for name in held if name.startswith("image_similarity/service/static/")} == {file.name for file in STATIC.iterdir()}
    package = STATIC.parents[1]
    typed = {file.relative_to(package.parent).as_posix() for file in (*package.rglob("*.pyi"), package / "py.typed")}
    assert len(typed) > 10 and typed == {name for name in held if name.endswith((".pyi", "py.typed"))}


# --- arguing with an answer

def argued(api, file, **options):
    return api.post("/v1/collections/pets/argue", content=file.read_bytes(), headers={"Content-Type": "image/jpeg"}, params={"options": json.dumps({"top_k": 24, **options})}).json()


def test_what_is_right_and_wrong_ranks_the_rest_and_is_kept(page, api, small):
    show(page, collection="pets")
    drop(page, small.query)
    page.wait_for_selector(f"{TILES} .sure")
    first, second = (searched(api, small.query)["results"][n]["id"] for n in (0, 1))
    for id, button in (first, "#mark-right"), (second, "#mark-wrong"):
        page.locator(f'.grid li[data-id="{id}"] .open').click()
        with page.expect_response("**/feedback/marks") as kept: page.locator(button).click()
        assert kept.value.status == 201
        page.wait_for_selector(f'.grid:not(.waiting):not(:has([data-id="{id}"]))')
    answer = argued(api, small.query, right=[first], wrong=[second])
    assert read(page) == told(answer) and answer["compared_by"] == "marks"
    assert page.locator("#marks-note").inner_text() == "1 right, 1 wrong"
    marks = api.post("/v1/collections/pets/feedback/examples", json={"picture": answer["picture"]}).json()
    assert (marks["right"], marks["wrong"]) == ([first], [second])
    check(page)
    page.go_back()
    page.wait_for_selector(f'.grid [data-id="{second}"]')
    page.locator("#marks-clear").click()
    settled(page)
    assert read(page) == told(searched(api, small.query))
    api.post("/v1/collections/pets/feedback/undo", json={"ids": [said["id"] for said in api.get("/v1/collections/pets/feedback").json()["said"]]})


def dragged(page, element, start, end):
    "Press, move and let go, at shares of an element."
    page.locator(element).scroll_into_view_if_needed()
    box = page.locator(element).bounding_box()
    at = lambda share: (box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"])
    page.mouse.move(*at(start))
    page.mouse.down()
    page.mouse.move(*at(end), steps=4)
    page.mouse.up()


@pytest.mark.long
def test_a_box_over_the_query_searches_with_that_part(page, api):
    show(page, collection="pets", item=1)
    page.wait_for_selector(f"{TILES} .sure")
    page.locator("#query-image").evaluate("image => image.decode()")
    page.locator("#region-draw").check()
    dragged(page, "#query-image", (.45, .3), (.6, .8))
    page.wait_for_url("**region=**")
    settled(page)
    region = [float(edge) for edge in re.search(r"region=([^&]*)", page.url)[1].replace("%2C", ",").split(",")]
    assert region[2] - region[0] > .02 and region[3] - region[1] == pytest.approx(.5, abs=.05)
    page.wait_for_selector("#region-box")
    assert read(page) == told(api.post("/v1/collections/pets/argue", json={"item": 1, "top_k": 24, "region": [region]}).json())
    page.locator("#region-brush").check()
    assert not page.locator("#region-draw").is_checked()
    with page.expect_response("**/argue**") as asked: dragged(page, "#query-image", (.3, .6), (.7, .6))
    brushed = json.loads(asked.value.request.post_data)["region"]
    assert len(brushed) > 3 and brushed[0] == region # what is brushed over counts beside the box
    settled(page)
    assert read(page) == told(api.post("/v1/collections/pets/argue", json={"item": 1, "top_k": 24, "region": brushed}).json())
    page.reload()
    settled(page)
    assert read(page) == told(api.post("/v1/collections/pets/argue", json={"item": 1, "top_k": 24, "region": brushed}).json()) # the address holds it
    page.wait_for_selector("#region-box:visible")
    seen = lambda x, y: page.locator("#region-box").evaluate("(c, [x, y]) => c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[3]", [x, y])
    assert seen(.02, .02) > 100 and seen(sum(brushed[-1][::2]) / 2, sum(brushed[-1][1::2]) / 2) == 0 # what does not count is dimmed
    check(page)
    page.locator("#region-clear").click()
    settled(page)
    assert read(page) == told(api.post("/v1/collections/pets/search", json={"item": 1, "top_k": 24}).json())


@pytest.mark.long
def test_the_part_that_matched_is_framed(page, api):
    region = [.3, .3, .6, .6]
    show(page, collection="parts", item=1, region=",".join(map(str, region)))
    page.wait_for_selector(f"{TILES} .box")
    results = {r["id"]: r["box"] for r in api.post("/v1/collections/parts/argue", json={"item": 1, "region": [region]}).json()["results"]}
    page.wait_for_function("n => document.querySelectorAll('.grid .box').length === n", arg=sum(box is not None for box in results.values()))
    id, (left, upper, right, lower) = next((id, box) for id, box in results.items() if box)
    tile, box = (page.locator(f'.grid li[data-id="{id}"] {part}').bounding_box() for part in (".open", ".box"))
    assert [(box["x"] - tile["x"]) / tile["width"], box["width"] / tile["width"]] == pytest.approx([left, right - left], abs=.03) # the drawn pets are square


@pytest.mark.long
def test_a_brush_moves_the_score_is_kept_and_learned_from(page, api):
    show(page, collection="pets", item=1)
    page.wait_for_selector(f"{TILES} .sure")
    page.locator(f"{TILES} .open").first.click()
    page.wait_for_selector("#pair-match .overlay")
    match = int(re.search(r"match=(\d+)", page.url)[1])
    page.locator("#brush").check()
    with page.expect_response("**/brush?**") as looked: dragged(page, "#pair-query .stage", (.4, .4), (.6, .5))
    answer = looked.value.json()
    assert answer["after"] != answer["before"]
    page.wait_for_selector("#brush-keep:visible")
    said = f"log odds {answer['before']:.2f}; {{}} what is brushed over log odds {answer['after']:.2f}, as a pair {percent(answer['probability'])} likely to match"
    assert page.locator("#argue-note").inner_text() == said.format("without")
    shown = lambda of: page.locator(f"#pair-{of} .overlay").get_attribute("src").partition(",")[2]
    assert [shown(of) for of in ("query", "match")] == [answer["query_overlay"], answer["match_overlay"]] # the maps are of what is left
    check(page)
    with page.expect_response("**/brush?**") as looked: page.locator("#brush-only").check()
    rest = looked.value.json()
    assert rest["before"] == answer["before"] and rest["after"] != answer["after"]
    with page.expect_response("**/brush?**"): page.locator("#brush-only").uncheck()
    page.wait_for_function("said => document.querySelector('#argue-note').textContent === said", arg=said.format("without"))
    page.locator("#brush-keep").click()
    page.wait_for_function("() => document.querySelector('#argue-note').textContent.startsWith('Kept')")
    assert page.locator("#pair-query .overlay").get_attribute("src").startswith("blob:") # as before
    said, = api.get("/v1/collections/pets/feedback", params={"kind": "stroke"}).json()["said"]
    assert (said["query"], said["item"], said["of"]) == (1, match, "query") and len(said["boxes"]) > 2
    page.locator("#brush").uncheck()
    page.locator("#links").check()
    page.wait_for_function("() => document.querySelector('#argue-note').textContent.startsWith('Move over')")
    stage = page.locator("#pair-query .stage").bounding_box()
    page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    lit = "canvas => new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer).some(Boolean)"
    assert page.locator("#pair-query canvas").evaluate(lit) and page.locator("#pair-match canvas").evaluate(lit) # what goes with it lights up
    logit = lambda: api.post(f"/v1/collections/pets/brush?match={match}", json={"item": 1}).json()["before"]
    version = api.post("/v1/collections/pets/feedback/refit", json={"kind": "pairs"}).json()["version"]
    assert abs(logit() - answer["after"]) < abs(answer["before"] - answer["after"]) / 2
    assert api.post("/v1/collections/pets/feedback/version", json={"kind": "pairs"}).json() == {"version": 0} and version > 0
    assert logit() == pytest.approx(answer["before"], abs=1e-3)
    api.post("/v1/collections/pets/feedback/undo", json={"ids": [said["id"]]})


def test_kept_marks_are_offered_again(page, api):
    kept = api.post("/v1/collections/pets/feedback/marks", json={"item": 1, "right": [2], "wrong": [5]}).json()["ids"]
    show(page, collection="pets", item=1)
    page.locator("#marks-kept").click()
    settled(page)
    assert page.locator("#marks-note").inner_text() == "1 right, 1 wrong" and page.locator("#marks-kept").is_hidden()
    assert read(page) == told(api.post("/v1/collections/pets/argue", json={"item": 1, "top_k": 24, "right": [2], "wrong": [5]}).json())
    api.post("/v1/collections/pets/feedback/undo", json={"ids": kept})


@pytest.mark.long
def test_quick_answers(page, api, small):
    api.put("/v1/collections/unlabelled")
    files = small.data.files[:8]
    api.post("/v1/collections/unlabelled/items", files=[("files", (file.name, file.read_bytes())) for file in files])
    for id in 1, 2: api.post("/v1/collections/unlabelled/feedback/answers", json={"item": id, "label": ["cat", "dog"][id - 1]})
    show(page, collection="unlabelled")
    page.locator("#teach-open").click()
    page.wait_for_selector("#teach-yes:visible")
    suggested = api.get("/v1/collections/unlabelled/suggestions").json()["suggestions"][0]
    assert page.locator("#teach-question").inner_text() == f"Is this {suggested['guess']}?"
    check(page)
    with page.expect_response("**/feedback/answers"): page.keyboard.press("y")
    page.wait_for_selector("#teach-said li:nth-child(3)")
    assert api.get(f"/v1/collections/unlabelled/items/{suggested['item']['id']}").json()["label"] == suggested["guess"]
    with page.expect_response("**/feedback/undo"): page.locator("#teach-said button").first.click()
    page.wait_for_selector("#teach-said:not(:has(li:nth-child(3)))")
    assert api.get(f"/v1/collections/unlabelled/items/{suggested['item']['id']}").json()["label"] is None
    page.locator("#teach-learn").click()
    page.wait_for_function("() => document.querySelector('#teach-versions').textContent === 'version 1 of labels, at work'")
    page.wait_for_function("() => document.querySelector('#teach-says').textContent.startsWith('It says of 6 pictures without a label: ')")
    told = api.get("/v1/collections/unlabelled/predictions").json()
    assert page.locator("#teach-says").inner_text().removesuffix(".").endswith(", ".join(f"{one['items']} {one['label']}" for one in told["labels"])) and told["total"] == 6
    page.locator("#teach-back").click()
    page.wait_for_function("() => document.querySelector('#teach-versions').textContent === 'version 1 of labels'")
    assert page.locator("#teach-says").inner_text() == "" and api.get("/v1/collections/unlabelled/predictions").status_code == 404
    api.delete("/v1/collections/unlabelled")
