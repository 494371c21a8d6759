"""Finding copies: nothing is missed that a slow twin finds, nothing is deleted, and similar photos are no copies."""
import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from image_similarity.groups import candidates, judging
from image_similarity.groups.candidates import hash_candidates, neighbour_candidates, read_signatures, spot_candidates
from image_similarity.drawing.pets import draw_pet
from image_similarity.groups.duplicates import find_duplicates
from image_similarity.groups.hashing import oriented_hashes
from image_similarity.groups.verdicts import Look, compare
from image_similarity.groups.placing import apply_map, invert_map

DATA = Path(os.environ.get("IMAGE_SIMILARITY_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="module")
def pets():
    return [draw_pet(breed, seed, size=256)[0] for breed in ("beagle", "Siamese", "pug") for seed in (3, 5)]


def with_copies(folder, pets):
    "Six drawings, no two alike; copies of the first."
    for i, pet in enumerate(pets): pet.save(folder / f"pet{i}.png")
    pets[0].resize((180, 180)).save(folder / "small.jpg")
    ImageOps.mirror(pets[0]).save(folder / "mirrored.jpg")
    shutil.copy(folder / "pet0.png", folder / "again.png")
    return folder


@pytest.fixture
def folder(tmp_path, pets): return with_copies(tmp_path, pets)


@pytest.fixture(scope="module")
def once(tmp_path_factory, pets):
    "The files of such a folder, what was found among them once, and what there was before and after."
    folder = with_copies(tmp_path_factory.mktemp("copies"), pets)
    def state(): return {f.name: (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in folder.iterdir()}
    before, result = state(), found(folder)
    result.show()
    return SimpleNamespace(files=sorted(folder.iterdir()), found=result, before=before, after=state())


def found(folder, **options):
    return find_duplicates(sorted(folder.iterdir()), progress=False, **options)


def test_copies_are_found_and_other_drawings_are_not(once):
    group, = once.found
    assert {group.keep.name, *(c.path.name for c in group.copies)} == {"pet0.png", "small.jpg", "mirrored.jpg", "again.png"}
    assert {c.path.name: c.relation for c in group.copies if c.relation != "same bytes"} == {"small.jpg": "resized", "mirrored.jpg": "mirrored"}


def test_two_drawings_of_one_breed_are_no_copies_even_when_their_embeddings_are_the_same(pets, tmp_path):
    for i, pet in enumerate(pets): pet.save(tmp_path / f"{i}.png")
    assert len(found(tmp_path, embeddings=np.ones((len(pets), 8)))) == 0


def test_the_order_of_the_files_does_not_matter(once):
    def groups(found): return [(g.keep.name, {c.path.name for c in g.copies}) for g in found]
    assert groups(once.found) == groups(find_duplicates([*once.files[4::-1], *once.files[5:]], progress=False))


def test_the_same_call_says_the_same(once):
    assert find_duplicates(once.files, progress=False).to_records() == once.found.to_records()


def test_no_file_is_touched(once): assert once.after == once.before


def test_bad_files_are_reported_and_the_rest_is_done(folder):
    (folder / "broken.jpg").write_bytes((folder / "small.jpg").read_bytes()[:900])
    (folder / "empty.png").touch()
    files = [*sorted(folder.iterdir()), folder / "gone.jpg"]
    result = find_duplicates(files, progress=False)
    assert [e.path.name for e in result.bad] == ["broken.jpg", "empty.png", "gone.jpg"]
    assert len(result) == 1 and [files[c.place] for c in result[0].copies] == [c.path for c in result[0].copies]


def test_an_orientation_in_the_header_is_no_turn(tmp_path, pets):
    pets[0].save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    pets[0].transpose(Image.Transpose.ROTATE_90).save(tmp_path / "by_header.png", exif=exif)
    group, = found(tmp_path)
    assert group.copies[0].relation == "same pixels"


def test_a_black_png_and_a_black_jpeg_are_one_picture_and_another_colour_or_shape_is_not(tmp_path):
    Image.new("RGB", (90, 60)).save(tmp_path / "black.png")
    Image.new("RGB", (90, 60)).save(tmp_path / "black.jpg")
    Image.new("RGB", (60, 90)).save(tmp_path / "upright.png")
    Image.new("RGB", (90, 60), (40, 0, 0)).save(tmp_path / "red.png")
    group, = found(tmp_path)
    assert {group.keep.name, *(c.path.name for c in group.copies)} == {"black.png", "black.jpg"}


def test_plain_pictures_are_copies_only_by_their_bytes(tmp_path):
    for name, colour in [("a", "white"), ("b", "white"), ("c", "red")]: Image.new("RGB", (90, 90), colour).save(tmp_path / f"{name}.png")
    group, = found(tmp_path)
    assert (group.keep.name, [c.path.name for c in group.copies]) in [("a.png", ["b.png"]), ("b.png", ["a.png"])]


def test_each_new_plain_picture_is_compared_with_the_other_side(tmp_path):
    for name in ("new/a.png", "new/b.bmp", "old/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (90, 60)).save(tmp_path / name)
    group, = find_duplicates(sorted((tmp_path / "new").iterdir()), against=[tmp_path / "old" / "c.jpg"], progress=False)
    assert {group.keep.name, *(c.path.name for c in group.copies)} == {"a.png", "b.bmp", "c.jpg"}


def test_many_equal_files_are_not_compared_with_each_other(tmp_path, pets, monkeypatch):
    pets[0].save(tmp_path / "0.png")
    for i in range(1, 30): shutil.copy(tmp_path / "0.png", tmp_path / f"{i}.png")
    monkeypatch.setattr(judging, "compare", lambda *_: pytest.fail("compared"))
    assert len(found(tmp_path)[0].copies) == 29


def test_against_finds_across_and_never_within(folder, tmp_path_factory, pets):
    mine = tmp_path_factory.mktemp("mine")
    pets[0].convert("L").save(mine / "grey.png")
    pets[0].save(mine / "same.png")
    pets[2].save(mine / "other.png")
    theirs = [folder / "pet0.png", folder / "pet1.png", folder / "small.jpg"]
    result = find_duplicates(sorted(mine.iterdir()), against=theirs, progress=False)
    group, = result
    assert {group.keep.name, *(c.path.name for c in group.copies)} == {"pet0.png", "small.jpg", "grey.png", "same.png"}
    assert len(find_duplicates([mine / "other.png"], against=theirs, progress=False)) == 0


def test_a_file_on_both_sides_is_no_copy_of_itself(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(find_duplicates([folder / "pet1.png"], against=[tmp_path / "link" / "pet1.png", folder / "pet2.png"], progress=False)) == 0
    group, = find_duplicates([folder / "pet0.png", folder / "pet1.png"], against=[folder / "pet0.png", folder / "pet1.png", folder / "small.jpg"], progress=False)
    assert (group.keep.name, [c.path.name for c in group.copies]) == ("pet0.png", ["small.jpg"]) # a file of theirs
    group, = find_duplicates([folder / "pet0.png", folder / "small.jpg"], against=[folder / "pet0.png"], progress=False)
    assert (group.keep.name, [c.path.name for c in group.copies]) == ("pet0.png", ["small.jpg"]) # a file of ours


def test_hash_candidates_are_those_of_hashing_the_turned_pictures(folder):
    "The other way to the answer: turn the picture, hash it with ImageHash, count bits in Python."
    imagehash = pytest.importorskip("imagehash", reason="ImageHash is not installed")
    signatures = read_signatures(sorted(folder.iterdir()), progress=False)
    pictures = [Image.open(s.path).convert("RGB") for s in signatures]
    turned = [[imagehash.phash(p), *(imagehash.phash(p.transpose(t)) for t in Image.Transpose)] for p in pictures]
    expected = {(i, j) for i in range(len(pictures)) for j in range(i + 1, len(pictures)) if min(h - turned[j][0] for h in turned[i]) <= 11}
    pairs = {tuple(p) for p in hash_candidates(signatures).tolist()}
    # shrinking a picture and then turning it is the same up to rounding, so a pair at the very edge may differ
    sure = {(i, j) for i, j in expected if min(h - turned[j][0] for h in turned[i]) <= 8}
    assert sure <= pairs and all(min(h - turned[j][0] for h in turned[i]) <= 14 for i, j in pairs) and len(sure) >= 6


@pytest.mark.parametrize("turn", [None, *Image.Transpose])
def test_the_hashes_of_all_orientations_do_not_depend_on_the_orientation(pets, turn):
    square = pets[1].resize((32, 32))
    turned = square if turn is None else square.transpose(turn)
    assert {h.tobytes() for h in oriented_hashes(turned)} == {h.tobytes() for h in oriented_hashes(square)}


@pytest.mark.parametrize("box", [(40, 30, 220, 210), (0, 0, 170, 200), (90, 60, 250, 220)])
def test_a_part_is_laid_where_it_was_cut_out(pets, box):
    found = compare(Look(pets[0]), Look(pets[0].crop(box)))
    sides = np.array([box[3] - box[1], box[2] - box[0]]) * 320 / max(box[3] - box[1], box[2] - box[0])
    corners = apply_map(found.matrix, np.column_stack([[-.5, -.5], sides - .5]))
    assert np.abs((corners + .5) * 256 / 320 - np.array([[box[1], box[3]], [box[0], box[2]]])).max() < 1


def test_the_way_back_is_the_inverse(pets):
    part = pets[0].crop((40, 30, 220, 210))
    there, back = compare(Look(pets[0]), Look(part)), compare(Look(part), Look(pets[0]))
    assert np.allclose(there.matrix, invert_map(back.matrix), atol=1)
    assert there.first_share == pytest.approx(back.second_share, abs=.02)


def test_imagededups_own_files():
    if not (DATA / "imagededup").exists(): pytest.skip(f"{DATA / 'imagededup'} is not there")
    folder = DATA / "imagededup" / "mixed_images"
    result = found(folder)
    group, = result
    assert {c.path.name: c.relation for c in group.copies} | {group.keep.name: "kept"} == {
        "ukbench00120.jpg": "kept", "ukbench00120_hflip.jpg": "mirrored", "ukbench00120_resize.jpg": "stretched, resized", "ukbench00120_rotation.jpg": "turned 30° left, part (83%)"}
    assert [e.path.name for e in result.bad] == ["ukbench09268_corrupt.jpg"]
    assert len(found(DATA / "imagededup" / "base_images")) == 0


def written(picture, words, place=(20, 205), fill="black"):
    picture = picture.copy()
    ImageDraw.Draw(picture).text(place, words, fill=fill, font_size=40)
    return picture


def looked(picture): return Look(picture)


def test_pictures_that_differ_in_a_word_are_no_copies(pets):
    wallpaper = Image.new("RGB", (640, 360), (12, 12, 30))
    one, other = (written(wallpaper, words, (200, 150), "white") for words in ("word4", "word9"))
    assert compare(looked(one), looked(other)) is None
    pug = draw_pet("pug", 2, size=384)[0]
    sale, sold = (written(pug, words, (20, 320), "yellow") for words in ("FOR SALE", "SOLD OUT"))
    assert compare(looked(sale), looked(sold)) is None
    found = compare(looked(pug), looked(sale))
    assert found.kind == "edited" and found.adds == 1 and found.changed


def test_a_shirt_in_another_colour_is_another_shirt_and_a_grey_copy_is_edited(pets):
    def shirt(colour):
        picture = Image.new("RGB", (300, 300), "white")
        ImageDraw.Draw(picture).polygon([(90, 40), (210, 40), (270, 100), (230, 140), (210, 110), (210, 260), (90, 260), (90, 110), (70, 140), (30, 100)], colour)
        return picture
    assert compare(looked(shirt((200, 30, 30))), looked(shirt((30, 160, 40)))) is None
    found = compare(looked(pets[0]), looked(pets[0].convert("L").convert("RGB")))
    assert (found.kind, found.colour, found.adds) == ("edited", "grey", 1)


def test_the_colour_photo_is_kept_and_not_the_grey_one_nor_the_enlargement(tmp_path, pets):
    pets[0].convert("L").save(tmp_path / "grey.png")
    pets[0].save(tmp_path / "photo.jpg", quality=90)
    pets[0].resize((768, 768), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "enlarged.png")
    group, = found(tmp_path)
    assert group.keep.name == "photo.jpg" and not group.proposed
    assert {c.path.name: c.kind for c in group.copies} == {"grey.png": "edited", "enlarged.png": "saved again"}


def test_a_photo_in_a_collage_is_part_of_it_and_two_photos_in_it_are_no_copies(pets):
    collage = Image.new("RGB", (512, 512), "white")
    for i, pet in enumerate(pets[:4]): collage.paste(pet.resize((250, 250)), (i % 2 * 256, i // 2 * 256))
    found = compare(looked(pets[1]), looked(collage))
    assert found.kind == "part of" and found.adds == 1 and found.second_share < .3
    assert compare(looked(collage), looked(pets[1])).adds == 0 and compare(looked(pets[0]), looked(pets[1])) is None


def test_what_the_camera_wrote_is_kept(tmp_path, pets):
    exif = Image.Exif()
    exif[0x010f] = "Kodak"
    pets[0].save(tmp_path / "camera.jpg", quality=92, exif=exif)
    Image.open(tmp_path / "camera.jpg").save(tmp_path / "plain.png", exif=b"")
    group, = found(tmp_path)
    assert (group.keep.name, group.copies[0].kind, group.copies[0].proposed) == ("camera.jpg", "same pixels", True)


def test_a_further_name_of_a_file_is_told_and_never_proposed(tmp_path, pets):
    pets[0].save(tmp_path / "photo.png")
    (tmp_path / "name.png").hardlink_to(tmp_path / "photo.png")
    shutil.copy(tmp_path / "photo.png", tmp_path / "real.png")
    group, = found(tmp_path)
    told = {c.path.name: (c.linked, c.proposed) for c in group.copies}
    assert told.pop("real.png", (False, True)) == (False, True) and "frees nothing" in str(group)
    assert group.keep.name == "real.png" or list(told.values()) == [(True, False)]


def test_a_photo_is_found_in_a_collage_without_embeddings(tmp_path, pets):
    for i, pet in enumerate(pets): pet.resize((512, 512)).save(tmp_path / f"{i}.png")
    collage = Image.new("RGB", (800, 800), "white")
    for n, i in enumerate((1, 4, 2, 5)): collage.paste(pets[i].resize((392, 392)), (n % 2 * 408, n // 2 * 408))
    collage.save(tmp_path / "collage.jpg", quality=85)
    result = found(tmp_path)
    assert len(result) >= 3 and {g.keep.name for g in result} <= {"1.png", "2.png", "4.png", "5.png"} # drawings have few spots
    assert {(c.path.name, c.kind) for g in result for c in g.copies} == {("collage.jpg", "part of")}


def test_a_search_that_was_broken_off_goes_on_and_new_files_alone_are_compared(folder, tmp_path_factory, pets, monkeypatch):
    kept, files = tmp_path_factory.mktemp("kept"), sorted(folder.iterdir())
    fresh = find_duplicates(files, progress=False).to_records()
    asked, answer = [], judging.answer
    def counted(pair):
        asked.append({pair[2], pair[3]})
        if len(asked) == 2: raise KeyboardInterrupt
        return answer(pair)
    monkeypatch.setattr(judging, "answer", counted)
    monkeypatch.setattr(judging, "BLOCK", 1)
    with pytest.raises(KeyboardInterrupt): find_duplicates(files, progress=False, kept=kept)
    before, asked[1:] = asked[:1], [set()] * 2 # nothing is broken off any more
    assert find_duplicates(files, progress=False, kept=kept).to_records() == fresh
    assert not [pair for pair in asked[3:] if pair in before]
    asked[:] = [set()] * 2
    ImageOps.flip(pets[0]).save(folder / "flipped.png")
    group, = find_duplicates(sorted(folder.iterdir()), progress=False, kept=kept)
    new = read_signatures([folder / "flipped.png"], progress=False)[0].content
    assert "flipped.png" in {group.keep.name, *(c.path.name for c in group.copies)} and asked[2:] and all(new in pair for pair in asked[2:])


@pytest.mark.long
def test_several_processes_say_what_one_says(folder, monkeypatch):
    alone = found(folder, embeddings=np.ones((len(list(folder.iterdir())), 4)))
    monkeypatch.setattr(judging, "MANY", 1)
    monkeypatch.setattr(judging, "cpu_count", lambda: 2)
    monkeypatch.setattr(judging, "compare", lambda *_: pytest.fail("compared here"))
    assert [[c.path for c in g.copies] for g in found(folder, embeddings=np.ones((len(list(folder.iterdir())), 4)))] == [[c.path for c in g.copies] for g in alone]


@pytest.mark.parametrize("more", (0, 2))
def test_spots_in_common_are_those_of_comparing_all_with_all(folder, more, monkeypatch):
    signatures = read_signatures(sorted(folder.iterdir()), progress=False)
    def votes(a, b): # the slow twin: how many spots of a have one of b that differs in 20 bits and shares a box
        far = (np.unpackbits(a.spots.bits, axis=1)[:, None] != np.unpackbits(b.spots.bits, axis=1)[None]).sum(2)
        shared = np.array([255, 255, 256 - 2**(8 - more)], np.uint8) # of the third byte its first bits
        boxed = np.logical_or.reduce([((a.spots.bits[:, None, table] ^ b.spots.bits[None, :, table]) & shared == 0).all(2) for table in map(list, candidates.TABLES)])
        return int(((far <= 20) & boxed).any(1).sum())
    n = len(signatures)
    monkeypatch.setattr(candidates, "SPREAD_FROM", n / 2**more)
    expected = {(min(i, j), max(i, j)) for i in range(n) for j in range(n) if i != j and votes(signatures[i], signatures[j]) >= 3}
    assert {tuple(p) for p in spot_candidates(signatures, k=n).tolist()} == expected


CASES = DATA.parent / "cases"


@pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not there")
@pytest.mark.parametrize("folder, kind, kept, proposed", [
    ("copies/metadata", "same pixels", "camera.jpg", True), ("copies/colour", "edited", "original.jpg", False), ("copies/enlarged", "saved again", "original.jpg", None),
    ("copies/black", None, None, None), ("copies/screenshot", "part of", "original.jpg", False), ("copies/collage", "part of", "original.jpg", False),
    ("copies/negative", "edited", "original.jpg", False)])
def test_copies_that_others_made(folder, kind, kept, proposed):
    group, = found(CASES / folder)
    copy, = group.copies
    assert kind in (None, copy.kind) and kept in (None, group.keep.name) and proposed in (None, copy.proposed)


@pytest.mark.skipif(not CASES.exists(), reason=f"{CASES} is not there")
@pytest.mark.parametrize("folder", ["wallpapers", "forms", "colours"])
def test_pictures_that_others_took_for_copies(folder): assert not len(found(CASES / "not_copies" / folder))


def test_neighbours_by_cells_and_in_halves_are_those_that_lie_close(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 48)).astype(np.float16)
    rows[300:330] = rows[:30] + .1 * rng.normal(size=(30, 48)) # next to themselves; nothing else is
    monkeypatch.setattr(candidates, "EXACT_UP_TO", 100)
    assert neighbour_candidates(rows).tolist() == [[i, 300 + i] for i in range(30)]
