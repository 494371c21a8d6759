"""`open_image` on what people really have: odd formats, broken files, bombs; listing and labels."""
import csv
import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps

from image_similarity.images.opening import (FORMATS, MAX_PIXELS, SUFFIXES, BadImages, ImageError, folder_label, image_files,
                                     label_func, open_image)

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parents[2]
ODD = Path(os.environ.get("IMAGE_SIMILARITY_DATA") or ROOT.parent / "shared" / "data") / "odd"


def noise(width=64, height=48, seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image, format, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png(width, height, data=b"") -> bytes:
    "A one-channel PNG, chunk by chunk, whose header may say anything."
    def chunk(kind, body): return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# --- whatever is stored, the result is RGB

@pytest.mark.parametrize("format, mode, closeness", [
    ("PNG", "RGB", 0), ("BMP", "RGB", 0), ("TIFF", "RGB", 0), ("PNG", "L", 0), ("PNG", "1", 0), ("PNG", "P", 0), ("GIF", "P", 0),
    ("WEBP", "RGB", 60), ("JPEG", "RGB", 60), ("JPEG", "L", 60), ("TIFF", "CMYK", 1), ("TIFF", "YCbCr", 3)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ""])
def test_content_decides_and_not_the_name(tmp_path, format, mode, closeness, suffix):
    smooth = Image.fromarray(np.add.outer(np.arange(48), np.arange(64) * 2)[..., None].repeat(3, 2).astype(np.uint8))
    stored = smooth.convert(mode)
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encoded(stored, format))
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    wanted = np.asarray(stored.convert("RGB"), int)
    assert np.abs(np.asarray(image, int) - wanted).max() <= closeness


def test_paths_strings_bytes_and_files_give_the_same(tmp_path):
    data = encoded(noise(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file: from_file = open_image(file).tobytes()
    assert {open_image(path).tobytes(), open_image(str(path)).tobytes(), open_image(data).tobytes(),
            open_image(io.BytesIO(data)).tobytes(), from_file} == {noise().tobytes()}


@pytest.mark.parametrize("value, wanted", [(0, 0), (65535, 255), (32896, 128), (257, 1)])
def test_sixteen_bits_become_eight(value, wanted):
    grey = Image.fromarray(np.full((2, 3), value, np.uint16))
    for format in ("PNG", "TIFF"):
        assert np.asarray(open_image(encoded(grey, format))).tolist() == [[[wanted] * 3] * 3] * 2


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_floats_are_scaled_by_the_range_they_use(top):
    grey = Image.fromarray(np.array([[0, .2, 1]], np.float32) * top)
    assert np.asarray(open_image(encoded(grey, "TIFF")))[0, :, 0].tolist() == [0, 51, 255]


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 255, 0))
    for format in ("PNG", "TIFF"):
        assert np.asarray(open_image(encoded(image, format))).tolist() == [[[255, 255, 255], [255, 0, 0]]]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    for format in ("PNG", "GIF"):
        assert open_image(encoded(palette, format, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_single_pixel_opens(format):
    assert open_image(encoded(Image.new("RGB", (1, 1), "white"), format)).getpixel((0, 0)) == (255, 255, 255)


def test_adobe_cmyk_jpeg_is_not_inverted():
    image = open_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(np.asarray(image, int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("orientation", range(0, 10))
def test_phone_pictures_stand_up(orientation):
    stored = noise(32, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {2: [ImageOps.mirror], 3: [ImageOps.flip, ImageOps.mirror], 4: [ImageOps.flip], 5: [turned(90), ImageOps.flip],
            6: [turned(-90)], 7: [turned(-90), ImageOps.flip], 8: [turned(90)]}.get(orientation, [])
    wanted = stored
    for step in turn: wanted = step(wanted)
    assert open_image(encoded(stored, "PNG", exif=exif)).tobytes() == wanted.tobytes()


def turned(degrees): return lambda im: im.rotate(degrees, expand=True)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_of_several_frames_the_first_is_read(format):
    frames = [Image.new("RGB", (24, 24), c) for c in ("red", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    red, _, blue = open_image(data).getpixel((12, 12))
    assert red > 240 and blue < 15


@given(width=st.integers(1, 400), height=st.integers(1, 400), at_least=st.integers(1, 300), sideways=st.booleans())
def test_a_jpeg_decoded_smaller_is_never_too_small(width, height, at_least, sideways):
    exif = Image.Exif()
    if sideways: exif[0x0112] = 6
    full = (height, width) if sideways else (width, height)
    size = open_image(encoded(Image.new("RGB", (width, height)), "JPEG", exif=exif), at_least=at_least).size
    assert all(small >= min(at_least, big) for small, big in zip(size, full))
    assert all(small <= big for small, big in zip(size, full))


def test_a_large_jpeg_is_decoded_smaller():
    assert open_image(encoded(noise(800, 640), "JPEG"), at_least=150).size == (200, 160)
    assert open_image(encoded(noise(800, 640), "PNG"), at_least=150).size == (800, 640)


# --- what is refused, and how it is said

@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg"])
def test_a_header_that_claims_too_much_is_refused_before_unpacking(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(png(20_000, 20_000))
    with pytest.raises(ImageError, match=rf"{name}: more than 100,000,000 pixels"): open_image(path)


def test_a_real_bomb_is_refused_without_the_memory(tmp_path):
    squeeze, rows = zlib.compressobj(9), []
    for _ in range(12_000): rows.append(squeeze.compress(bytes(12_001)))
    path = tmp_path / "one_colour.png"
    path.write_bytes(png(12_000, 12_000, b"".join(rows) + squeeze.flush()))
    assert path.stat().st_size < 1_000_000
    code = ("import resource, sys, warnings; warnings.simplefilter('ignore'); from image_similarity.images.opening import ImageError, open_image\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: open_image(sys.argv[1])\n"
            "except ImageError as e: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, e.reason, sep='|')")
    pytest.importorskip("resource", reason="memory is not measured on this system")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    grown, reason = done.stdout.strip().split("|")
    assert reason.startswith("12000 x 12000 pixels are more than 100,000,000")
    assert int(grown) * 1024 < 50_000_000   # unpacked it would be 144 MB grey, 432 MB as RGB


def test_the_limit_itself_is_allowed(monkeypatch):
    data = encoded(Image.new("RGB", (10, 10)), "PNG")
    monkeypatch.setattr("image_similarity.images.opening.MAX_PIXELS", 100)
    assert open_image(data).size == (10, 10)
    monkeypatch.setattr("image_similarity.images.opening.MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="10 x 10 pixels are more than 99"): open_image(data)
    assert MAX_PIXELS == 100_000_000


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [.15, .5, .9])
def test_half_a_download_is_refused(tmp_path, format, share):
    data = encoded(noise(200, 200), format)
    path = tmp_path / "half.jpg"
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(ImageError) as caught: open_image(path)
    assert caught.value.path == path and str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("data", [
    pytest.param(SVG, id="SVG"), pytest.param(EPS, id="EPS"), pytest.param(b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n", id="PDF"),
    pytest.param(b"just some words\n" * 9, id="text"), pytest.param(bytes(1000), id="zeros"), pytest.param(b"PK\x03\x04" * 50, id="zip"),
    *(pytest.param(encoded(noise(), f), id=f) for f in ("PPM", "TGA", "ICO", "PCX", "JPEG2000", "PDF"))])
def test_other_formats_are_refused_whatever_they_are_called(tmp_path, data):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"picture\.png: not an image that can be read \(JPEG, PNG, WEBP, GIF, BMP, TIFF\)"):
        open_image(path)
    assert FORMATS == ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]), st.integers(0, 400))
@settings(max_examples=300)
def test_damage_raises_nothing_but_image_errors(junk, format, where):
    data = bytearray(encoded(Image.new("RGB", (20, 20), "teal"), format))
    data[where % len(data):where % len(data) + len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: assert open_image(bytes(data)).mode == "RGB"
        except ImageError as e: assert e.path is None and str(e).startswith("image: ")


def test_what_is_not_there_or_no_file(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"x\.jpg: is a directory"): open_image(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty"): open_image(tmp_path / "empty.jpg")
    for name in ("none.jpg", "empty.jpg/none.jpg"):
        with pytest.raises(FileNotFoundError, match=r"none\.jpg: there is no such file"): open_image(tmp_path / name)
    with pytest.raises(ImageError, match="name too long"): open_image(tmp_path / ("x" * 300))
    for thing in (None, 5, [tmp_path]):
        with pytest.raises(TypeError, match="a path, the bytes of an image, or an open binary file"): open_image(thing)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is not a regular file"): open_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match=r"a\.png: permission denied"): open_image(path)


def test_a_refusal_by_the_system_is_said_in_its_words(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    def refuse(*args, **kwargs): raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr("image_similarity.images.opening.Image.open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: permission denied$"): open_image(path)


def test_errors_survive_a_process_boundary_and_make_a_report():
    error = pickle.loads(pickle.dumps(ImageError("cat.jpg", "it is cut off")))
    assert (error.path, error.reason, str(error)) == (Path("cat.jpg"), "it is cut off", "cat.jpg: it is cut off")
    report = BadImages([error, ImageError("dog.jpg", "the file is empty")])
    assert repr(report).splitlines() == ["2 bad images, skipped:", "  cat.jpg: it is cut off", "  dog.jpg: the file is empty"]
    assert report.to_records()[1] == {"path": "dog.jpg", "reason": "the file is empty"}


def test_eight_threads_open_what_one_does(tmp_path):
    "In a Python of its own, so that the decoders are loaded while all eight ask for them."
    for i, format in enumerate(FORMATS * 4): (tmp_path / f"{i:02}.img").write_bytes(encoded(noise(seed=i), format))
    code = ("import hashlib, sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
            "from image_similarity.images.opening import open_image\n"
            "def digest(path): return hashlib.sha256(open_image(path).tobytes()).hexdigest()\n"
            "files = sorted(Path(sys.argv[1]).iterdir()) * 3\n"
            "with ThreadPoolExecutor(8) as pool: many = list(pool.map(digest, files))\n"
            "assert many == [digest(f) for f in files]; print(len(set(many)))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "24"), done.stderr


def test_one_file_in_eight_threads(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(noise(), "JPEG"))
    with ThreadPoolExecutor(8) as pool: seen = {im.tobytes() for im in pool.map(open_image, [tmp_path / "a.jpg"] * 64)}
    assert seen == {open_image(tmp_path / "a.jpg").tobytes()}


# --- the real odd files

def odd_rows(index):
    if not (ODD / index).exists(): return [pytest.param(None, marks=pytest.mark.skip(reason=f"there is no {ODD / index}"))]
    with (ODD / index).open(encoding="utf-8") as file: return [pytest.param(r, id=r["file"]) for r in csv.DictReader(file)]


def size_upright(path) -> tuple[int, int]:
    with Image.open(path) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (width, height)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("row", odd_rows("pillow_tests_index.csv"))
def test_the_odd_files_of_pillow(row):
    path = ODD / "pillow_tests" / row["file"]
    if row["error"]:
        with pytest.raises(ImageError, match=path.name): open_image(path)
    else:
        image = open_image(path)
        assert (image.mode, image.size) == ("RGB", size_upright(path))
        assert f"{image.width}x{image.height}" in (row["size"], "x".join(reversed(row["size"].split("x"))))


@pytest.mark.parametrize("row", odd_rows("index.csv"))
def test_the_odd_files_of_real_data_sets(row):
    image = open_image(ODD / row["file"])
    assert (image.mode, image.size) == ("RGB", size_upright(ODD / row["file"]))
    if "mode L" in row["note"]:
        with Image.open(ODD / row["file"]) as grey: assert np.array_equal(np.asarray(image)[..., 0], np.asarray(grey))


# --- listing

def test_a_folder_is_listed_in_order_whatever_the_case(tmp_path):
    names = ["b.JPG", "a/z.png", "a/b/c.WebP", "a.jpeg", "d.tif", "e.TIFF", "f.bmp", "g.gif"]
    others = [".hidden.jpg", ".cache/x.jpg", "notes.txt", "jpg", "list.csv", "x.jpg.part"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert image_files(tmp_path) == sorted(tmp_path / name for name in names) == image_files(str(tmp_path))
    assert {Path(n).suffix.lower() for n in names} == SUFFIXES


def test_folders_without_images_are_errors(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="no image in it"): image_files(tmp_path)
    with pytest.raises(ValueError, match="is a file"): image_files(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="no such folder"): image_files(tmp_path / "none")


# --- labels

@given(label=st.text(st.characters(exclude_characters="/\0\n\\"), min_size=1), number=st.integers(0, 10**9),
       suffix=st.sampled_from([".jpg", ".JPEG", ".png", ".WebP", ".jpeg", ".Png"]))
def test_the_label_is_what_stands_before_the_last_number(label, number, suffix):
    assert label_func(Path("some_1/folder_2.jpg") / f"{label}_{number}{suffix}") == label


@pytest.mark.parametrize("name", ["holiday.jpg", "pug_12.gif", "pug_12", "_12.jpg", "pug_.jpg", "pug_1x.jpg", "pug-12.jpg", ""])
def test_other_names_give_no_label(name):
    with pytest.raises(ValueError, match="the name gives no label"): label_func(name)


def test_folder_label(tmp_path, monkeypatch):
    assert folder_label("clothes/shirts/a.jpg") == "shirts"
    monkeypatch.chdir(tmp_path)
    assert folder_label("a.jpg") == tmp_path.name
