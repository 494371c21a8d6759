"""`open_image` on what people really have: odd formats, broken files, bombs; listing and labels."""
import csv
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageCms, ImageOps

from image_similarity.images.errors import BadImages, ImageError
from image_similarity.images.formats import FORMATS, SUFFIXES, decoders, is_installed
from image_similarity.images.listing import folder_label, image_files, label_func
from image_similarity.images.memory import MAX_PIXELS, DecodingMemory
from image_similarity.images.opening import open_image

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


@pytest.mark.parametrize("value, wanted", [(0, 0), (65535, 255), (32896, 128), (5140, 20)])
def test_sixteen_bits_become_eight(value, wanted):
    grey = Image.fromarray(np.full((2, 3), value, np.uint16))
    for format in ("PNG", "TIFF"):
        assert np.asarray(open_image(encoded(grey, format))).tolist() == [[[wanted] * 3] * 3] * 2


def test_twelve_bits_in_sixteen_are_found_in_a_tiff_only():
    "4,095 is white there; in a PNG, whose standard wants values scaled, it is nearly black."
    twelve = Image.fromarray(np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8))
    eight = np.linspace(0, 255, 64).reshape(8, 8)
    assert np.abs(np.asarray(open_image(encoded(twelve, "TIFF")), float)[..., 0] - eight).max() < 1
    assert np.asarray(open_image(encoded(twelve, "PNG"))).max() == 16
    assert np.asarray(open_image(encoded(twelve, "TIFF", tiffinfo={281: 65535}))).max() == 255 # nothing above 4,095, so that word is not believed


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


@pytest.mark.parametrize("mode", ["L", pytest.param("RGB", marks=pytest.mark.long), pytest.param("RGBA", marks=pytest.mark.long)])
def test_a_large_picture_of_another_kind_is_made_smaller_by_the_means_of_squares(mode):
    large = noise(2500, 2000).convert(mode)
    found = open_image(encoded(large, "PNG"), at_least=300) # squares of six pixels a side; those at the edge are cut
    assert found.size == (417, 334)
    whole = np.asarray(large.convert("RGB"))[:1998, :2496].reshape(333, 6, 416, 6, 3).mean((1, 3))
    assert np.abs(np.asarray(found, float)[:333, :416] - whole).max() <= 1
    assert open_image(encoded(large, "PNG"), at_least=1500).size == (2500, 2000) # no side below it
    assert open_image(encoded(large, "PNG")).size == (2500, 2000)


# --- what is refused, and how it is said

@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg"])
def test_a_header_that_claims_too_much_is_refused_before_unpacking(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(png(20_000, 20_000))
    with pytest.raises(ImageError, match=rf"{name}: too many pixels to decode"): open_image(path)


def test_a_real_bomb_is_refused_without_the_memory(tmp_path):
    squeeze, rows = zlib.compressobj(9), []
    for _ in range(12_000): rows.append(squeeze.compress(bytes(12_001)))
    path = tmp_path / "one_colour.png"
    path.write_bytes(png(12_000, 12_000, b"".join(rows) + squeeze.flush()))
    assert path.stat().st_size < 1_000_000
    code = ("import resource, sys, warnings; warnings.simplefilter('ignore'); from image_similarity.images.opening import ImageError, decoders, open_image; decoders()\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: open_image(sys.argv[1])\n"
            "except ImageError as e: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, e.reason, sep='|')")
    pytest.importorskip("resource", reason="memory is not measured on this system")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    grown, reason = done.stdout.strip().split("|")
    assert reason.startswith("12000 x 12000 pixels would take 0.7 GB to decode, more than 0.6")
    assert int(grown) * 1024 < 50_000_000   # unpacked it would be 144 MB grey, 432 MB as RGB


def test_the_limit_itself_is_allowed(monkeypatch):
    data = encoded(Image.new("RGB", (10, 10)), "PNG") # 400 bytes as it is decoded
    monkeypatch.setattr("image_similarity.images.memory.LARGEST", 400)
    assert open_image(data).size == (10, 10)
    monkeypatch.setattr("image_similarity.images.memory.LARGEST", 399)
    with pytest.raises(ImageError, match="10 x 10 pixels would take"): open_image(data)
    assert MAX_PIXELS == 150_000_000


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


@pytest.mark.parametrize("data, said", [
    pytest.param(SVG, "rsvg-convert", id="SVG"), pytest.param(b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n", "pdftoppm", id="PDF"),
    pytest.param(b"\0\0\0\x18ftypisom" + bytes(99), "ffmpeg", id="film"), pytest.param(EPS, "not an image that can be read", id="EPS"),
    *(pytest.param(data, "not an image that can be read", id=name) for name, data in {
        "text": b"just some words\n" * 9, "zeros": bytes(1000), "zip": b"PK\x03\x04" * 50, "PCX": encoded(noise(), "PCX")}.items())])
def test_other_formats_are_refused_whatever_they_are_called(tmp_path, data, said):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf"picture\.png: .*{said}"): open_image(path)


@given(st.binary(max_size=300), st.sampled_from([f.name for f in FORMATS if f.name not in ("HEIF", "PSD") and f.name in decoders()]), st.integers(0, 400))
@settings(max_examples=300)
def test_damage_raises_nothing_but_image_errors(junk, format, where):
    data = bytearray(encoded(Image.new("RGB", (20, 20), "teal"), format))
    data[where % len(data):where % len(data) + len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: assert open_image(bytes(data)).mode == "RGB"
        except ImageError as e: assert e.path is None and str(e).startswith("image: ")


@pytest.fixture(scope="module")
def made_elsewhere(tmp_path_factory):
    "The bytes of formats that Pillow does not write: HEIC, by heif-enc or as one of the shared cases; PSD and DNG, by hand."
    folder = tmp_path_factory.mktemp("made")
    drawn((64, 48)).save(folder / "a.png")
    kept, found = ODD.parent.parent / "cases" / "formats" / "pet.heic", {}
    if shutil.which("heif-enc"): subprocess.run(["heif-enc", "-q", "50", str(folder / "a.png"), "-o", str(folder / "a.heic")], check=True, capture_output=True)
    elif kept.exists(): shutil.copy(kept, folder / "a.heic")
    if (folder / "a.heic").exists(): found[".heic"] = (folder / "a.heic").read_bytes()
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 8, 8, 8, 3)
    found[".psd"] = header + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + bytes(range(192))
    if is_installed("rawpy"):
        dng(folder / "a.dng", 64, 48)
        found[".dng"] = (folder / "a.dng").read_bytes()
    for suffix, data in found.items(): # whole, they are read
        (folder / f"whole{suffix}").write_bytes(data)
        assert open_image(folder / f"whole{suffix}").mode == "RGB"
    return folder, found


@given(st.binary(max_size=200), st.sampled_from([".heic", ".psd", ".dng"]), st.floats(0, 1))
@settings(max_examples=120, deadline=None)
def test_damage_in_formats_that_pillow_does_not_write(made_elsewhere, junk, suffix, where):
    folder, found = made_elsewhere
    if suffix not in found: return
    data = bytearray(found[suffix])
    start = int(where * min(len(data), 4000)) # where the structure is
    data[start:start + len(junk)] = junk
    (folder / f"damaged{suffix}").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: assert open_image(folder / f"damaged{suffix}").mode == "RGB"
        except ImageError as e: assert str(e).startswith(str(folder / f"damaged{suffix}"))


def test_what_is_not_there_or_no_file(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"x\.jpg: is a directory"): open_image(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty"): open_image(tmp_path / "empty.jpg")
    for name in ("none.jpg", "empty.jpg/none.jpg"):
        with pytest.raises(FileNotFoundError, match=r"none\.jpg: there is no such file"): open_image(tmp_path / name)
    with pytest.raises(ImageError, match="name too long"): open_image(tmp_path / ("x" * 300))
    for thing in (None, 5, [tmp_path]):
        with pytest.raises(TypeError, match="give a path or address, the bytes of an image, an open binary file"): open_image(thing)


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
    for i, format in enumerate(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"] * 4): (tmp_path / f"{i:02}.img").write_bytes(encoded(noise(seed=i), format))
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
        with Image.open(ODD / row["file"]) as grey:
            profile = grey.info.get("icc_profile") and ImageCms.ImageCmsProfile(io.BytesIO(grey.info["icc_profile"]))
            means_grey = profile and profile.profile.xcolor_space.strip() == "GRAY" # a profile of colours says nothing about a grey photo
            right = ImageCms.profileToProfile(grey, profile, ImageCms.createProfile("sRGB"), outputMode="RGB") if means_grey else grey.convert("RGB")
            assert np.array_equal(np.asarray(image), np.asarray(right))


# --- listing

def test_a_folder_is_listed_in_order_whatever_the_case(tmp_path):
    names = ["b.JPG", "a/z.png", "a/b/c.WebP", "a.jpeg", "d.tif", "e.TIFF", "f.bmp", "g.gif"]
    others = [".hidden.jpg", ".cache/x.jpg", "notes.txt", "jpg", "list.csv", "x.jpg.part"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert image_files(tmp_path) == sorted(tmp_path / name for name in names) == image_files(str(tmp_path))
    assert {Path(n).suffix.lower() for n in names} < SUFFIXES
    assert image_files(tmp_path).passed_over == sorted(tmp_path / name for name in ("notes.txt", "jpg", "list.csv", "x.jpg.part"))


def test_a_folder_says_what_was_not_looked_at(tmp_path):
    for name in ("a.jpg", "b.svg", "c.SVG", "film.mov", "scan", "notes.txt", "c.jxl", "d.cr2"): (tmp_path / name).touch()
    report = image_files(tmp_path).report()
    assert report[0].startswith("2 .svg not looked at: a drawing") and any(line.startswith("1 .mov not looked at: a film") for line in report)
    assert any(line.startswith("1 without an ending not looked at") for line in report) and not any(".txt" in line for line in report)


# --- formats, colours, memory

def drawn(size=(320, 240)) -> Image.Image:
    "Smooth, with a clear up and down."
    y, x = np.mgrid[:size[1], :size[0]]
    return Image.fromarray(np.stack([x * 255 // size[0], y * 255 // size[1], (x + y) * 100 // size[0]], -1).astype(np.uint8))


@pytest.mark.parametrize("format, suffix, off", [("AVIF", ".avif", 4), ("JPEG2000", ".jp2", 3), ("PPM", ".ppm", 0), ("TGA", ".tga", 0), ("ICO", ".ico", 40),
                                               ("MPO", ".mpo", 4), ("JXL", ".jxl", 4), ("JPEG", ".jfif", 4)])
def test_the_formats_that_people_have(tmp_path, format, suffix, off):
    if format not in decoders() and format != "MPO": pytest.skip(f"there is no decoder for {format}")
    drawn().save(tmp_path / f"a{suffix}", format)
    found = open_image(image_files(tmp_path)[0])
    assert np.abs(np.asarray(found.resize((64, 48)), int) - np.asarray(drawn().resize((64, 48)), int)).mean() <= off


@pytest.mark.skipif(not shutil.which("heif-enc"), reason="there is no heif-enc")
@pytest.mark.parametrize("size", [(320, 240), pytest.param((4032, 3024), marks=pytest.mark.soak)])
def test_a_phone_s_heic(tmp_path, size):
    drawn(size).save(tmp_path / "a.png")
    subprocess.run(["heif-enc", "-q", "90", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.heic")], check=True, capture_output=True)
    found = open_image(tmp_path / "a.heic", at_least=200)
    assert np.abs(np.asarray(found.resize((64, 48)), int) - np.asarray(drawn().resize((64, 48)), int)).mean() < 4


def dng(path: Path, width=256, height=192) -> None:
    "The smallest raw file that LibRaw reads: a sensor of red, green and blue squares, uncompressed, as its standard describes it."
    sensor = np.full((height, width), 4000, "<u2")
    sensor[::2, ::2] = 40000 # red
    def entry(tag, kind, values):
        raw = np.asarray(values, {1: "<u1", 2: "<u1", 3: "<u2", 4: "<u4", 5: "<u4", 10: "<i4"}[kind]).tobytes()
        return tag, kind, len(raw) // {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 10: 8}[kind], raw
    matrix = [n for row in ((3, -1, 0), (-1, 2, 0), (0, 0, 1)) for v in row for n in (v, 1)]
    entries = [entry(254, 4, [0]), entry(256, 4, [width]), entry(257, 4, [height]), entry(258, 3, [16]), entry(259, 3, [1]), entry(262, 3, [32803]),
               entry(271, 2, list(b"Maker\0")), entry(272, 2, list(b"Model\0")), entry(273, 4, [0]), entry(277, 3, [1]), entry(278, 4, [height]),
               entry(279, 4, [sensor.nbytes]), entry(33421, 3, [2, 2]), entry(33422, 1, [0, 1, 1, 2]), entry(50706, 1, [1, 4, 0, 0]),
               entry(50708, 2, list(b"Maker Model\0")), entry(50721, 10, matrix), entry(50717, 4, [65535]), entry(50728, 5, [1, 1, 1, 1, 1, 1]), entry(50778, 3, [21])]
    entries.sort()
    start = 8 + 2 + 12 * len(entries) + 4
    extra, table = b"", b""
    where = start + sum(len(e[3]) + len(e[3]) % 2 for e in entries if len(e[3]) > 4)
    for tag, kind, count, raw in entries:
        if tag == 273: raw = struct.pack("<I", where)
        if len(raw) > 4: value, extra = struct.pack("<I", start + len(extra)), extra + raw + bytes(len(raw) % 2)
        else: value = raw.ljust(4, b"\0")
        table += struct.pack("<HHI", tag, kind, count) + value
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + bytes(4) + extra + sensor.tobytes())


def test_a_raw_file_is_developed(tmp_path):
    pytest.importorskip("rawpy")
    dng(tmp_path / "a.dng")
    found = open_image(image_files(tmp_path)[0])
    red, green, blue = np.asarray(found).reshape(-1, 3).mean(0)
    assert (found.mode, found.size) == ("RGB", (128, 96)) and red > 2 * green and red > 2 * blue


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F", "HSV"])
def test_an_open_picture_of_any_mode_is_as_its_file(mode):
    stored = Image.fromarray(np.arange(12 * 8, dtype=np.uint16).reshape(8, 12) * 600) if mode == "I;16" else drawn((12, 8)).convert("L" if mode in "IF" else "RGB").convert(mode)
    if mode == "RGBA": stored.putalpha(128)
    if mode not in ("YCbCr", "HSV", "LA", "I"): # TIFF keeps these otherwise
        data = encoded(stored, "TIFF")
        assert open_image(Image.open(io.BytesIO(data))).tobytes() == open_image(data).tobytes()
    assert open_image(stored).mode == "RGB"


def test_pixels_of_arrays_and_tensors():
    torch = pytest.importorskip("torch")
    pixels = np.asarray(drawn((12, 8)))
    for pixels_of in (pixels, torch.from_numpy(pixels.copy()), memoryview(encoded(drawn((12, 8)), "PNG"))): assert open_image(pixels_of).tobytes() == pixels.tobytes()
    for wrong in (pixels.astype(float), pixels.transpose(2, 0, 1), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(TypeError, match=r"give uint8 of shape"): open_image(wrong)


def test_a_photo_of_a_phone_with_108_megapixels_is_decoded_smaller(tmp_path):
    "Its header alone would refuse it; what decoding takes does not."
    path = tmp_path / "large.jpg"
    Image.new("RGB", (12_000, 9_000), "teal").save(path)
    assert min(open_image(path, at_least=288).size) >= 288


def peak_of(path: Path, at_least: str = "None") -> int:
    "Bytes that opening takes at most, beyond what was there before, in a process of its own."
    code = ("import re, sys\nfrom pathlib import Path\nfrom image_similarity import open_image\nimport numpy, io\nfrom PIL import Image\n"
            "from image_similarity.images.formats import decoders; decoders()\n"
            "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024\n"
            "Path('/proc/self/clear_refs').write_text('5'); before = peak()\n"
            f"open_image(sys.argv[1], {at_least}); print(peak() - before)")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="memory is not measured on this system")
@pytest.mark.parametrize("mode, size, at_least, format", [
    ("RGB", (6000, 4000), "None", "PNG"), ("F", (6000, 6000), "288", "TIFF"),
    *(pytest.param(*large, marks=pytest.mark.long) for large in (("I;16", (9000, 9000), "288", "PNG"), ("RGBA", (9000, 9000), "288", "PNG"), ("RGB", (5000, 4000), "288", "JPEG2000")))])
def test_no_picture_takes_more_than_is_said(tmp_path, mode, size, at_least, format):
    Image.new(mode, size).save(tmp_path / "a", format, **({"compress_level": 1} if format == "PNG" else {}))
    assert peak_of(tmp_path / "a", at_least) < 620_000_000


def test_who_decodes_waits_for_a_share():
    memory, done = DecodingMemory(1000), threading.Event()
    def decode():
        with memory.share(200): done.set()

    with memory.share(900):
        thread = threading.Thread(target=decode)
        thread.start()
        assert not done.wait(.2)
    thread.join(timeout=5)
    assert done.is_set() and memory.taken == 0



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


@pytest.mark.parametrize("name", ["holiday.jpg", "pug_12.txt", "pug_12", "_12.jpg", "pug_.jpg", "pug_1x.jpg", "pug-12.jpg", ""])
def test_other_names_give_no_label(name):
    with pytest.raises(ValueError, match="the name gives no label"): label_func(name)


def test_folder_label(tmp_path, monkeypatch):
    assert folder_label("clothes/shirts/a.jpg") == "shirts"
    monkeypatch.chdir(tmp_path)
    assert folder_label("a.jpg") == tmp_path.name
