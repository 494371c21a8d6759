"""Take a picture of the page for the README: picture_page.py DEMO PICTURE

DEMO is the folder of a finished `image_similarity demo`, beside the `demo.txt` that it printed. What the page shows is the
answer that the transcript tells of: the results, and below them why the best one was found.
"""
import io
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from image_similarity.finder.finder import SimilarityFinder
from image_similarity.service.app import create_app
from image_similarity.service.server import running

WINDOW = {"width": 1180, "height": 654}
MARGIN = 24     # pixels between and below the two
ROUND = 9       # pixels by which the dialog's corners are rounded, and a bit
WIDTH = 900     # pixels of the picture


def shots(address: str, query: Path) -> list[Image.Image]:
    "The results for a query, and the comparison with the best."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WINDOW, color_scheme="light", reduced_motion="reduce", base_url=address)
        page.goto("/?collection=pets")
        page.set_input_files("#file", query)
        page.wait_for_selector(".grid:not(.waiting) .sure")
        page.wait_for_load_state("networkidle")
        taken = [page.screenshot()]
        page.locator(".grid .open").first.click()
        page.wait_for_selector("#pair-match .overlay")
        page.wait_for_load_state("networkidle")
        taken.append(page.locator("#compare").screenshot())
        browser.close()
    results, comparison = (Image.open(io.BytesIO(shot)).convert("RGB") for shot in taken)
    return [results, comparison.crop((1, 1, comparison.width - 1, comparison.height - 1))] # less a line of the veil behind it


def stacked(pictures: list[Image.Image]) -> Image.Image:
    "One below the other, in the middle, on the colour of the page."
    size = max(p.width for p in pictures), sum(p.height for p in pictures) + MARGIN * len(pictures)
    sheet, top = Image.new("RGB", size, pictures[0].getpixel((0, pictures[0].height - 1))), 0
    for picture in pictures:
        seen = Image.new("L", picture.size)
        ImageDraw.Draw(seen).rounded_rectangle((0, 0, picture.width - 1, picture.height - 1), ROUND if top else 0, 255)
        sheet.paste(picture, ((size[0] - picture.width) // 2, top), seen)
        top += picture.height + MARGIN
    return sheet


def main(demo: Path, picture: Path) -> None:
    query = demo.parent / re.search(r"^(.+?): the classifier says", (demo.parent / "demo.txt").read_text(encoding="utf-8"), re.MULTILINE)[1]
    with TemporaryDirectory() as root:
        SimilarityFinder.load(demo / "model").save(Path(root) / "pets")
        with running(create_app(root)) as address: sheet = stacked(shots(address, query))
    small = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
    palette = small.quantize(256, kmeans=1) # a third of the size
    small.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(picture, optimize=True)


if __name__ == "__main__": main(Path(sys.argv[1]), Path(sys.argv[2]))
