"Galleries in PostgreSQL: what they mean by a condition, what several writers do to each other, what is lost when somebody falls (nothing), and what is said in trouble."
import copy
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_similarity.gallery import adding, copying, postgres_schema
from image_similarity.gallery.catalogue import Catalogue, Conflict, Item
from image_similarity.gallery.decisions import Decision, Remembers
from image_similarity.gallery.feedback import FeedbackCatalogue, Places
from image_similarity.gallery.copying import copy_catalogue
from image_similarity.gallery.gallery import Gallery
from image_similarity.gallery.opening import is_gallery, opened_catalogue
from image_similarity.gallery.postgres import PostgresCatalogue
from image_similarity.gallery.postgres_decisions import PostgresDecisions
from image_similarity.gallery.postgres_feedback import PostgresFeedback
from image_similarity.gallery.postgres_server import PostgresServer
from image_similarity.gallery.sqlite import SqliteCatalogue
from image_similarity.gallery.trial_server import TrialServer
from image_similarity.metrics.similarity import METRICS, normalize, similarity
from small_gallery import Tiny, paint
from test_catalogue import methods

TESTS = [str(folder) for folder in Path(__file__).resolve().parents[:2]]  # for processes


@pytest.fixture
def catalogue(address):
    catalogue = PostgresCatalogue(address)
    yield catalogue
    catalogue.close()


def test_what_postgres_keeps_is_asked_as_the_protocol_says():
    asked = methods(Remembers) | methods(Catalogue) | methods(FeedbackCatalogue)
    assert methods(PostgresDecisions) | methods(PostgresFeedback) | methods(PostgresCatalogue) == asked


# --- conditions mean the same

NUMBERS = st.one_of(st.integers(-2**63, 2**63 - 1), st.integers(-3, 3), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
                    st.sampled_from([2.0**62, 2**62, 2**53 + 1, 2.0**53, 1e16, 1e23, .1, -0., 1., 0]))
ONE = st.one_of(st.none(), NUMBERS, st.text(max_size=3), st.sampled_from(["1", "true", "null", "a", "[]", "[1]", '{"a":1}']))
ANYTHING = st.recursive(ONE, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)), max_leaves=4)
NAME = st.one_of(st.sampled_from(["a", "b", "label "]), st.text(max_size=3).filter(lambda name: name != "label"))


@pytest.fixture(scope="module")
def pair(server):
    "An empty catalogue of each kind."
    one, other = SqliteCatalogue(None), PostgresCatalogue(server.address("conditions"))
    yield one, other
    other.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_conditions_and_metadata_mean_the_same_in_both(pair, data):
    metadata = data.draw(st.lists(st.dictionaries(NAME, ANYTHING, max_size=3), min_size=1, max_size=6))
    labels = [data.draw(st.one_of(st.none(), st.text(max_size=2))) for _ in metadata]
    known = [value for one in metadata for value in one.values() if not isinstance(value, (list, dict))]
    wanted = st.one_of(ONE, st.lists(st.one_of(ONE, st.sampled_from(known or [0])), max_size=3), st.sampled_from(known or [0]))
    names = st.one_of(NAME, st.just("label"), st.sampled_from([name for one in metadata for name in one] or ["a"]))
    where = data.draw(st.dictionaries(names, wanted, max_size=2))
    items = [Item(None, Path(f"/{i}.jpg"), label, extra) for i, (label, extra) in enumerate(zip(labels, metadata))]

    def found(catalogue):
        catalogue.remove_items(catalogue.ids())
        try: catalogue.put_items(items)
        except ValueError as e: return "refused", "NUL" in str(e)
        kept = [(i.path, i.label, i.metadata) for i in catalogue.items()]
        try: return kept, [i.path for i in catalogue.items(where)], catalogue.count(where), catalogue.names(), catalogue.label_counts()
        except ValueError as e: return "refused", str(e)

    one, other = map(found, pair)
    assert one == other
    if one[0] != "refused": assert [i[2] for i in one[0]] == metadata and list(map(type, one[0][0][2].values())) == list(map(type, metadata[0].values()))


@pytest.mark.parametrize("item", [Item(None, Path("/a"), "a\0"), Item(None, Path("/a"), None, {"b": ["\0"]}), Item(None, Path("/a"), None, {"\0": 1}), Item(None, Path("/a"), "\ud800")])
def test_text_that_could_not_be_found_is_refused_by_both(pair, item):
    for one in pair:
        with pytest.raises(ValueError, match="NUL character|no Unicode text"): one.put_items([item])
        with pytest.raises(ValueError, match="NUL"): one.items({"label": "a\0"})
    pair[1].put_items([Item(None, Path("/a"), "\\u0000", {"\\u0000": "\\\\u0000"})])  # which is text about one
    assert pair[1].items({"label": "\\u0000"})[0].metadata == {"\\u0000": "\\\\u0000"}


# --- search in the database

@pytest.mark.parametrize("compared", ["all", "whole", "means"])
def test_found_is_what_a_brute_force_finds(catalogue, compared):
    rng = np.random.default_rng(0)
    pooled = np.concatenate([rng.standard_normal((60, 8)), np.zeros((1, 8)), np.ones((2, 8))]).astype(np.float32)
    catalogue.set_fact("encoder", {"kind": "x", "fingerprint": "f", "width": 8, "compared": compared})
    ids = np.array(catalogue.put_items([Item(None, Path(f"/{i}"), "ab"[i % 2]) for i in range(len(pooled))], pooled))
    rows = {"all": pooled, "whole": normalize(pooled), "means": normalize(pooled[:, 4:])}[compared]
    queries = normalize(rng.standard_normal((3, rows.shape[1])).astype(np.float32))
    from image_similarity.gallery.searching import Searcher, nearest_items
    for metric in METRICS:
        for where in (None, {"label": "b"}):
            found, scores = nearest_items(Searcher(catalogue), queries, 70, metric, where)
            alive = np.array([where is None or i % 2 == 1 for i in range(len(pooled))])
            expected = np.where(alive, similarity(queries, rows, metric), -np.inf)
            for f, s, e in zip(found, scores, expected):
                assert np.array_equal(f >= 0, np.arange(70) < alive.sum()) and sorted(f[f >= 0]) == ids[alive].tolist()
                places = np.searchsorted(ids, f[f >= 0])
                np.testing.assert_allclose(s[f >= 0], e[places], atol=2e-6)
                np.testing.assert_allclose(s[f >= 0], np.sort(e[alive])[::-1], atol=2e-6)


def test_approximate_search_measures_itself_and_looks_twice(catalogue):
    rng = np.random.default_rng(1)
    rows = normalize((rng.standard_normal((40, 32))[rng.integers(0, 40, 3000)] + .4 * rng.standard_normal((3000, 32))).astype(np.float32))
    catalogue.set_fact("encoder", {"kind": "none", "fingerprint": "f", "width": 32, "compared": "all"})
    catalogue.put_items([Item(None, Path(f"/{i}")) for i in range(len(rows))], rows)
    database = catalogue.database
    truth, sure = database.nearest(rows[:50], 10, "cosine")
    found, scores = database.nearest(rows[:50], 10, "cosine", None, True)
    measured, = database.approximations()
    recall = np.mean([len({*t} & {*f}) / 10 for t, f in zip(truth.tolist(), found.tolist())])
    assert measured["rows"] == 3000 and measured["recall"] > .95 and abs(recall - measured["recall"]) < .05
    same = truth == found
    np.testing.assert_allclose(scores[same], sure[same], atol=1e-6)  # exact numbers, not those of half precision
    catalogue.remove_items(truth[0].tolist()), catalogue.put_items([Item(None, Path("/new"))], rows[:1])
    again = database.nearest(rows[:1], 3, "cosine", None, True)[0][0].tolist()
    assert again[0] == catalogue.ids()[-1] and not {*again} & {*truth[0].tolist()}
    assert database.approximations() == [measured]


def test_words_and_mixtures_work(tmp_path, address):
    write_small_clip = pytest.importorskip("small_clip", reason="nothing writes a small CLIP here").write_small_clip
    from image_similarity import OpenCLIPEncoder
    from image_similarity.encoders.mixtures import picture, words
    files = [paint(tmp_path / "photos" / f"cat_{i}.png", i) for i in range(12)]
    clip = OpenCLIPEncoder(write_small_clip(tmp_path / "clip"))
    one, other = Gallery(tmp_path / "g", clip), Gallery(address, clip)
    for gallery in (one, other): gallery.add(files, "name", progress=False)
    for query in ("a red square", words("blue") + 2 * picture(files[3]), picture(files[1]) - picture(files[2])):
        found, expected = (gallery.search(query, 6) for gallery in (other, one))
        assert [r.path for r in found] == [r.path for r in expected]
        np.testing.assert_allclose([r.score for r in found], [r.score for r in expected], rtol=1e-3, atol=1e-4) # deviations above the mean: small ones divide errors


# --- several writers

def test_a_feed_loses_nothing_of_writers_that_overlap(catalogue, address):
    "The case that a growing number gets wrong: who began first is done last."
    catalogue.put_items([Item(None, Path("/before"))], np.ones((1, 2)))
    start = catalogue.revision()
    slow, go = threading.Event(), threading.Event()

    def first():
        with catalogue.writing():
            catalogue.put_items([Item(None, Path("/slow"))], np.ones((1, 2)))
            slow.set(), go.wait(20)
    thread = threading.Thread(target=first)
    thread.start()
    assert slow.wait(20)
    quick, = catalogue.put_items([Item(None, Path("/quick"))], np.ones((1, 2)))
    middle = catalogue.revision()
    seen = [id for ids, _ in catalogue.vectors_since(start[0]) for id in ids.tolist()]
    assert quick in seen and middle != start and catalogue.has_revision(*middle)  # at once
    go.set(), thread.join()
    after = catalogue.revision()
    later = [id for ids, _ in catalogue.vectors_since(middle[0]) for id in ids.tolist()]
    slow_id = catalogue.items_by_path(["/slow"])[Path("/slow")].id
    assert slow_id in later and after not in (start, middle)
    assert [*catalogue.vectors_since(after[0])] == [] and catalogue.has_revision(*after) and not catalogue.has_revision(after[0], "another")


def test_caches_follow(tmp_path, address):
    from image_similarity.gallery.row_cache import RowCache
    catalogue, other = PostgresCatalogue(address), PostgresCatalogue(address)
    cache = RowCache(tmp_path / "cache", "rows", catalogue, {}, lambda pooled: pooled)
    rng = np.random.default_rng(0)
    for turn in range(6):
        other.put_items([Item(None, Path(f"/{turn}/{i}")) for i in range(5)], rng.random((5, 3)))
        other.remove_items(other.ids()[::7])
        cache.sync()
        order = np.argsort(cache.ids[cache.alive])
        assert cache.ids[cache.alive][order].tolist() == other.ids() and np.array_equal(cache.rows[cache.alive][order], other.pooled())
    again = RowCache(tmp_path / "cache", "rows", PostgresCatalogue(address), {}, lambda pooled: pytest.fail("made anew"))
    again.sync()


def test_writers_that_cross_each_other_are_told_and_adding_goes_on(catalogue, photos, address):
    ids = catalogue.put_items([Item(None, Path(f"/{name}")) for name in "ab"])
    both, told = threading.Barrier(2), []

    def change(order):
        try:
            with catalogue.writing():
                for id in order:
                    catalogue.put_items([Item(id, Path(f"/{'ab'[ids.index(id)]}"), str(order))])
                    if id == order[0]: both.wait(20)
        except Conflict as e: told.append(str(e))
    threads = [threading.Thread(target=change, args=[order]) for order in (ids, ids[::-1])]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(told) == 1 and "do this again" in told[0] and len({i.label for i in catalogue.items()}) == 1


def add_here(address: str, photos: list[Path]) -> subprocess.Popen:
    code = (f"import sys; sys.path[:0] = {TESTS!r}\nfrom small_gallery import Tiny\nfrom image_similarity.gallery import adding\nfrom image_similarity.gallery.gallery import Gallery\n"
            "adding.BATCH = 3\nprint(Gallery(sys.argv[1], Tiny()).add(sys.argv[2:], 'name', progress=False).new)")
    return subprocess.Popen([sys.executable, "-c", code, address, *map(str, photos)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_writers_at_once_add_each_picture_once(address, photos, monkeypatch):
    monkeypatch.setattr(adding, "BATCH", 3)
    added, galleries = [], [Gallery(address, Tiny()) for _ in range(3)]
    writers = [threading.Thread(target=lambda g=g, order=order: added.append(g.add(order, "name", progress=False).new)) for g, order in zip(galleries, (photos, photos[::-1], photos[7:] + photos[:7]))]
    for w in writers: w.start()
    for w in writers: w.join()
    gallery = Gallery(address, Tiny())
    assert len(added) == 3 and sum(added) == 20  # one that two look at in the same moment is new to the one that wrote it
    assert len(gallery) == 20 and sorted(gallery.files) == sorted(photos)
    assert np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled) and len(gallery.search(1, 30)) == 19


@pytest.mark.soak
def test_writers_in_several_processes_add_each_picture_once(address, photos):
    writers = [add_here(address, order) for order in (photos, photos[::-1])]
    said = [w.communicate(timeout=120) for w in writers]
    assert [w.returncode for w in writers] == [0, 0], said
    gallery = Gallery(address, Tiny())
    assert sorted(gallery.files) == sorted(photos) and sum(int(out) for out, _ in said) == 20
    assert np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled)


def test_ids_are_never_used_again(address, photos):
    gallery = Gallery(address, Tiny())
    gallery.add(photos, progress=False)
    highest = max(gallery.ids)
    gallery.remove(gallery.ids[-2:])
    gallery.add(photos, progress=False)
    assert len(gallery) == 20 and min(gallery.ids[-2:]) > highest


# --- steps, and who may not

def test_an_older_gallery_is_brought_up_to_date_and_an_older_client_is_refused(address, monkeypatch):
    old = PostgresCatalogue(address)
    ids = old.put_items([Item(None, Path("/a"), "x", {"n": 1})], np.ones((1, 3)))
    now = len(postgres_schema.STEPS)
    monkeypatch.setattr(postgres_schema, "STEPS", [*postgres_schema.STEPS, ["ALTER TABLE items ADD COLUMN rating int NOT NULL DEFAULT 0", "CREATE TABLE marks(id bigint)"]])
    opened = [threading.Thread(target=PostgresCatalogue, args=[address]) for _ in range(3)]
    for t in opened: t.start()
    for t in opened: t.join()
    new = PostgresServer(address)
    assert new.rows("SELECT version, (SELECT sum(rating) FROM items), (SELECT count(*) FROM marks) FROM gallery") == [(now + 1, 0, 0)]
    with pytest.raises(ValueError, match=f"was brought to format {now + 1} meanwhile, and this version writes {now}; update image_similarity"): old.put_items([Item(ids[0], Path("/a"))])
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    with pytest.raises(ValueError, match=f"a gallery of format {now + 1}, and this version reads up to {now}; update"): PostgresCatalogue(address)


def test_a_step_that_fails_leaves_a_gallery_as_it_was(address, monkeypatch):
    PostgresCatalogue(address).put_items([Item(None, Path("/a"))])
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "STEPS", [*postgres_schema.STEPS, ["CREATE TABLE marks(id bigint)", "INSERT INTO nothing VALUES (1)"]])
        with pytest.raises(ValueError, match="nothing"): PostgresCatalogue(address)
    assert len(PostgresCatalogue(address)) == 1


def test_a_gallery_that_was_restored_elsewhere_counts_all_as_changed(catalogue, address):
    ids = catalogue.put_items([Item(None, Path(f"/{i}")) for i in range(3)], np.eye(3))
    known = catalogue.revision()
    catalogue.server.rows("UPDATE gallery SET cluster = 'another' RETURNING 1")  # as pg_dump brings it
    restored = PostgresCatalogue(address)
    assert not restored.has_revision(*known) and [i.tolist() for i, _ in restored.vectors_since(-1)] == [ids]
    assert restored.has_revision(*restored.revision())


def test_who_may_only_read(catalogue, address, server, photos):
    Gallery(address, Tiny()).add(photos, progress=False)
    reader = Gallery(address, read_only=True)
    assert len(reader.search(1, 5, approximate=True)) == 5  # exactly: nothing may be built
    with pytest.raises(PermissionError, match="may only be read"): reader.update(1, label="x")
    with pytest.raises(ValueError, match="there is no gallery of today's format"): Gallery(server.address("absent"), read_only=True)
    assert not is_gallery(server.address("absent"))


def test_trouble_is_told_in_one_line_each(address, server, photos, monkeypatch):
    Gallery(address, Tiny()).add(photos[:2], progress=False)
    class Other(Tiny): fingerprint = "other"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "5")
    for ask, error, says in (
        (lambda: Gallery(address, Other()), ValueError, "was made with imported vectors of fingerprint tiny"),
        (lambda: Gallery(address + "&sslmode=require"), ConnectionError, "TLS is wanted, and there is none that would do"),
        (lambda: Gallery(address.replace("/postgres?", "/absent?")), FileNotFoundError, 'database "absent" does not exist'),
        (lambda: Gallery(address.replace("owner@", "nobody@")), PermissionError, 'role "nobody" does not exist'),
        (lambda: Gallery(address + "&flavour=sweet"), ValueError, "is no address that PostgreSQL takes"),
        (lambda: Gallery("postgresql://owner@127.0.0.1:1/postgres"), ConnectionError, "nobody answers"),
        (lambda: Gallery(server.address("a" * 64)), ValueError, "no schema has such a name"),
        (lambda: Gallery(server.address("pg_catalog")), ValueError, "a schema of something else, not a gallery"),
    ):
        with pytest.raises(error, match=says) as told: ask()
        assert "\n" not in str(told.value)


def test_a_wrong_password_is_told_and_never_shown():
    with TrialServer({"fsync": "off"}, trust=False) as guarded:
        gallery = Gallery(guarded.address("pets", "owner:secret"))
        assert "secret" not in f"{gallery}{gallery._repr_html_()}{gallery.catalogue.database.address}"
        for who in ("owner:wrong", "owner"):
            with pytest.raises(PermissionError, match="~/.pgpass or PGPASSWORD") as told: Gallery(guarded.address("pets", who))
            assert "wrong" not in str(told.value) and "\n" not in str(told.value)


def test_a_gallery_goes_into_another_process_by_its_address(address, photos):
    gallery = Gallery(address, Tiny())
    gallery.add(photos[:3], progress=False)
    for again in (pickle.loads(pickle.dumps(gallery)), copy.deepcopy(gallery)): assert again.ids == gallery.ids and again.folder is None


def test_an_encoder_of_ones_own_comes_along(address, photos, tmp_path, monkeypatch):
    from image_similarity.encoders.encoder import create_encoder
    import torch
    encoder = create_encoder(size=64)
    with torch.no_grad(): next(encoder.parameters()).mul_(1.01)  # fine-tuned, so its weights are kept
    gallery = Gallery(address, encoder)
    gallery.add(photos[:3], progress=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    there = Gallery(address)
    assert there.encoder.fingerprint == gallery.encoder.fingerprint
    assert there.search(photos[1], 1)[0].path == photos[1]


# --- copies

def test_copies_both_ways_are_taken_up_again_and_compared(tmp_path, address, server, photos, monkeypatch):
    monkeypatch.setattr(copying, "BLOCK", 4)
    one = Gallery(tmp_path / "one", Tiny())
    one.add(photos, "name", [{"number": i} for i in range(20)], progress=False)
    one.remove(one.ids[5:7]), one.remove(20)
    one.catalogue.decide([Decision("a", "b", "keep both")])
    one.catalogue.take_back(one.catalogue.say("mark", [{"good": True}, {"good": False}])[:1])
    one.catalogue.put_version("pairs", {"strokes": 1}, b"numbers")
    one.catalogue.put_parts(one.ids[:3], np.arange(12, dtype=np.int8).reshape(3, 4))
    one.catalogue.set_fact("parts", {"windows": [[1, 1]]})
    one.catalogue.put_places(Places(np.array(one.ids[3:6]), np.eye(3, 2, dtype=np.float32), ["a", None, "a"], np.zeros(3, bool)))
    target, writing, begun = opened_catalogue(address), PostgresCatalogue.writing, []

    def stopped(self):  # at the third block
        begun.append(1)
        if len(begun) == 8: raise KeyboardInterrupt
        return writing(self)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PostgresCatalogue, "writing", stopped)
        copy_catalogue(one.catalogue, target, progress=False)
    assert 0 < len(target) < len(one)
    one.update(1, label="changed"), one.remove(2)  # behind what was copied
    done = copy_catalogue(one.catalogue, target, progress=False)
    assert done.items == 16 and done.written < 16
    back = opened_catalogue(tmp_path / "back", create=True)
    copy_catalogue(target, back, progress=False)
    for other in (target, back):
        assert other.items() == one.items() and np.array_equal(other.pooled(), one.pooled) and other.fact("encoder") == one.catalogue.fact("encoder")
        assert (other.decisions(), other.said(undone=True), other.versions(), other.version_model(1)) == (one.catalogue.decisions(), one.catalogue.said(undone=True), one.catalogue.versions(), b"numbers")
        for name in ("ids", "xy", "joined"): assert np.array_equal(getattr(other.places(), name), getattr(one.catalogue.places(), name))
        assert other.places().clusters == ["a", None, "a"] and other.fact("parts") == {"windows": [[1, 1]]}
        assert [(ids.tolist(), parts.tolist()) for ids, parts in other.parts_since()] == [(ids.tolist(), parts.tolist()) for ids, parts in one.catalogue.parts_since()]
        assert other.put_items([Item(None, Path("/new"))]) == [21]
    with pytest.raises(ValueError, match="finished copy already"): copy_catalogue(one.catalogue, target, progress=False)
    with pytest.raises(ValueError, match="holds a gallery already"): copy_catalogue(target, one.catalogue, progress=False)


def test_save_to_a_folder(tmp_path, address, photos):
    gallery = Gallery(address, Tiny())
    gallery.add(photos, "name", progress=False)
    gallery.remove(gallery.ids[3:5])
    folder = gallery.save_to(tmp_path / "saved")
    again = Gallery(folder, Tiny())
    assert (again.ids, again.files, again.labels) == (gallery.ids, gallery.files, gallery.labels) and np.array_equal(again.pooled, gallery.pooled)
    assert again.add(photos, progress=False).unchanged == 18


# --- falls

@pytest.mark.soak
def test_a_server_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path):
    with TrialServer() as falling:
        address, kept, failed, stop = falling.address("pets"), [], [], threading.Event()
        catalogue = PostgresCatalogue(address)

        def write():
            n = 0
            while not stop.is_set():
                try: kept.append((catalogue.put_items([Item(None, Path(f"/{n}"))], np.full((1, 8), n))[0], n))
                except ConnectionError: failed.append(n)
                n += 1
        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(4):
            time.sleep(1)
            falling.kill(), falling.start()
        time.sleep(1)
        stop.set(), writer.join()
        vectors = catalogue.pooled_by_id([id for id, _ in kept])
        assert len(kept) > 50 and all(np.array_equal(vectors[id], np.full(8, n)) for id, n in kept)
        paths = [*catalogue.paths().values()]
        assert len(paths) == len({*paths}) and not {*paths} - {Path(f"/{n}") for n in [*failed, *(n for _, n in kept)]}
        assert catalogue.damage() is None and catalogue.damaged_vectors() == []


@pytest.mark.soak
def test_a_client_that_is_killed_at_many_points_is_taken_up_again(server, address, photos):
    for n in range(8):
        client = add_here(address, photos)
        try: client.wait(timeout=.8 + .15 * n)
        except subprocess.TimeoutExpired: client.kill()
        client.communicate()
        gallery = Gallery(address, Tiny())
        assert np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled if len(gallery) else gallery.pooled)
    out, err = add_here(address, photos).communicate(timeout=120)
    gallery = Gallery(address, Tiny())
    assert sorted(gallery.files) == sorted(photos) and np.array_equal(gallery.pooled, Tiny().look(gallery.files).pooled), err


@pytest.mark.soak
def test_a_standby_takes_over(tmp_path, photos):
    with TrialServer({"wal_level": "replica", "max_wal_senders": "4"}) as primary, TrialServer(of=primary) as standby:
        address = primary.address("pets").replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/") + "&target_session_attrs=read-write"
        gallery = Gallery(address, Tiny())
        gallery.add(photos, "name", progress=False)
        before = [r.id for r in gallery.search(1, 8)]
        reader = Gallery(standby.address("pets"), read_only=True)
        until = time.monotonic() + 20
        while len(reader) < 20 and time.monotonic() < until: time.sleep(.1)
        assert [r.id for r in reader.search(1, 8)] == before
        primary.kill()
        standby.program("pg_ctl", "-w", "promote")
        assert [r.id for r in gallery.search(1, 8)] == before  # by itself
        assert gallery.update(1, label="after") == 1 and gallery.items()[0].label == "after"


@pytest.fixture
def small_disk():
    "A folder on a disk of 120 MB of its own, which the server's user may enter, as it may not pytest's folders."
    place = Path(tempfile.mkdtemp(prefix="small-disk-"))
    place.chmod(0o755)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m,mode=0777", "tmpfs", str(place)], capture_output=True).returncode: pytest.skip("nothing may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
    place.rmdir()


@pytest.mark.soak
def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(small_disk, tmp_path, monkeypatch):
    from image_similarity.images.replacing import DiskFull
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))  # where the server keeps its data
    with TrialServer({"max_wal_size": "32MB", "min_wal_size": "32MB"}) as server:
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cached"))
        catalogue, kept, vectors = PostgresCatalogue(server.address("pets")), [], np.random.default_rng(0).random((100, 2000), np.float32)
        with pytest.raises((DiskFull, ConnectionError)) as told:  # a server that cannot write its log stops, and says so
            for n in range(1000):
                ids = catalogue.put_items([Item(None, Path(f"/{n}/{i}")) for i in range(100)], vectors)
                kept += ids
        assert "\n" not in str(told.value) and ("disk is full" in str(told.value) or isinstance(told.value, ConnectionError))
        assert len(kept) > 500
        subprocess.run(["mount", "-o", "remount,size=240m", str(small_disk)], check=True)  # room is made
        if not server.running: server.start()
        there = catalogue.ids()
        assert set(kept) <= set(there) and catalogue.damaged_vectors() == []
        assert catalogue.put_items([Item(None, Path("/after"))], vectors[:1])[0] > max(there)
        catalogue.close()


def test_commands_take_an_address(address, tmp_path, photos, call, monkeypatch):
    one = Gallery(tmp_path / "one", Tiny())
    one.add(photos, "name", progress=False)
    one.close()
    assert call("gallery", "copy", tmp_path / "one", address)[0] == 0
    code, out, _ = call("gallery", "info", address)
    assert code == 0 and out.startswith("20 items, 2 labels") and call("gallery", "check", address)[0] == 0
    code, out, _ = call("gallery", "remove", address, "--where", "label=dog")
    assert code == 0 and len(Gallery(address)) == 13
    assert call("gallery", "export", address, tmp_path / "all.csv")[0] == 0 and len((tmp_path / "all.csv").read_text().splitlines()) == 14
    code, _, err = call("gallery", "copy", tmp_path / "one", address)
    assert code == 2 and "is a finished copy already" in err and len(err.splitlines()) == 1
    code, _, err = call("gallery", "info", address.replace("owner@", "owner:secret@") + "x")
    assert code == 2 and "there is no gallery" in err and "secret" not in err


def test_a_siamese_head_finds_the_same_in_a_database(address, small, tmp_path):
    from image_similarity.finder.finder import SimilarityFinder
    from image_similarity.images.listing import image_files
    files = image_files(small.images)
    one, other = Gallery(tmp_path / "one", small.encoder), Gallery(address, small.encoder)
    for gallery in (one, other): gallery.add(files, "name", progress=False)
    here, there = SimilarityFinder.load(small.model, one), SimilarityFinder.load(small.model, address)
    def found(finder): return [(r.path, r.label, round(r.score, 5)) for r in finder.search(small.query, 8)]
    assert found(here) == found(there) == found(pickle.loads(pickle.dumps(there)))
    for gallery in (one, other): gallery.remove(files[3:9])
    assert found(here) == found(there)
