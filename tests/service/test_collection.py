"Collections of a service, without a server: whose files may go, which of them are served, and through which links."
import io
import warnings
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi", reason="the service is not installed")

from small_gallery import Tiny, paint
from starlette.datastructures import UploadFile
from starlette.testclient import TestClient

from image_similarity.gallery.gallery import Gallery
from image_similarity.service.app import create_app
from image_similarity.service.collection import Collections
from image_similarity.service.collection_routes import add_uploads
from image_similarity.service.protocol import AddOptions
from image_similarity.service.whole import details, remove


def made(place, *files):
    "A gallery of pictures, closed."
    gallery = Gallery(place, Tiny())
    gallery.add(list(files), progress=False)
    gallery.close()
    return place


@contextmanager
def collection_of(root, name="pets"):
    "One that is open and looks at pictures with an encoder that is not of this package."
    collections = Collections(root)
    collections[name].now().gallery.encoder = Tiny()
    yield collections[name]
    collections.close()


def sent(collection, *files): return add_uploads(collection, [UploadFile(io.BytesIO(f.read_bytes()), filename=f.name) for f in files], AddOptions())


def test_of_what_cannot_be_read_only_what_was_sent_is_deleted(tmp_path):
    own = [paint(tmp_path / "mine" / f"{n}.png", n) for n in range(3)]
    place = made(tmp_path / "root" / "pets", *own)
    own[1].write_bytes(b"damaged since")
    catalogue = Gallery(place).catalogue
    catalogue.renew({**catalogue.fact("encoder"), "renewed": True})  # its vectors are forgotten, and are made anew by the next `add`
    catalogue.close()
    (tmp_path / "text.jpg").write_text("no picture")
    with collection_of(tmp_path / "root") as collection:
        answer = sent(collection, paint(tmp_path / "new.png", 7), tmp_path / "text.jpg")
        kept = [f for f in collection.pictures.rglob("*") if f.is_file()]
    assert own[1].read_bytes() == b"damaged since"
    assert ([i.file for i in answer.items], [s.file for s in answer.skipped], len(kept)) == (["new.png"], ["text.jpg"], 1)
