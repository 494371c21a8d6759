"The grid of a notebook, its script in a real Chromium: what is clicked and marked is what the lists hold."
import base64
import shutil
from pathlib import Path

import pytest

from image_similarity.drawing.pets import draw_pet
from image_similarity.images.thumbnails import small_jpeg

SCRIPT = Path(__file__).resolve().parents[2] / "image_similarity" / "explain" / "static" / "grid.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MODEL = """async ([script, n]) => { // what a notebook gives a widget
    const { default: { render } } = await import('data:text/javascript;base64,' + script), held = {ids: Array.from({length: n}, (_, i) => 10 + i), titles: Array.from({length: n}, (_, i) => `picture ${i}`), size: 80, selected: [], right: [], wrong: []}, heard = {};
    window.model = {get: (k) => held[k], set: (k, v) => { held[k] = v; }, save_changes() {}, on: (e, f) => { heard[e] = f; }, off() {}, send: (m) => { window.asked = [...(window.asked ?? []), ...m.want]; }};
    window.heard = heard;
    render({model, el: document.body});
}"""


@pytest.fixture(scope="module")
def page():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: pip install 'image_similarity[dev]'")
    if CHROMIUM is None: pytest.skip("there is no Chromium on this PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 600, "height": 500})
        page.set_content("<!doctype html><html lang=en><title>grid</title><main></main>")
        page.evaluate(MODEL, [base64.b64encode(SCRIPT.read_bytes()).decode(), 200])
        yield page
        browser.close()


def held(page, name): return page.evaluate(f"model.get('{name}')")


def test_what_is_clicked_and_marked_comes_back(page):
    tiles = page.locator("[role=option]")
    tiles.nth(2).click()
    tiles.nth(4).click(modifiers=["Shift"])
    assert held(page, "selected") == [12, 13, 14]
    tiles.nth(0).click(modifiers=["Control"])
    assert held(page, "selected") == [12, 13, 14, 10]
    page.keyboard.press("y")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    assert (held(page, "right"), held(page, "wrong")) == ([10], [11])
    page.keyboard.press("y")
    assert (held(page, "right"), held(page, "wrong")) == ([10, 11], [])
    assert page.inner_text("[role=status]") == "200 pictures · 4 selected · 2 right"


def test_only_what_is_seen_is_asked_for(page):
    page.wait_for_function("() => window.asked?.length > 5")
    asked = page.evaluate("asked")
    assert 0 in asked and 199 not in asked and len(set(asked)) == len(asked)
    content = base64.b64encode(small_jpeg(draw_pet("beagle", 0, 96)[0], 96)).decode()
    page.evaluate("c => heard['msg:custom']({at: 0}, [Uint8Array.from(atob(c), x => x.charCodeAt(0))])", content)
    page.wait_for_function("() => document.querySelector('[role=option] img').naturalWidth === 96")
    page.locator("[role=listbox]").focus()
    page.keyboard.press("End")
    page.wait_for_function("() => asked.includes(199)")
