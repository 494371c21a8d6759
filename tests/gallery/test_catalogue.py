"What a gallery is kept in: old files that are opened today, kills on the way, the protocol; and what a gallery shows and says of itself."
import copy
import inspect
import json
import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_similarity.gallery import sqlite
from image_similarity.gallery.catalogue import Catalogue, Item, NoSuchItem
from image_similarity.gallery.decisions import Act, Remembers, SqliteDecisions
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.sqlite import SqliteCatalogue
from image_similarity.gallery.sqlite_file import SqliteFile

# --- files of earlier versions

# What version 1 wrote. It stays as it is: such files are out there.
VERSION_1 = """
CREATE TABLE items(id INTEGER PRIMARY KEY AUTOINCREMENT, path NOT NULL UNIQUE, hash TEXT, size INTEGER, mtime_ns INTEGER,
                   label TEXT, metadata TEXT NOT NULL);
CREATE INDEX items_hash ON items(hash);
CREATE INDEX items_label ON items(label);
CREATE TABLE vectors(id INTEGER PRIMARY KEY REFERENCES items(id) ON DELETE CASCADE, changed INTEGER NOT NULL, pooled BLOB NOT NULL);
CREATE INDEX vectors_changed ON vectors(changed);
CREATE TABLE removed(changed INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(changed, id)) WITHOUT ROWID;
CREATE TABLE revisions(number INTEGER PRIMARY KEY, mark TEXT NOT NULL);
CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 0x67616C31;
PRAGMA user_version = 1;
"""
ROWS = np.arange(20, dtype="<f4").reshape(5, 4)
NEXT = ["ALTER TABLE items ADD COLUMN rating INTEGER NOT NULL DEFAULT 0", "CREATE TABLE marks(id INTEGER PRIMARY KEY REFERENCES items(id), what TEXT NOT NULL)"]


@pytest.fixture
def old(tmp_path):
    "The folder of a gallery as version 1 left it."
    folder = tmp_path / "old.gallery"
    folder.mkdir()
    file = sqlite3.connect(folder / "gallery.sqlite")
    file.execute("PRAGMA journal_mode = WAL")
    file.executescript(VERSION_1)
    file.executemany("INSERT INTO revisions VALUES (?, ?)", [(1, "one"), (2, "two")])
    file.execute("INSERT INTO facts VALUES ('encoder', ?)", [json.dumps({"kind": "none", "fingerprint": "vectors-4", "width": 4, "compared": "all"})])
    for i in range(1, 6):
        file.execute("INSERT INTO items VALUES (?, ?, NULL, NULL, NULL, ?, ?)", (i, f"../photos/{i}.jpg", "cat" if i % 2 else None, json.dumps({"year": 2020 + i})))
        file.execute("INSERT INTO vectors VALUES (?, 1, ?)", (i, ROWS[i - 1].tobytes()))
    file.execute("DELETE FROM items WHERE id = 5"), file.execute("DELETE FROM vectors WHERE id = 5"), file.execute("INSERT INTO removed VALUES (2, 5)")
    file.commit()
    file.close()
    return folder


def check_old(folder: Path) -> None:
    "Everything that version 1 knew is there, and the gallery goes on."
    gallery = Gallery(folder)
    assert [(i.id, i.path, i.label, i.metadata) for i in gallery.items()] == \
        [(i, folder.parent / "photos" / f"{i}.jpg", "cat" if i % 2 else None, {"year": 2020 + i}) for i in range(1, 5)]
    assert np.array_equal(gallery.pooled, ROWS[:4]) and gallery.catalogue.revision() == (2, "two") and gallery.catalogue.removed_since(1) == [5]
    assert [r.id for r in gallery.search(1, 1, {"label": None}, "l2")] == [2]
    gallery.close()


def facts(folder: Path) -> tuple:
    "The format of a file, what it consists of and what is in it, seen by SQLite alone."
    file = sqlite3.connect(folder / "gallery.sqlite")
    try: return file.execute("PRAGMA user_version").fetchone()[0], [*file.iterdump()]
    finally: file.close()


def test_a_gallery_of_version_1_opens(old):
    check_old(old)
    gallery = Gallery(old)
    assert gallery.import_embeddings([old.parent / "photos" / "6.jpg"], ROWS[:1]) == [6]  # 5 was given to another once


def test_an_older_gallery_is_brought_up_to_date_and_loses_nothing(old, monkeypatch):
    now = len(sqlite.STEPS)
    monkeypatch.setattr(sqlite, "STEPS", [*sqlite.STEPS, NEXT])
    check_old(old)
    version, content = facts(old)
    assert version == now + 1 and any("rating" in line for line in content) and any("marks" in line for line in content)
    check_old(old)  # a second time there is nothing to do
    assert facts(old) == (version, content)


def test_a_new_gallery_takes_the_same_steps(old, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "STEPS", [*sqlite.STEPS, NEXT])
    Gallery(old).close(), Gallery(tmp_path / "new", create=True).close()
    tables = [[line for line in facts(folder)[1] if line.startswith("CREATE")] for folder in (old, tmp_path / "new")]
    assert [" ".join(line.split()) for line in tables[0]] == [" ".join(line.split()) for line in tables[1]]


MIGRATE = """
import os, signal, sys
from pathlib import Path
from image_similarity.gallery import sqlite

def step():
    for i, statement in enumerate({steps!r}):
        if i == {kill}: os.kill(os.getpid(), signal.SIGKILL)
        yield statement
    if {kill} == {n}: os.kill(os.getpid(), signal.SIGKILL)

sqlite.STEPS.append(step())
print(len(sqlite.SqliteCatalogue(Path(sys.argv[1]))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed by signal")
@pytest.mark.parametrize("kill", range(len(NEXT) + 1))
def test_killed_on_the_way_a_gallery_is_as_it_was(old, kill, monkeypatch):
    before = facts(old)
    done = subprocess.run([sys.executable, "-c", MIGRATE.format(steps=NEXT, kill=kill, n=len(NEXT)), old], capture_output=True)
    assert done.returncode < 0
    assert facts(old) == before
    monkeypatch.setattr(sqlite, "STEPS", [*sqlite.STEPS, NEXT])
    check_old(old)
    assert facts(old)[0] == len(sqlite.STEPS)


def test_a_step_that_fails_leaves_a_gallery_as_it_was(old, monkeypatch):
    before = facts(old)
    monkeypatch.setattr(sqlite, "STEPS", [*sqlite.STEPS, [*NEXT, "INSERT INTO marks VALUES (1, NULL)"]])
    with pytest.raises(sqlite3.IntegrityError): Gallery(old)
    assert facts(old) == before


def test_processes_that_open_an_older_gallery_at_once_bring_it_up_to_date_once(old):
    started = [subprocess.Popen([sys.executable, "-c", MIGRATE.format(steps=NEXT, kill=-1, n=len(NEXT)), old], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in started]
    assert [out.split() for out, _ in said] == [[b"4"]] * 4, said
    assert facts(old)[0] == len(sqlite.STEPS) + 1


def test_an_older_gallery_that_may_only_be_read_says_who_can_open_it(old, monkeypatch):
    monkeypatch.setattr(sqlite, "STEPS", [*sqlite.STEPS, NEXT])
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match="a gallery of format 1.*open it once as a user who may write there"): Gallery(old)


# --- the protocol

def methods(of: type) -> dict:
    "The public methods with the names and defaults of their parameters."
    return {name: [(p.name, p.default, p.kind) for p in inspect.signature(member).parameters.values()]
            for name, member in vars(of).items() if inspect.isfunction(member) and (not name.startswith("_") or name == "__len__")}


def test_what_sqlite_keeps_is_asked_as_the_protocol_says():
    assert methods(SqliteDecisions) | methods(SqliteCatalogue) == methods(Remembers) | methods(Catalogue)


def test_a_change_within_a_change_is_part_of_it(tmp_path):
    catalogue = SqliteCatalogue(tmp_path)
    with pytest.raises(NoSuchItem), catalogue.writing() as outer:
        catalogue.put_items([Item(None, Path("/a.jpg"))], np.ones((1, 2)))
        with catalogue.writing() as inner: assert inner == outer
        catalogue.pooled([7])
    assert len(catalogue) == 0 and catalogue.revision() == (0, "")
    with catalogue.reading(), pytest.raises(RuntimeError, match="begin with writing"):
        catalogue.set_fact("x", 1)
    catalogue.set_fact("x", 2)
    assert catalogue.fact("x") == 2


# --- what a gallery shows and says

@pytest.fixture
def gallery(tmp_path):
    for name in ("a", "b"): Image.new("RGB", (300, 200), "teal").save(tmp_path / f"{name}.png")
    gallery = Gallery(tmp_path / "my.gallery")
    gallery.import_embeddings([tmp_path / f"{name}.png" for name in "abc"], np.eye(3), ["<b>bold</b>", "x", None], [{"year": 2020}, {"year": 2021, "place": "Graz"}, {}])
    return gallery


def test_what_completion_shows_is_what_users_want(gallery):
    assert [name for name in dir(gallery) if not name.startswith("_")] == [
        "acting", "add", "catalogue", "check", "close", "clusters", "duplicates", "encoder", "export", "feedback", "files", "folder", "grid", "ids", "import_embeddings", "items", "keeps_regions", "labels",
        "map", "missing", "place", "pooled", "remove", "rows_and_labels", "save_to", "search", "search_many", "stats", "suggest", "text", "to_fiftyone", "update"]


def test_a_gallery_shows_itself_in_a_notebook(gallery):
    shown = gallery._repr_html_()
    assert shown.count("<img") == 2 and "data:image/jpeg;base64," in shown  # the third file is not there
    assert "&lt;b&gt;bold&lt;/b&gt; (1), x (1)" in shown and "<b>" not in shown and str(gallery.folder) in shown and "imported vectors" in shown
    assert "<img" not in Gallery()._repr_html_()


def test_a_gallery_is_pickled_and_copied_by_its_path(gallery):
    for again in (pickle.loads(pickle.dumps(gallery)), copy.deepcopy(gallery), copy.copy(gallery)):
        assert again is not gallery and again.folder == gallery.folder
        again.update(1, label="seen")
        assert gallery.labels[0] == "seen"
        gallery.update(1, label="not yet")
        again.close()
    memory = Gallery()
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"keep it with save_to\(folder\), and open it with Gallery\(folder\)"): way(memory)


def test_a_copy_is_of_the_moment_of_its_vectors(gallery, tmp_path, monkeypatch):
    catalogue, backup, before = gallery.catalogue, SqliteFile.copy_to, {item.id: item.path for item in gallery.items()}
    act = catalogue.begin_act(Act(None, 1, "2026-01-01T12:00:00Z", "move", gallery.files[0], gallery.files[1], None, "beef", 1, 0o644, 0, {}))
    def and_then(self, other): # others go on
        backup(self, other)
        gallery.remove(gallery.ids[0])
        catalogue.end_act(act, "done", tmp_path / "away.png")
    monkeypatch.setattr(SqliteFile, "copy_to", and_then)
    copy = SqliteCatalogue(gallery.save_to(tmp_path / "copy"))
    assert len(gallery) == len(before) - 1 and {item.id: item.path for item in copy.items()} == before
    assert [(a.state, a.to) for a in copy.acts()] == [("begun", None)]


def test_an_encoder_that_was_given_goes_along_as_long_as_nothing_is_kept(tmp_path):
    from small_gallery import Tiny, paint
    gallery = Gallery(tmp_path / "g", Tiny())
    again = copy.deepcopy(gallery)
    again.add(paint(tmp_path / "photos" / "a.png", 1), progress=False)
    assert gallery.pooled.shape == (1, 48)


@pytest.mark.parametrize("where, meant", [({"labl": "x"}, "label"), ({"lable": None}, "label"), ({"years": 2020}, "year"), ({"year": 2020, "palce": ["Graz"]}, "place")])
def test_a_name_that_is_misspelt_in_a_condition_is_noticed(gallery, where, meant):
    for ask in (gallery.items, gallery.remove, lambda where: gallery.update(where, "y"), lambda where: gallery.search(1, where=where), lambda where: gallery.clusters(within=where)):
        with pytest.raises(ValueError, match=f"nothing is known under that name; did you mean {meant}\\?"): ask(where)
    assert len(gallery) == 3


def test_a_name_that_nobody_has_and_that_is_like_no_other_finds_nothing(gallery):
    assert gallery.items({"photographer": "Ann"}) == [] and len(gallery.items({"photographer": None})) == 3
