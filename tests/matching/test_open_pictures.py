"Tables of pairs whose cells hold pictures in other forms than paths."
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from image_similarity import MatchPredictor, find_duplicates


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
