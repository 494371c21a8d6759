"Where galleries of the tests are kept: in a folder, or in a PostgreSQL that is started once."
from itertools import count

import pytest

from image_similarity.gallery.gallery import Gallery
from small_gallery import Tiny, paint

_schemas = count()


@pytest.fixture(scope="session")
def server():
    "A PostgreSQL for the whole run; it does not wait for the disk, since nobody pulls the plug."
    from image_similarity.gallery.trial_server import TrialServer
    with TrialServer({"fsync": "off"}) as server: yield server


@pytest.fixture
def address(server, tmp_path, monkeypatch):
    "Of a schema that is not there yet; caches belong to the test."
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cached"))
    return server.address(f"g{next(_schemas)}")


@pytest.fixture
def photos(tmp_path):
    return [paint(tmp_path / "photos" / f"{'cat' if i % 3 else 'dog'}_{i}.png", i) for i in range(20)]


@pytest.fixture
def gallery(request, tmp_path, photos):
    "In a folder; with `@ON_BOTH`, in PostgreSQL as well."
    place = request.getfixturevalue("address") if getattr(request, "param", "folder") == "postgres" else tmp_path / "my.gallery"
    gallery = Gallery(place, Tiny())
    gallery.add(photos, "name", [{"number": i, "even": i % 2 == 0} for i in range(20)], progress=False)
    yield gallery
    gallery.close()
