"Galleries that are replaced, moved or deleted while others write into them; logs that are lost; records and rows that somebody has changed."
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from image_similarity.finder.finder import SimilarityFinder
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.acknowledged import ACKNOWLEDGED

HERE = Path(__file__).resolve().parent
ROWS = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def ran(code: str, *arguments, kill: bool = False) -> str:
    "What a process of its own prints; it kills itself at the end if asked to."
    ending = "\nimport os, signal, sys; sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)" if kill else ""
    done = subprocess.run([sys.executable, "-c", code + ending, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    return done.stdout


ADD = """
import sys, numpy as np
from image_similarity.gallery.gallery import Gallery
gallery = Gallery(sys.argv[1])
for i in range(int(sys.argv[2])): gallery.import_embeddings([f"{sys.argv[1]}/../{i}.jpg"], np.full((1, 6), i, np.float32))
"""


@pytest.fixture
def model(small, tmp_path):
    "A model folder of one's own."
    shutil.copytree(small.model, tmp_path / "model")
    return tmp_path / "model"


# --- a writer, and a folder that is no longer at its name

@pytest.mark.soak
def test_what_is_added_after_a_model_was_saved_over_itself_is_there(model):
    ours = Gallery(model)
    before, width = len(ours), ours.pooled.shape[1]
    assert "saved" in ran("import sys; from image_similarity import SimilarityFinder; SimilarityFinder.load(sys.argv[1]).save(sys.argv[1]); print('saved')", model)
    ids = ours.import_embeddings([model.parent / f"{i}.jpg" for i in range(10)], np.ones((10, width), np.float32))
    there = Gallery(model)
    assert len(there) == before + 10 and set(ids) <= set(there.ids) and len(ours) == before + 10
    assert ours.check().damage is None and SimilarityFinder.load(model).gallery.ids == there.ids


def test_a_save_takes_along_what_was_added_since_the_model_was_opened(model):
    finder, other = SimilarityFinder.load(model), SimilarityFinder.load(model)
    before, width = len(finder), finder.gallery.pooled.shape[1]
    other.save(model)
    Gallery(model).import_embeddings([model.parent / "late.jpg"], np.ones((1, width), np.float32))
    finder.save(model) # whose gallery was the one before
    assert len(Gallery(model)) == len(finder.gallery) == before + 1
    assert finder.gallery.files[-1].name == "late.jpg"


def test_another_gallery_in_its_place_is_not_written_into(tmp_path):
    ours = Gallery(tmp_path / "gallery")
    ours.import_embeddings(["a.jpg"], ROWS[:1])
    os.rename(tmp_path / "gallery", tmp_path / "moved")
    other = Gallery(tmp_path / "gallery")
    other.import_embeddings(["b.jpg"], ROWS[:1])
    for change in (lambda: ours.import_embeddings(["c.jpg"], ROWS[:1]), lambda: ours.remove(1), lambda: ours.update(1, "cat")):
        with pytest.raises(ValueError, match="gallery.sqlite: was replaced by another gallery while it was open"): change()
    assert [f.name for f in Gallery(tmp_path / "gallery").files] == ["b.jpg"] and [f.name for f in Gallery(tmp_path / "moved").files] == ["a.jpg"]


def test_a_model_with_another_encoder_in_its_place_is_not_written_into(model, small):
    ours = Gallery(model)
    width = ours.pooled.shape[1]
    with closing(sqlite3.connect(model / "gallery.sqlite")) as file:
        copy = model.with_name("copy.sqlite")
        with closing(sqlite3.connect(copy)) as other:
            file.backup(other)
            other.execute("UPDATE facts SET value = json_set(value, '$.fingerprint', 'another') WHERE name = 'encoder'")
            other.commit()
    os.replace(copy, model / "gallery.sqlite")
    with pytest.raises(ValueError, match="was replaced by another gallery"): ours.import_embeddings(["c.jpg"], np.ones((1, width), np.float32))


@pytest.mark.parametrize("how", [shutil.rmtree, lambda folder: os.rename(folder, folder.with_name("away"))], ids=["deleted", "moved"])
def test_a_gallery_that_is_gone_gives_no_ids(tmp_path, how):
    gallery = Gallery(tmp_path / "gallery")
    gallery.import_embeddings(["a.jpg"], ROWS[:1])
    how(tmp_path / "gallery")
    with pytest.raises(FileNotFoundError, match="gallery.sqlite: was moved or deleted while it was open") as told: gallery.import_embeddings(["b.jpg"], ROWS[:1])
    assert "\n" not in str(told.value) and not (tmp_path / "gallery").exists()


def test_a_gallery_that_is_opened_by_a_link_finds_its_pictures_where_it_lies(tmp_path):
    (tmp_path / "photos").mkdir(), (tmp_path / "elsewhere").mkdir()
    real = Gallery(tmp_path / "photos" / "gallery")
    real.import_embeddings([tmp_path / "photos" / "a.jpg"], ROWS[:1])
    os.symlink(tmp_path / "photos" / "gallery", tmp_path / "elsewhere" / "link")
    linked = Gallery(tmp_path / "elsewhere" / "link")
    assert linked.files == real.files == [tmp_path / "photos" / "a.jpg"]
    linked.import_embeddings([tmp_path / "photos" / "b.jpg"], ROWS[1:2])
    assert real.files == [tmp_path / "photos" / "a.jpg", tmp_path / "photos" / "b.jpg"]


def test_a_model_that_is_saved_by_a_link_lies_where_the_link_leads(model):
    link = model.with_name("link")
    os.symlink(model, link)
    finder = SimilarityFinder.load(link)
    finder.save(link)
    assert link.is_symlink() and not model.is_symlink() and len(SimilarityFinder.load(model)) == len(finder)
    assert sorted(f.name for f in model.parent.iterdir()) == ["link", "model"]


@pytest.mark.soak
def test_nothing_is_lost_while_a_model_is_saved_over_itself_again_and_again(model):
    "Two who add, one item at a time, and tell; one who saves; one who is killed on the way."
    adder = """
import sys, numpy as np
from image_similarity.gallery.gallery import Gallery
gallery = Gallery(sys.argv[1])
for i in range(200): print(*gallery.import_embeddings([f"{sys.argv[1]}/../{sys.argv[2]}_{i}.jpg"], np.full((1, int(sys.argv[3])), i, np.float32)), flush=True)
"""
    saver = "import sys; from image_similarity import SimilarityFinder\nfor _ in range(8): SimilarityFinder.load(sys.argv[1]).save(sys.argv[1])"
    before, width = len(Gallery(model)), Gallery(model).pooled.shape[1]
    start = lambda code, *more: subprocess.Popen([sys.executable, "-c", code, str(model), *map(str, more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    adders, savers = [start(adder, name, width) for name in ("a", "b")], [start(saver), start(saver)]
    try: savers[1].wait(6)
    except subprocess.TimeoutExpired: savers[1].kill()
    told = [process.communicate(timeout=300) for process in adders]
    assert savers[0].wait(300) == 0
    ids = {int(line) for out, _ in told for line in out.split()}
    there = Gallery(model)
    assert len(ids) == 400, [err[-500:] for _, err in told]
    assert ids <= set(there.ids) and len(there) == before + 400 and there.check().damage is None and not there.check().damaged_vectors


# --- a log that is lost

@pytest.mark.parametrize("how", ["deleted", "cut off", "emptied", "flipped"])
def test_what_was_acknowledged_and_is_lost_with_the_log_is_said(tmp_path, how):
    ran(ADD, tmp_path / "gallery", 20, kill=True)
    log = tmp_path / "gallery" / "gallery.sqlite-wal"
    whole = log.read_bytes()
    assert len(whole) > 20_000 # nothing has gone into the file itself
    if how == "deleted": log.unlink()
    else: log.write_bytes({"cut off": whole[:len(whole) // 2], "emptied": b"", "flipped": whole[:len(whole) // 3] + bytes([whole[len(whole) // 3] ^ 4]) + whole[len(whole) // 3 + 1:]}[how])
    with pytest.raises(ValueError, match="gallery.sqlite: (is empty|ends with change)") as told: Gallery(tmp_path / "gallery")
    assert "\n" not in str(told.value) and "backup" in str(told.value)
    log.write_bytes(whole) # it is found again
    assert len(Gallery(tmp_path / "gallery")) == 20


def test_after_a_kill_all_that_was_acknowledged_is_there(tmp_path):
    ran(ADD, tmp_path / "gallery", 20, kill=True)
    assert len(Gallery(tmp_path / "gallery")) == 20


def test_one_may_go_on_with_what_is_left(tmp_path):
    ran(ADD, tmp_path / "gallery", 20, kill=True)
    log = tmp_path / "gallery" / "gallery.sqlite-wal"
    log.write_bytes(log.read_bytes()[:len(log.read_bytes()) // 2])
    with pytest.raises(ValueError, match=f"delete {ACKNOWLEDGED}"): Gallery(tmp_path / "gallery")
    (tmp_path / "gallery" / ACKNOWLEDGED).unlink()
    gallery = Gallery(tmp_path / "gallery")
    assert 0 < len(gallery) < 20
    gallery.import_embeddings(["more.jpg"], ROWS[:1])
    assert Gallery(tmp_path / "gallery").ids == gallery.ids


# --- rows and records that somebody has changed

def changed(folder: Path, sql: str, *parameters) -> None:
    with closing(sqlite3.connect(folder / "gallery.sqlite")) as file:
        file.execute("PRAGMA foreign_keys = OFF")
        file.execute(sql, parameters)
        file.commit()


@pytest.fixture
def gallery(tmp_path):
    made = Gallery(tmp_path / "gallery")
    made.import_embeddings([tmp_path / f"{i}.jpg" for i in range(6)], ROWS[:6], ["cat", "dog"] * 3, [{"year": 2020 + i} for i in range(6)])
    made.close()
    return tmp_path / "gallery"


ENCODER = {"kind": "none", "fingerprint": "vectors-6", "width": 6, "compared": "all"}


@pytest.mark.parametrize("sql, parameters", [
    ("UPDATE items SET metadata = ? WHERE id = 3", ["no JSON"]), ("UPDATE items SET metadata = ? WHERE id = 3", ["[1, 2]"]), ("UPDATE items SET metadata = ? WHERE id = 3", ["7"]),
    ("UPDATE items SET metadata = ? WHERE id = 3", ["[" * 100_000]), ("UPDATE items SET path = ? WHERE id = 3", [7]), ("UPDATE items SET id = -5 WHERE id = ?", [3]),
    ("UPDATE facts SET value = ? WHERE name = 'encoder'", ["no JSON"]), ("UPDATE facts SET value = ? WHERE name = 'encoder'", ["[1]"]),
    *[("UPDATE facts SET value = ? WHERE name = 'encoder'", [json.dumps({k: v for k, v in ENCODER.items() if k != name})]) for name in ENCODER],
    ("UPDATE facts SET value = ? WHERE name = 'encoder'", [json.dumps({**ENCODER, "width": "6"})]), ("UPDATE facts SET value = ? WHERE name = 'encoder'", [json.dumps({**ENCODER, "width": -1})]),
    ("UPDATE facts SET value = ? WHERE name = 'encoder'", [json.dumps({**ENCODER, "width": 7})]), ("UPDATE vectors SET pooled = ? WHERE id = 3", [b"abc"]),
    ("UPDATE vectors SET pooled = ? WHERE id = 3", ["text"]), ("UPDATE vectors SET pooled = ? WHERE id = 3", [b""])])
def test_what_somebody_has_changed_is_said_in_one_line(gallery, sql, parameters):
    changed(gallery, sql, *parameters)
    with pytest.raises(ValueError) as told:
        opened = Gallery(gallery)
        opened.items()
        opened.ids, opened.search(1, 3)
    assert str(gallery) in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 500 + len(str(gallery))


def test_an_item_of_a_huge_id_is_found_like_any_other(gallery):
    for table in ("items", "vectors", "checks"): changed(gallery, f"UPDATE {table} SET id = ? WHERE id = 3", 2**62)
    opened = Gallery(gallery)
    assert opened.search(ROWS[2], 1, metric="l2")[0].id == 2**62 and opened.search(ROWS[2], 1, {"label": "cat"}, "l2")[0].id == 2**62
    opened.import_embeddings(["more.jpg"], ROWS[7:8])
    assert opened.search(ROWS[7], 1, metric="l2")[0].id == 2**62 + 1


def test_every_bit_that_flips_in_a_vector_is_noticed(gallery):
    random = np.random.default_rng(1)
    for _ in range(24):
        id, bit = int(random.integers(1, 7)), int(random.integers(6 * 32))
        with closing(sqlite3.connect(gallery / "gallery.sqlite")) as file: whole = file.execute("SELECT pooled FROM vectors WHERE id = ?", [id]).fetchone()[0]
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        changed(gallery, "UPDATE vectors SET pooled = ? WHERE id = ?", bytes(flipped), id)
        found = Gallery(gallery).check()
        assert found.damaged_vectors == [id] and not found.ok and f"item {id}" in repr(found)
        changed(gallery, "UPDATE vectors SET pooled = ? WHERE id = ?", whole, id)
    assert Gallery(gallery).check().damaged_vectors == []


def test_a_record_that_names_a_file_elsewhere_copies_nothing(tmp_path, model):
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    for weights in ("../secret", str(secret), "link"):
        with closing(sqlite3.connect(model / "gallery.sqlite")) as file:
            file.execute("UPDATE facts SET value = json_set(value, '$.weights', ?) WHERE name = 'encoder'", [weights])
            file.commit()
        if weights == "link": os.symlink(secret, model / "link")
        with pytest.raises(ValueError, match="names a file elsewhere"): Gallery(model).save_to(tmp_path / "copy")
        assert not [f for f in tmp_path.rglob("*") if f.is_file() and not f.is_symlink() and f != secret and f.read_bytes() == b"a secret"]
    assert not (tmp_path / "copy").exists() and not (tmp_path / ".copy.part").exists()


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_label_that_would_not_be_found_again_is_refused(gallery, text):
    opened = Gallery(gallery)
    with pytest.raises(ValueError, match="NUL|Unicode"): opened.update(1, label=text)
    with pytest.raises(ValueError, match="NUL|Unicode"): opened.import_embeddings(["b.jpg"], ROWS[:1], [text])
    if text == "a\0b":
        with pytest.raises(ValueError, match="NUL"): opened.update(1, metadata={"note": text})
        with pytest.raises(ValueError, match="NUL"): opened.update(1, metadata={text: 1})
    assert opened.labels[0] == "cat" and len(opened) == 6
    assert opened.update(1, metadata={"note": "\\u0000 as text"}) == 1


def test_a_path_that_is_too_long_is_said_to_be(tmp_path):
    long = tmp_path
    while len(str(long)) < 700: long = long / ("a" * 100)
    with pytest.raises(OSError, match="a path of 7.. bytes, and SQLite takes 500; choose a shorter one"): Gallery(long)


# --- models that somebody has changed, and saves that were stopped

@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e38])
def test_a_head_that_no_training_can_have_left_is_refused(model, number):
    from safetensors.torch import load_file, save_file
    heads = load_file(model / "scorers.safetensors")
    for name in heads: save_file({**heads, name: heads[name] * 0 + number}, model / "scorers.safetensors")
    with pytest.raises(ValueError, match="scorers.safetensors: is not the file that was saved here"): SimilarityFinder.load(model)
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "files"})) # as an earlier version wrote it
    with pytest.raises(ValueError, match="has numbers that are not finite, or beyond 1e\\+12; train again"): SimilarityFinder.load(model)


def test_a_manifest_that_is_nested_without_end_or_names_a_giant_is_refused_at_once(model):
    import resource
    manifest = json.loads((model / "manifest.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for nested in ("[" * 100_000, json.dumps({**manifest, "encoder": 0}).replace('"encoder": 0', '"encoder": ' + '{"a":' * 100_000 + "0" + "}" * 100_000),
                   json.dumps({**manifest, "class_layers": 0}).replace('"class_layers": 0', '"class_layers": ' + "[" * 900 + "]" * 900)):
        (model / "manifest.json").write_text(nested)
        with pytest.raises(ValueError, match=str(model)) as told: SimilarityFinder.load(model)
        assert "\n" not in str(told.value)
    for giant in ({"name": "vit_giant_patch14_dinov2"}, {"name": "eva_giant_patch14_560"}, {"size": 10**6}, {"size": "large"}, {"name": "vit_giant_patch14_dinov2", "weights": "scorers.safetensors"}):
        (model / "manifest.json").write_text(json.dumps({**manifest, "encoder": {**manifest["encoder"], **giant}}))
        with pytest.raises(ValueError, match="train again"): SimilarityFinder.load(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000 # kilobytes


@pytest.mark.long
def test_what_a_save_that_was_stopped_left_is_cleared_away_by_the_next(model):
    stopped = subprocess.Popen([sys.executable, "-c", """
import sys, time
from image_similarity.encoders.model_files import written_whole
with written_whole(sys.argv[1]) as beside:
    (beside / "half").write_text("written")
    print("writing", flush=True)
    time.sleep(60)
""", str(model)], stdout=subprocess.PIPE, text=True)
    assert stopped.stdout.readline() == "writing\n"
    finder = SimilarityFinder.load(model)
    finder.save(model) # beside one who is at work
    assert [f for f in model.parent.iterdir() if f.name.startswith(".model-") and (f / "half").exists()]
    stopped.terminate()
    stopped.wait(20)
    assert [f.name for f in model.parent.iterdir()] != ["model"]
    finder.save(model)
    assert [f.name for f in model.parent.iterdir()] == ["model"]
    assert {f.stat().st_mode & 0o777 for f in model.rglob("*") if f.is_file()} == {(model / "manifest.json").stat().st_mode & 0o777}
