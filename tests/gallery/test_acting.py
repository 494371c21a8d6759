"What is done with files that are copies: real files, a real trash, kills in the middle; and what was decided about them."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_gallery import Tiny, paint

from image_similarity.gallery.acting import Wish, proposed, read_decisions
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.opening import content_hash

ODD = ["50% off #1.png", "a b'c.png", "line\nbreak.png", os.fsdecode(b"latin\xe9.png")]


@pytest.fixture
def photos(tmp_path):
    "Two pictures, and four copies of the first with odd names."
    folder = tmp_path / "photos"
    paint(folder / "a.png", 1)
    paint(folder / "other.png", 2)
    os.utime(folder / "a.png", (1, 1)) # the oldest of equals is kept
    for name in ODD: shutil.copy(folder / "a.png", folder / name)
    return folder


@pytest.fixture
def gallery(tmp_path, photos):
    gallery = Gallery(tmp_path / "g", Tiny())
    gallery.add(photos, label=None, metadata={"year": 2020}, progress=False)
    return gallery


def names(folder: Path) -> set[str]: return {f.name for f in folder.iterdir()}


def state(gallery) -> dict: # all that is known of each picture, ids aside
    return {i.path.name: (i.label, i.metadata, i.hash, v.tobytes()) for i, v in zip(gallery.items(), gallery.pooled)}


@pytest.fixture
def trash(tmp_path, monkeypatch):
    "A trash of its own: send2trash looks for it when it is imported."
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    known = [name for name in sys.modules if name.partition(".")[0] == "send2trash"]
    for name in known: monkeypatch.delitem(sys.modules, name)
    yield tmp_path / "home" / "Trash"
    for name in [name for name in sys.modules if name.partition(".")[0] == "send2trash"]: del sys.modules[name]


def test_the_trash_takes_files_and_gives_them_back(gallery, photos, trash):
    before, items = {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in photos.iterdir()}, state(gallery)
    gallery.acting.act(proposed(gallery.duplicates(progress=False)), "trash", progress=False)
    assert names(photos) == {"a.png", "other.png"} and names(trash / "files") == set(ODD)
    assert set(state(gallery)) == {"a.png", "other.png"} and not gallery.missing().gone and not len(gallery.duplicates(progress=False))
    assert {(act.how, act.state, act.path.name, act.to) for act in gallery.acting.log()} == {("trash", "done", name, trash / "files" / name) for name in ODD}
    assert len(gallery.acting.undo().done) == 4 and {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in photos.iterdir()} == before and state(gallery) == items
    assert not [*trash.rglob("*.*")] and max(gallery.ids) > 6 # ids are not used again
    assert gallery.acting.undo().done == []


def test_a_trash_that_was_emptied_is_told_and_the_run_before_has_its_turn(gallery, photos, trash, tmp_path):
    first, *rest = proposed(gallery.duplicates(progress=False))
    gallery.acting.act([first], "move", tmp_path / "away", progress=False)
    gallery.acting.act(rest, "trash", progress=False)
    shutil.rmtree(trash)
    outcome = gallery.acting.undo()
    assert not outcome.done and all("is no longer at" in why for _, why in outcome.left) and len(outcome.left) == 3
    assert gallery.acting.undo().done == [(first.path, first.path)] and first.path.exists()


@pytest.mark.parametrize("how", ["trash", "move", "hardlink", "reflink"])
def test_what_changed_since_it_was_found_is_left_alone(gallery, photos, tmp_path, how):
    wishes = proposed(gallery.duplicates(progress=False))
    assert len(wishes) == 4
    changed = [photos / ODD[0], photos / ODD[1]]
    paint(changed[0], 9)
    changed[1].unlink()
    before = {f.name: f.read_bytes() for f in photos.iterdir()}
    outcome = gallery.acting.act(wishes, how, tmp_path / "away" if how == "move" else None, dry_run=True, progress=False)
    assert {path for path, _ in outcome.left} == set(changed) and {f.name: f.read_bytes() for f in photos.iterdir()} == before and not gallery.acting.log()
    (photos / "a.png").unlink()
    outcome = gallery.acting.act(wishes, how, tmp_path / "away" if how == "move" else None, progress=False)
    assert len(outcome.left) == 4 and not outcome.done and all(f.read_bytes() == before[f.name] for f in photos.iterdir())


def test_a_protected_file_is_not_touched_whoever_decided(gallery, photos, tmp_path):
    assert proposed(gallery.duplicates(progress=False, protect=[photos])) == []
    wish = Wish(photos / "a.png", photos / ODD[0], hashes=(content_hash(photos / "a.png"),) * 2)
    outcome = gallery.acting.act([wish], "move", tmp_path / "away", protect=[photos], progress=False)
    assert [why for _, why in outcome.left] == ["is protected"] and wish.path.exists()


def test_the_kept_file_is_never_lost_by_way_of_links(gallery, photos, tmp_path):
    (tmp_path / "way").symlink_to(photos)
    keep = photos / "a.png"
    wishes = [Wish(tmp_path / "way" / "a.png", keep, "same bytes"), Wish(keep, tmp_path / "way" / "a.png", "same bytes")]
    assert len(gallery.acting.act(wishes, "move", tmp_path / "away", progress=False).left) == 2 and keep.exists()


@pytest.mark.parametrize("how", ["move", "hardlink"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_in_the_middle_is_taken_back(gallery, photos, tmp_path, after, how):
    code = """
import os, sys
from pathlib import Path
from image_similarity.gallery import acting
from image_similarity.gallery.sqlite import SqliteCatalogue
do = acting._do
def killed(how, wish, to):
    if sys.argv[1] == "True": do(how, wish, to)
    os._exit(9)
acting._do = killed
how, *paths = sys.argv[2:]
folder, keep, copy, away = map(Path, paths)
acting.Acting(SqliteCatalogue(folder)).act([acting.Wish(keep, copy, "same bytes")], how, away if how == "move" else None, progress=False)"""
    before, items = names(photos), state(gallery)
    done = subprocess.run([sys.executable, "-c", code, *map(str, (after, how, gallery.folder, photos / "a.png", photos / ODD[0], tmp_path / "away"))], check=False)
    assert done.returncode == 9
    assert len(names(photos)) == len(before) - (after and how == "move") and (photos / "a.png").stat().st_nlink == 1 + (after and how == "hardlink") and [act.state for act in gallery.acting.log()] == ["begun"]
    assert len(gallery.acting.undo().done) == after
    assert names(photos) == before and (photos / "a.png").stat().st_nlink == 1 and state(gallery) == items and gallery.acting.log()[0].state == ("undone" if after else "failed")


def test_nothing_is_overwritten_when_something_is_taken_back(gallery, photos, tmp_path):
    wish = proposed(gallery.duplicates(progress=False))[0]
    gallery.acting.act([wish], "move", tmp_path / "away", progress=False)
    paint(wish.path, 7)
    new = wish.path.read_bytes()
    outcome = gallery.acting.undo()
    assert "nothing is overwritten" in outcome.left[0][1] and wish.path.read_bytes() == new
    wish.path.unlink()
    assert gallery.acting.undo().done == [(wish.path, wish.path)] # it can still be taken back


def test_hard_links_free_bytes_and_the_gallery_goes_on(gallery, photos):
    outcome = gallery.acting.act(proposed(gallery.duplicates(progress=False)), "hardlink", progress=False)
    assert outcome.freed == 4 * (photos / "a.png").stat().st_size and (photos / "a.png").stat().st_nlink == 5
    again = gallery.acting.act(proposed(gallery.duplicates(progress=False)), "trash", progress=False)
    assert gallery.check().ok and not again.done and all("is the same file" in why for _, why in again.left)
    added = gallery.add(photos, progress=False)
    assert added.new == added.changed == 0 and len(gallery.acting.undo().done) == 4 and (photos / "a.png").stat().st_nlink == 1


def test_a_link_whose_file_changed_since_stays_and_the_run_before_has_its_turn(gallery, photos, tmp_path):
    first, second, *_ = proposed(gallery.duplicates(progress=False))
    gallery.acting.act([first], "move", tmp_path / "away", progress=False)
    gallery.acting.act([second], "hardlink", progress=False)
    second.path.unlink()
    new = paint(second.path, 7).read_bytes()
    outcome = gallery.acting.undo()
    assert not outcome.done and "was changed since" in outcome.left[0][1] and second.path.read_bytes() == new
    assert gallery.acting.undo().done == [(first.path, first.path)] and first.path.exists()


def test_files_share_bytes_where_the_file_system_can_and_stay_as_they_are_elsewhere(gallery, photos):
    wishes, before = proposed(gallery.duplicates(progress=False)), {f: f.read_bytes() for f in photos.iterdir()}
    outcome = gallery.acting.act(wishes, "reflink", progress=False)
    assert len(outcome.done) + len(outcome.left) == 4 and {f: f.read_bytes() for f in photos.iterdir()} == before
    if outcome.left: assert all("files cannot share bytes here" in why for _, why in outcome.left) and {act.state for act in gallery.acting.log()} == {"failed"}
    else: assert len(gallery.duplicates(progress=False)) == 0 and len(gallery.acting.undo().done) == 4


def test_the_log_and_the_decisions_go_along_when_a_gallery_is_copied_elsewhere(gallery, photos, tmp_path):
    gallery.acting.act(proposed(gallery.duplicates(progress=False))[:2], "move", photos / "away", progress=False)
    gallery.acting.decide(photos / "a.png", photos / "other.png", "not copies")
    copy = Gallery(gallery.save_to(tmp_path / "deep" / "er" / "h"))
    assert [(a.path, a.keep, a.to) for a in copy.acting.log()] == [(a.path, a.keep, a.to) for a in gallery.acting.log()]
    assert copy.catalogue.decisions() == gallery.catalogue.decisions() != {}
    moved = tmp_path / "elsewhere"                     # a gallery beside its pictures may move with them
    moved.mkdir()
    for name in ("g", "photos"): shutil.move(tmp_path / name, moved / name)
    again = Gallery(moved / "g")
    assert {a.path.parent for a in again.acting.log()} == {moved / "photos"} and len(again.acting.undo().done) == 2


# --- decisions

def test_the_next_run_shows_only_what_is_new(gallery, photos, tmp_path):
    first = gallery.duplicates(progress=False)[0]
    gallery.acting.decide(first.keep, first.copies[0].path, "keep both")
    shown = gallery.duplicates(progress=False)
    assert len(shown) == 0 and shown.settled == 4
    assert len(gallery.duplicates(progress=False, settled=True)[0].copies) == 4
    (photos / "sub").mkdir()
    for name in ODD: (photos / name).rename(photos / "sub" / name)
    gallery.add(photos, progress=False)
    assert len(gallery.duplicates(progress=False)) == 0
    shutil.copy(photos / "a.png", photos / "new.png")
    gallery.add(photos, progress=False)
    assert [len(g.copies) for g in gallery.duplicates(progress=False)] == [5]


def test_decisions_of_a_report_are_remembered_and_acted_on(call, gallery, photos, tmp_path):
    hashes, told = [content_hash(photos / "a.png"), content_hash(photos / "other.png")], tmp_path / "decisions.json"
    told.write_text(json.dumps({"decisions": [
        {"keep": str(photos / "a.png"), "copy": str(photos / "other.png"), "hashes": hashes, "verdict": "delete"},
        {"keep": str(photos / "a.png"), "copy": str(photos / ODD[0]), "hashes": [hashes[0]] * 2, "files": 5, "verdict": "keep both"}]}))
    assert len(read_decisions(told)[1]) == 1
    code, out, err = call("duplicates", "--gallery", gallery.folder, "--decisions", told)
    assert (code, out) == (0, "") and "1 decision remembered, 1 file to delete: add --trash" in err and (photos / "other.png").exists()
    code, out, err = call("duplicates", "--gallery", gallery.folder, "--decisions", told, "--move", tmp_path / "away")
    assert (code, out) == (0, f"move\t{photos / 'other.png'}\t{tmp_path / 'away' / 'other.png'}\n")
    code, out, err = call("duplicates", "--gallery", gallery.folder)
    assert (code, out) == (0, "") and "4 more were decided about before" in err
    assert call("duplicates", "--gallery", gallery.folder, "--undo")[0] == 0 and (photos / "other.png").exists()
    paint(photos / "other.png", 5) # another picture under the name that was decided about
    code, _, err = call("duplicates", "--gallery", gallery.folder, "--decisions", told, "--move", tmp_path / "away")
    assert code == 1 and "changed; look for copies again" in err and (photos / "other.png").exists()


def test_a_script_deletes_of_what_was_decided_nothing_that_is_protected_or_has_changed(call, gallery, photos, tmp_path):
    keep, first, second, safe = photos / "a.png", photos / ODD[0], photos / ODD[1], paint(photos / "safe" / "b.png", 1)
    hashes = [content_hash(keep)] * 2
    told, script = tmp_path / "decisions.json", tmp_path / "delete.sh"
    told.write_text(json.dumps({"decisions": [{"keep": str(keep), "copy": str(file), "hashes": hashes, "verdict": "delete"} for file in (first, second, safe)]}))
    paint(second, 5) # another picture since
    code, out, err = call("duplicates", "--gallery", gallery.folder, "--decisions", told, "--script", script, "--protect", photos / "safe")
    assert (code, out) == (1, "") and "b.png: is protected" in err and "changed; look for copies again" in err and "1 file," in err
    subprocess.run(["sh", script], check=True, capture_output=True)
    assert keep.exists() and safe.exists() and second.exists() and not first.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"decisions": 1}', '{"decisions": [{"keep": "a", "copy": "b", "hashes": ["x"], "verdict": "delete"}]}',
                                  '{"decisions": [{"keep": "a", "copy": "b", "hashes": ["x", "y"], "verdict": "burn"}]}'])
def test_what_holds_no_decisions_is_refused(call, gallery, tmp_path, text):
    (tmp_path / "d.json").write_text(text)
    code, out, err = call("duplicates", "--gallery", gallery.folder, "--decisions", tmp_path / "d.json", "--trash")
    assert (code, out) == (2, "") and "holds no decisions" in err and len(err.splitlines()) == 1


# --- leaks between two galleries

def test_leaks_whose_labels_disagree_come_first_and_only_own_files_are_touched(call, tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    for seed in (1, 2, 3):
        paint(train / f"{seed}.png", seed)
        test.mkdir(exist_ok=True)
        shutil.copy(train / f"{seed}.png", test / f"{seed}.png")
    shutil.copy(train / "1.png", train / "1b.png") # copies within one side are no leak
    for folder, odd in (train, "rose"), (test, "tulip"):
        gallery = Gallery(tmp_path / f"{folder.name}.gallery", Tiny())
        gallery.add(folder, labels=lambda f, odd=odd: odd if f.stem == "3" else "daisy", progress=False)
    found = Gallery(tmp_path / "test.gallery").duplicates(against=Gallery(tmp_path / "train.gallery"), progress=False)
    assert [(g.keep.stem[0], any(r["disagrees"] for r in found.to_records() if r["group"] == n)) for n, g in enumerate(found, 1)] == [("3", True), ("1", False), ("2", False)]
    code, out, err = call("duplicates", "--gallery", tmp_path / "test.gallery", "--against", tmp_path / "train.gallery")
    first = out.splitlines()[0].split("\t")
    assert code == 0 and len(first) == 4 and set(first[3].split(" / ")) == {"rose", "tulip"} and all(len(line.split("\t")) == 3 for line in out.splitlines()[1:])
    call("duplicates", "--gallery", tmp_path / "test.gallery", "--against", tmp_path / "train.gallery", "--prefer", train, "--move", tmp_path / "away")
    assert names(tmp_path / "away") == {"1.png", "2.png", "3.png"} and names(test) == set() and len(names(train)) == 4


# --- the command

def test_dry_run_says_what_would_be_freed(call, gallery, photos):
    gallery.remove(photos / ODD[3]) # its name is not text, which a real stdout takes
    code, out, err = call("duplicates", "--gallery", gallery.folder, "--trash", "--dry-run")
    assert code == 0, err
    assert len(out.splitlines()) == 3 and f"3 files would be put into the trash, {3 * (photos / 'a.png').stat().st_size:,} bytes would be freed" in err
    assert len(names(photos)) == 6


@pytest.mark.parametrize("args, said", [(["--trash", "--move", "x"], "a file goes one way only"), (["--dry-run"], "say what would be done"), (["--undo", "--trash"], "goes alone"),
                                        (["--script", "x.sh", "--trash"], "the script deletes"), (["--report", "x.png"], "must end in .html")])
def test_what_does_not_go_together_is_told(call, gallery, args, said):
    code, out, err = call("duplicates", "--gallery", gallery.folder, *args)
    assert (code, out) == (2, "") and said in err


def test_an_older_gallery_remembers_from_now_on(tmp_path, monkeypatch):
    from image_similarity.gallery import sqlite
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "STEPS", sqlite.STEPS[:sqlite.STEPS.index(sqlite.DECIDED)])
        old = Gallery(tmp_path / "old", create=True)
        old.import_embeddings([tmp_path / "a.png"], np.eye(1, 3))
        old.close()
    gallery = Gallery(tmp_path / "old")
    assert gallery.acting.log() == [] and gallery.catalogue.decisions() == {} and len(gallery) == 1
