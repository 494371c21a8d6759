"Pictures that are elsewhere, gone, linked, written at the moment, or given open; galleries that are older, moved, or not there."
import io
import json
import os
import shutil
import socket
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_gallery import Tiny, paint

from image_similarity.encoders.encoder import create_encoder, fingerprint
from image_similarity.gallery import adding
from image_similarity.gallery.encoder import PooledEncoder
from image_similarity.gallery.acknowledged import is_gallery
from image_similarity.gallery.gallery import Gallery
from image_similarity.images.opening import content_hash, open_image


@pytest.fixture
def photos(tmp_path):
    return [paint(tmp_path / "photos" / f"cat_{i}.png", i) for i in range(6)]


@pytest.fixture
def gallery(tmp_path, photos):
    gallery = Gallery(tmp_path / "my.gallery", Tiny())
    gallery.add(tmp_path / "photos", progress=False)
    return gallery


# --- files that are none

@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes on this system")
def test_pipes_sockets_devices_and_folders_are_refused_at_once(gallery, tmp_path, photos):
    odd = tmp_path / "photos"
    os.mkfifo(odd / "pipe.jpg")
    (odd / "folder.jpg").mkdir()
    (odd / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(odd / "socket.jpg"))
        done = []
        thread = threading.Thread(target=lambda: done.append(gallery.add([odd / f"{n}.jpg" for n in ("pipe", "socket", "zero", "folder")], progress=False)), daemon=True)
        thread.start()
        thread.join(20)
    assert done, "it waits"
    assert [e.reason for e in done[0].bad] == ["is not a regular file"] * 3 + ["is a directory, not a picture"]
    assert len(gallery) == 6 and gallery.add(odd, progress=False).unchanged == 6 # the folder is entered, the others are named again


def test_a_file_that_grows_while_it_is_hashed(tmp_path, monkeypatch, photos):
    real = os.stat
    def smaller(path, *args, **kwargs): # as it was when it was opened
        found = real(path, *args, **kwargs)
        return os.stat_result((*found[:6], found.st_size - 5, *found[7:])) if str(path).endswith("cat_0.png") else found
    monkeypatch.setattr("image_similarity.images.opening.os.stat", smaller)
    with pytest.raises(ValueError, match="is being written"): content_hash(photos[0])
    assert content_hash(photos[1]) == content_hash(photos[1].read_bytes())


def test_a_file_that_is_written_while_it_is_looked_at_waits_for_the_next_time(tmp_path, photos):
    class Slow(Tiny):
        def look(self, files):
            seen = super().look(files)
            if photos[2] in files: paint(photos[2], 99); os.utime(photos[2], ns=(1, 1))
            return seen
    gallery = Gallery(tmp_path / "g", Slow())
    added = gallery.add(photos, progress=False)
    assert (added.new, [e.path for e in added.bad]) == (5, [photos[2]]) and "written while it was looked at" in added.bad[0].reason
    Slow.look = Tiny.look
    assert gallery.add(photos, progress=False).new == 1
    np.testing.assert_allclose(gallery.search(photos[2], 1)[0].score, 1, atol=1e-6)


# --- one file is one item

def test_links_make_no_second_item(gallery, tmp_path, photos):
    os.link(photos[0], tmp_path / "photos" / "hard.png")
    (tmp_path / "photos" / "soft.png").symlink_to(photos[1])
    (tmp_path / "elsewhere").symlink_to(tmp_path / "photos")
    for folder in ("photos", "elsewhere", "photos"):
        added = gallery.add(tmp_path / folder, progress=False)
        assert (added.new, added.moved, len(gallery)) == (0, 0, 6)
    fresh = Gallery(None, Tiny())
    assert (fresh.add(tmp_path / "photos", progress=False).linked, len(fresh)) == (2, 6) # within one batch too
    photos[0].unlink() # the other name is the file now
    assert gallery.add(tmp_path / "photos", progress=False).moved == 1 and len(gallery) == 6


def test_what_another_indexer_added_meanwhile_is_not_new(tmp_path, photos):
    class Beaten(Tiny):
        def look(self, files):
            seen = super().look(files)
            if not getattr(self, "done", False):
                self.done = True
                Gallery(tmp_path / "g", Tiny()).add(photos[:4], progress=False)
            return seen
    added = Gallery(tmp_path / "g", Beaten()).add(photos, progress=False)
    assert (added.new, added.unchanged, len(Gallery(tmp_path / "g", Tiny()))) == (2, 4, 6)


# --- what is gone, and what is away

def test_a_drive_that_is_not_mounted_is_no_deletion(gallery, tmp_path, photos):
    drive = [paint(tmp_path / "drive" / f"dog_{i}.png", 50 + i) for i in range(3)]
    gallery.add(drive, progress=False)
    for photo in photos[:2]: photo.unlink()
    shutil.move(tmp_path / "drive", tmp_path / "unplugged"); (tmp_path / "drive").mkdir() # where it was mounted
    missing = gallery.missing()
    assert ([i.path for i in missing.gone], [i.path for i in missing.away]) == (photos[:2], drive)
    assert len(gallery.missing(tmp_path / "photos")) == 2
    found = gallery.check()
    assert len(found.missing) == 5 and "of these 3 with their folder" in repr(found)
    assert sum(lost["away"] for lost in json.loads(json.dumps(found.to_dict()))["missing"]) == 3
    assert gallery.remove([i.id for i in missing.gone]) == 2 and gallery.remove(tmp_path / "drive") == 3
    assert gallery.check().ok and len(gallery) == 4


def test_a_gallery_that_came_without_its_pictures_says_so(gallery, tmp_path, photos):
    gallery.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Gallery(tmp_path / "my.gallery", Tiny()).close()
    away = tmp_path / "other" / "my.gallery"
    shutil.copytree(tmp_path / "my.gallery", away)
    with pytest.warns(UserWarning, match=r"6 of 6 pictures .*image_similarity index FOLDER"): moved = Gallery(away, Tiny())
    shutil.copytree(tmp_path / "photos", tmp_path / "other" / "kept")
    assert moved.add(tmp_path / "other" / "kept", progress=False).moved == 6 # as it said
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Gallery(away, Tiny())


# --- made by the first write

def test_a_gallery_is_made_when_something_is_added(tmp_path, photos):
    gallery = Gallery(tmp_path / "deep" / "typo", Tiny())
    assert (len(gallery), gallery.items(), list(gallery.search(np.zeros(48, np.float32)))) == (0, [], []) and "0 items" in repr(gallery)
    gallery.stats(), gallery.check()
    assert not (tmp_path / "deep").exists()
    with pytest.raises(ValueError): gallery.add(photos, ["one label"], progress=False)
    assert not (tmp_path / "deep").exists()
    gallery.catalogue.make_durable()
    gallery.add(photos[:2], progress=False)
    assert is_gallery(tmp_path / "deep" / "typo") and gallery.catalogue.file.rows("PRAGMA synchronous") == [(2,)]
    assert is_gallery(Gallery(tmp_path / "now", Tiny(), create=True).folder)
    waiting = Gallery(tmp_path / "twice", Tiny())
    Gallery(tmp_path / "twice", Tiny()).add(photos, progress=False) # by somebody else
    assert len(waiting) == 6


def test_a_gallery_that_is_only_read_is_left_as_it_is(gallery, tmp_path, photos):
    gallery.close()
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "my.gallery").rglob("*")}
    reader = Gallery(tmp_path / "my.gallery", Tiny(), read_only=True)
    assert len(reader.search(photos[0], 3)) == 3 and len(reader.search(photos[0], 3, approximate=True)) == 3
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "my.gallery").rglob("*")} == before
    with pytest.raises(PermissionError, match="may only be read"): reader.remove(1)


# --- an older gallery

@pytest.fixture
def older(tmp_path, photos):
    "As the version before this one would have left it: its own fingerprint, vectors of pictures as it read them."
    encoder = PooledEncoder(create_encoder(size=64))
    gallery = Gallery(tmp_path / "older", encoder)
    gallery.add(photos, [f"label {i}" for i in range(6)], {"kept": True}, progress=False)
    kept = gallery.catalogue.fact("encoder")
    wrong = -gallery.pooled
    gallery.catalogue.renew({**{k: v for k, v in kept.items() if k != "reading"}, "fingerprint": fingerprint(encoder.encoder, 1)})
    gallery.catalogue.put_items(gallery.items(), wrong)
    gallery.close()
    return tmp_path / "older", encoder


def test_an_older_gallery_opens_says_so_and_is_looked_at_again(older, photos, tmp_path):
    folder, encoder = older
    with pytest.warns(UserWarning, match="as an earlier version read them .* index --gallery"): gallery = Gallery(folder)
    before = [(i.id, i.path, i.label, i.metadata) for i in gallery.items()]
    assert len(gallery.search(2, 3)) == 3 # among themselves they may be compared
    with pytest.raises(ValueError, match="as an earlier version read them"): gallery.search(photos[0])
    with pytest.raises(ValueError, match="as an earlier version read them"), pytest.warns(UserWarning): Gallery(folder, encoder)
    photos[5].write_bytes(b"no picture any more")
    added = gallery.add(photos[:1], progress=False) # whatever is added
    assert (added.again, added.unchanged, [e.path for e in added.bad]) == (5, 1, [photos[5]])
    assert [(i.id, i.path, i.label, i.metadata) for i in gallery.items()] == before
    assert gallery.catalogue.without_vector() == [6] and np.isnan(gallery.pooled[5]).all()
    np.testing.assert_allclose(gallery.pooled[:5], encoder.look(photos[:5]).pooled, atol=1e-3) # no vector of the old way is left
    assert len(gallery.search(photos[1], 6)) == 5 and len(gallery.rows_and_labels()[1]) == 5 and not gallery.duplicates(progress=False)
    with pytest.raises(ValueError, match="has not been looked at"): gallery.search(6)
    paint(photos[5], 5)
    assert gallery.add(progress=False).again == 1 and not gallery.catalogue.without_vector()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Gallery(folder, encoder)


def test_an_older_gallery_whose_pictures_are_not_there_stays_as_it_is(older, photos, tmp_path):
    folder, _ = older
    for photo in photos[:5]: photo.unlink()
    with pytest.warns(UserWarning): gallery = Gallery(folder)
    with pytest.raises(FileNotFoundError, match="Nothing was changed"): gallery.add(photos[5], progress=False)
    assert len(gallery.search(2, 3)) == 3 and gallery.catalogue.without_vector() == []


def test_who_is_stopped_on_the_way_goes_on(older, photos, monkeypatch):
    folder, encoder = older
    monkeypatch.setattr(adding, "BATCH", 2)
    with pytest.warns(UserWarning): gallery = Gallery(folder)
    looks, real = [], PooledEncoder.look
    def stopped(self, files):
        looks.append(len(files))
        if len(looks) == 2: raise KeyboardInterrupt
        return real(self, files)
    monkeypatch.setattr(PooledEncoder, "look", stopped)
    with pytest.raises(KeyboardInterrupt): gallery.add(progress=False)
    assert len(gallery.catalogue.without_vector()) == 4
    monkeypatch.setattr(PooledEncoder, "look", real)
    assert Gallery(folder).add(progress=False).again == 4
    np.testing.assert_allclose(gallery.pooled, encoder.look(photos).pooled, atol=1e-3)


# --- pictures in every form

def test_pictures_in_every_form_are_the_same_query_and_the_same_item(gallery, tmp_path, photos):
    image, data = Image.open(photos[3]), photos[3].read_bytes()
    pixels = np.asarray(Image.open(photos[3]).convert("RGB"))
    forms = [photos[3], str(photos[3]), photos[3].as_uri(), data, bytearray(data), memoryview(data), io.BytesIO(data), open(photos[3], "rb"), image, image.convert("RGBA"), pixels, torch.from_numpy(pixels.copy())]
    for form in forms: assert (gallery.search(form, 1)[0].id, round(gallery.search(form, 1)[0].score, 5)) == (4, 1), type(form)
    named = Gallery(tmp_path / "named.gallery", Tiny())
    added = named.add(forms[3:], names=[f"picture {i}" for i in range(len(forms) - 3)], progress=False)
    assert (added.new, len(added.bad)) == (9, 0) and np.abs(named.pooled - gallery.pooled[3]).max() < 1e-6
    again = named.add(forms[3:], names=[f"picture {i}" for i in range(len(forms) - 3)], progress=False)
    assert (again.new, again.changed, again.unchanged) == (0, 0, 9) and named.check().ok and len(named.missing()) == 0
    forms[7].close()


def test_tables_and_data_sets_bring_labels_and_metadata(tmp_path, photos):
    frame = pd.DataFrame({"picture": [str(p) for p in photos], "breed": ["pug", None, *"abcd"], "year": np.arange(6), "weight": [1.5, np.nan, 2, 3, 4, 5]})
    gallery = Gallery(None, Tiny())
    assert gallery.add(frame, path="picture", label="breed", progress=False).new == 6
    assert gallery.labels[:3] == ["pug", None, "a"] and [i.metadata for i in gallery.items()][:2] == [{"year": 0, "weight": 1.5}, {"year": 1}]
    assert gallery.items({"year": 3})[0].path == photos[3]
    gallery.add(photos, pd.Series(["x"] * 6), {"n": np.int64(3)}, progress=False)
    assert gallery.labels == ["x"] * 6 and gallery.items()[0].metadata["n"] == 3
    with pytest.raises(ValueError, match="path='pictures': there is no such column; there are picture, breed, year, weight"): gallery.add(frame, path="pictures")
    for thing, said in ((7, "int 7: give a folder"), ([np.zeros((2, 3))], "ndarray of shape .*: is no picture"), (None and 1, "")):
        if thing is not None:
            with pytest.raises((TypeError, ValueError), match=said) as e: gallery.add(thing)
            assert "\n" not in str(e.value)


def test_an_image_folder_of_torchvision_and_loaders_of_fastai(tmp_path):
    from fastai.vision.data import ImageDataLoaders
    from torchvision.datasets import ImageFolder

    from image_similarity import labelled_images
    for i in range(8): paint(tmp_path / "set" / ("cat" if i % 2 else "dog") / f"{i}.png", i)
    folder = ImageFolder(str(tmp_path / "set"))
    gallery = Gallery(None, Tiny())
    assert gallery.add(folder, progress=False).new == 8
    assert {p.parent.name == label for p, label in zip(gallery.files, gallery.labels)} == {True}
    assert labelled_images(folder).classes == ["cat", "dog"]
    loaders = ImageDataLoaders.from_folder(tmp_path / "set", valid_pct=.25, seed=1, bs=2)
    data = labelled_images(loaders)
    assert (len(data), data.held_out.sum(), {f.parent.name == label for f, label in zip(data.files, data.labels)}) == (8, 2, {True})
    assert sorted(data.files[i] for i in data.valid) == sorted(map(Path, loaders.valid_ds.items))


def test_a_hugging_face_data_set(tmp_path, photos):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "year": datasets.Value("int64")})
    data = datasets.Dataset.from_dict({"image": [str(photos[0]), Image.open(photos[1])], "label": [1, 0], "year": [2020, 2021]}, features)
    gallery = Gallery(None, Tiny())
    assert gallery.add(data, progress=False).new == 2
    assert (gallery.labels, [i.metadata for i in gallery.items()]) == (["dog", "cat"], [{"year": 2020}, {"year": 2021}])
    assert [gallery.search(p, 1)[0].id for p in photos[:2]] == [1, 2]


# --- pictures elsewhere

@pytest.fixture
def server(photos, tmp_path):
    "A real HTTP server for the photos; the paths that it was asked for."
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    asked = []
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args): asked.append((self.command, self.path))
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", asked
    http.shutdown()


def test_pictures_of_the_web_are_items_and_queries(server, gallery, photos, tmp_path):
    url, asked = server
    for address in (f"{url}/photos/cat_1.png", Path(f"{url}/photos/cat_1.png")):
        assert open_image(address).tobytes() == open_image(photos[1]).tobytes()
    assert gallery.search(f"{url}/photos/cat_1.png", 1)[0].id == 2
    with pytest.raises(FileNotFoundError, match=rf"{url}/photos/none.png: there is no such file"): gallery.search(f"{url}/photos/none.png")
    web = Gallery(tmp_path / "web.gallery", Tiny())
    added = web.add([f"{url}/photos/cat_1.png", f"{url}/photos/none.png"], progress=False)
    assert added.new == 1 and [str(e) for e in added.bad] == [f"{url}/photos/none.png: there is no such file"]
    assert web.search(photos[1], 1)[0].to_record()["path"] == f"{url}/photos/cat_1.png"
    assert web.check().ok and not len(web.missing()) and "data:image/jpeg" in web.search(photos[1], 1)._repr_html_()
    asked.clear()
    assert web.add(f"{url}/photos/cat_1.png", progress=False).unchanged == 1


def test_pictures_of_a_store_by_its_address(tmp_path, photos):
    import fsspec
    store = fsspec.filesystem("memory")
    for photo in photos: store.pipe(f"/bucket/{photo.name}", photo.read_bytes())
    store.pipe("/bucket/film.mp4", b"x")
    gallery = Gallery(tmp_path / "g", Tiny())
    added = gallery.add("memory://bucket", progress=False)
    assert added.new == 6 and "film; take pictures out" in added.listed.report()[0]
    assert gallery.add("memory://bucket", progress=False).unchanged == 6
    store.pipe(f"/bucket/{photos[0].name}", photos[5].read_bytes())
    assert gallery.add("memory://bucket", progress=False).changed == 1
    again = Gallery(tmp_path / "g", Tiny())
    assert again.search(photos[3], 1)[0].to_record()["path"] == "memory://bucket/cat_3.png"


def test_a_library_that_is_missing_is_named():
    from image_similarity.images.remote import fetched
    with pytest.raises(ImportError, match=r"s3://box/a.jpg: needs s3fs; pip install 'image_similarity\[remote\]' s3fs"): fetched("s3://box/a.jpg")
