"Products in two catalogues: recall, what each side says, missing sides, bad rows, saved models; scores beside a plain twin."
import copy
import json
import pickle
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from image_similarity import ProductMatcher, create_encoder, sample_pets
from image_similarity.images.opening import image_files
from image_similarity.products.model import conditional_logit, fit_products
from image_similarity.products.sides import SIDES, ComparedProducts, measures

pytest.importorskip("sentence_transformers", reason="needs the extra [text]")
COLOURS = ["red", "blue", "green", "grey", "black"]


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    "Forty drawn animals in two catalogues: the second has other photos of them, shorter titles, and says the colour too."
    folder, rng = tmp_path_factory.mktemp("shops"), np.random.default_rng(0)
    files = image_files(sample_pets(folder / "pets", n_breeds=5, n_per_breed=8, size=96) / "images")
    colours = rng.choice(COLOURS, len(files))
    titles = [f"{f.stem.rsplit('_', 1)[0].replace('_', ' ')} toy No. {n}" for f, n in zip(files, rng.permutation(1000))]
    ours = pd.DataFrame({"image": list(map(str, files)), "title": titles, "colour": colours, "sku": [f"s{i}" for i in range(len(files))]})
    (folder / "theirs").mkdir()
    for f in files:
        box = rng.uniform([0, 0, 82, 82], [14, 14, 96, 96]).round().astype(int).tolist()
        Image.open(f).crop(box).save(folder / "theirs" / f"{f.stem}.jpg", quality=40)
    theirs = pd.DataFrame({"image": [f"theirs/{f.stem}.jpg" for f in files], "title": [" ".join(w for w in t.split() if w == "toy" or rng.random() < 0.6) for t in titles],
                           "colour": [c.upper() for c in colours], "sku": ours["sku"]})
    return folder, ours, theirs.sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def fitted(shops):
    "A matcher that learned from half of the products, and the catalogue and the other half, looked at."
    folder, ours, theirs = shops
    matcher = ProductMatcher(attributes=["colour"], folder=folder, encoder=create_encoder(size=96))
    matcher.fit(ours[::2], theirs[theirs["sku"].isin(ours["sku"][::2])], "sku", progress=False)
    catalogue = matcher.embed(theirs, progress=False)
    return matcher.index(catalogue), catalogue, matcher.embed(ours[1::2], progress=False)


def share_right(matcher, products, by="both") -> float:
    return np.mean([results[0].row == row for results, row in zip(matcher.search(products, 1, by, progress=False), products.rows)])


# --- finding

def test_both_find_more_than_one_side(fitted):
    matcher, _, asked = fitted
    both, image, text = (share_right(matcher, asked, by) for by in ("both", "image", "text"))
    assert both >= max(image, text) and both > 0.9 and min(image, text) > 0.3


def test_scores_equal_a_plain_twin(fitted):
    "One pair at a time, from weights and measures."
    matcher, catalogue, asked = fitted
    for by, places in (("both", (0, 1, 2)), ("image", (0,)), ("text", (1, 2))):
        combination = matcher.model.combinations[places]
        for results in matcher.search(asked, len(catalogue), by, progress=False)[:4]:
            q = asked.take([next(i for i in range(len(asked)) if asked.images[i] == results.query)])
            expected = {}
            for c in range(len(catalogue)):
                values = measures(ComparedProducts(q, matcher.terms), ComparedProducts(catalogue.take([c]), matcher.terms))[:, 0, 0]
                expected[catalogue.rows[c]] = combination.weights @ values + combination.constants.sum()
            assert len(results) == len(expected)
            np.testing.assert_allclose([r.score for r in results], [expected[r.row] for r in results], atol=1e-3)
            np.testing.assert_allclose([r.score for r in results], sorted(expected.values())[::-1], atol=1e-3)
            np.testing.assert_allclose([r.probability for r in results], expit([r.score for r in results]))


def test_what_the_sides_say_adds_up(fitted):
    matcher, _, asked = fitted
    for by, sides in (("both", list(SIDES)), ("image", ["image"]), ("text", ["title", "attributes"])):
        for results in matcher.search(asked, 5, by, progress=False):
            for r in results:
                assert list(r.sides) == sides and sum(r.sides.values()) == pytest.approx(r.score, abs=1e-6)


def test_block_by_block_is_the_same(fitted, monkeypatch):
    matcher, _, asked = fitted
    whole = matcher.search(asked, 4, progress=False)
    monkeypatch.setattr("image_similarity.products.matcher.BLOCK_VALUES", 1)
    assert [[r.row for r in results] for results in matcher.search(asked, 4, progress=False)] == [[r.row for r in results] for results in whole]


def test_a_prior_moves_probabilities_and_no_order(fitted):
    matcher, _, asked = fitted
    even, rare = (matcher.search(asked, 3, prior=prior, progress=False)[0] for prior in (0.5, 0.01))
    assert [r.row for r in even] == [r.row for r in rare]
    assert [r.probability / (1 - r.probability) for r in rare] == pytest.approx([r.probability / (1 - r.probability) / 99 for r in even])


# --- missing sides and bad rows

def test_a_missing_side_leaves_the_others(fitted, shops):
    _, ours, theirs = shops
    matcher, _, asked = fitted
    rows = ours[1::2]
    def scores(products, **by): return [{r.row: r.score for r in results} for results in matcher.search(products, len(theirs), progress=False, **by)]
    for table, by, sides in ((rows.assign(image=None), "text", ["title", "attributes"]), (rows.assign(title="", colour=None), "image", ["image"])):
        for found, wanted in zip(scores(table), scores(asked, by=by)): # by row: two that are as good as each other may change places
            assert len(found) == len(wanted) == len(theirs)
            np.testing.assert_allclose([found[row] for row in wanted], list(wanted.values()), atol=1e-3)
        assert all(list(r.sides) == sides for results in matcher.search(table, 3, progress=False) for r in results)
    assert all(list(r.sides) == ["image", "title"] for results in matcher.search(rows.assign(colour=np.nan), 3, progress=False) for r in results)


def test_each_pair_is_judged_by_what_both_have(fitted, shops):
    folder, ours, theirs = shops
    matcher, catalogue, asked = fitted
    partly = theirs.reset_index(drop=True)
    partly.loc[::3, "image"], partly.loc[1::3, ["title", "colour"]] = None, None
    other = ProductMatcher(attributes=["colour"], folder=folder, encoder=matcher.encoder)
    other.terms, other.model = matcher.terms, matcher.model
    other.index(partly, progress=False)
    wanted = {0: ["title", "attributes"], 1: ["image"], 2: list(SIDES)}
    for results in other.search(asked, 40, progress=False):
        assert all(list(r.sides) == wanted[r.row % 3] for r in results) and len(results) == 40
        assert [r.score for r in results] == sorted([r.score for r in results], reverse=True)


def test_bad_pictures_are_told_by_row_and_titles_still_count(fitted, shops, tmp_path):
    folder, ours, _ = shops
    matcher, _, asked = fitted
    (tmp_path / "broken.jpg").write_text("no picture")
    table = ours[1::2].copy()
    table.iloc[[0, 1], 0] = [str(tmp_path / "broken.jpg"), "gone.jpg"]
    table.iloc[2, :3] = None
    seen = matcher.embed(table, progress=False)
    assert [(b.row, name in b.reason) for b, name in zip(seen.bad, ("broken.jpg", "gone.jpg", "no picture"))] == [(i, True) for i in table.index[:3]]
    results = matcher.search(seen, 3, progress=False)
    assert "image" not in results[0][0].sides and len(results[2]) == 0
    assert [r.row for r in results[3]] == [r.row for r in matcher.search(asked, 3, progress=False)[3]]
    assert str(results[0].query) == f'"{table["title"].iloc[0]}"' and "0 products" in repr(results[2])


def test_catalogues_of_titles_or_pictures_alone(shops):
    folder, ours, theirs = shops
    text = ProductMatcher(image=None, folder=folder).fit(ours, theirs, "sku", progress=False).index(theirs, progress=False)
    assert list(text.model.combinations) == [(1,)] and share_right(text, text.embed(ours)) > 0.4
    image = ProductMatcher(title=None, folder=folder, encoder=create_encoder(size=96)).fit(ours, theirs, "sku", progress=False).index(theirs, progress=False)
    assert list(image.model.combinations) == [(0,)] and share_right(image, image.embed(ours, progress=False)) > 0.5
    assert image.search(ours[:1], by="text", progress=False)[0].items == []


# --- learning

def test_weights_are_those_of_logistic_regression_on_differences():
    "With two candidates a query, the conditional logit is a logistic regression of the differences (McFadden 1974)."
    rng = np.random.default_rng(0)
    values, match = rng.standard_normal((3, 2, 2)), np.eye(2, dtype=bool)
    differences = np.array([values[:, 0, 0] - values[:, 0, 1], values[:, 1, 1] - values[:, 1, 0], values[:, 0, 0] - values[:, 1, 0], values[:, 1, 1] - values[:, 0, 1]])
    spread = values.reshape(3, -1).std(1)
    both = np.concatenate([differences, -differences]) / spread
    plain = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10).fit(both, [1] * 4 + [0] * 4) # every difference counts twice, so with half the weight
    np.testing.assert_allclose(conditional_logit(values, match), plain.coef_[0] / spread, rtol=1e-3, atol=1e-4)


def test_probabilities_mean_what_they_say():
    "Measures from two normal distributions, whose true log odds are known."
    rng = np.random.default_rng(0)
    def drawn(): return np.concatenate([rng.standard_normal((2, 120, 120)) + 2 * np.eye(120), np.zeros((3, 120, 120))])[[0, 2, 1, 3, 4]]
    known = np.tile([True, True, False], (120, 1))
    values = drawn()
    model = fit_products(values, np.eye(120, dtype=bool), known, known)
    new = drawn()
    odds, truth = model.combinations[0, 1].score(new), 2 * (new[0] - 1) + 2 * (new[2] - 1)
    wrong = np.abs(expit(odds) - expit(truth))
    assert wrong[np.eye(120, dtype=bool)].mean() < 0.06 and wrong.mean() < 0.06


def test_several_rows_may_show_one_product(shops):
    folder, ours, theirs = shops
    matcher = ProductMatcher(image=None, folder=folder).fit(pd.concat([ours, ours]), theirs, "sku", progress=False)
    assert (1,) in matcher.model.combinations


def test_keys_of_embedded_tables(fitted, shops):
    folder, ours, theirs = shops
    matcher, catalogue, asked = fitted
    other = ProductMatcher(attributes=["colour"], folder=folder, encoder=matcher.encoder).fit(asked, catalogue, (asked.rows, catalogue.rows))
    assert (0, 1, 2) in other.model.combinations
    with pytest.raises(TypeError, match="give the keys of both"):
        matcher.fit(asked, catalogue, "sku")
    with pytest.raises(ValueError, match="2 keys for 20 rows"):
        matcher.fit(asked, catalogue, ([1, 2], catalogue.rows))


@pytest.mark.parametrize("change, error, said", [
    (lambda o: o[:9], ValueError, "9 products are known in both"), (lambda o: o.drop(columns="title"), ValueError, "no column 'title'"),
    (lambda o: o.drop(columns="sku"), ValueError, "no column 'sku'"), (lambda o: o[:0], ValueError, "no row"), (lambda o: o.assign(sku=None), ValueError, "0 products"),
    (lambda o: 7, TypeError, "not a table")])
def test_what_cannot_be_learned_from(shops, change, error, said):
    folder, ours, theirs = shops
    with pytest.raises(error, match=said):
        ProductMatcher(image=None, folder=folder).fit(change(ours), theirs, "sku", progress=False)


def test_titles_in_other_scripts_and_long_ones(shops):
    folder, ours, theirs = shops
    matcher = ProductMatcher(image=None, folder=folder).fit(ours, theirs, "sku", progress=False)
    odd = pd.DataFrame({"title": ["Кошка рыжая 17", "猫のおもちゃ", "🐈 toy", "robot " * 400, "ÉTÉ robe"], "sku": range(5)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matcher.index(odd, progress=False)
        found = matcher.search(odd, 1, progress=False)
    assert [r[0].row for r in found] == list(range(5))


# --- keeping

def test_saved_and_loaded(fitted, tmp_path):
    matcher, _, asked = fitted
    again = ProductMatcher.load(matcher.save(tmp_path / "matcher"))
    assert repr(again) == repr(matcher) and sorted(p.suffix for p in (tmp_path / "matcher").iterdir()) == [".json", ".safetensors", ".safetensors"]
    first, second = (m.search(asked, 5, progress=False) for m in (matcher, again))
    assert [[(r.row, r.label, r.path) for r in results] for results in first] == [[(r.row, r.label, r.path) for r in results] for results in second]
    np.testing.assert_allclose([r.score for results in first for r in results], [r.score for results in second for r in results], atol=1e-6)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda matcher: pickle.loads(pickle.dumps(matcher))], ids=["deepcopy", "pickle"])
def test_a_copy_finds_the_same(again, fitted):
    matcher, _, asked = fitted
    for found, expected in zip(again(matcher).search(asked, progress=False), matcher.search(asked, progress=False)):
        assert [r.row for r in found] == [r.row for r in expected] and np.allclose([r.score for r in found], [r.score for r in expected], atol=1e-3)


def test_pictures_may_be_moved_or_gone_after_saving(fitted, shops, tmp_path):
    matcher, _, asked = fitted
    place = shutil.copytree(shops[0], tmp_path / "moved")
    again = ProductMatcher.load(matcher.save(tmp_path / "matcher"), pictures=place)
    assert all(image.is_file() and image.is_relative_to(place) for image in again.catalogue.products.images)
    shutil.rmtree(place)
    assert [results[0].row for results in again.search(asked, 1, progress=False)] == [results[0].row for results in matcher.search(asked, 1, progress=False)]


@pytest.mark.parametrize("damage, said", [
    (lambda f: (f / "products.safetensors").write_bytes(b"x"), "damaged"), (lambda f: (f / "catalogue.safetensors").unlink(), "missing"),
    (lambda f: (f / "manifest.json").unlink(), "not a model folder"), (lambda f: change(f, lambda m: m.pop("products")), "not one of products"),
    (lambda f: change(f, lambda m: m["catalogue"]["rows"].pop()), "differ in number"), (lambda f: change(f, lambda m: m.pop("combinations")), "fit again"),
    (lambda f: change(f, lambda m: m.update(sentences="other")), "language model of fingerprint other")])
def test_a_damaged_folder_is_told(fitted, tmp_path, damage, said):
    folder = fitted[0].save(tmp_path / "matcher")
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        ProductMatcher.load(folder)


def change(folder, what):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    what(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_results_show_themselves(fitted, tmp_path):
    matcher, _, asked = fitted
    results = matcher.search(asked, 3, progress=False)[0]
    assert results._repr_html_().count("<img") == 4
    results.show(path=tmp_path / "found.png")
    frame = results.to_frame()
    assert list(frame) == ["rank", "row", "title", "path", "score", "probability", *(f"from_{side}" for side in SIDES)]
    np.testing.assert_allclose(frame.iloc[:, 6:].sum(axis=1), frame["score"], atol=1e-6)
    assert "image +" in repr(results) and str(results[0].row) in repr(results)
