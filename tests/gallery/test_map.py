"A map of a gallery in a folder and in PostgreSQL, drawn once and kept in step; and files that other tools read."
import json
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.mapping import lay_out
from image_similarity.gallery.whole import fiftyone_samples
from image_similarity.metrics.similarity import normalize
from small_gallery import Tiny, paint

both = pytest.mark.parametrize("gallery", ["folder", "postgres"], indirect=True)


def heaps(n, width=48, of=6, seed=0):
    rng = np.random.default_rng(seed)
    heap = np.arange(n) % of
    return heap, np.abs(rng.normal(size=(of, width))[heap] + .15 * rng.normal(size=(n, width))).astype(np.float32)


@both
def test_a_map_is_kept_and_new_pictures_find_their_place(gallery, photos, tmp_path):
    first = gallery.map(progress=False)
    assert first.ids.tolist() == gallery.ids and np.abs(first.xy).max() <= 1 and not first.joined.any()
    again = gallery.map(progress=False)
    assert (again.xy == first.xy).all() and again.clusters == first.clusters
    twin = paint(tmp_path / "photos" / "twin.png", 4) # the same squares as the fifth picture
    gallery.add(twin, progress=False)
    moved = paint(photos[7], 99)
    gallery.add(moved, progress=False)
    assert gallery.catalogue.without_place() == [8, 21] # one that changed leaves its place
    later = gallery.map(progress=False)
    stays = [i for i in range(20) if i != 7]
    assert (later.xy[stays] == first.xy[stays]).all() and later.joined.nonzero()[0].tolist() == [7, 20]
    near = [r for r in gallery.search(21, 12, metric="cosine") if r.id != 8][:10] # of those that had a place
    assert near[0].id == 5 and later.clusters[20] in {later.clusters[r.id - 1] for r in near}
    placed = [later.xy[r.id - 1] for r in near if later.clusters[r.id - 1] == later.clusters[20]][:3]
    np.testing.assert_allclose(later.xy[20], np.mean(placed, axis=0), atol=1e-6)
    gallery.remove(21)
    assert 21 not in gallery.map(progress=False).ids
    assert not gallery.map(anew=True, progress=False).joined.any()


@both
def test_a_copy_of_a_gallery_has_its_map_where_it_is_the_same_file(gallery, tmp_path):
    first = gallery.map(progress=False)
    copy = Gallery(gallery.save_to(tmp_path / "copy"), Tiny())
    found = copy.map(progress=False)
    assert found.ids.tolist() == first.ids.tolist() and len(found) == 20


@pytest.mark.soak
def test_groups_on_the_map_are_the_heaps_and_have_their_names(tmp_path):
    gallery = Gallery(None)
    heap, vectors = heaps(180)
    gallery.import_embeddings([tmp_path / f"{i}.jpg" for i in range(180)], vectors, [f"heap {h}" if i % 7 else None for i, h in enumerate(heap)])
    found = gallery.map(progress=False)
    assert found.clusters == [f"heap {h}" for h in heap]
    distances = np.linalg.norm(found.xy[:, None] - found.xy[None], axis=2) + 9 * np.eye(180)
    assert (heap[distances.argmin(1)] == heap).all()


def test_a_gallery_that_is_only_read_has_a_map_that_is_not_kept(gallery, tmp_path):
    closed = Gallery(gallery.folder, Tiny(), read_only=True)
    assert len(closed.map(progress=False)) == 20 and len(closed.catalogue.places()) == 0


def test_few_pictures_lie_along_their_main_directions():
    rows = normalize(np.array([[1, 0, 0], [.9, .1, 0], [0, 1, 0], [0, .9, .1]], np.float32))
    xy = lay_out(rows)
    spread = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    assert spread[0, 1] < .3 * spread[0, 2] and spread[2, 3] < .3 * spread[1, 3]
    assert lay_out(np.ones((40, 3), np.float32)[:5]).shape == (5, 2)


def test_files_for_other_tools(gallery, photos, tmp_path, monkeypatch):
    gallery.update(3, metadata={"excluded": True})
    folder = gallery.export(tmp_path / "f", "fiftyone")
    places, labels = (json.loads((folder / name).read_text()) for name in ("data.json", "labels.json"))
    assert [*places.values()] == [str(p) for p in gallery.files] and [*labels["labels"].values()] == gallery.labels
    samples = fiftyone_samples(gallery.items())
    assert samples[2]["tags"] == ["excluded"] and samples[0]["number"] == 0
    tasks = json.loads(gallery.export(tmp_path / "l.json", "label-studio", where={"label": "cat"}).read_text())
    assert 3 not in {t["data"]["gallery_id"] for t in tasks} and all(t["predictions"][0]["result"][0]["value"]["choices"] == ["cat"] for t in tasks)
    images = ET.parse(gallery.export(tmp_path / "c.xml", "cvat")).getroot().findall("image")
    assert len(images) == 19 and [i.get("id") for i in images] == [str(n) for n in range(19)] and images[0].get("width") == "16"
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match="pip install fiftyone"): gallery.to_fiftyone()
