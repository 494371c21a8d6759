"Tables of pairs whose cells hold pictures in other forms than paths."
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from image_similarity import MatchPredictor, find_duplicates
from image_similarity.images.opening import OpenPicture, content_hash
from image_similarity.matching.leaks import item_contents


@pytest.mark.filterwarnings("ignore:not fitted")
def test_cells_hold_pictures_in_any_form(tmp_path):
    files = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    paths = pd.DataFrame({"a": [str(f) for f in files], "b": [str(files[0])] * 4})
    opened = pd.DataFrame({"a": [files[0].read_bytes(), Image.open(files[1]), np.asarray(Image.open(files[2])), io.BytesIO(files[3].read_bytes())],
                           "b": [files[0].as_uri(), files[0].read_bytes(), Image.open(files[0]).convert("RGBA"), files[0]]})
    predictor = MatchPredictor("a", "b", hyperparameters={"size": 64})
    np.testing.assert_allclose(predictor.predict_proba(opened, as_pandas=False), predictor.predict_proba(paths, as_pandas=False), atol=1e-4)
    assert not predictor.bad
    with pytest.warns(UserWarning, match="1 row is left out"): predictor.predict_proba(pd.DataFrame({"a": [b"no picture"], "b": [files[0]]}))


def test_copies_among_open_pictures():
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((200, 160), Image.Resampling.BICUBIC) for _ in range(3)]
    data = io.BytesIO(); pictures[1].save(data, "PNG")
    found = find_duplicates([*pictures, data.getvalue(), np.asarray(pictures[0]), b"none"], progress=False)
    assert sorted(sorted([g.place, *(c.place for c in g.copies)]) for g in found) == [[0, 4], [1, 3]]
    assert str(found.bad[0].reason).startswith("not an image") and all(c.relation in ("same pixels", "same bytes") for g in found for c in g.copies)


def painted(thing: int, view: int) -> Image.Image:
    "One of the views of a thing: its colours, with some noise."
    pixels = np.random.default_rng(thing).integers(0, 256, (4, 4, 3)) + np.random.default_rng((thing, view)).integers(-20, 20, (4, 4, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((48, 48), Image.Resampling.NEAREST)


def in_form(image: Image.Image, form: int):
    "The same picture as an image, an array, bytes and a stream."
    data = io.BytesIO(); image.save(data, "PNG"); data.seek(0)
    return (image, np.asarray(image), data.getvalue(), data)[form % 4]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_predictor_that_learned_from_open_pictures_is_kept(tmp_path, fewer_pairs):
    table = pd.DataFrame([{"a": in_form(painted(i, 0), i), "b": in_form(painted(i if match else (i + 1) % 8, 1 + match), i + 1), "label": match}
                          for i in range(8) for match in (0, 1)])
    predictor = MatchPredictor("a", "b", label="label", hyperparameters={"size": 64, "augment": 0, "epochs": 2, "adapt": False, "end_to_end": 0}).fit(table, progress=False)
    place = predictor.save(tmp_path / "model")
    assert len(list((place / "pictures").iterdir())) == len(predictor.train_pairs.items)
    expected = predictor.predict_proba(table, as_pandas=False)
    (tmp_path / "model").rename(tmp_path / "moved") # the folder is all that it needs
    again = MatchPredictor.load(tmp_path / "moved")
    np.testing.assert_allclose(again.predict_proba(table, as_pandas=False), expected, atol=1e-5)
    assert set(again.train_pairs.items) == set(predictor.train_pairs.items)
    again.fit(table, progress=False) # the same pictures are known again, and stay once
    assert set(again.train_pairs.items) == set(predictor.train_pairs.items)
    again.save(tmp_path / "moved")                       # in the place of the folder that it reads from
    third = MatchPredictor.load(tmp_path / "moved")
    third.fit(table.head(4), progress=False)
    assert not third.bad and len(third.train_pairs.items) == len(predictor.train_pairs.items)


@pytest.mark.filterwarnings("ignore:not fitted")
def test_a_clip_takes_open_pictures(tmp_path):
    pytest.importorskip("open_clip")
    from small_clip import write_small_clip
    images = [painted(i, 0) for i in range(3)]
    for i, image in enumerate(images): image.save(tmp_path / f"{i}.png")
    texts = ["a dog in the snow", "a cat on the grass", "snow"]
    predictor = MatchPredictor("a", "b", problem_type="image_text_similarity", hyperparameters={"encoder": str(write_small_clip(tmp_path / "clip"))})
    with pytest.warns(UserWarning, match="not fitted"):
        opened = predictor.predict_proba(pd.DataFrame({"a": [in_form(image, i) for i, image in enumerate(images)], "b": texts}), as_pandas=False)
        by_path = predictor.predict_proba(pd.DataFrame({"a": [str(tmp_path / f"{i}.png") for i in range(3)], "b": texts}), as_pandas=False)
    np.testing.assert_allclose(opened, by_path, atol=1e-5)
    with pytest.warns(UserWarning, match="row 1: .*not an image"): predictor.predict_proba(pd.DataFrame({"a": [images[0], b"none"], "b": texts[:2]}))


def test_a_file_its_bytes_and_what_a_model_kept_of_them_are_one_to_the_leak_check(tmp_path):
    painted(0, 0).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "kept").write_bytes(content)
    first, *others = item_contents([(tmp_path / "a.png",), (OpenPicture(content, content_hash(content)),), (OpenPicture(tmp_path / "kept", content_hash(content)),)])
    assert len(first) == 1 and others == [first, first]
    assert item_contents([(tmp_path / "none.png",), (tmp_path,), ("a text",)]) == [frozenset()] * 3
