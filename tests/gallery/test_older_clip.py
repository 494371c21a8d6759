"A gallery that a CLIP filled when pictures were read in an earlier way: it opens, says what differs, and is looked at again."
import json
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
from small_gallery import paint

from image_similarity import Gallery

pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from small_clip import write_small_clip
    from image_similarity import OpenCLIPEncoder
    return OpenCLIPEncoder(write_small_clip(tmp_path_factory.mktemp("clip") / "clip"))


@pytest.fixture
def older(clip, tmp_path) -> Path:
    "What a version before the reading was written down left: no word of it in the record, its fingerprint without it, and vectors of its own."
    files = [paint(tmp_path / "photos" / f"{i}.png", i) for i in range(6)]
    gallery = Gallery(tmp_path / "g", clip)
    gallery.add(files, labels=["cat", "dog"] * 3, metadata={"year": 2020})
    record = gallery.catalogue.fact("encoder")
    before = {**{k: v for k, v in record.items() if k != "reading"}, "fingerprint": clip._digest(1)}
    gallery.close()
    with sqlite3.connect(tmp_path / "g" / "gallery.sqlite") as file:
        file.create_function("crc32", 1, zlib.crc32)
        file.execute("UPDATE facts SET value = ? WHERE name = 'encoder'", (json.dumps(before),))
        file.execute("UPDATE vectors SET pooled = ?", (np.full(clip.dim, clip.dim ** -.5, "<f4").tobytes(),))
        file.execute("UPDATE checks SET crc = (SELECT crc32(pooled) FROM vectors WHERE vectors.id = checks.id)")
    file.close()
    return tmp_path / "g"


def test_it_opens_says_what_differs_and_is_looked_at_again(clip, older):
    with pytest.warns(UserWarning, match="holds vectors of pictures as an earlier version read them .* looks at its pictures again"): gallery = Gallery(older)
    items = [(item.id, item.path, item.label, item.metadata) for item in gallery.items()]
    assert len(items) == 6 and items[0][2:] == ("cat", {"year": 2020}) # all but the vectors is of use
    with pytest.raises(ValueError, match="which do not fit those of today"): gallery.search(items[0][1])
    with pytest.raises(ValueError, match="which do not fit those of today"): gallery.search("a dog in the snow")
    assert len(gallery.search(items[0][0], 3)) == 3 # by id, among its own
    added = gallery.add()
    assert added.again == 6 and [(item.id, item.path, item.label, item.metadata) for item in gallery.items()] == items
    assert gallery.catalogue.fact("encoder")["fingerprint"] == clip.fingerprint
    assert np.allclose(gallery.pooled, clip.look(gallery.files).pooled, atol=1e-5)
    assert gallery.search(items[2][1], 1)[0].path == items[2][1] and len(gallery.search("a dog in the snow", 2)) == 2
    gallery.close()
    again = Gallery(older) # with nothing left to say
    assert again.search(items[2][1], 1)[0].path == items[2][1]


def test_the_command_looks_again(call, older):
    assert "as an earlier version read them" in call("gallery", "info", older)[2]
    code, _, err = call("find", older.parent / "photos" / "0.png", "--gallery", older)
    assert code == 2 and "which do not fit those of today" in err
    code, _, err = call("index", "--gallery", older)
    assert code == 0 and "6 " in err.splitlines()[-1] and "earlier version" not in err
    assert call("find", older.parent / "photos" / "0.png", "--gallery", older, "--top-k", 1)[1].startswith("1.0000\t")


def test_another_clip_is_no_older_one(older, tmp_path):
    "Its weights are others, so that reading its pictures again would not make it the same."
    from safetensors.torch import load_file, save_file
    weights = older / "clip" / "open_clip_model.safetensors"
    tensors = load_file(weights)
    tensors["visual.proj"] = tensors["visual.proj"] + 1
    save_file(tensors, weights)
    with pytest.warns(UserWarning, match="earlier version"): gallery = Gallery(older)
    with pytest.raises(ValueError, match="was made with a CLIP of fingerprint .* make it again"): gallery.add()
    assert len(gallery) == 6
