"""Whatever is wrong with files, folders and models: one clear line, or the right result. From the package and from the command line."""
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from image_similarity import Gallery, ImageError, SimilarityFinder, create_encoder, labelled_images, open_image

ROOT = Path(__file__).resolve().parent.parent
ODD = Path(os.environ.get("IMAGE_SIMILARITY_DATA") or ROOT.parent / "shared" / "data") / "odd"

pytestmark = pytest.mark.usefixtures("elsewhere", "same_encoder")


@pytest.fixture
def refused(call):
    "Run a command that must fail with one line; the line."
    def refused(*args):
        code, out, err = call(*args)
        lines = err.splitlines()
        assert (code, out) == (2, "") and lines[-1].startswith("error: ") and "Traceback" not in err
        return lines[-1]
    return refused


@pytest.fixture
def model(small, tmp_path):
    "A copy of the small model, to be damaged; the pictures are where they were."
    copy = small.folder / f"copy-{tmp_path.name}"
    shutil.copytree(small.model, copy)
    yield copy
    shutil.rmtree(copy, ignore_errors=True)


def only_unsure(err) -> bool:
    "Whether all that a search by the small model says is why it gives no probability: it knows four classes only."
    return err.count("\n") == 1 and err.startswith("no probability: ") and "five or more classes" in err


def in_a_process(code, args=(), **options):
    "Run code in a Python of its own."
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, **options)


def png(width, height) -> bytes:
    "A PNG whose header says what it likes, and that holds nothing."
    def chunk(kind, body): return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def breeds(small, folder, counts) -> Path:
    "Copy so many pictures of each breed."
    folder.mkdir()
    for breed, n in zip(small.data.classes, counts):
        for file in sorted(small.images.glob(f"{breed}_*"))[:n]: shutil.copy(file, folder)
    return folder


# --- files and folders that are not there

def test_a_missing_query(small, refused, tmp_path):
    assert "nothing.jpg: there is no such file" in refused("find", tmp_path / "nothing.jpg", "--model", small.model)
    with pytest.raises(FileNotFoundError, match="nothing.jpg"): small.finder.search(tmp_path / "nothing.jpg")
    with pytest.raises(FileNotFoundError, match="nothing.jpg"): small.finder.predict(tmp_path / "nothing.jpg")


def test_a_folder_as_a_query(small, refused):
    assert f"{small.images}: is a folder, and a search takes a picture or a text" in refused("find", small.images, "--model", small.model)


def test_a_missing_and_an_empty_folder(small, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in ("missing", "there is no such folder"), ("empty", "no image in it"):
        assert said in refused("train", tmp_path / name, "--out", tmp_path / "model")
        assert said in refused("evaluate", small.model, tmp_path / name)
    assert not (tmp_path / "model").exists()


def test_a_missing_table(small, refused, tmp_path):
    assert "all.csv" in refused("train", small.images, "--out", tmp_path / "model", "--labels", tmp_path / "all.csv")
    assert "split.csv" in refused("train", small.images, "--out", tmp_path / "model", "--split", tmp_path / "split.csv")


def test_a_missing_model(small, refused, tmp_path):
    line = refused("find", small.query, "--model", tmp_path / "model")
    assert "there is no such model folder" in line and "train" in line
    assert "manifest" in refused("find", small.query, "--model", small.images)


def test_a_file_as_a_model_or_as_the_place_of_a_demo(small, refused):
    assert "is a file; give a model folder" in refused("find", small.query, "--model", small.query)
    assert "is a file; give a folder" in refused("demo", "--out", small.query)


def test_a_demo_leaves_other_people_s_pictures_alone(refused, tmp_path):
    (tmp_path / "result.png").write_bytes(b"mine")
    assert "result.png: exists" in refused("demo", "--out", tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["result.png"] and (tmp_path / "result.png").read_bytes() == b"mine"


def test_a_picture_that_is_gone_from_the_gallery_is_still_found_but_cannot_be_explained(small, call, refused, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(small.model, moved / "model")
    code, out, err = call("find", small.query, "--model", moved / "model")
    assert (code, len(out.splitlines()), {line.split("\t")[2] for line in out.splitlines()}) == (0, 5, {"missing"})
    assert err.splitlines()[-1].startswith("5 of 5 results are not there any more; `image_similarity gallery check")
    assert "there is no such file" in refused("find", small.query, "--model", moved / "model", "--explain", tmp_path / "why.png")


# --- too few classes, too few pictures

def test_one_class_only(small, refused, tmp_path):
    images = breeds(small, tmp_path / "pets", [4])
    line = refused("train", images, "--out", tmp_path / "model")
    assert "only one class" in line and small.data.classes[0] in line
    from image_similarity import classifier_learner, siamese_learner
    for learner in classifier_learner, siamese_learner:
        with pytest.raises(ValueError, match="only one class"):
            learner(labelled_images(images), small.encoder, augment=0, progress=False)


def test_a_class_with_one_image(small, quick, call, tmp_path):
    images = breeds(small, tmp_path / "pets", [6, 6, 1])
    code, out, err = call("train", images, "--out", tmp_path / "model")
    assert code == 0
    finder = SimilarityFinder.load(tmp_path / "model")
    (only,) = finder.lbl2files[small.data.classes[2]]
    results = finder.search(only, len(finder))
    assert len(results) == len(finder) - 1 and only not in [r.path for r in results]


@pytest.mark.parametrize("counts", [[1, 1, 1], [2, 2], [2, 1], [3, 3]])
def test_hardly_any_image_is_one_line_or_a_model(small, quick, call, tmp_path, counts):
    code, out, err = call("train", breeds(small, tmp_path / "pets", counts), "--out", tmp_path / "model")
    assert "Traceback" not in err
    if code: assert code == 2 and err.splitlines()[-1].startswith("error: ") and not (tmp_path / "model").exists()
    else: assert len(SimilarityFinder.load(tmp_path / "model").search(small.query)) > 0
    if max(counts) == 1: assert code == 0 and all(f"warning: {said}" in err for said in ("no class has two images", "every class has a single image")) # views of it are matches


# --- files that are not what they seem

@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "BMP", "TIFF"])
def test_any_format_under_the_name_jpg(small, call, tmp_path, format):
    disguised = tmp_path / "picture.jpg"
    Image.open(small.query).save(disguised, format, **({"lossless": True} if format == "WEBP" else {}))
    code, out, err = call("find", disguised, "--model", small.model)
    assert code == 0 and only_unsure(err)
    if format != "GIF": assert out == call("find", small.query, "--model", small.model)[1] # of a GIF the colours differ a little


@pytest.mark.parametrize("image", [
    Image.new("RGB", (1, 1), "red"), Image.new("L", (1, 1), 7),
    Image.new("RGB", (3000, 2), "blue"), Image.new("RGB", (2, 3000), "blue"),
    Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20), Image.new("RGBA", (30, 30), (1, 2, 3, 0)), Image.new("1", (9, 9))],
    ids=["1x1", "1x1 grey", "3000x2", "2x3000", "16-bit", "transparent", "1-bit"])
def test_odd_pictures_are_searched_for_explained_and_drawn(small, call, tmp_path, image):
    image.save(tmp_path / "odd.png")
    code, out, err = call("find", tmp_path / "odd.png", "--model", small.model, "--explain", tmp_path / "why.png")
    results = small.finder.search(tmp_path / "odd.png")
    assert (code, len(results)) == (0, 5) and only_unsure(err)
    assert [line.split("\t") for line in out.splitlines()] == [["?", str(r.path)] for r in results]
    assert all(0 <= r.pair_probability <= 1 for r in results)
    assert max(Image.open(tmp_path / "why.png").size) < 3000
    results = small.finder.search(tmp_path / "odd.png", 2)
    assert results._repr_html_().count("<img") == 3
    results.show(path=tmp_path / "results.png")


def test_cmyk(small, call, tmp_path):
    Image.open(small.query).convert("CMYK").save(tmp_path / "print.tif")
    assert call("find", tmp_path / "print.tif", "--model", small.model)[1] == call("find", small.query, "--model", small.model)[1]
    Image.open(small.query).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert call("find", tmp_path / "print.jpg", "--model", small.model)[0] == 0


def broken_files(small) -> dict[str, tuple[bytes, str]]:
    "Files that cannot be used, and what is said about each."
    whole = small.query.read_bytes()
    return {"cut off.jpg": (whole[:len(whole) // 2], "cut off"), "empty.jpg": (b"", "empty"), "bomb.png": (png(50_000, 50_000), "pixels"),
            "text.jpg": (b"just text", "not an image"), "page.png": (b"<html></html>", "not an image"), "header.jpg": (whole[:20], "")}


@pytest.mark.parametrize("name", ["cut off.jpg", "empty.jpg", "bomb.png", "text.jpg", "page.png", "header.jpg"])
def test_a_broken_query(small, refused, tmp_path, name):
    content, said = broken_files(small)[name]
    (tmp_path / name).write_bytes(content)
    line = refused("find", tmp_path / name, "--model", small.model)
    assert name in line and said in line
    with pytest.raises(ImageError, match=name): small.finder.search(tmp_path / name)


def test_broken_files_are_skipped_and_named(small, quick, call, tmp_path):
    images = breeds(small, tmp_path / "pets", [5, 5])
    for i, (content, _) in enumerate(broken_files(small).values()): (images / f"{small.data.classes[i % 2]}_{90 + i}.jpg").write_bytes(content)
    code, out, err = call("train", images, "--out", tmp_path / "model")
    assert code == 0
    skipped = [line for line in err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 6 and all(f"_{90 + i}.jpg: " in "\n".join(skipped) for i in range(6))
    gallery = Gallery(tmp_path / "model").files
    assert len(gallery) == 8 and not any("_9" in Path(f).name for f in gallery)


def test_nothing_but_broken_files(refused, quick, tmp_path):
    for name in "a_1.jpg", "a_2.jpg", "b_1.jpg": (tmp_path / name).write_bytes(b"junk")
    assert "none of 3 images could be read" in refused("train", tmp_path, "--out", tmp_path / "model")


def test_a_file_that_may_not_be_read(small):
    "As another user if we are root, who may read everything."
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copy(small.query, f"{folder}/locked_1.jpg")
        os.chmod(f"{folder}/locked_1.jpg", 0)
        code = ("import os, PIL.Image\nfrom image_similarity.images.opening import ImageError, open_image\n"
                "if hasattr(os, 'geteuid') and os.geteuid() == 0: os.seteuid(65534)\n"
                f"try: open_image('{folder}/locked_1.jpg')\nexcept ImageError as e: print(e.reason)")
        done = in_a_process(code)
        assert (done.stdout, done.stderr) == ("permission denied\n", "")


def test_folders_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder, "locked")
        locked.mkdir()
        for file in "a_1.jpg", "locked/b_1.jpg": Path(folder, file).touch()
        os.chmod(folder, 0o755), locked.chmod(0)
        code = ("import os\nfrom image_similarity.images.listing import image_files\n"
                "if hasattr(os, 'geteuid') and os.geteuid() == 0: os.seteuid(65534)\n"
                f"print(*image_files('{folder}'))\ntry: image_files('{locked}')\nexcept PermissionError as e: print(e.filename)")
        done = in_a_process(code)
        assert done.stdout == f"{folder}/a_1.jpg\n{locked}\n"
        assert f"UserWarning: {locked}: permission denied; the pictures in it are left out\n" in done.stderr


def test_a_refusal_of_the_system_is_one_line(small, refused, monkeypatch):
    def locked(*_): raise PermissionError(13, "Permission denied", "model/manifest.json")
    monkeypatch.setattr(SimilarityFinder, "load", locked)
    assert refused("find", small.query, "--model", small.model) == "error: model/manifest.json: permission denied"


@pytest.mark.skipif(not ODD.exists(), reason=f"there is no {ODD}")
def test_the_real_odd_files(small, call, monkeypatch):
    monkeypatch.setattr(SimilarityFinder, "load", lambda *_: small.finder)
    files = sorted(p for p in ODD.rglob("*") if p.is_file() and p.suffix != ".csv")
    assert len(files) > 40
    for file in files:
        try: open_image(file)
        except ImageError as e: readable, said = False, e.reason
        else: readable = True
        code, out, err = call("find", file, "--model", small.model, "--top-k", 1)
        if readable: assert (code, out.count("\n")) == (0, 1) and only_unsure(err), file
        else: assert (code, out, err.count("\n")) == (2, "", 1) and said in err, file


# --- the query and the gallery

@pytest.mark.parametrize("candidates", ["weighted", "class", "all"])
def test_a_query_of_the_gallery_is_never_its_own_result(small, candidates):
    for file in small.finder.files:
        found = [r.path for r in small.finder.search(file, len(small.finder), candidates)]
        assert found and file not in found


def test_nor_under_another_name_in_another_format(small, tmp_path):
    for i, file in enumerate(small.finder.files[::5]):
        copy = tmp_path / f"{i}.png"
        Image.open(file).save(copy)
        found = [r.path for r in small.finder.search(copy, len(small.finder))]
        assert len(found) == len(small.finder) - 1 and file not in found
        assert small.finder.predict(copy, show=False) != file


def test_compare_n_larger_than_the_class(small):
    small.finder.predict(small.query, compare_n=10_000, show=False)
    everything = small.finder.search(small.query, len(small.finder), "class")
    assert sorted(pair[1] for pair in small.finder.fns) == sorted(r.path for r in everything)
    small.finder.predict(small.query, compare_n=2, show=False)
    assert len(small.finder.fns) == 2
    for n in 0, -1:
        with pytest.raises(ValueError, match="compare_n"): small.finder.predict(small.query, compare_n=n)


def test_more_results_than_there_are(small, call):
    code, out, err = call("find", small.query, "--model", small.model, "--top-k", 10_000)
    assert (code, len(out.splitlines())) == (0, len(small.finder)) and only_unsure(err)


# --- encoders

@pytest.mark.soak
def test_an_encoder_without_weights(small, tmp_path):
    code = ("import sys\nfrom image_similarity.cli.commands import main\n"
            f"main(['train', {str(small.images)!r}, '--out', {str(tmp_path / 'model')!r}, '--arch', 'resnet34'])")
    done = in_a_process(code, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")})
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (2, "") and line.startswith("error: resnet34: no weights")
    assert str(tmp_path / "cache") in line and "tf_efficientnet_lite0" in line
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 2 # the other one says what is in the folder


@pytest.mark.parametrize("arch", ["resnet43", "local-dir:/tmp", "https://example.org/model", "../model"])
def test_no_such_encoder(small, refused, tmp_path, arch):
    assert f"{arch}: timm has no model of that name" in refused("train", small.images, "--out", tmp_path / "model", "--arch", arch)


# --- models that do not fit

PARTS = ["manifest.json", "scorers.safetensors", "heads.safetensors", "gallery.sqlite"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "garbage"])
def test_a_damaged_part(model, part, damage):
    file = model / part
    content = file.read_bytes()
    if damage == "missing": file.unlink()
    else: file.write_bytes({"empty": b"", "cut off": content[:len(content) * 2 // 3], "garbage": os.urandom(500)}[damage])
    with pytest.raises((ValueError, FileNotFoundError), match=f"{part}.*(train again|missing|damaged)"):
        _ = SimilarityFinder.load(model).clearn # the heads are read when a learner is asked for


def edit(model, **changes):
    manifest = json.loads((model / "manifest.json").read_text())
    for name, value in changes.items():
        if value is None: del manifest[name]
        else: manifest[name] = {**manifest[name], **value} if isinstance(value, dict) else value
    (model / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("changes, said", [
    ({"format": 99}, "format 99"), ({"format": None}, "format None"), ({"encoder": "nothing"}, "train again"), ({"encoder": None}, "train again"),
    ({"labels": None}, "train again"), ({"symmetric": None}, "train again"), ({"learners": None}, "train again"), ({"class_encoder": None}, "train again"),
    ({"labels": ["Bengal"]}, "must agree"), ({"encoder": {"fingerprint": "0" * 16}}, "fingerprint 0000"),
    ({"encoder": {"size": 128}}, "fingerprint"), ({"encoder": {"name": "hf-hub:someone/model"}}, "no weights for hf-hub:someone/model, which does not come with the package"),
    ({"encoder": {"name": "https://example.org/x"}}, "no weights for https://example.org/x, which does not come with the package"),
    ({"encoder": {"name": "hf-hub:someone/model", "weights": "scorers.safetensors"}}, "no model of that name"),
    ({"encoder": {"name": "https://example.org/x", "weights": "scorers.safetensors"}}, "no model of that name"), ({"encoder": {"weights": "../../etc/passwd"}}, "elsewhere"),
    ({"encoder": {"weights": "lost.safetensors"}}, "lost.safetensors")], ids=str)
def test_a_manifest_that_does_not_fit(small, model, refused, changes, said):
    edit(model, **changes)
    assert said in refused("find", small.query, "--model", model)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"model"', "{}"])
def test_a_manifest_that_is_none(small, model, refused, text):
    (model / "manifest.json").write_text(text)
    assert "manifest.json" in refused("find", small.query, "--model", model)


def change(model, part, **tensors):
    "In a folder as earlier versions left it: later ones know their files by fingerprints."
    edit(model, files=None)
    found = load_file(model / part)
    for name, tensor in tensors.items():
        if tensor is None: del found[name]
        else: found[name] = tensor
    save_file(found, model / part)


@pytest.mark.parametrize("part, tensors", [
    ("scorers.safetensors", {"A": None}), ("scorers.safetensors", {"class.weight": None}), ("scorers.safetensors", {"stray": torch.ones(2)}),
    ("scorers.safetensors", {"A": torch.ones(512, 8)}), ("scorers.safetensors", {"B": torch.ones(512, 8)}), ("scorers.safetensors", {"w": torch.ones(3)}),
    ("scorers.safetensors", {"class.weight": torch.ones(4, 8)})],
    ids=lambda x: x if isinstance(x, str) else "-".join(f"{k}{'' if v is None else tuple(v.shape)}" for k, v in x.items()))
def test_tensors_of_another_model(small, model, refused, part, tensors):
    change(model, part, **tensors)
    assert "train again" in refused("find", small.query, "--model", model)


@pytest.mark.parametrize("kind", ["of another encoder", "of vectors", "of nothing", "another database"])
def test_a_gallery_of_another_model(small, model, refused, tmp_path, kind):
    if kind == "another database":
        with sqlite3.connect(tmp_path / "gallery.sqlite") as other: other.execute("CREATE TABLE thesis(page)")
    else:
        other = Gallery(tmp_path / "other", create_encoder(size=64) if kind != "of vectors" else None, create=True)
        if kind == "of another encoder": other.add(small.data.files[:2], progress=False)
        if kind == "of vectors": other.import_embeddings(["a.jpg"], np.ones((1, 8), np.float32))
        other.close()
    for file in model.glob("gallery.sqlite*"): file.unlink()
    shutil.copy(next(tmp_path.rglob("gallery.sqlite")), model)
    assert "train again" in refused("find", small.query, "--model", model)


def test_weights_of_another_encoder(small, model, refused):
    other = small.finder.encoder.body.state_dict()
    other = {k: v + .01 if v.is_floating_point() else v for k, v in other.items()}
    save_file({k: v.contiguous() for k, v in other.items()}, model / "encoder.safetensors")
    edit(model, encoder={"weights": "encoder.safetensors"})
    assert "fingerprint" in refused("find", small.query, "--model", model)


# --- saving

def test_saving_over_something_else_is_refused(small, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not a model folder"): small.finder.save(tmp_path)
    with pytest.raises(ValueError, match="not a model folder"): small.finder.save(tmp_path / "thesis.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failure_while_saving_leaves_the_old_model(small, model, monkeypatch):
    Gallery(model).close() # a log that was copied along is in the gallery now
    before = {p.name: p.read_bytes() for p in model.rglob("*") if p.is_file()}
    assert "gallery.sqlite" in before and not any(name.endswith(("-wal", "-shm")) for name in before)
    from image_similarity.finder import folder as model_folder
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(model_folder, "write_manifest", full)
    with pytest.raises(OSError, match=f"{model}: the disk is full; make room") as raised: small.finder.save(model)
    assert raised.value.errno == 28
    assert {p.name: p.read_bytes() for p in model.rglob("*") if p.is_file()} == before
    assert [p.name for p in model.parent.iterdir() if p.name.startswith(f".{model.name}")] == []


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from functools import lru_cache
from image_similarity.gallery.gallery import Gallery
from image_similarity.finder.finder import SimilarityFinder
from image_similarity.encoders import model_files as saving
from image_similarity.encoders.model_files import read_manifest, read_tensors

saving.create_encoder = lru_cache(saving.create_encoder) # it is compared with what is saved, and takes most of the time

def state():
    "Whose labels the model folder has now; raises when anything is missing or damaged."
    read_manifest(folder)
    for part in ("scorers", "heads"): read_tensors(f"{folder}/{part}.safetensors")
    gallery = Gallery(folder)
    try: return gallery.labels[0]
    finally: gallery.close()

folder, touched, last, saving_now = sys.argv[1], 0, 0, False
finder = SimilarityFinder.load(folder)
finder.clearn, finder.slearn # before the folder is touched
renamed = Gallery(encoder=finder.encoder) # in memory: an SQLite file must not be used by two processes of one fork
renamed.import_embeddings(finder.files, finder.gallery.pooled, ["new"] * len(finder))
finder.gallery.close()
finder.gallery = renamed
WRITES = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "shutil.rmtree", "ctypes.dlsym", "ctypes.dlopen")

def audit(event, args):
    global touched
    if event in WRITES or event == "open" and args[1] and any(c in args[1] for c in "wax"):
        touched += 1
        if touched == last and saving_now: os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
for last in range(1, 100):
    if not os.fork():
        touched, saving_now = 0, True
        finder.save(folder)
        os._exit(0)
    killed = os.WIFSIGNALED(os.wait()[1])
    print(killed, state(), flush=True)
    if not killed: break
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="two folders change places in one step where the system can do it")
def test_kill_9_while_saving_leaves_the_old_model_or_the_new(small, model):
    "The process is killed before each of the calls by which saving changes the disk, one after the other."
    done = in_a_process(KILLED, args=[model])
    for left in model.parent.glob(f".{model.name}*"): # a killed process cannot clean up
        if left.is_dir(): shutil.rmtree(left)
        else: left.unlink() # the lock that tells that somebody is writing
    assert done.returncode == 0, done.stderr
    steps = [line.split() for line in done.stdout.splitlines()]
    assert len(steps) > 6 and steps[0] == ["True", small.data.classes[0]] and steps[-1] == ["False", "new"]
    assert len(SimilarityFinder.load(model).search(small.query)) == 5


# --- galleries

@pytest.mark.parametrize("item", ["999", "nosuch.jpg", Path("/elsewhere/nosuch.jpg")])
def test_an_item_that_is_not_there_cannot_be_removed(refused, model, item):
    assert refused("gallery", "remove", model, item) == f"error: {item}: the gallery has no such item"
    with pytest.raises(KeyError): Gallery(model).remove(int(item) if item == "999" else item) # as of a dict


@pytest.mark.parametrize("picture, options, says", [("nosuch.jpg", [], "there is no such file"), ("holiday.png", ["--labels", "name"], "the name gives no label")])
def test_a_gallery_is_not_made_for_nothing(refused, tmp_path, picture, options, says):
    Image.new("RGB", (8, 8)).save(tmp_path / "holiday.png")
    assert f"{picture}: {says}" in refused("index", tmp_path / picture, "--gallery", tmp_path / "g", *options)
    assert [f.name for f in tmp_path.iterdir()] == ["holiday.png"]


@pytest.mark.parametrize("command", ["duplicates", "clusters"])
@pytest.mark.parametrize("name, said", [("missing/sheet.png", "no such folder"), ("sheet.txt", ".png"), ("sheet.svg", ".png"), ("folder.png", "is a folder")])
def test_a_sheet_that_cannot_be_written_is_refused_first(refused, tmp_path, command, name, said):
    (tmp_path / "folder.png").mkdir()
    line = refused(command, "--gallery", "no gallery", "--sheet", tmp_path / name)
    assert said in line and name.split("/")[0] in line


def test_a_model_with_another_gallery_keeps_its_heads_and_its_learners(small, model, tmp_path):
    unlabelled = Gallery(tmp_path / "unlabelled", small.encoder)
    unlabelled.import_embeddings(small.finder.files, small.finder.gallery.pooled)
    finder = SimilarityFinder.load(model, gallery=unlabelled)
    saved = finder.save(tmp_path / "saved")
    heads = load_file(model / "heads.safetensors")
    assert len(heads) > 4 and all(torch.equal(heads[name], tensor) for name, tensor in load_file(saved / "heads.safetensors").items())
    assert json.loads((saved / "manifest.json").read_text())["learners"] == json.loads((model / "manifest.json").read_text())["learners"]
    again = SimilarityFinder.load(saved)
    assert [r.score for r in again.search(small.query)] == pytest.approx([r.score for r in finder.search(small.query)], abs=1e-4)
    assert torch.allclose(finder.clearn.predict(small.query)[2], small.finder.clearn.predict(small.query)[2], atol=1e-4)
    with pytest.raises(ValueError, match="saved: its gallery has no picture of a class that the model knows"): _ = again.slearn


# --- items that go during a search

COME_AND_GO = """
import sys
from image_similarity.gallery.gallery import Gallery
gallery = Gallery(sys.argv[1])
labels, pooled = gallery.labels, gallery.pooled
print("ready", flush=True)
while True: gallery.remove(gallery.import_embeddings([f"visitor {i}" for i in range(len(labels))], pooled, labels))
"""


@pytest.mark.long
def test_searches_go_on_while_another_process_adds_and_removes_items(small, model):
    finder = SimilarityFinder.load(model)
    pooled = finder.gallery.encoder.look([small.query]).pooled[0]
    with subprocess.Popen([sys.executable, "-c", COME_AND_GO, model], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "ready\n"
            sizes = set()
            for _ in range(100):
                found = finder.search(small.query, 20, pooled=pooled)
                assert len({r.id for r in found}) == 20
                finder.predict(small.query, 3, show=False)
                assert len(finder.fns) == 3
                sizes.add(sum(len(files) for files in finder.lbl2files.values()))
        finally: other.kill()
    assert sizes <= {24, 48} # never something between


# --- names

NAMES = ["two words", "tab\tin it", "ünï – 猫", "-leading", "--model", "q'uote\"s", "per%cent {brace} [bracket]", "$HOME `ls` ;", "🐈"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_query(small, call, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(small.query, f"{name}.jpg")
    def found(*line):
        code, out, err = call("find", *line)
        assert (code, err) == (0, "")
        return json.loads(out)["query"], [r["path"] for r in json.loads(out)["results"]]

    query, paths = found("--model", small.model, "--json", "--", f"{name}.jpg")
    assert query == f"{name}.jpg" and len(paths) == 5
    if not name.startswith("-"): assert found(f"{name}.jpg", "--model", small.model, "--json") == (query, paths)


def test_any_name_in_the_gallery_and_of_the_model(small, quick, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = breeds(small, tmp_path / "my pets – 猫", [5, 5])
    names = iter([*NAMES, "plain"])
    for file in sorted(files.iterdir()):
        breed, _, number = file.stem.rpartition("_")
        file.rename(file.with_name(f"{next(names)} {breed[0]}_{number}.jpg"))
    labels = {f.name: f.name[-7:-6] for f in files.iterdir()}
    for name, label in labels.items():
        (files / label).mkdir(exist_ok=True)
        (files / name).rename(files / label / name)
    code, out, err = call("train", files, "--out", "-my model")
    assert code == 0, err
    query = next(small.images.glob(f"{small.data.classes[3]}_*")) # of a breed that is not in the gallery
    code, out, err = call("find", query, "--model", "-my model", "--top-k", 99, "--json")
    found = [Path(r["path"]) for r in json.loads(out)["results"]]
    assert code == 0 and len(found) == 8 and all(p.is_file() and p.parts[0] == files.name for p in found)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes names that are not text")
def test_names_that_are_not_text(small, tmp_path):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for i, file in enumerate(small.finder.files[:4]): shutil.copy(file, os.fsencode(gallery) + b"/caf\xe9_%d.jpg" % i)
    files = sorted(gallery.iterdir())
    SimilarityFinder(small.finder.clearn, small.finder.slearn, files, labels=small.finder.labels[:4], progress=False).save(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", "from image_similarity.cli.commands import main; main()", "find", files[0], "--model", tmp_path / "model"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert [line.split(b"\t")[1].rpartition(b"/")[2][:4] for line in done.stdout.splitlines()] == [b"caf\xe9"] * 3
