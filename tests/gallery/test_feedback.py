"What people say of a gallery, and parts of its pictures, beside all that happens to a gallery."
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from image_similarity.drawing.pets import draw_pet
from image_similarity.encoders.encoder import create_encoder
from image_similarity.encoders.regions import from_bytes, grid_boxes, region_vectors
from image_similarity.gallery.cluster import ClusterEncoder
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.part_search import network_of, part_rows
from image_similarity.gallery.searching import Searcher
from image_similarity.metrics.similarity import normalize


@pytest.fixture(scope="module")
def encoder(): return create_encoder(size=64)


@pytest.fixture
def folder(tmp_path):
    for n in range(6): draw_pet(["beagle", "Persian"][n % 2], n, 96)[0].save(tmp_path / f"pet_{n}.png")
    return tmp_path


@pytest.fixture
def gallery(folder, encoder):
    made = Gallery(folder / "kept", encoder, regions=True)
    made.add(sorted(folder.glob("*.png")), progress=False)
    return made


def test_a_copy_of_a_gallery_keeps_what_was_said_and_the_versions(gallery, folder):
    for id, label in enumerate(["dog", "cat"], 1): gallery.feedback.answer(id, label)
    marks = gallery.feedback.mark(1, right=3, wrong=[2])
    gallery.feedback.undo(marks[1])
    gallery.feedback.refit()
    again = Gallery(gallery.save_to(folder / "copy"))
    assert again.feedback.said(undone=True) == gallery.feedback.said(undone=True) and len(again.feedback.said()) == 3
    assert again.feedback.versions() == gallery.feedback.versions() and again.feedback.predict() == gallery.feedback.predict()
    assert [r.id for r in again.search(1, 3, region=(0, 0, 48, 48))] == [r.id for r in gallery.search(1, 3, region=(0, 0, 48, 48))]


def test_an_undone_answer_leaves_a_label_that_was_given_since(gallery):
    said = gallery.feedback.answer(1, "dog")
    gallery.update(1, label="wolf")
    gallery.feedback.undo(said)
    assert gallery.items()[0].label == "wolf"
    first, second = gallery.feedback.answer(2, "cat"), gallery.feedback.answer(2, "lynx")
    gallery.feedback.undo([first, second])
    assert gallery.items()[1].label is None


def test_parts_follow_their_pictures(gallery, folder, encoder):
    ids = lambda: [int(id) for id in part_rows(gallery)[1] if id >= 0]
    assert sorted(ids()) == gallery.ids
    draw_pet("Bengal", 9, 96)[0].save(folder / "pet_0.png")
    gallery.add(folder / "pet_0.png", progress=False)
    gallery.remove(2)
    assert sorted(ids()) == gallery.ids
    data, owners = part_rows(gallery)
    kept = from_bytes(data[list(owners).index(1)].reshape(len(grid_boxes()), -1))
    assert np.abs(normalize(kept) - region_vectors(encoder, [folder / "pet_0.png"])[0]).max() < .01


def test_a_search_for_parts_is_the_best_of_whole_and_parts(gallery, folder):
    query = gallery.search(3, 5, parts=True)
    units = normalize(gallery.pooled[:, gallery.pooled.shape[1] // 2:])
    data, owners = part_rows(gallery)
    parts = {int(id): from_bytes(row.reshape(len(grid_boxes()), -1)) for id, row in zip(owners, data)}
    expected = {id: max(units[n] @ units[2], (parts[id] @ units[2]).max()) for n, id in enumerate(gallery.ids) if id != 3}
    assert [r.id for r in query] == sorted(expected, key=expected.__getitem__, reverse=True)
    np.testing.assert_allclose([r.score for r in query], sorted(expected.values(), reverse=True), atol=2e-3)
    for r in query:
        assert (r.box is None) == (units[r.id - 1] @ units[2] >= (parts[r.id] @ units[2]).max())


def test_parts_of_a_picture_that_changed_are_not_searched(gallery):
    assert sorted(part_rows(gallery)[1]) == gallery.ids
    item = gallery.items()[0]
    gallery.catalogue.put_items([item], gallery.pooled[1:2]) # of another picture, whose parts nobody has looked at yet
    assert sorted(int(id) for id in part_rows(gallery)[1] if id >= 0) == gallery.ids[1:]


def test_a_search_for_parts_is_of_one_moment(gallery, monkeypatch):
    rows, before, calls = Searcher.rows, [r.id for r in gallery.search(6, 5, parts=True)], []
    def and_then(self, metric="cosine"): # others take half of it out, and the rows are written anew
        calls.append(metric)
        if len(calls) == 2: gallery.remove([1, 2, 3])
        return rows(self, metric)
    monkeypatch.setattr(Searcher, "rows", and_then)
    assert [r.id for r in gallery.search(6, 5, parts=True)] == before


def test_parts_are_looked_at_where_a_cluster_looks_at_pictures(gallery):
    spread = ClusterEncoder.__new__(ClusterEncoder) # without a cluster: the encoder that it shares out is asked for
    spread.encoder = gallery.encoder
    assert network_of(SimpleNamespace(encoder=spread)) is network_of(gallery) is gallery.encoder.encoder


def test_what_has_no_parts_says_so(folder, encoder):
    plain = Gallery(None, encoder)
    plain.add(sorted(folder.glob("*.png")), progress=False)
    with pytest.raises(ValueError, match="keeps no parts"): plain.search(1, parts=True)
    assert len(plain.search(1, 3, region=(0, 0, 48, 48))) == 3 # of the query there are parts nevertheless
    with pytest.raises(ValueError, match="words have no parts"): plain.search("a dog", region=(0, 0, 9, 9))
    with pytest.raises(ValueError, match="a vector has none"): plain.search(plain.pooled[0], region=(0, 0, 9, 9))
    with pytest.raises(ValueError, match="compared by cosine, exactly"): plain.search(1, positives=2, metric="l2")


def test_a_gallery_goes_on_keeping_parts(gallery, folder):
    again = Gallery(folder / "kept")
    Image.open(folder / "pet_1.png").rotate(180).save(folder / "pet_7.png")
    again.add(folder / "pet_7.png", progress=False)
    assert sorted(int(id) for id in part_rows(again)[1]) == again.ids
