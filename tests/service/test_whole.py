"The page that shows a collection as a whole, in a real Chromium on a real server: grid, map, problems, and what is done with a selection."
import csv
import io
import json
import os
import re
import shutil
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the service: pip install 'image_similarity[serve]'")

from image_similarity.drawing.pets import sample_pets
from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.gallery import Gallery
from test_page import check, chromium, opened  # noqa: F401 (a fixture)

MANY = 10_000


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "`pets`: 12 drawn pets and 12 patterns in two folders, one pet with the label of the others; `many`: ten thousand names of the same pictures, and vectors."
    root, drawn = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("drawn")
    files = sorted((sample_pets(drawn, n_breeds=2, n_per_breed=12, size=96) / "images").iterdir())
    for n, file in enumerate(files[12:]): Image.fromarray(np.random.default_rng(n).integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96), Image.Resampling.NEAREST).save(file)
    for n in range(24): (drawn / "sorted" / ("cats" if n < 12 else "dogs")).mkdir(parents=True, exist_ok=True)
    files = [shutil.move(file, drawn / "sorted" / ("cats" if n < 12 else "dogs") / file.name) for n, file in enumerate(files)]
    encoder = create_encoder(size=96)
    labels = ["cat"] * 12 + ["dog"] * 12
    labels[3] = "dog"
    gallery = Gallery(root / "pets", encoder)
    gallery.add(files, labels, progress=False)
    gallery.close()
    many, rng = Gallery(root / "many", encoder), np.random.default_rng(0)
    links = [drawn / "many" / f"{n:05}.jpg" for n in range(MANY)]
    links[0].parent.mkdir()
    for n, link in enumerate(links): os.link(files[n % len(files)], link)
    many.import_embeddings(links, rng.random((MANY, encoder.width), np.float32), [f"label {n % 7}" for n in range(MANY)])
    many.close()
    return root


@pytest.fixture(scope="module")
def server(root):
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    with running(create_app(root)) as address: yield address


@pytest.fixture(scope="module")
def api(server):
    with httpx.Client(base_url=server, timeout=60) as client: yield client


@pytest.fixture
def page(chromium, server):  # noqa: F811
    with opened(chromium, server) as page: yield page


def show(page, **asked):
    page.goto("/whole?" + "&".join(f"{k}={v}" for k, v in asked.items()))
    page.wait_for_selector("#stage:not([aria-busy])")


def labels(api, name): return {i["id"]: i["label"] for i in api.get(f"/v1/collections/{name}/items?limit=500").json()["items"]}


def finished(api, job):
    import time
    while (now := api.get(f"/v1/jobs/{job['id']}").json())["state"] in ("queued", "running"): time.sleep(.2)
    assert now["state"] == "done", now
    return now


# --- the grid

def test_ten_thousand_pictures_are_a_few_tiles(page):
    show(page, collection="many")
    tiles = page.locator("[role=option]:not([hidden])")
    tiles.nth(20).wait_for() # once it is known how large the grid is
    assert tiles.count() < 120 and "10,000 pictures" in page.inner_text("#count")
    page.locator(".wall").focus()
    page.keyboard.press("End")
    page.wait_for_selector("[role=option][aria-posinset='10000'][data-current]")
    assert tiles.count() < 120
    page.wait_for_function("() => [...document.querySelectorAll('[role=option]:not([hidden]) img')].some(i => i.naturalWidth > 0)")
    page.keyboard.press("Home")
    for _ in range(3): page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#chosen-count") == "4 selected"
    page.keyboard.press("Control+a")
    assert page.inner_text("#chosen-count") == "10,000 selected"
    page.keyboard.press("Escape")
    assert page.locator("#chosen-bar").is_hidden()
    page.select_option("#label", "=label 3")
    assert page.inner_text("#count").startswith(f"{sum(n % 7 == 3 for n in range(MANY)):,} of 10,000 pictures")


def test_a_selection_is_labelled_excluded_exported_and_all_of_it_undone(page, api):
    before = labels(api, "pets")
    show(page, collection="pets", sort="name")
    natural = lambda item: [int(part) if part.isdigit() else part.casefold() for part in re.split(r"(\d+)", item["file"])]
    order = [row["id"] for row in sorted(api.get("/v1/collections/pets/items?limit=50").json()["items"], key=natural)]
    page.locator("[role=option]").nth(0).wait_for()
    at = lambda n: page.locator(f"[aria-posinset='{n}']")
    at(2).click()
    at(4).click(modifiers=["Shift"])
    at(6).click(modifiers=["Control"])
    meant = [order[n - 1] for n in (2, 3, 4, 6)]
    assert page.inner_text("#chosen-count") == "4 selected"
    for kind, read in ("csv", lambda data: [int(r["id"]) for r in csv.DictReader(data.decode().splitlines())]), ("zip", lambda data: len(zipfile.ZipFile(io.BytesIO(data)).namelist()) - 1), ("paths", lambda data: [os.path.exists(p) for p in data.decode().split("\n")[:-1]]):
        page.select_option("#export-kind", kind)
        with page.expect_download() as download: page.click("#export")
        with open(download.value.path(), "rb") as file: told = read(file.read())
        assert told == {"csv": meant, "zip": 4, "paths": [True] * 4}[kind]
    page.fill("#new-label", "lynx")
    page.click("#label-form button")
    page.wait_for_selector("#undo:not([hidden])")
    assert {id for id, label in labels(api, "pets").items() if label == "lynx"} == set(meant)
    page.click("#exclude")
    page.wait_for_function("() => document.querySelector('#undo').textContent.includes('excluded')")
    assert api.get("/v1/collections/pets/table").json()["excluded"] == sorted(meant)
    check(page)
    for what in "exclusions", "labels":
        with page.expect_response(f"**/pets/{what}"): page.click("#undo")
    assert api.get("/v1/collections/pets/table").json()["excluded"] == [] and labels(api, "pets") == before
    page.wait_for_selector("#undo", state="hidden")


def test_a_picture_is_opened_at_full_size_and_told_about(page, api):
    show(page, collection="pets", sort="folder")
    page.locator("[aria-posinset='1']").dblclick()
    page.wait_for_selector("#one-facts dd")
    facts = dict(zip(page.locator("#one-facts dt").all_inner_texts(), page.locator("#one-facts dd").all_inner_texts()))
    assert facts["Folder"] == "cats" and facts["Pixels"] == "96 × 96" and os.path.exists(facts["Path"])
    check(page)
    first = page.inner_text("#one-title")
    page.locator("#one-stage").focus()
    page.keyboard.press("+")
    assert "scale(1.5)" in page.locator("#one-stage img").get_attribute("style")
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("t => document.querySelector('#one-title').textContent !== t", arg=first)
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=option][aria-posinset='2'][data-current]")
    page.select_option("#sort", "similarity")
    page.wait_for_selector("[aria-posinset='1'][data-current]")
    shown = [int(page.locator(f"[aria-posinset='{n}']").get_attribute("id").removeprefix("tile-")) for n in range(1, 6)]
    assert shown[1:] == api.get(f"/v1/collections/pets/items/{shown[0]}/ranking").json()["ids"][:4]


def test_what_is_removed_is_gone_and_the_files_stay(page, api, root):
    from image_similarity.gallery.gallery import Gallery
    path = Gallery(root / "many").items()[6].path
    show(page, collection="many")
    page.locator("[aria-posinset='7']").click()
    page.keyboard.press("Delete")
    page.click("#sure-yes")
    page.wait_for_function("() => document.querySelector('#count').textContent.startsWith('9,999')")
    assert api.get("/v1/collections/many/items/7").status_code == 404 and path.exists()


# --- the map

@pytest.mark.long
def test_a_map_is_drawn_and_a_lasso_chooses_what_it_encloses(page, api):
    show(page, collection="pets", view="map")
    page.click("text=Draw the map")
    page.wait_for_selector(".chart", timeout=120_000)
    page.wait_for_selector("#job", state="hidden")
    table = api.get("/v1/collections/pets/table").json()
    assert table["mapped"] == 24 and None not in table["x"]
    page.wait_for_function("() => (() => { const c = document.querySelector('.plane canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n > 24; })()")
    check(page)
    page.wait_for_timeout(300)
    page.click("#map-whole")
    box = page.locator(".plane").bounding_box()
    scale = min(box["width"], box["height"]) / 2.15
    at = {id: (box["width"] / 2 + x * scale, box["height"] / 2 + y * scale) for id, x, y in zip(table["ids"], table["x"], table["y"])}
    middle = sorted(x for x, _ in at.values())[12]
    page.click("#lasso")
    corners = [(2, 2), (middle - .01, 2), (middle - .01, box["height"] - 2), (2, box["height"] - 2)]
    page.mouse.move(box["x"] + corners[0][0], box["y"] + corners[0][1])
    page.mouse.down()
    for x, y in corners[1:]: page.mouse.move(box["x"] + x, box["y"] + y, steps=2)
    page.mouse.up()
    left = sum(x < middle - 1 for x, _ in at.values()), sum(x < middle + 1 for x, _ in at.values())
    assert left[0] <= int(page.inner_text("#chosen-count").split()[0]) <= left[1]
    for by in "cluster", "date", "suspicion", "folder": page.select_option("#colour", by)
    page.locator(".key button").first.click()
    page.wait_for_timeout(100)
    page.locator(".key button").first.click()
    assert int(page.inner_text("#chosen-count").split()[0]) == 12  # of the first folder


@pytest.mark.long
def test_a_picture_that_comes_later_finds_its_place(api, root, tmp_path):
    from image_similarity.drawing.pets import draw_pet
    finished(api, api.post("/v1/collections/pets/map").json())
    before = api.get("/v1/collections/pets/table").json()
    file = tmp_path / "new.png"
    draw_pet("beagle", 77, 96)[0].save(file)
    with open(file, "rb") as stream: new = api.post("/v1/collections/pets/items", files={"files": stream}).json()["items"][0]["id"]
    assert api.put("/v1/collections/pets/map").json() == {"items": 1}
    after = api.get("/v1/collections/pets/table").json()
    assert after["x"][:24] == before["x"] and after["ids"][24] == new and -1 <= after["x"][24] <= 1 and after["joined"] == 1
    told = api.get(f"/v1/collections/pets/items/{new}/details").json()
    assert told["sent"] and told["path"] is None
    assert api.post("/v1/collections/pets/removals", json={"ids": [new]}).json() == {"items": 1}
    assert api.put("/v1/collections/many/map").json()["message"].startswith("many: has no map yet")


# --- what is wrong

@pytest.mark.long
def test_a_wrong_label_is_found_corrected_on_the_spot_and_undone(page, api):
    show(page, collection="pets", view="problems")
    page.click("text=Inspect")
    page.wait_for_selector(".mend", timeout=120_000)
    found = api.get("/v1/collections/pets/inspection").json()["findings"]
    wrong = {f["id"]: f["likely"] for f in found if f["kind"] == "label"}
    assert wrong == {4: "cat"}
    check(page)
    with page.expect_download() as download: page.click("#findings-csv")
    with open(download.value.path(), newline="") as file: assert {int(r["id"]) for r in csv.DictReader(file) if r["fix"] == "relabel"} == set(wrong)
    page.click(".mend li[data-kind=label][data-id='4'] button:has-text('Label it cat')")
    page.wait_for_selector(".mend li[data-kind=label][data-id='4']", state="detached")
    assert labels(api, "pets")[4] == "cat"
    page.click("#undo")
    page.wait_for_selector(".mend li[data-kind=label][data-id='4']")
    assert labels(api, "pets")[4] == "dog"
    page.click(".mend li[data-kind=label][data-id='4'] button:has-text('Exclude')")
    page.wait_for_selector(".mend li[data-id='4']", state="detached")
    page.click("#undo")
    page.wait_for_selector(".mend li[data-kind=label][data-id='4']")


# --- over HTTP

def test_a_path_is_told_only_to_who_sits_at_the_machine(root):
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running
    secret = "correct-horse-battery-staple"
    with running(create_app(root.parent / "other", token=secret)) as address:
        other = Gallery(root.parent / "other" / "pets", create_encoder(size=96))
        other.add([i.path for i in Gallery(root / "pets").items()][:2], progress=False)
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client:
            told = client.get("/v1/collections/pets/items/1/details").json()
            assert told["path"] is None and told["folder"] == "." and str(root.parent) not in json.dumps(client.get("/v1/collections/pets/table").json())
            assert str(root.parent) not in client.post("/v1/collections/pets/export", json={"ids": [1, 2], "kind": "csv"}).text
        assert httpx.get(f"{address}/whole").status_code == 303 and httpx.get(f"{address}/v1/collections/pets/table").status_code == 401


def test_what_makes_no_sense_is_refused(api):
    for path, body in ("labels", {"changes": [{"ids": [], "label": "x"}]}), ("labels", {"changes": [{"ids": [1], "label": ""}]}), ("export", {"ids": [1], "kind": "exe"}), ("removals", {"ids": [0]}):
        assert api.post(f"/v1/collections/pets/{path}", json=body).status_code == 422
    assert api.post("/v1/collections/nobody/map").status_code == 404
    assert api.get("/v1/collections/pets/items/999/details").status_code == 404
    assert api.post("/v1/collections/pets/labels", json={"changes": [{"ids": [999], "label": "x"}]}).json() == {"changes": []}
