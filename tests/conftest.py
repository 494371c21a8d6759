"What several test files share."
import gc
import importlib
import sys
import time
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest


def pytest_addoption(parser):
    parser.addoption("--at-most", type=float, metavar="SECONDS", help="begin no test after so many seconds, and say how many were left out: for `make check`")


def pytest_configure(config):
    config.begun = time.monotonic()
    config.addinivalue_line("markers", "long: takes its time and is rarely red, so it runs after `make test` (.ci/soak.sh long), in CI each time")
    config.addinivalue_line("markers", "soak: takes long, kills processes or looks at the clock, so `make soak` runs it and `make test` does not")


def pytest_collection_finish(session):
    "What is there now stays, so the garbage collector need not look at these millions of objects again and again."
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    limit = item.config.getoption("--at-most")
    if limit is not None and time.monotonic() - item.config.begun > limit: pytest.skip("no time left for it: make test")


def few_pairs(patch):
    "Let Siamese heads learn from fewer pairs: enough for a test."
    from image_similarity.learners import siamese_head
    patch.setattr(siamese_head, "pair_batches", partial(siamese_head.pair_batches, n_pairs=192, n_batches=3))


@pytest.fixture(scope="session", autouse=True)
def own_distances(tmp_path_factory):
    "How far ahead rows are fetched on this machine is not learned from tests, which run beside each other."
    from image_similarity.scoring import threads
    file = tmp_path_factory.mktemp("cache") / "ahead.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "ahead_file", lambda: file)
        yield


@pytest.fixture
def call(capsys):
    "Run a command in this process: exit code, stdout, stderr."
    from image_similarity.cli import commands
    return lambda *args: (commands.run([str(a) for a in args]), *capsys.readouterr())


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    "A small model and what it was made from: 4 breeds, 6 pictures of each to search and 2 held out."
    from image_similarity.images.datasets import labelled_images
    from image_similarity.drawing.pets import sample_pets
    from image_similarity.encoders.encoder import create_encoder
    from image_similarity.finder.training import fit_finder

    folder = tmp_path_factory.mktemp("small")
    images = sample_pets(folder / "pets", n_breeds=4, n_per_breed=8, size=96) / "images"
    encoder = create_encoder(size=96)
    with pytest.MonkeyPatch.context() as patch:
        few_pairs(patch)
        finder, data, embedded = fit_finder(labelled_images(images, valid_pct=.25), encoder, augment=1, epochs=3)
    model = finder.save(folder / "model")
    return SimpleNamespace(folder=folder, images=images, model=model, finder=finder, data=data, embedded=embedded, encoder=encoder,
                           query=data.files[data.valid[0]])


@pytest.fixture
def few(monkeypatch):
    "Let Siamese heads learn from few pairs."
    few_pairs(monkeypatch)


@pytest.fixture(scope="module")
def fewer_pairs():
    "Let `MatchPredictor.fit` train on fewer pairs, with fewer steps: enough for a test."
    from image_similarity.matching import image_head, image_training
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_head, "drawn_batches", partial(image_head.drawn_batches, n_batches=3, n_pairs=192))
        patch.setattr(image_training, "REFINEMENTS", (None, 0, 5))
        yield


@pytest.fixture
def quick(monkeypatch):
    "Make `train` and `demo` of the command line quick: a small input, two epochs."
    from image_similarity.finder import demo
    from image_similarity.encoders import encoder
    from image_similarity.finder import training

    create, fit = encoder.create_encoder, training.fit_finder
    def small_encoder(name=encoder.DEFAULT_ENCODER, weights=None, size=None, **more): return create(name, weights, 96, **more)
    def short_fit(data, encoder, augment=1, log=None, tuning=None, **_): return fit(data, encoder, 1, log, tuning, epochs=2)
    few_pairs(monkeypatch)
    for module in (encoder, demo): monkeypatch.setattr(module, "create_encoder", small_encoder)
    for module in (training, demo): monkeypatch.setattr(module, "fit_finder", short_fit)


QUICK_JOB = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest, pytest; conftest.few_pairs(pytest.MonkeyPatch()); "
                                   "from image_similarity.service.job_work import main; main()"] # what `job_runner._COMMAND` is, and learns from few pairs


@pytest.fixture
def quick_jobs(monkeypatch):
    "Let the jobs of a service in this process learn from fewer pairs."
    from image_similarity.service import job_runner
    monkeypatch.setattr(job_runner, "_COMMAND", QUICK_JOB)


IDLE_JOB = [sys.executable, "-S", "-c", "pass"] # and nothing at all: a job that is begun, and fails


@pytest.fixture
def idle_jobs(monkeypatch):
    "Let the jobs of a service in this process do nothing: what begins them is looked at, and not what they do."
    from image_similarity.service import job_runner
    monkeypatch.setattr(job_runner, "_COMMAND", IDLE_JOB)


@pytest.fixture(scope="module")
def benchmark_script():
    "Import a script of benchmarks/ from its folder, by its name."
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="session")
def same_encoder():
    "Make the encoder that models are loaded with once, and not for each of many loads."
    from image_similarity.encoders import model_files as saving
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "create_encoder", lru_cache(saving.create_encoder))
        yield


@pytest.fixture
def elsewhere(tmp_path_factory, monkeypatch):
    "Work in an empty folder. Anybody may write there, so that no gallery of another test is looked for in the folders above."
    here = tmp_path_factory.mktemp("elsewhere")
    here.chmod(0o777)
    monkeypatch.chdir(here)


# --- galleries in a folder, or in a PostgreSQL that is started once

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
    from small_gallery import paint
    return [paint(tmp_path / "photos" / f"{'cat' if i % 3 else 'dog'}_{i}.png", i) for i in range(20)]


@pytest.fixture
def gallery(request, tmp_path, photos):
    "In a folder; with `@ON_BOTH`, in PostgreSQL as well."
    from image_similarity.gallery.gallery import Gallery
    from small_gallery import Tiny
    place = request.getfixturevalue("address") if getattr(request, "param", "folder") == "postgres" else tmp_path / "my.gallery"
    gallery = Gallery(place, Tiny())
    gallery.add(photos, "name", [{"number": i, "even": i % 2 == 0} for i in range(20)], progress=False)
    yield gallery
    gallery.close()
