"Galleries asked in words, and in sums of words and pictures: beside a plain sum, through filters and caches, and on the command line."
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_gallery import Tiny, paint

from image_similarity import Gallery, picture, words
from image_similarity.metrics.similarity import normalize

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1), "black": (0, 0, 0)}


class ColourNames:
    "A small text-image encoder: in its space a picture is its mean colour, and a text the colours that it names."
    fingerprint, dim = "colour names", 4

    def encode_texts(self, texts):
        return normalize(np.array([[1, *np.sum([COLOURS[w] for w in text.split() if w in COLOURS], axis=0)] for text in texts], np.float32))

    def from_pooled(self, pooled):
        return normalize(np.c_[np.ones(len(pooled)), pooled.reshape(len(pooled), -1, 3).mean(1)].astype(np.float32))


class OneSpace(ColourNames, Tiny):
    "The same as an encoder of pictures, as CLIP is one."
    def look(self, files): return replace(seen := super().look(files), pooled=self.from_pooled(seen.pooled))
    width = 4


@pytest.fixture
def photos(tmp_path):
    return [paint(tmp_path / "photos" / f"{'cat' if i % 3 else 'dog'}_{i}.png", i) for i in range(30)]


@pytest.fixture
def gallery(tmp_path, photos):
    "Pictures in a space of their own, words in another, as with the packaged encoder."
    gallery = Gallery(tmp_path / "my.gallery", Tiny())
    gallery.text = ColourNames()
    gallery.add(photos, "name", [{"even": i % 2 == 0} for i in range(30)], progress=False)
    return gallery


def twin(gallery, terms, where=lambda item: True) -> list[tuple[int, float]]:
    "Ids and scores of a mixture, best first: the weighted sum of what each term does in the whole gallery."
    rows, score = ColourNames().from_pooled(gallery.pooled).astype(float), 0
    for weight, vector in terms:
        products = rows @ vector
        score = score + weight * (products - products.mean()) / products.std()
    own = [(item.id, s) for item, s in zip(gallery.items(), score) if where(item)]
    return sorted(own, key=lambda one: -one[1])


def text(*what): return ColourNames().encode_texts(list(what))[0]
def seen(file): return ColourNames().from_pooled(Tiny().look([file]).pooled)[0]


# --- words

def test_a_text_finds_by_cosine(gallery):
    found = gallery.search("a red picture", 30)
    cosines = ColourNames().from_pooled(gallery.pooled) @ text("a red picture")
    assert [r.id for r in found] == list(np.argsort(-cosines) + 1)
    np.testing.assert_allclose([r.score for r in found], np.sort(cosines)[::-1], atol=1e-6)
    assert {r.probability for r in found} == {None}
    assert [r.id for r in gallery.search(words("a red picture"), 30)] == [r.id for r in found]


def test_a_string_is_a_picture_a_text_or_a_picture_that_is_missing(gallery, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos[0].parent)
    assert gallery.search("dog_0.png", 1)[0].path == photos[0]
    (photos[0].parent / "red").write_bytes(photos[5].read_bytes())
    assert gallery.search("red", 1)[0].path == photos[5]
    assert gallery.search(words("red"), 1)[0].id == gallery.search("so red", 1)[0].id
    for name in ("missing.png", "MISSING.JPG", "no/such", "red.tif"):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            gallery.search(name)


def test_texts_pictures_and_mixtures_in_one_call(gallery, photos):
    queries = ["red", photos[4], words("blue") - "red", 7, words("red")]
    together = gallery.search_many(queries, 6)
    assert [[r.id for r in results] for results in together] == [[r.id for r in gallery.search(q, 6)] for q in queries]


@pytest.mark.parametrize("query, error, said", [("", ValueError, "empty"), ("  ", ValueError, "empty"), (words("red") - words("red"), ValueError, "cancel"),
                                                (0 * words("red"), ValueError, "cancel"), (words("red") + "gone.png", FileNotFoundError, "gone.png"),
                                                (words("red") + picture(99), KeyError, "99"), (words("red") + picture(np.zeros(5)), ValueError, "all 48")])
def test_what_cannot_be_looked_for_is_told(gallery, query, error, said):
    with pytest.raises(error, match=said):
        gallery.search(query)


def test_words_are_compared_by_cosine_only(gallery):
    with pytest.raises(ValueError, match="leave out metric"):
        gallery.search("red", metric="l2")


def test_a_gallery_without_a_text_side_says_what_to_do(photos):
    gallery = Gallery(encoder=Tiny())
    gallery.add(photos, progress=False)
    with pytest.raises(ValueError, match="packaged encoder.*OpenCLIPEncoder"):
        gallery.search("red")
    assert len(gallery.search(picture(photos[0]) - picture(photos[1]), 30)) == 30  # pictures need none


def test_a_gallery_of_imported_vectors_says_that_it_has_no_encoder():
    gallery = Gallery()
    gallery.import_embeddings(["a.jpg", "b.jpg"], np.eye(2))
    with pytest.raises(ValueError, match="no encoder"):
        gallery.search("red")


def test_an_empty_gallery_finds_nothing(tmp_path):
    assert len(Gallery(tmp_path / "empty", OneSpace()).search("red")) == 0


# --- mixtures

WEIGHTS = st.floats(-3, 3).filter(lambda w: abs(w) > 0.05)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=WEIGHTS, b=WEIGHTS, c=WEIGHTS, k=st.integers(1, 30), odd=st.booleans())
def test_a_mixture_equals_the_plain_sum(gallery, photos, a, b, c, k, odd):
    where, keep = ({"even": False}, lambda item: not item.metadata["even"]) if odd else (None, lambda item: True)
    found = gallery.search(a * words("red") + b * picture(photos[3]) + c * words("so blue"), k, where)
    expected = twin(gallery, [(a, text("red")), (b, seen(photos[3])), (c, text("so blue"))], keep)
    np.testing.assert_allclose([r.score for r in found], [s for _, s in expected[:k]], atol=2e-4)
    scores = dict(expected)
    np.testing.assert_allclose([r.score for r in found], [scores[r.id] for r in found], atol=2e-4)


def test_scores_are_linear_in_the_mixture(gallery, photos):
    def scores(mixture): return np.array([r.score for r in sorted(gallery.search(mixture, 30), key=lambda r: r.id)])
    one, other = words("red") - picture(photos[3]), 2 * words("white") + picture(photos[8])
    np.testing.assert_allclose(scores(one + 3 * other), scores(one) + 3 * scores(other), atol=1e-3)
    np.testing.assert_allclose(scores(-one), -scores(one), atol=1e-3)


def test_a_repeated_term_is_a_weight(gallery):
    twice, weighted = gallery.search(words("red") + "red" - "blue", 30), gallery.search(2 * words("red") - "blue", 30)
    assert [r.id for r in twice] == [r.id for r in weighted]


def test_neither_side_swamps_the_other(gallery, photos):
    "Weighted alike, words and picture each explain half of the order."
    scores = {name: {r.id: r.score for r in gallery.search(m, 30)} for name, m in
              {"both": words("red") + picture(photos[3]), "words": words("red"), "picture": 1 * picture(photos[3]) + 1e-6 * words("red")}.items()}
    both, *sides = (np.array([s[i] for i in sorted(s)]) for s in scores.values())
    first, second = (np.corrcoef(both, side)[0, 1] for side in sides)
    assert first == pytest.approx(second, abs=1e-3) and first > 0.5


def test_an_item_that_is_a_term_is_not_found(gallery):
    found = gallery.search(words("red") + picture(3) + picture(5) - picture(7), 30)
    assert sorted(r.id for r in found) == [i for i in range(1, 31) if i not in (3, 5, 7)]


def test_pictures_alone_are_added_in_their_own_space(gallery, photos):
    rows = normalize(gallery.pooled.astype(float))
    products = rows @ rows[[2, 9]].T
    expected = (products - products.mean(0)) / products.std(0) @ [1, 1]
    found = gallery.search(picture(photos[2]) + picture(photos[9]), 30)
    np.testing.assert_allclose([r.score for r in found], np.sort(expected)[::-1], atol=1e-4)


# --- the rows of the text space

def test_changes_are_seen_and_nothing_is_read_again(gallery, photos, monkeypatch):
    gallery.search("red", 3)
    monkeypatch.setattr(Tiny, "look", lambda *_: pytest.fail("a picture was looked at"))
    again = Gallery(gallery.folder, Tiny())
    again.text = ColourNames()
    assert [r.id for r in again.search("red", 30)] == [r.id for r in gallery.search("red", 30)]
    best = again.search("red", 1)[0].id
    again.remove(best)
    assert best not in [r.id for r in again.search("red", 30)]
    assert best not in [r.id for r in gallery.search("red", 30)]


def test_rows_of_another_text_encoder_are_made_again(gallery):
    gallery.search("red", 3)

    class Greener(ColourNames):
        fingerprint = "greener"
        def from_pooled(self, pooled): return normalize(super().from_pooled(pooled) * np.array([1, 1, 5, 1], np.float32))

    again = Gallery(gallery.folder, Tiny())
    again.text = Greener()
    cosines = Greener().from_pooled(gallery.pooled) @ text("red")
    np.testing.assert_allclose([r.score for r in again.search("red", 30)], np.sort(cosines)[::-1], atol=1e-6)


def test_an_encoder_of_one_space_needs_no_rows_of_its_own(photos):
    gallery = Gallery(encoder=OneSpace())
    gallery.add(photos, progress=False)
    cosines = gallery.pooled @ text("red")
    np.testing.assert_allclose([r.score for r in gallery.search("red", 30)], np.sort(cosines)[::-1], atol=1e-6)
    assert gallery._text_searcher is gallery._searcher


# --- the packaged encoder

@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    "Drawn pets in a gallery of the packaged encoder."
    pytest.importorskip("sentence_transformers", reason="needs the extra [text]")
    from image_similarity import create_encoder, sample_pets
    folder = tmp_path_factory.mktemp("pets")
    gallery = Gallery(folder / "gallery", create_encoder(size=96))
    gallery.add(sample_pets(folder / "pets", n_breeds=4, n_per_breed=5, size=96) / "images", "name", progress=False)
    return gallery


@pytest.mark.long
def test_words_against_the_packaged_encoder(pets):
    from image_similarity import ConSEEncoder, create_encoder
    encoder = ConSEEncoder(create_encoder(size=96))
    cosines = encoder.encode_images(pets.files, progress=False).vectors @ encoder.encode_texts("a fluffy cat")[0]
    found = pets.search("a fluffy cat", 20)
    np.testing.assert_allclose([r.score for r in found], np.sort(cosines)[::-1], atol=1e-4)
    rows = next((pets.folder / "cache").glob("text-*.rows"))
    assert rows.stat().st_size == 20 * encoder.dim * 4
    assert {r.label for r in pets.search(words("a cat") - "a dog", 20, {"label": "beagle"})} == {"beagle"}


def test_words_in_a_gallery_of_a_clip_and_in_its_copy(photos, tmp_path):
    pytest.importorskip("open_clip", reason="needs the extra [clip]")
    write_small_clip = pytest.importorskip("small_clip", reason="nothing writes a small CLIP here").write_small_clip
    from image_similarity import OpenCLIPEncoder
    encoder = OpenCLIPEncoder(write_small_clip(tmp_path / "clip"))
    gallery = Gallery(tmp_path / "gallery", encoder)
    gallery.add(photos, progress=False)
    cosines = encoder.encode_images(gallery.files, progress=False).vectors @ encoder.encode_texts("a dog")[0]
    copy = Gallery(gallery.save_to(tmp_path / "copy"))
    for searched in (gallery, copy):
        np.testing.assert_allclose([r.score for r in searched.search("a dog", 30)], np.sort(cosines)[::-1], atol=1e-5)


def test_find_takes_a_text(call, pets):
    code, out, err = call("find", "a fluffy cat", "--gallery", pets.folder, "--top-k", 3)
    assert (code, err) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == [f"{r.score:.4f}" for r in pets.search("a fluffy cat", 3)]
    found = json.loads(call("find", "a fluffy cat", "--gallery", pets.folder, "--json")[1])
    assert (found["query"], found["scores"], {r["probability"] for r in found["results"]}) == ("a fluffy cat", "cosine", {None})


def test_find_adds_and_takes_away(call, pets):
    file = pets.files[0]
    code, out, err = call("find", file, "--plus", "a dog", "--minus", "a cat", "--minus", "snow", "--gallery", pets.folder, "--json")
    wanted = pets.search(picture(file) + "a dog" - "a cat" - "snow", 5)
    found = json.loads(out)
    assert (code, err, found["query"], found["scores"]) == (0, "", f'{file.name} + "a dog" - "a cat" - "snow"', "standard deviations")
    assert [r["id"] for r in found["results"]] == [r.id for r in wanted]
    assert [r["score"] for r in found["results"]] == pytest.approx([r.score for r in wanted], abs=1e-4)


@pytest.mark.parametrize("arguments, said", [
    (["cat.jpg", "--gallery", "G"], "cat.jpg: there is no such file"), (["no/cat", "--gallery", "G"], "no/cat: there is no such file"),
    (["a cat", "--plus", "gone.png", "--gallery", "G"], "gone.png: there is no such file"), ([" ", "--gallery", "G"], "empty"),
    (["a cat", "--model", "M"], "compares pictures only"), (["a.png", "--minus", "b", "--model", "M"], "compares one picture"), (["a cat"], "--gallery")])
def test_find_says_what_is_wrong_in_one_line(call, pets, arguments, said):
    code, out, err = call("find", *[pets.folder if a == "G" else a for a in arguments])
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


@pytest.mark.soak
def test_find_in_words_imports_no_fastai(pets):
    code = ("import sys\nfrom image_similarity.cli.commands import run\n"
            f"assert run(['find', 'a cat', '--minus', 'a dog', '--gallery', {str(pets.folder)!r}]) == 0\n"
            "assert 'torch' in sys.modules and 'fastai' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- showing

def test_what_was_asked_in_words_is_shown_in_words(gallery, photos, tmp_path):
    results = gallery.search(words("red <b>") - picture(photos[1]), 2)
    assert repr(results).startswith('2 results for "red <b>" - cat_1.png')
    assert "&lt;b&gt;" in results._repr_html_() and results._repr_html_().count("<img") == 2
    results.show(path=tmp_path / "shown.png")
    assert Image.open(tmp_path / "shown.png").size[0] > 300
