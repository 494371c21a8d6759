"A finder that is pickled or copied is opened again from its folder, or says in one line what to do."
import copy
import pickle

import pytest

from image_similarity import Gallery, SimilarityFinder


def answers(finder, query): return [(r.path.name, round(r.score, 4)) for r in finder.search(query, 5)]


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda finder: pickle.loads(pickle.dumps(finder))], ids=["deepcopy", "copy", "pickle"])
def test_a_loaded_finder_finds_the_same(small, again, monkeypatch, tmp_path):
    monkeypatch.chdir(small.model.parent)
    finder = SimilarityFinder.load(small.model.name) # by a path that holds in this folder only
    monkeypatch.chdir(tmp_path)
    other = again(finder)
    assert other is not finder and other.gallery.folder == finder.gallery.folder
    assert answers(other, small.query) == answers(finder, small.query)


def test_it_searches_the_gallery_that_it_was_loaded_with(small, tmp_path):
    gallery = Gallery(tmp_path / "gallery", small.encoder)
    gallery.add(small.data.files[:6], labels="name", progress=False)
    other = copy.deepcopy(SimilarityFinder.load(small.model, gallery))
    assert other.gallery.folder == gallery.folder and len(other) == 6


def test_a_finder_in_memory_is_saved_first(small, tmp_path):
    finder = SimilarityFinder(small.finder.clearn, small.finder.slearn, small.data.files[:8], progress=False)
    with pytest.raises(TypeError, match=r"in memory only: save\(folder\) first"): pickle.dumps(finder)
    finder.save(tmp_path / "model")
    assert len(copy.deepcopy(finder)) == 8
    finder.gallery.import_embeddings(["one_more.jpg"], finder.gallery.pooled[:1])
    with pytest.raises(TypeError, match="does not hold it as it is now"): copy.deepcopy(finder)


def test_a_model_with_a_gallery_in_memory_says_so(small):
    gallery = Gallery(encoder=small.encoder)
    gallery.add(small.data.files[:6], progress=False)
    with pytest.raises(TypeError, match="is in memory"): copy.deepcopy(SimilarityFinder.load(small.model, gallery))
