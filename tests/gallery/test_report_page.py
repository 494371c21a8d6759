"The report of copies in a real browser, offline: keys decide, the slider moves, and what it exports is read."
import json
import shutil
from pathlib import Path

import pytest
from small_gallery import Tiny, paint

from image_similarity.gallery.copies_report import copies_report
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.opening import content_hash

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def page():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: pip install 'image_similarity[dev]'")
    if CHROMIUM is None: pytest.skip("there is no Chromium on this PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page, wrong = browser.new_page(), []
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith(("file:", "blob:", "data:")) else wrong.append(f"asked for {r.url}"))
        yield page
        browser.close()
    assert wrong == []


def test_copies_are_looked_at_decided_and_exported(page, tmp_path, call):
    photos, names = tmp_path / "photos", ["a.png", "b.png", "</script><script>document.title='owned'<!--.png".replace("/", "\u2215"), "d.png"]
    for name in names: paint(photos / name, 1)
    gallery = Gallery(tmp_path / "g", Tiny())
    gallery.add(photos, progress=False)
    found = gallery.duplicates(progress=False)
    copies_report(found, tmp_path / "copies.html")
    page.goto((tmp_path / "copies.html").as_uri())
    assert page.title() == "Copies" and page.locator("#list li").count() == 3
    first = found[0].copies[0].path.name
    assert first in page.locator("#copy").inner_text() and found[0].keep.name in page.locator("#keep").inner_text()
    assert page.evaluate("[...document.querySelectorAll('#pair img')].every(i => i.naturalWidth > 0)")
    page.keyboard.press("ArrowRight")
    assert page.locator("#slider").input_value() == "60" and page.evaluate("getComputedStyle(document.querySelector('#after')).clipPath") == "inset(0px 0px 0px 60%)"
    page.keyboard.press(" ")
    assert page.locator("#slider").input_value() == "0"
    page.keyboard.press("d")
    page.keyboard.press("n")
    assert "2 decided, 1 to delete" in page.locator("#count").inner_text()
    page.reload()
    assert "2 decided, 1 to delete" in page.locator("#count").inner_text() # nothing is lost
    page.locator("#filter").select_option("undecided")
    page.locator("#list button").last.click()
    page.get_by_role("button", name="Keep both").click()
    with page.expect_download() as download: page.keyboard.press("e")
    download.value.save_as(tmp_path / "decisions.json")
    told = json.loads((tmp_path / "decisions.json").read_text())["decisions"]
    assert [(Path(d["copy"]).name, d["verdict"]) for d in told] == [(c.path.name, v) for c, v in zip(found[0].copies, ("delete", "not copies", "keep both"))]
    assert {h for d in told for h in d["hashes"]} == {content_hash(photos / "a.png")} and {d["files"] for d in told} == {4}
    assert call("duplicates", "--gallery", gallery.folder, "--decisions", tmp_path / "decisions.json", "--move", tmp_path / "away")[0] == 0
    assert [f.name for f in (tmp_path / "away").iterdir()] == [first]


def test_the_report_is_for_everybody(page, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    paint(tmp_path / "photos" / "a.png", 1)
    shutil.copy(tmp_path / "photos" / "a.png", tmp_path / "photos" / "b.png")
    gallery = Gallery(tmp_path / "g", Tiny())
    gallery.add(tmp_path / "photos", progress=False)
    copies_report(gallery.duplicates(progress=False), tmp_path / "copies.html")
    page.goto((tmp_path / "copies.html").as_uri())
    for width, scheme in (1280, "light"), (360, "dark"):
        page.set_viewport_size({"width": width, "height": 740})
        page.emulate_media(color_scheme=scheme)
        assert [(v["id"], [n["html"][:80] for n in v["nodes"]]) for v in axe.Axe().run(page).response["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Delete all proposed").click()
    assert "1 to delete" in page.locator("#count").inner_text()
