"A gallery through kills, other processes, moved and changed files, damaged caches; and its search beside a brute-force twin."
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from small_gallery import Tiny, paint

from image_similarity.gallery import adding
from image_similarity.encoders.encoder import fingerprint
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.opening import is_gallery
from image_similarity.gallery.sqlite import SqliteCatalogue
from image_similarity.metrics.similarity import METRICS, similarity, top_k

TESTS = [str(folder) for folder in Path(__file__).resolve().parents[:2]] # for processes: this file, and what it imports


ON_BOTH = pytest.mark.parametrize("gallery", ["folder", "postgres"], indirect=True)


def content(gallery: Gallery) -> list:
    "All that a gallery knows, ids included."
    items = [(i.id, i.path.name, i.label, i.metadata, i.hash) for i in gallery.items()]
    return [*items, gallery.pooled.tobytes()]


# --- adding

@ON_BOTH
def test_adding_again_changes_nothing(gallery, photos):
    before, revision = content(gallery), gallery.catalogue.revision()
    again = gallery.add(photos[0].parent, progress=False)
    assert (again.new, again.changed, again.moved, again.unchanged) == (0, 0, 0, 20)
    assert content(gallery) == before and gallery.catalogue.revision() == revision


@ON_BOTH
def test_unchanged_files_are_not_read(gallery, photos, monkeypatch):
    monkeypatch.setattr(adding, "content_hash", lambda file: pytest.fail(f"{file} was read"))
    gallery.add(photos, progress=False)


@ON_BOTH
def test_a_touched_file_is_hashed_but_not_looked_at(gallery, photos, monkeypatch):
    os.utime(photos[3], ns=(1, 1))
    monkeypatch.setattr(Tiny, "look", lambda self, files: pytest.fail(f"looked at {files}"))
    assert gallery.add(photos, progress=False).unchanged == 20


@ON_BOTH
def test_changed_moved_and_copied_files(gallery, photos):
    ids = {i.path: i.id for i in gallery.items()}
    paint(photos[4], 1000)                                                       # another picture
    moved = photos[5].rename(photos[5].parent / "elsewhere.png")                 # another name
    (photos[0].parent / "sub").mkdir()
    far = photos[6].rename(photos[0].parent / "sub" / photos[6].name)            # another folder
    copy = Path(shutil.copy2(photos[7], photos[0].parent / "copy.png"))          # both stay
    found = gallery.add(photos[0].parent, progress=False)
    assert (found.new, found.changed, found.moved, found.unchanged) == (1, 1, 2, 17)
    after = {i.path: i for i in gallery.items()}
    assert after[photos[4]].id == ids[photos[4]] and after[moved].id == ids[photos[5]] and after[far].id == ids[photos[6]]
    assert after[copy].id == 21 and after[copy].hash == after[photos[7]].hash
    assert after[moved].label == "cat" and after[moved].metadata["number"] == 5
    assert np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled)


@ON_BOTH
def test_two_files_that_change_names_with_each_other_keep_the_right_vectors(gallery, photos):
    a, b = photos[:2]
    a.rename(a.with_suffix(".tmp")), b.rename(a), a.with_suffix(".tmp").rename(b)
    os.utime(a, ns=(5, 5)), os.utime(b, ns=(6, 6))
    gallery.add(photos, progress=False)
    assert np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled) and len(gallery) == 20


@ON_BOTH
def test_bad_files_are_reported_and_not_kept(gallery, photos, tmp_path):
    bad = [tmp_path / "photos" / name for name in ("text.png", "empty.png", "missing.png")]
    bad[0].write_text("no picture")
    bad[1].touch()
    found = gallery.add([*bad, paint(tmp_path / "photos" / "good.png", 99)], progress=False)
    assert found.new == 1 and sorted(e.path.name for e in found.bad) == ["empty.png", "missing.png", "text.png"]
    assert len(gallery) == 21
    assert gallery.add(bad[:1], progress=False).bad[0].path == bad[0]  # nothing but bad ones


@ON_BOTH
def test_a_file_that_became_bad_keeps_its_item(gallery, photos):
    before = gallery.pooled
    photos[2].write_text("no picture any more")
    assert len(gallery.add(photos, progress=False).bad) == 1
    assert np.array_equal(gallery.pooled, before) and gallery.check().changed[0].path == photos[2]


@ON_BOTH
def test_labels_and_metadata_given_anew_are_taken_over(gallery, photos):
    gallery.add(photos[:2], ["x", None], {"seen": True}, progress=False)
    first, second = gallery.items()[:2]
    assert (first.label, second.label) == ("x", "cat")
    assert first.metadata == {"number": 0, "even": True, "seen": True}


def test_names_that_are_not_text(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos/\xff.png"))
    try:
        paint(odd, 1)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    gallery = Gallery(tmp_path / "g", Tiny())
    gallery.add(odd.parent, progress=False)
    assert gallery.files == [odd] and gallery.add([odd], progress=False).unchanged == 1
    assert len(gallery.search(1)) == 0  # nothing but itself
    gallery.export(tmp_path / "all.csv")


def test_ids_are_never_used_again(gallery, photos):
    assert gallery.remove([19, 20]) == 2
    assert gallery.add(photos, progress=False).new == 2
    assert gallery.ids == [*range(1, 19), 21, 22]


@ON_BOTH
def test_update_and_remove(gallery, photos):
    assert gallery.update({"label": "dog"}, label="hound", metadata={"even": None, "big": True}) == 7
    assert {i.metadata.get("big") for i in gallery.items({"label": "hound"})} == {True}
    assert all("even" not in i.metadata for i in gallery.items({"label": "hound"}))
    assert gallery.remove(photos[0]) == 1 and photos[0].exists() and photos[0] not in gallery.files
    with pytest.raises(KeyError, match="no such item"):
        gallery.remove([2, 1])
    assert len(gallery) == 19


# --- killed at any point

KILLED = """
import os, signal, sys
sys.path[:0] = {tests!r}
from test_gallery import Tiny, adding, Gallery
adding.BATCH = 3
photos, galleries = sys.argv[1:]

def work(folder, calls):
    "Add and search; killed after so many calls of Python functions, or whole when `calls` is None. How many there were."
    count = 0
    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"
        if count == calls: os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(profile)
    gallery = Gallery(folder, Tiny())
    gallery.add(photos, "name", progress=False)
    gallery.search(1)
    sys.setprofile(None)
    return count

work(galleries + "/first", None)  # some calls are made the first time only
total = work(galleries + "/whole", None)
for n in range(1, 41):
    child = os.fork()
    if child == 0:
        work(f"{{galleries}}/{{n}}", total * n // 41)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (n, status)
"""


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_at_forty_points_and_taken_up_again(photos, tmp_path):
    subprocess.run([sys.executable, "-c", KILLED.format(tests=TESTS), str(photos[0].parent), str(tmp_path)], check=True)
    whole = Gallery(tmp_path / "whole", Tiny())
    expected, found = content(whole), [r.id for r in whole.search(1, 20)]
    sizes = set()
    for n in range(1, 41):
        if not is_gallery(tmp_path / str(n)):
            continue  # killed before there was anything
        gallery = Gallery(tmp_path / str(n), Tiny())
        sizes.add(len(gallery))
        assert gallery.catalogue.file.rows("PRAGMA integrity_check") == [("ok",)]
        assert content(gallery)[:-1] == expected[: len(gallery)]  # what is there is right
        gallery.add(photos[0].parent, "name", progress=False)
        assert content(gallery) == expected
        assert [r.id for r in gallery.search(1, 20)] == found
    assert {0, 3, 6, 9, 12, 15, 18, 20} <= sizes  # kills fell between all batches


# --- other processes

def python(code: str, *arguments) -> subprocess.Popen:
    code = f"import sys, time; sys.path[:0] = {TESTS!r}\nfrom test_gallery import *\n{code}"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.soak
def test_two_writers_and_a_reader_at_once(photos, tmp_path):
    Gallery(tmp_path / "g", Tiny()).add(photos[:1], progress=False)
    add = "adding.BATCH = 2\nfor _ in range(3): Gallery(sys.argv[1], Tiny()).add(sys.argv[2:], 'name', progress=False)"
    read = ("g = Gallery(sys.argv[1], Tiny())\nfor _ in range(40):\n    found = g.search(1, 30)\n    assert g.catalogue.damage() is None\n"
            "    assert len({r.id for r in found}) == len(found)\nprint(len(g))")
    processes = [python(add, tmp_path / "g", *photos), python(read, tmp_path / "g"), python(add, tmp_path / "g", *reversed(photos)), python(read, tmp_path / "g")]
    for process in processes:
        finished(process)
    gallery = Gallery(tmp_path / "g", Tiny())
    assert sorted(gallery.files) == sorted(photos)
    assert np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled)
    assert len(gallery.search(1, 30)) == 19


@pytest.mark.soak
def test_a_writer_that_never_ends_is_an_error_of_one_line(gallery, photos, monkeypatch):
    hold = python("c = SqliteCatalogue(Path(sys.argv[1]))\nc.file.run('BEGIN IMMEDIATE')\nprint('held', flush=True)\ntime.sleep(60)", gallery.folder)
    try:
        assert hold.stdout.readline() == "held\n"
        gallery.catalogue.file.run("PRAGMA busy_timeout = 200")
        with pytest.raises(TimeoutError, match="another process has been writing"):
            gallery.update(1, label="x")
        assert len(gallery.search(1)) == 10  # reading goes on
    finally:
        hold.kill()
        hold.communicate()
    gallery.update(1, label="x")
    assert gallery.items()[0].label == "x"


@pytest.mark.long
def test_a_writer_waits_for_another(gallery):
    hold = python("c = SqliteCatalogue(Path(sys.argv[1]))\nwith c.writing():\n    print('held', flush=True)\n    time.sleep(.5)", gallery.folder)
    assert hold.stdout.readline() == "held\n"
    gallery.update(1, label="x")
    finished(hold)
    assert gallery.items()[0].label == "x"


def test_changes_of_another_process_are_seen(gallery, tmp_path, photos):
    new = paint(tmp_path / "photos" / "new.png", 1)  # looks like photos[1], which has id 2
    assert gallery.search(2, 1)[0].id != 21
    finished(python("g = Gallery(sys.argv[1], Tiny())\ng.add(sys.argv[2], progress=False)\ng.remove(3)\nassert len(g.search(2, 50)) == 19", gallery.place, new))
    found = gallery.search(2, 50)
    assert found[0].id == 21 and 3 not in [r.id for r in found]


@pytest.fixture
def shared():
    "A folder that everybody may look into."
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def reader(code: str, folder: Path) -> subprocess.Popen:
    "A process that may read a gallery and not write into its folder: of another user if we are root, who may write everywhere."
    folder.chmod(0o555)
    return python(f"if os.geteuid() == 0: os.setuid(65534)\ngallery = Gallery(sys.argv[1], Tiny())\n{code}", folder)


@pytest.fixture
def writer(shared, photos):
    "A function that starts a process which adds pictures to `shared / 'g'`, and keeps the gallery open."
    started = []
    def start(some):
        started.append(python("gallery = Gallery(sys.argv[1], Tiny())\ngallery.add(sys.argv[2:], progress=False)\nprint('added', flush=True)\ntime.sleep(60)", shared / "g", *some))
        assert started[0].stdout.readline() == "added\n"
        return started[0]
    yield start
    for process in started: process.kill(), process.communicate()


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no users of this kind")
def test_who_may_only_read_finds_what_a_writer_who_was_killed_had_committed(shared, photos, writer):
    first = Gallery(shared / "g", Tiny())
    first.add(photos[:5], progress=False)
    first.close()
    assert finished(reader("print(len(gallery), len(gallery.search(1)))", shared / "g")) == "5 4\n"
    (shared / "g").chmod(0o755)
    killed = writer(photos[5:12])
    killed.kill(), killed.wait()
    assert finished(reader("print(len(gallery), len(gallery.search(1, 20)))", shared / "g")) == "12 11\n"
    (shared / "g" / "gallery.sqlite-shm").unlink() # without it, only a writer can read what was written last
    refused = reader("", shared / "g").communicate()[1].splitlines()[-1]
    assert refused.startswith("PermissionError: ") and "gallery.sqlite-wal: holds changes that only a writer can read" in refused and "open the gallery once" in refused


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no users of this kind")
def test_who_may_only_read_opens_a_gallery_that_is_being_made(shared, photos, writer):
    writer(photos[:7])
    assert finished(reader("print(len(gallery))", shared / "g")) == "7\n"


@ON_BOTH
def test_many_threads(gallery):
    expected, wrong = [[r.id for r in gallery.search(i, 5)] for i in range(1, 21)], []

    def ask():
        for i in range(1, 21):
            if [r.id for r in gallery.search(i, 5)] != expected[i - 1]:
                wrong.append(i)

    def change():
        for i in range(20):
            gallery.update(1, metadata={"turn": i})

    threads = [threading.Thread(target=f) for f in (ask, change, ask, ask)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and gallery.items()[0].metadata["turn"] == 19


@ON_BOTH
@pytest.mark.parametrize("approximate", [False, True])
def test_threads_search_while_one_adds_and_removes(gallery, photos, tmp_path, approximate):
    "What they find is true: scores of the items' own vectors, no item twice, best first; one that goes during the search may be lacking."
    more, wrong, done = [paint(tmp_path / "more" / f"{i}.png", 100 + i) for i in range(60)], [], threading.Event()
    vector = {**dict(zip(gallery.files, gallery.pooled)), **dict(zip(more, Tiny().look(more).pooled))}
    asked = gallery.pooled[4]

    def ask():
        while not done.is_set():
            found = gallery.search(asked, 15, metric="dot", approximate=approximate)
            scores = [r.score for r in found]
            if not 0 < len(found) == len({r.path for r in found}) or scores != sorted(scores, reverse=True): wrong.append(found)
            if not np.allclose(scores, [vector[r.path] @ asked for r in found], atol=1e-4): wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for t in threads: t.start()
    try:
        for i in range(0, 60, 6):
            gallery.add(more[i:i + 6], progress=False)
            gallery.remove(more[i:i + 3])
    finally:
        done.set()
        for t in threads: t.join()
    assert not wrong and len(gallery) == 20 + 30
    assert {r.path for r in gallery.search(asked, 50, metric="dot")} == set(gallery.files)


# --- caches

def cache_files(gallery, ending):
    return sorted((gallery.folder / "cache").glob(f"*{ending}"))


def reopened(gallery) -> Gallery:
    gallery.close()
    return Gallery(gallery.folder, Tiny())


@pytest.fixture
def answers(gallery):
    "What each metric finds, before something happens to the caches."
    return {m: [(r.id, round(r.score, 4)) for r in gallery.search(5, 8, metric=m)] for m in METRICS}


def check_answers(gallery, answers):
    for metric, expected in answers.items():
        for approximate in (False, True):
            assert [(r.id, round(r.score, 4)) for r in gallery.search(5, 8, metric=metric, approximate=approximate)] == expected


def flip(file: Path, at: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x5A
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [
    lambda f: f.unlink(), lambda f: f.write_bytes(b""), lambda f: f.write_bytes(f.read_bytes()[:-3]),
    lambda f: flip(f, 0), lambda f: flip(f, 0.5), lambda f: flip(f, 1), lambda f: f.write_bytes(bytes(len(f.read_bytes()))),
    lambda f: f.write_bytes(b"{}\n")],
    ids=["gone", "empty", "cut", "first byte", "middle byte", "last byte", "zeros", "another"])
@pytest.mark.parametrize("ending", [".rows", ".head", ".index", ".index.json"])
def test_damaged_caches_are_made_again(gallery, answers, ending, damage):
    check_answers(gallery, answers)
    gallery.close()
    assert cache_files(gallery, ending)
    for file in cache_files(gallery, ending):
        damage(file)
    check_answers(Gallery(gallery.folder, Tiny()), answers)


def test_caches_may_be_deleted(gallery, answers):
    shutil.rmtree(gallery.folder / "cache")
    check_answers(reopened(gallery), answers)


def test_caches_of_another_gallery_are_not_believed(gallery, answers, tmp_path, photos):
    other = Gallery(tmp_path / "other", Tiny())
    other.add(photos[::-1], "name", progress=False)
    check = {m: [r.path for r in other.search(photos[4], 8, metric=m)] for m in METRICS}
    other.search(1, approximate=True)
    shutil.rmtree(gallery.folder / "cache")
    shutil.copytree(other.folder / "cache", gallery.folder / "cache")
    gallery = reopened(gallery)
    check_answers(gallery, answers)
    assert {m: [r.path for r in gallery.search(photos[4], 8, metric=m)] for m in METRICS} == check


def test_caches_newer_than_a_restored_backup_are_not_believed(gallery, photos, tmp_path):
    backup = gallery.save_to(tmp_path / "backup")
    gallery.remove([1, 2, 3])
    gallery.add([paint(tmp_path / "photos" / f"later_{i}.png", 500 + i) for i in range(5)], progress=False)
    gallery.search(5)
    gallery.close()
    for name in ("gallery.sqlite", "gallery.sqlite-wal", "gallery.sqlite-shm"):
        (gallery.folder / name).unlink(missing_ok=True)
    shutil.copy(backup / "gallery.sqlite", gallery.folder)
    restored = Gallery(gallery.folder, Tiny())
    assert len(restored.search(5, 50)) == 19
    for i in range(10):  # until its revision has passed that of the caches
        restored.update(5, metadata={"turn": i})
    assert sorted(r.id for r in Gallery(gallery.folder, Tiny()).search(5, 50)) == [i for i in range(1, 21) if i != 5]


def test_a_cache_is_appended_to(gallery, photos, tmp_path):
    gallery.search(1)
    rows, = cache_files(gallery, ".rows")
    before = rows.read_bytes()
    gallery.add(paint(tmp_path / "photos" / "one_more.png", 77), progress=False)
    gallery.search(1)
    assert cache_files(gallery, ".rows") == [rows] and rows.read_bytes()[: len(before)] == before
    assert len(rows.read_bytes()) == len(before) // 20 * 21


def test_a_gallery_that_may_only_be_read(gallery, answers, monkeypatch):
    gallery.close()
    shutil.rmtree(gallery.folder / "cache")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    read_only = Gallery(gallery.folder, Tiny())
    check_answers(read_only, answers)
    assert not (gallery.folder / "cache").exists()
    with pytest.raises(PermissionError, match="may only be read"):
        read_only.update(1, label="x")


# --- search

VALUES = st.sampled_from([None, "a", "b", 1, 2, 2.5, True, False])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.fixed_dictionaries({}, optional={"x": VALUES, "y": VALUES}), min_size=1, max_size=25), st.data())
def test_filters_are_exact(metadata, data):
    rows = np.random.default_rng(len(metadata)).standard_normal((len(metadata), 6)).astype(np.float32)
    labels = [data.draw(st.sampled_from([None, "cat", "dog"])) for _ in metadata]
    gallery = Gallery()
    gallery.import_embeddings([f"{i}.jpg" for i in range(len(rows))], rows, labels, metadata)
    gone = data.draw(st.sets(st.sampled_from(range(len(rows))), max_size=len(rows) - 1))
    gallery.remove([i + 1 for i in gone])
    where = data.draw(st.dictionaries(st.sampled_from(["label", "x", "y"]), st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=2))

    def passes(i):
        known = {**metadata[i], "label": labels[i]}
        return i not in gone and all(known.get(name) in (v if isinstance(v, list) else [v]) for name, v in where.items())

    passing = [i for i in range(len(rows)) if passes(i)]
    assert [item.id - 1 for item in gallery.items(where)] == passing
    metric = data.draw(st.sampled_from(list(METRICS)))
    query = np.random.default_rng(1).standard_normal(6).astype(np.float32)
    expected = similarity(query, rows[passing], metric)[0] if passing else np.zeros(0)
    order, scores = top_k(expected, 5)
    for approximate in (False, True):
        found = gallery.search(query, 5, where, metric, approximate)
        if where or not approximate:  # with conditions it is exact all the same
            assert [r.id - 1 for r in found] == [passing[i] for i in order]
            assert np.allclose([r.score for r in found], scores, atol=1e-4)


@ON_BOTH
def test_labels_are_texts_whatever_they_are_given_as(gallery, photos):
    gallery.update(1, 5)
    gallery.add(photos[1:3], [2.5, True], progress=False)
    assert [[i.id for i in gallery.items({"label": asked})] for asked in (5, "5", [2.5, 5], True, 1)] == [[1], [1], [1, 2], [3], []]
    assert [r.id for r in gallery.search(photos[9], where={"label": 5})] == [1]


@pytest.mark.parametrize("where, says", [({"label": float("nan")}, "where: label=nan: give a finite number"), ({"year": [2020, float("-inf")]}, "where: year=-inf"),
                                         ({5: "cat"}, "where: 5: a name is text"), ({None: None}, "where: None: a name is text")])
@ON_BOTH
def test_conditions_that_nothing_can_meet_are_refused(gallery, where, says):
    for ask in (gallery.items, gallery.remove, lambda where: gallery.search(1, where=where)):
        with pytest.raises(ValueError, match=f"^{says}"): ask(where)
    assert len(gallery) == 20


@ON_BOTH
def test_equal_pictures_are_both_items_and_one_result(gallery, photos):
    twin = photos[8].with_name("twin.png")
    shutil.copy2(photos[8], twin)
    gallery.add(photos[0].parent, progress=False)
    found = gallery.search(photos[8], 2)
    assert [r.id for r in found] == [9, gallery.search(9, 2)[1].id] and found[0].score == pytest.approx(1, abs=1e-6)
    assert found[0].also_at == (twin,) and found[0].to_record()["also_at"] == [str(twin)] and f"also at {twin}" in repr(found)
    assert [r.id for r in gallery.search(9, 1)] == [21] # asked with one of them, the other is found
    assert len(gallery.search(photos[8], 20)) == 20 # the place of the twin goes to another picture
    photos[8].unlink()
    assert gallery.search(twin, 1)[0].path == twin # the one that is there comes first


@ON_BOTH
def test_a_relative_path_is_an_item_of_the_gallery(gallery, photos, monkeypatch):
    monkeypatch.chdir(photos[0].parent)
    marks = gallery.feedback.mark(photos[2].name, right=photos[3].name, wrong=[gallery.ids[5]])
    assert [one.value["query"] for one in gallery.catalogue.said("mark")] == [gallery.ids[2]] * len(marks)
    monkeypatch.chdir("/")
    assert gallery.feedback.examples(photos[2]) == ([gallery.ids[3]], [gallery.ids[5]])
    monkeypatch.chdir(photos[0].parent)
    found = gallery.search(None, 20, positives=[photos[2].name])
    assert gallery.ids[2] not in [r.id for r in found]


@ON_BOTH
def test_queries_of_every_kind_find_the_same(gallery, photos):
    vector = Tiny().look([photos[3]]).pooled[0]
    asked = [photos[3], str(photos[3]), photos[3].read_bytes(), Image.open(photos[3]), vector]
    found = gallery.search_many(asked, 3)
    assert [[r.id for r in one] for one in found] == [[r.id for r in gallery.search(photos[3], 3)]] * 5
    assert [[r.id for r in one] for one in gallery.search_many([4, 5], 3)] == [[r.id for r in gallery.search(i, 3)] for i in (4, 5)]
    assert gallery.search_many([]) == []


def test_an_empty_gallery_finds_nothing(tmp_path):
    gallery = Gallery(tmp_path / "g", Tiny())
    assert len(gallery.search(np.zeros(48, np.float32))) == 0
    gallery.import_embeddings(["a.jpg"], np.ones((1, 48)))
    gallery.remove(1)
    assert len(gallery.search(np.zeros(48, np.float32))) == 0


def test_another_engine_can_stand_in(gallery, answers):
    class Brute:
        "The protocol, in numpy."
        def __init__(self, metric): self.metric, self.known = metric, np.zeros((0, 1))
        def __len__(self): return len(self.known)
        def update(self, rows, keep=None): self.known = np.array(rows)

        def search(self, queries, k, keep=None):
            scores = similarity(queries, self.known, self.metric)
            return top_k(np.where(True if keep is None else keep, scores, -np.inf), k)

    gallery = reopened(gallery)
    gallery._searcher.exact = Brute
    assert {m: [(r.id, round(r.score, 4)) for r in gallery.search(5, 8, metric=m)] for m in METRICS} == answers


@ON_BOTH
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_hard_negatives_are_what_a_gallery_finds_among_other_labels(gallery, metric):
    from image_similarity.learners.mining import mine_hard_negatives
    gallery.remove(3) # so that places and ids differ
    hard, ids = mine_hard_negatives(gallery, per_image=3, metric=metric), gallery.ids
    for place, item in enumerate(gallery.items()):
        found = gallery.search(item.id, 3, {"label": "cat" if item.label == "dog" else "dog"}, metric)
        assert [ids[i] for i in hard.negative[hard.anchor == place]] == [r.id for r in found]
        assert np.allclose(hard.score[hard.anchor == place], [r.score for r in found], atol=1e-4)
    own = mine_hard_negatives(gallery, [i % 2 for i in range(19)], per_image=1) # labels from elsewhere
    assert ((own.anchor + own.negative) % 2 == 1).all() and len(own) == 19


# --- moving, saving, other encoders, other files

def test_a_gallery_moves_together_with_its_pictures(gallery, tmp_path, photos):
    found = [r.path.name for r in gallery.search(photos[3], 5)]
    gallery.close()
    (tmp_path / "disk").mkdir()
    for name in ("photos", "my.gallery"):
        (tmp_path / name).rename(tmp_path / "disk" / name)
    moved = Gallery(tmp_path / "disk" / "my.gallery", Tiny())
    assert all(f.exists() for f in moved.files)
    assert moved.add(tmp_path / "disk" / "photos", progress=False).unchanged == 20
    assert [r.path.name for r in moved.search(moved.files[3], 5)] == found


def test_a_gallery_moves_alone_away_from_pictures_elsewhere(tmp_path, photos):
    gallery = Gallery(tmp_path / "galleries" / "g", Tiny())
    gallery.add(photos, progress=False)
    gallery.close()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "galleries" / "g").rename(tmp_path / "a" / "b" / "g")
    assert Gallery(tmp_path / "a" / "b" / "g", Tiny()).files == photos


def test_an_unfinished_copy_is_no_gallery(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(SqliteCatalogue, "close", lambda self: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        gallery.save_to(tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and not list(tmp_path.glob(".copy*"))
    with pytest.raises(ValueError, match="exists already"):
        gallery.save_to(tmp_path / "photos")


def test_a_fine_tuned_encoder_is_kept_and_found_again(tmp_path, photos):
    from image_similarity.encoders.encoder import create_encoder
    encoder = create_encoder(size=64)
    encoder.body.conv_stem.weight.data += 0.01
    gallery = Gallery(tmp_path / "g", encoder)
    gallery.add(photos[:3], progress=False)
    expected = gallery.search(photos[4], 3)
    gallery.close()
    again = Gallery(tmp_path / "g")
    assert again.encoder.fingerprint == fingerprint(encoder)
    found = again.search(photos[4], 3)
    assert [r.path for r in found] == [r.path for r in expected]
    assert [r.score for r in found] == pytest.approx([r.score for r in expected], abs=1e-4)
    with pytest.raises(ValueError, match="was made with tf_efficientnet_lite0 of fingerprint"):
        Gallery(tmp_path / "g", create_encoder(size=64))
    with pytest.raises(TypeError, match="make one with create_encoder"):
        Gallery(tmp_path / "h", "resnet34")


def test_opening_listing_searching_by_id_and_exporting_load_no_torch(gallery, tmp_path):
    gallery.close()
    code = ("import sys\nfrom image_similarity.gallery.gallery import Gallery\ng = Gallery(sys.argv[1])\ng.items({'label': 'cat'}), g.stats(), g.check(), g.search(3), g.remove(2)\n"
            "g.export(sys.argv[2])\nprint(*[m for m in ('torch', 'timm', 'fastai', 'pandas') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, gallery.folder, tmp_path / "all.csv"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_is_no_gallery_is_refused(tmp_path, photos):
    with pytest.raises(ValueError, match="exists but is not a gallery"):
        Gallery(tmp_path / "photos")
    with pytest.raises(ValueError, match="is a file"):
        Gallery(photos[0])
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "gallery.sqlite").write_bytes(os.urandom(5000))
    with pytest.raises(ValueError, match="not a gallery, or damaged"):
        Gallery(tmp_path / "g")


def test_a_gallery_of_a_later_version_is_refused(gallery):
    gallery.close()
    file = sqlite3.connect(gallery.folder / "gallery.sqlite")
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(ValueError, match="format 99.*update image_similarity"):
        Gallery(gallery.folder)


@ON_BOTH
def test_check_and_stats(gallery, photos):
    assert gallery.check().ok and "all as they should be" in repr(gallery.check())
    photos[1].unlink()
    paint(photos[2], 4242)
    found = gallery.check()
    assert ([i.path for i in found.missing], [i.path for i in found.changed]) == ([photos[1]], [photos[2]])
    gallery.search(1, approximate=True)
    stats = gallery.stats()
    assert (stats.items, stats.labels) == (20, {"cat": 13, "dog": 7})
    assert [(a["metric"], a["rows"]) for a in stats.approximate] == [("cosine", 20)] and 0 <= stats.approximate[0]["recall"] <= 1


@pytest.mark.parametrize("kept, root", [("link", "link"), ("link", "photos"), ("photos", "link"), ("photos", "photos")])
def test_pictures_are_found_below_a_root_that_is_a_link(tmp_path, photos, kept, root):
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    gallery = Gallery(tmp_path / "far" / "away" / "g", Tiny())
    gallery.add([tmp_path / kept / photos[0].name], progress=False)
    tasks = json.loads(gallery.export(tmp_path / "tasks.json", "label-studio", root=tmp_path / root).read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/local-files/?d={photos[0].name}"]
    assert f'name="{photos[0].name}"' in gallery.export(tmp_path / "tasks.xml", "cvat", root=tmp_path / root).read_text()


@ON_BOTH
def test_exported_tables_hold_everything(gallery, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    gallery.remove(3)
    table = pd.read_parquet(gallery.export(tmp_path / "all.parquet"))
    assert table["id"].tolist() == gallery.ids and table["path"].tolist() == list(map(str, gallery.files))
    assert np.array_equal(np.stack(table["pooled"]), gallery.pooled)
    again = Gallery()
    again.import_embeddings(table["path"], np.stack(table["pooled"]), table["label"])
    assert [r.path for r in again.search(4)] == [r.path for r in gallery.search(5)]


def test_a_head_compares_with_one_moment_of_a_gallery_to_which_another_thread_adds(tmp_path):
    import torch

    from image_similarity.encoders.encoder import create_encoder
    from image_similarity.gallery.pairs import GalleryPairs
    from image_similarity.scoring.scorers import PairScorer
    encoder, rng, stop = create_encoder(size=64), np.random.default_rng(0), threading.Event()
    width = 2 * encoder.nf
    growing = Gallery(tmp_path / "growing", encoder)
    add = lambda first, n: growing.import_embeddings([f"/photos/{i}.jpg" for i in range(first, first + n)], rng.random((n, width), np.float32))
    add(0, 300)
    nothing = torch.zeros(4, width)
    pairs = GalleryPairs(growing, PairScorer(nothing, nothing, torch.zeros(4), torch.zeros(4), torch.tensor(1.), torch.tensor(0.), torch.tensor(0.)))

    def keep_adding():
        while not stop.is_set(): add(len(growing), 1)
    adding = threading.Thread(target=keep_adding)
    adding.start()
    try: views = [pairs.current() for _ in range(8)]
    finally:
        stop.set()
        adding.join()
    assert [len(view.index) for view in views] == [len(view.ids) for view in views] and len(views[-1].ids) > 300
    assert views[-1].ids.tolist() == growing.ids[:len(views[-1].ids)]


def test_all_vectors_are_of_one_moment_while_another_gallery_object_adds(tmp_path):
    rng, stop = np.random.default_rng(0), threading.Event()
    growing, other = Gallery(tmp_path / "growing"), Gallery(tmp_path / "growing")
    growing.import_embeddings([f"/photos/{i}.jpg" for i in range(300)], rng.random((300, 8), np.float32))

    def keep_adding():
        while not stop.is_set(): other.import_embeddings([f"/photos/{len(other)}.jpg"], rng.random((1, 8), np.float32))
    adding = threading.Thread(target=keep_adding)
    adding.start()
    try: found = [growing.pooled for _ in range(30)]
    finally:
        stop.set()
        adding.join()
    sizes = [len(pooled) for pooled in found]
    assert sizes == sorted(sizes) and sizes[-1] > 300
    assert all((pooled == found[-1][:len(pooled)]).all() for pooled in found)
