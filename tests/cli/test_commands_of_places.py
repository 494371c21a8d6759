"Galleries that are found, pictures that are missing or left out, and names that break lines: as the commands tell them."
import json
import shutil
from pathlib import Path

import pytest
from small_gallery import Tiny, paint

from image_similarity import Gallery

pytestmark = pytest.mark.usefixtures("elsewhere", "same_encoder")


@pytest.fixture
def tiny(monkeypatch):
    "Let galleries of this test be of an encoder that needs no network."
    from image_similarity.gallery import encoder
    monkeypatch.setattr(encoder, "default_encoder", Tiny)
    monkeypatch.setattr(encoder, "load_gallery_encoder", lambda *_, **__: Tiny())


@pytest.fixture
def home(tmp_path, tiny, monkeypatch):
    for i in range(4): paint(tmp_path / "photos" / f"cat_{i}.png", i)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_index_says_what_was_not_looked_at_left_out_and_missing(call, home):
    for name in ("film.mp4", "logo.svg", "b.svg", "scan"): (home / "photos" / name).touch()
    paint(home / "photos" / "@eaDir" / "thumb.png", 9)
    paint(home / "photos" / "drafts" / "old.png", 10)
    code, out, err = call("index", "photos", "--gallery", "g", "--exclude", "drafts/")
    assert (code, out) == (0, "") and "2 .svg not looked at: a drawing" in err and "1 .mp4" in err and "1 without an ending" in err
    assert "folders that systems make are left out: @eaDir" in err and err.splitlines()[-1] == "4 new, 0 changed, 0 moved, 0 unchanged; 4 in g"
    for i in (0, 1): (home / "photos" / f"cat_{i}.png").unlink()
    code, out, err = call("index", "photos", "--gallery", "g", "--exclude", "drafts/", "--json")
    found = json.loads(out)
    assert (found["unchanged"], found["items"], found["gone"]) == (2, 4, [str(home / "photos" / f"cat_{i}.png") for i in (0, 1)])
    assert sorted(Path(one["path"]).name for one in found["not_looked_at"]) == ["b.svg", "film.mp4", "logo.svg", "scan"]
    assert "2 pictures are gone" in err and "gallery remove g --missing" in err
    assert call("index", "photos", "--gallery", "g", "--exclude", "drafts/", "-q") == (0, "", "")
    assert "  photos/cat_0.png" in call("index", "photos", "--gallery", "g", "--exclude", "drafts/", "-v")[2]
    code, out, _ = call("find", "photos/cat_2.png", "--gallery", "g", "--top-k", "4")
    assert [line.split("\t")[1:] for line in out.splitlines()][0] == ["photos/cat_2.png"] and out.count("\tmissing") == 2
    code, out, _ = call("gallery", "check", "g", "--json")
    assert code == 1 and [Path(lost["path"]).name for lost in json.loads(out)["missing"]] == ["cat_0.png", "cat_1.png"]
    assert "2 items removed, 2 left" in call("gallery", "remove", "g", "--missing")[2]
    assert call("gallery", "check", "g")[0] == 0
    assert "2 items removed, 0 left" in call("gallery", "remove", "g", "photos")[2]


def test_an_unplugged_drive_is_not_removed(call, home):
    call("index", "photos", "--gallery", "g")
    shutil.move("photos", "unplugged"); Path("photos").mkdir()
    code, _, err = call("gallery", "remove", "g", "--missing")
    assert "0 items removed, 4 left" in err and "is its drive not mounted?" in err
    shutil.rmtree("photos"); shutil.move("unplugged", "photos")
    assert "4 unchanged" in call("index", "photos", "--gallery", "g")[2]


def test_the_gallery_is_found_from_below_or_by_the_environment(call, home, monkeypatch):
    call("index", "photos", "--gallery", "my.gallery")
    assert call("find", "photos/cat_1.png", "--top-k", "1")[1].endswith("photos/cat_1.png\n")
    monkeypatch.chdir(home / "photos")
    assert call("find", "cat_1.png", "--top-k", "1")[1] == "1.0000\tcat_1.png\n"
    assert call("gallery", "info")[1].startswith("4 items")
    monkeypatch.setenv("IMAGE_SIMILARITY_GALLERY", str(home / "other"))
    assert "there is no gallery" in call("find", "cat_1.png")[2]


def test_an_encoder_that_does_not_fit_is_refused_from_the_record(call, home, monkeypatch):
    call("index", "photos", "--gallery", "g")
    monkeypatch.setattr("image_similarity.encoders.encoder.create_encoder", lambda *_, **__: pytest.fail("a network was looked for"))
    assert "was made with tiny, so --arch resnet34 does not fit" in call("index", "photos", "--gallery", "g", "--arch", "resnet34")[2]


def test_a_folder_is_no_text(call, home):
    call("index", "photos", "--gallery", "g")
    code, out, err = call("find", "photos", "--gallery", "g")
    assert (code, out) == (2, "") and "photos: is a folder, and a search takes a picture or a text" in err
    assert "cannot be searched by text" in call("find", "photos", "--words", "--gallery", "g")[2] # it is words now; this encoder knows none


def test_names_that_would_break_a_line(call, home):
    odd = paint(home / "photos" / "a\tb\nc.png", 20)
    call("index", "photos", "--gallery", "g")
    assert call("find", odd, "--gallery", "g", "--top-k", "1")[1] == "1.0000\tphotos/a\\tb\\nc.png\n"
    assert call("find", odd, "--gallery", "g", "--top-k", "2", "-0")[1].split("\0")[0] == "photos/a\tb\nc.png"
    assert json.loads(call("find", odd, "--gallery", "g", "--top-k", "1", "--json")[1])["results"][0]["path"] == "photos/a\tb\nc.png"


def test_equal_files_sheets_and_viewers(call, home, monkeypatch):
    shutil.copy("photos/cat_3.png", "photos/twin.png")
    call("index", "photos", "--gallery", "g")
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    code, out, _ = call("find", "photos/cat_3.png", "--gallery", "g", "--top-k", "2", "--sheet", "s.html", "--open")
    assert code == 0 and out.splitlines()[0] == "1.0000\tphotos/cat_3.png\talso at photos/twin.png" and len(out.splitlines()) == 2
    assert opened == [str(home / "photos" / "cat_3.png")] and Path("s.html").read_text().count("data:image/jpeg") == 3
    assert call("find", "photos/cat_3.png", "--gallery", "g", "--sheet", "s.png")[0] == 0 and Path("s.png").stat().st_size > 1000
    assert "its name must end in" in call("find", "photos/cat_3.png", "--gallery", "g", "--sheet", "s.doc")[2]


def test_a_gallery_is_served_as_it_is(home):
    from fastapi.testclient import TestClient

    from image_similarity.service.app import create_app
    gallery = Gallery("my.gallery")
    gallery.add("photos", progress=False)
    gallery.add(["https://127.0.0.1:9/none.png"], progress=False)
    gallery.import_embeddings(["https://127.0.0.1:9/far.png"], gallery.pooled[:1])
    gallery.close()
    before = {f: f.stat().st_mtime_ns for f in Path("my.gallery").rglob("*")}
    app = create_app("my.gallery")
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert [c["name"] for c in client.get("/v1/collections").json()["collections"]] == ["my_gallery"]
        items = client.get("/v1/collections/my_gallery/items").json()["items"]
        assert len(items) == 5 and client.get(items[0]["thumbnail"]).status_code == 200
        assert "fetches nothing" in client.get(items[4]["thumbnail"]).json()["message"] # no address is opened
        found = client.post("/v1/collections/my_gallery/search", json={"item": items[0]["id"]})
        assert found.status_code == 200 and len(found.json()["results"]) > 2
        for answer in (client.delete(f"/v1/collections/my_gallery/items/{items[0]['id']}"), client.delete("/v1/collections/my_gallery"), client.put("/v1/collections/other")):
            assert answer.status_code in (403, 405), answer.json()
    assert {f: f.stat().st_mtime_ns for f in Path("my.gallery").rglob("*")} == before


@pytest.mark.long
def test_train_names_what_it_did_not_look_at(call, tmp_path, monkeypatch, quick):
    for i in range(12): paint(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", i)
    (tmp_path / "photos" / "a" / "logo.svg").write_text("<svg/>")
    monkeypatch.chdir(tmp_path)
    code, _, err = call("train", "photos", "--out", "m", "--labels", "folder", "--verbose")
    assert code == 0 and "1 .svg not looked at" in err and "\n  photos/a/logo.svg: a drawing, not a picture" in err
    assert "photos/a/logo.svg: a drawing" not in call("train", "photos", "--out", "m", "--labels", "folder")[2]
    assert "not looked at" not in call("train", "photos", "--out", "m", "--labels", "folder", "--quiet")[2]


@pytest.mark.parametrize("args", [("gallery", "remove", "g", "photos/0.png"), ("gallery", "export", "g", "out.csv")])
def test_quiet_commands_of_a_gallery(call, tmp_path, monkeypatch, args):
    Gallery(tmp_path / "g", Tiny()).add([paint(tmp_path / "photos" / f"{i}.png", i) for i in range(3)])
    monkeypatch.chdir(tmp_path)
    assert call(*args, "--quiet") == (0, "", "")
