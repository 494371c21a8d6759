"""Labels, splits and pairs: hand cases, properties, the real split of the pets, and an archive laid out like the Oxford one."""
import csv
import os
import subprocess
import sys
import tarfile
import unicodedata
import warnings
from collections import Counter
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from image_similarity.images.datasets import (LabelledImages, all_pairs, draw_pairs, hold_out, labelled_images,
                                       split_by_class)
from image_similarity.images.opening import label_func
from image_similarity.images.oxford import oxford_pets
from image_similarity.images.tables import by_file, read_table

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parents[2]
PETS = Path(os.environ.get("IMAGE_SIMILARITY_DATA") or ROOT.parent / "shared" / "data") / "pets"

some_labels = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=60)
seeds = st.integers(0, 2**32 - 1)


def touch(folder, *names) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def data_of(labels, held=None) -> LabelledImages:
    return LabelledImages([f"{i}.jpg" for i in range(len(labels))], list(labels), np.zeros(len(labels), bool) if held is None else held)


@pytest.fixture
def images(tmp_path):
    return touch(tmp_path / "images", *(f"{breed}_{n}.jpg" for breed in ("Bengal", "pug") for n in range(1, 6)))


def table(path, text) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- the three columns

def test_a_hand_case():
    data = data_of(["pug", "Bengal", "pug", "Persian"], np.array([True, False, False, False]))
    assert (len(data), data.classes, data.targets.tolist()) == (4, ["Bengal", "Persian", "pug"], [2, 0, 2, 1])
    assert (data.train.tolist(), data.valid.tolist()) == ([1, 2, 3], [0])
    assert repr(data) == "4 images of 3 classes, 1 held out"
    assert data.targets.dtype == np.int64


def test_it_cannot_be_changed():
    held = np.array([True, False])
    data = data_of("ab", held)
    held[:] = False
    assert data.held_out.tolist() == [True, False]
    with pytest.raises(ValueError): data.held_out[0] = False
    with pytest.raises(AttributeError): data.labels = ["b", "a"]


@pytest.mark.parametrize("files, labels, held, said", [
    ([], [], [], "at least one file"), (["a.jpg"], ["x", "y"], [True], "do not fit together"),
    (["a.jpg"], ["x"], [True, False], "do not fit together"), (["a.jpg"], ["x"], [[True]], "do not fit together"),
    (["a.jpg", "b/../a.jpg"], ["x", "y"], [True, False], "listed twice"), (["a.jpg"], [" "], [True], "a.jpg: its label is empty"),
    (["a.jpg"], ["x"], [1], "a bool for each file")])
def test_what_does_not_fit_is_refused(files, labels, held, said):
    with pytest.raises(ValueError, match=said): LabelledImages(files, labels, np.array(held))


@given(some_labels, st.data())
def test_a_part_keeps_what_belongs_together(labels, draw):
    whole = data_of(labels, hold_out(labels, .4))
    at = draw.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True))
    part = whole.take(at)
    assert [int(f.stem) for f in part.files] == at
    assert part.labels == [labels[i] for i in at] and part.held_out.tolist() == [whole.held_out[i] for i in at]
    assert part.classes == sorted({labels[i] for i in at})
    assert [part.classes[t] for t in part.targets] == part.labels
    mask = np.isin(np.arange(len(labels)), at)
    assert whole.take(mask).files == whole.take(sorted(at)).files


def test_samples_are_shown_even_when_one_is_broken(tmp_path):
    matplotlib.use("agg")
    Image.new("RGB", (9, 9)).save(tmp_path / "pug_1.png")
    touch(tmp_path, "pug_2.png")
    fig = labelled_images(tmp_path).show(rows=2, columns=2)
    assert [len(ax.images) for ax in fig.axes] == [1, 0, 0, 0]
    assert "pug_2.png: the file is empty" in fig.axes[1].texts[0].get_text()
    assert [ax.get_title() for ax in fig.axes] == ["pug", "pug", "", ""]


# --- tables

@pytest.mark.parametrize("comma", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csvs_of_all_spreadsheets_are_read(tmp_path, comma, encoding, newline):
    text = newline.join([f"file{comma} label ", f'"a{comma} b.jpg"{comma} NA', "", f'c.jpg{comma}"two{newline}lines"', ""])
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "t.csv") == [{"file": f"a{comma} b.jpg", "label": "NA"}, {"file": "c.jpg", "label": f"two{newline}lines"}]


@pytest.mark.parametrize("data, said", [
    (b"", "the file is empty"), (b"\n\n", "the file is empty"), (b"file,label\n", "a header, but no row"),
    ("file,label\nä.jpg,x\n".encode("latin-1"), r"not a CSV in UTF-8 \(byte 11\)"), ("file,label\n".encode("utf-16"), "not a CSV in UTF-8"),
    (b"file,label\na.jpg,x,y\n", "row 2: 3 cells, but 2 columns"), (b"file,file\na,b\n", "two columns have the same name"),
    (b'file,label\n"a.jpg,x\n', "not a CSV")])
def test_what_is_no_csv_is_refused_in_one_line(tmp_path, images, data, said):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=said) as caught: labelled_images(images, tmp_path / "t.csv")
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_no_table_at_all(tmp_path, images):
    with pytest.raises(FileNotFoundError, match=r"none\.csv: there is no such file"): labelled_images(images, tmp_path / "none.csv")
    with pytest.raises(ValueError, match="is a folder; give a CSV file"): labelled_images(images, images)
    with pytest.raises(ValueError, match="labels='names': give name, folder, or the path of a CSV"): labelled_images(images, "names")
    with pytest.raises(TypeError, match="labels=None"): labelled_images(images, None)


def test_rows_find_their_files_by_as_much_of_the_path_as_they_give(tmp_path):
    files = [tmp_path / p for p in ("a/1.jpg", "b/1.jpg", "b/2.jpg", "1.jpg")]
    def found(*names, folder=tmp_path): return by_file(list(names), list(range(len(names))), files, folder, "t.csv")
    assert found("b/1.jpg", "2.jpg", "1.jpg", "./a/1.jpg") == [3, 0, 1, 2]
    assert found(str(files[0]), f"{tmp_path.name}/b/2.jpg") == [0, None, 1, None]
    assert found("a/1.jpg", "elsewhere/9.jpg", folder=None) == [0, None, None, None]
    with pytest.raises(ValueError, match=r"row 2: 1\.jpg can be .*a/1\.jpg or .*b/1\.jpg; give its path"): found("1.jpg", folder=None)
    with pytest.raises(FileNotFoundError, match=r"2 of 3 files missing, the first is c/1\.jpg"): found("c/1.jpg", "2.jpg", "3.jpg")
    with pytest.raises(FileNotFoundError, match="list of files"): found("9.jpg", folder=None)
    with pytest.raises(ValueError, match="row 3: the file's name is empty"): found("2.jpg", "")
    with pytest.raises(ValueError, match="row 3: .*2.jpg is 1, and was 0 before"): found("2.jpg", "b/2.jpg")


def test_a_name_may_be_spelled_in_either_unicode_form(tmp_path):
    name = "café_1.jpg"
    files = [tmp_path / unicodedata.normalize("NFD", name)]
    for folder in (tmp_path, None): assert by_file([unicodedata.normalize("NFC", name)], ["x"], files, folder, "t.csv") == ["x"]


# --- labels

def test_labels_from_names(images, tmp_path):
    data = labelled_images(images)
    assert data.labels == [label_func(f) for f in data.files] and data.classes == ["Bengal", "pug"]
    touch(images, "holiday.jpg", "party.png")
    with pytest.raises(ValueError, match=r"holiday\.jpg.* 2 of 12 files.*--labels folder\|CSV"): labelled_images(images)


def test_labels_from_folders(tmp_path):
    touch(tmp_path, "train/shirt/1.jpg", "train/shoe/1.jpg", "test/shirt/2.jpg")
    assert labelled_images(tmp_path, "folder").labels == ["shirt", "shirt", "shoe"]
    assert labelled_images(tmp_path / "test/shirt", "folder").classes == ["shirt"]
    touch(tmp_path, "cover.jpg")
    with pytest.raises(ValueError, match=r"cover\.jpg: lies beside the folders"): labelled_images(tmp_path, "folder")


def test_labels_from_a_function_a_mapping_and_a_data_frame(images):
    names = sorted(f.name for f in images.iterdir())
    wanted = [n[0] for n in names]
    assert labelled_images(images, lambda f: f.name[0]).labels == wanted
    assert labelled_images(images, {n: n[0] for n in names}).labels == wanted
    assert labelled_images(images, {images / n: n[0] for n in names}).labels == wanted
    assert labelled_images(images, pd.DataFrame({"image": names, "class": wanted})).labels == wanted
    assert labelled_images(images, pd.DataFrame({"image": names, "class": range(10)})).labels == [str(i) for i in range(10)]
    with pytest.raises(ValueError, match="row 3: the label of Bengal_2.jpg is empty"):
        labelled_images(images, pd.DataFrame({"image": names, "class": ["x", None] + ["y"] * 8}))
    with pytest.raises(ValueError, match=r"Bengal_1\.jpg: the function gives no label \(10 of 10"): labelled_images(images, lambda f: None)


@pytest.mark.parametrize("files", ["file", "PATH", "Filename", "image"])
@pytest.mark.parametrize("labels", ["label", "Class", "BREED", "category"])
def test_columns_go_by_any_usual_name(tmp_path, files, labels):
    touch(tmp_path, "1.jpg", "2.jpg")
    assert labelled_images(tmp_path, table(tmp_path / "t.csv", f"id,{labels},{files}\n7,x,2.jpg\n8,y,1.jpg\n")).labels == ["y", "x"]


@pytest.mark.parametrize("text, said", [
    ("file,colour\nBengal_1.jpg,red\n", r"no column is called label or class or .*; there are file, colour"),
    ("name,label\nBengal_1.jpg,red\n", r"no column is called file or .*; there are name, label"),
    ("file,label\nBengal_1.jpg,x\nBengal_2.jpg,  \n", r"row 3: the label of Bengal_2\.jpg is empty"),
    ("file,label\nBengal_1.jpg,x\nBengal_1.jpg,y\n", r"row 3: .*Bengal_1\.jpg is 'y', and was 'x' before")])
def test_tables_that_do_not_do(tmp_path, images, text, said):
    with pytest.raises(ValueError, match=said): labelled_images(images, table(tmp_path / "t.csv", text))


def test_files_and_rows_that_have_no_partner(tmp_path, images):
    some = table(tmp_path / "some.csv", "file,label,split\nBengal_1.jpg,x,train\nBengal_1.jpg,x,train\npug_3.jpg,y,test\n")
    with pytest.warns(UserWarning, match=r"8 of 10 images have no row in the table and are left out, the first is .*Bengal_2\.jpg") as caught:
        data = labelled_images(images, some, split=some)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert [f.name for f in data.files] == ["Bengal_1.jpg", "pug_3.jpg"] and data.held_out.tolist() == [False, True]
    (images / "pug_3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"some\.csv: 1 of 3 files missing, the first is pug_3\.jpg"): labelled_images(images, some)


def test_a_list_of_files_may_be_a_part_of_what_the_table_knows(tmp_path, images):
    whole = table(tmp_path / "t.csv", "file,label\n" + "".join(f"{f.name},{f.name[0]}\n" for f in images.iterdir()))
    files = [images / "pug_2.jpg", images / "Bengal_4.jpg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = labelled_images(map(str, files), whole)
    assert (data.files, data.labels) == (files, ["p", "B"])
    with pytest.raises(FileNotFoundError, match=r"no\.jpg: there is no such file \(1 of 2"): labelled_images([images / "no.jpg", files[0]])


def test_folders_that_do_not_do(tmp_path, images):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image in it"): labelled_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="is a file"): labelled_images(images / "pug_1.jpg")
    with pytest.raises(FileNotFoundError, match="no such folder"): labelled_images(tmp_path / "none")
    with pytest.raises(ValueError, match="at least one file"): labelled_images([])


# --- splits by picture

@pytest.mark.parametrize("word, held", [("train", False), ("test", True), ("Valid", True), ("validation", True), ("VAL", True)])
def test_every_usual_word_for_a_part(tmp_path, word, held):
    touch(tmp_path, "a_1.jpg")
    assert labelled_images(tmp_path, split=table(tmp_path / "s.csv", f"file,Split\na_1.jpg,{word}\n")).held_out.tolist() == [held]


@pytest.mark.parametrize("word", ["", "dev", "0"])
def test_any_other_word_is_refused(tmp_path, images, word):
    split = table(tmp_path / "s.csv", f"file,split\nBengal_1.jpg,train\npug_1.jpg,{word}\n")
    with pytest.raises(ValueError, match=rf"s\.csv, row 3: split is '{word}'; choose one of train, test, valid"): labelled_images(images, split=split)


def test_a_split_without_its_column(tmp_path, images):
    with pytest.raises(ValueError, match="no column is called split; there are file, set"):
        labelled_images(images, split=table(tmp_path / "s.csv", "file,set\nBengal_1.jpg,train\n"))


@given(some_labels, st.floats(0, 1, exclude_max=True), seeds)
def test_each_class_gives_its_share_and_keeps_one(labels, share, seed):
    held = hold_out(labels, share, seed)
    assert held.dtype == bool and held.shape == (len(labels),)
    total = Counter(labels)
    given_away = Counter(label for label, h in zip(labels, held) if h)
    for label, n in total.items():
        assert given_away[label] <= n - 1
        assert abs(given_away[label] - n * share) < 1 + 1e-9 or given_away[label] == n - 1
    if share <= .5 and min(total.values()) > 1:   # then no class has to keep its last picture back
        assert given_away.total() == int(len(labels) * share + .5)


def test_the_draw_is_that_of_the_seed_and_of_nothing_else():
    labels = list("aabbbbcccccc") * 3
    assert np.array_equal(hold_out(labels, .3, 1), hold_out(labels, .3, 1))
    assert not np.array_equal(hold_out(labels, .3, 1), hold_out(labels, .3, 2))
    assert not hold_out(labels, 0).any()
    often = np.mean([hold_out(labels, .25, seed) for seed in range(2000)], axis=0)
    assert np.abs(often - .25).max() < .05   # every picture alike


def test_small_classes_do_not_all_round_the_same_way():
    assert hold_out([c for c in "abcdefghij" for _ in range(3)], .2).sum() == 6
    assert hold_out([c for c in "abcdefghij" for _ in range(2)], .2).sum() == 4


@pytest.mark.parametrize("share", [-.1, 1, 20, float("nan")])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="valid_pct=.*e.g. 0.2"): hold_out(list("aabb"), share)


def test_a_split_is_repeatable_and_the_default_is_a_fifth(images):
    one, two, other = (labelled_images(images, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one.held_out, two.held_out) and not np.array_equal(one.held_out, other.held_out)
    assert np.bincount(one.targets[one.valid]).tolist() == [1, 1]
    assert not labelled_images(images, valid_pct=0).held_out.any()


# --- splits by class

@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=60).filter(lambda x: len(set(x)) > 1),
       st.floats(.01, .99), seeds)
def test_no_class_is_in_both_parts_and_no_picture_is_lost(labels, share, seed):
    data = data_of(labels, hold_out(labels, .3, seed))
    seen, unseen = split_by_class(data, share, seed)
    assert not set(seen.classes) & set(unseen.classes)
    assert sorted(seen.files + unseen.files) == sorted(data.files)
    assert seen.held_out.sum() + unseen.held_out.sum() == data.held_out.sum()
    k = len(data.classes)
    assert abs(len(unseen.classes) - share * k) <= .5 or len(unseen.classes) in (1, k - 1)


def test_classes_by_name_and_by_share():
    data = data_of("aabbccdd")
    assert split_by_class(data, "b")[1].files == [Path("2.jpg"), Path("3.jpg")]
    assert split_by_class(data, ["d", "a"])[0].classes == ["b", "c"]
    assert split_by_class(data, np.float32(.5), 3)[1].classes == split_by_class(data, .5, 3)[1].classes
    assert len({tuple(split_by_class(data, .25, s)[1].classes) for s in range(40)}) == 4


@pytest.mark.parametrize("labels, unseen, said", [
    ("aa", .5, r"only one class \(a\)"), ("ab", 0., "unseen=0.0"), ("ab", 1, "unseen=1"), ("ab", 2.5, "unseen=2.5"),
    ("ab", "c", "no class is called 'c'; there are a, b"), ("ab", [], "0 of 2 classes set aside"), ("ab", ["a", "b"], "2 of 2 classes set aside")])
def test_class_splits_that_cannot_be(labels, unseen, said):
    with pytest.raises(ValueError, match=said): split_by_class(data_of(labels), unseen)


# --- pairs

@given(st.lists(st.integers(-3, 6), min_size=1, max_size=40), st.integers(0, 80), st.floats(0, 1), seeds)
def test_pairs_are_what_they_should_be(targets, n, share, seed):
    targets, n_match = np.array(targets), round(n * share)
    sizes = Counter(targets.tolist())
    if (n_match and max(sizes.values()) < 2) or (n > n_match and len(sizes) < 2):
        with pytest.raises(ValueError, match="no class has two pictures|two classes or more"): draw_pairs(targets, n, seed, share)
        return
    i, j = draw_pairs(targets, n, np.random.default_rng(seed), share)
    assert i.shape == j.shape == (n,) and i.dtype == j.dtype == np.int64
    assert not (i == j).any()
    assert (targets[i] == targets[j]).sum() == n_match
    again = draw_pairs(targets, n, seed, share)
    assert np.array_equal(i, again[0]) and np.array_equal(j, again[1])


def test_every_pair_comes_as_often_as_it_should():
    "Matches: anchors alike, then partners alike. Non-matches: all ordered pairs of two classes alike. Both within 5 standard deviations."
    targets = np.array([4, 9, 4, 4, 1, 9, 7])
    sizes = Counter(targets.tolist())
    n = 200_000
    i, j = draw_pairs(targets, n, 0)
    seen = Counter(zip(i.tolist(), j.tolist()))
    anchors = [a for a in range(7) if sizes[targets[a]] > 1]
    others = [(a, b) for a in range(7) for b in range(7) if targets[a] != targets[b]]
    wanted = {(a, b): n / 2 / len(anchors) / (sizes[targets[a]] - 1)
              for a in anchors for b in range(7) if a != b and targets[a] == targets[b]} | {p: n / 2 / len(others) for p in others}
    assert seen.keys() == wanted.keys()
    for pair, times in wanted.items(): assert abs(seen[pair] - times) < 5 * times**.5, pair


def test_matches_and_others_are_mixed_in_every_stretch():
    i, j = draw_pairs(np.repeat(np.arange(10), 10), 6400, 0)
    share = (i // 10 == j // 10).reshape(-1, 64).mean(1)
    assert .2 < share.min() and share.max() < .8


def test_a_generator_goes_on_and_names_do_as_targets():
    rng = np.random.default_rng(0)
    first, second = draw_pairs(list("aabbcc"), 50, rng), draw_pairs(list("aabbcc"), 50, rng)
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(first, draw_pairs([0, 0, 1, 1, 2, 2], 50, 0))


@pytest.mark.parametrize("targets, options, said", [
    (["a", "a"], {}, "1 class only"), ([], {}, "no class has two|0 class"), (["a", "b"], {}, "no class has two pictures"),
    (["a", "a", "b"], {"share": 1.5}, "share=1.5"), (["a", "a", "b"], {"n": -1}, "n=-1"), ([["a", "a"]], {}, r"shape \(1, 2\)")])
def test_pairs_that_cannot_be_drawn(targets, options, said):
    with pytest.raises(ValueError, match=said): draw_pairs(targets, **({"n": 8} | options))


def test_one_kind_of_pair_needs_only_its_own_pictures():
    assert (draw_pairs(["a", "a"], 9, share=1)[0] != draw_pairs(["a", "a"], 9, share=1)[1]).all()
    assert sorted(set(zip(*(x.tolist() for x in draw_pairs(["a", "b"], 50, share=0))))) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 113])
def test_all_pairs_are_those_of_itertools(n):
    pairs = all_pairs(n)
    assert pairs.shape == (n * (n - 1) // 2, 2) and pairs.dtype == np.int64
    assert list(map(tuple, pairs.tolist())) == list(combinations(range(n), 2))


def test_all_pairs_of_fewer_than_none():
    with pytest.raises(ValueError, match="n=-1"): all_pairs(-1)


# --- the real split

@pytest.mark.skipif(not (PETS / "split.csv").exists(), reason=f"there is no {PETS}/split.csv")
def test_the_split_of_the_real_pets():
    folder = PETS / "images" if (PETS / "images").is_dir() else PETS
    with warnings.catch_warnings():
        warnings.simplefilter("error")   # every file has its row
        data = labelled_images(folder, PETS / "split.csv", split=PETS / "split.csv")
    assert repr(data) == "579 images of 37 classes, 143 held out"
    assert len(data.train) == 436
    assert data.labels == labelled_images(folder, "name").labels
    with (PETS / "split.csv").open(encoding="utf-8") as file: rows = {r["file"]: r for r in csv.DictReader(file)}
    assert [rows[f.name]["split"] == "test" for f in data.files] == data.held_out.tolist()
    seen, unseen = split_by_class(data, {r["breed"] for r in rows.values() if r["breed_group"] == "unseen"})
    assert (len(seen.classes), len(unseen.classes)) == (28, 9)
    assert {rows[f.name]["breed_group"] for f in seen.files} == {"seen"}
    assert len(all_pairs(len(seen.valid))) == 6328     # the figures of the design
    assert len(all_pairs(len(unseen))) == 7260


# --- Oxford Pets: a tiny archive laid out like the real one, which was not at hand

@pytest.fixture
def oxford(tmp_path):
    root = touch(tmp_path / "oxford-iiit-pet", *(f"images/{b}_{n}.jpg" for b in ("Abyssinian", "great_pyrenees") for n in (1, 2, 10)),
                 "images/Abyssinian_100.mat", "images/Abyssinian_104.jpg", "annotations/trimaps/._Abyssinian_1.png", "annotations/README")
    notes = root / "annotations"
    table(notes / "trainval.txt", "Abyssinian_1 1 1 1\nAbyssinian_2 1 1 1\ngreat_pyrenees_10 16 2 9\n")
    table(notes / "test.txt", "Abyssinian_10 1 1 1\ngreat_pyrenees_1 16 2 9\ngreat_pyrenees_2 16 2 9\n")
    table(notes / "list.txt", "#Image CLASS-ID SPECIES BREED ID\n")
    return root


HELD = {"Abyssinian_1": False, "Abyssinian_10": True, "Abyssinian_2": False,
        "great_pyrenees_1": True, "great_pyrenees_10": False, "great_pyrenees_2": True}


@pytest.fixture
def fastai_home(tmp_path, monkeypatch):
    external = pytest.importorskip("fastai.data.external", reason="fastai is not installed")
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "home"))
    external.fastai_cfg.cache_clear()
    yield external
    external.fastai_cfg.cache_clear()


def test_an_unpacked_copy_is_read_with_the_split_of_the_data_set(oxford):
    data = oxford_pets(oxford)
    assert {f.stem: bool(h) for f, h in zip(data.files, data.held_out)} == HELD
    assert data.classes == ["Abyssinian", "great_pyrenees"]


def test_without_its_lists_a_fifth_is_held_out(oxford):
    (oxford / "annotations" / "test.txt").unlink()
    assert repr(oxford_pets(oxford)) == "7 images of 2 classes, 1 held out"


def test_a_folder_that_is_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder `images` in it"): oxford_pets(tmp_path)


def test_the_archive_is_fetched_and_unpacked_once(oxford, fastai_home, tmp_path, monkeypatch):
    archive = tmp_path / "server" / "oxford-iiit-pet.tgz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar: tar.add(oxford, "oxford-iiit-pet")
    monkeypatch.setattr(fastai_home.URLs, "PETS", archive.as_uri())
    first = oxford_pets()
    assert {f.stem: bool(h) for f, h in zip(first.files, first.held_out)} == HELD
    assert (tmp_path / "home") in first.files[0].parents
    archive.unlink()
    assert oxford_pets().files == first.files


def test_without_a_network_it_says_what_to_do(fastai_home, tmp_path, monkeypatch):
    url = "http://127.0.0.1:9/oxford-iiit-pet.tgz"
    monkeypatch.setattr(fastai_home.URLs, "PETS", url)
    with pytest.raises(FileNotFoundError) as caught: oxford_pets()
    said = str(caught.value)
    assert url in said and "sample_pets()" in said and "\n" not in said
    place = Path(said.split("put the archive at ")[1].split(",")[0])
    assert place == tmp_path / "home" / "archive" / "oxford-iiit-pet.tgz"


def test_an_archive_put_there_by_hand_is_enough(oxford, fastai_home, tmp_path, monkeypatch):
    monkeypatch.setattr(fastai_home.URLs, "PETS", "http://127.0.0.1:9/oxford-iiit-pet.tgz")
    (tmp_path / "home" / "archive").mkdir(parents=True)
    with tarfile.open(tmp_path / "home" / "archive" / "oxford-iiit-pet.tgz", "w:gz") as tar: tar.add(oxford, "oxford-iiit-pet")
    assert len(oxford_pets()) == 6


# --- what is loaded

def test_data_sets_need_neither_torch_nor_fastai(images):
    code = ("import sys; from image_similarity.images.datasets import *\n"
            "data = labelled_images(sys.argv[1]); draw_pairs(data.targets, 9); split_by_class(data, .5)\n"
            "print([m for m in ('torch', 'fastai', 'pandas', 'matplotlib', 'timm', 'sklearn') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, str(images)], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
