"""The drawn data set: repeatable, complete, and with masks that fit the pictures."""
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_similarity.drawing.breeds import BREEDS, CATS, DOGS, PATTERNS, choose_breeds
from image_similarity.drawing.pets import LEAST_SEEN, default_folder, draw_pet, sample_pets
from image_similarity.drawing.outlines import ellipse
from image_similarity.drawing.painting import Easel, Frame, Mark

OXFORD = re.compile(r'^([A-Za-z][A-Za-z_]*)_(\d+)\.jpg$')
SMALL = {'n_breeds': 4, 'n_per_breed': 2, 'size': 96}


def contents(folder: Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
    return sample_pets(tmp_path_factory.mktemp('drawn') / 'sample_pets', **SMALL)


@pytest.mark.parametrize('breed', BREEDS, ids=lambda b: b.name)
def test_every_breed_can_be_drawn_with_its_mask(breed):
    picture, mask = draw_pet(breed, 11, size=96)
    assert (picture.mode, picture.size) == ('RGB', (96, 96))
    assert (mask.mode, mask.size) == ('L', (96, 96))
    seen = np.asarray(mask)
    assert set(np.unique(seen)) == {0, 255}
    assert LEAST_SEEN <= (seen == 255).mean() <= 0.70


def test_a_name_stands_for_its_breed_and_a_generator_for_a_seed():
    by_name, _ = draw_pet('Siamese', 5, size=96)
    by_breed, _ = draw_pet(next(b for b in BREEDS if b.name == 'Siamese'), np.random.default_rng(5), size=96)
    assert by_name.tobytes() == by_breed.tobytes()


def test_an_unknown_breed_names_the_known_ones():
    with pytest.raises(ValueError, match='unicorn.*Siamese.*pug'): draw_pet('unicorn')


def test_the_mask_is_what_was_painted_and_not_covered():
    easel = Easel(Image.new('RGB', (200, 200)), Frame(50, (100, 100)), np.random.default_rng(0))
    easel.paint(ellipse(0, 0, 1, 1), (200, 120, 60), [Mark([ellipse(3, 0, 1, 1)], (0, 0, 0))])
    assert (np.asarray(easel.mask) > 0).sum() == pytest.approx(np.pi * 50**2, rel=0.03)   # the mark outside adds nothing
    easel.paint(ellipse(1, 0, 1, 1), (60, 60, 200), animal=False)
    lens = 2 * np.pi / 3 - np.sqrt(3) / 2                                                 # two unit circles one apart
    assert (np.asarray(easel.mask) > 0).sum() == pytest.approx((np.pi - lens) * 50**2, rel=0.03)


def test_the_mask_lies_on_the_animal():
    """A black cat's pixels are darker than the scene's, picture by picture."""
    darker = []
    for seed in range(12):
        picture, mask = draw_pet('Bombay', seed, size=96)
        grey, seen = np.asarray(picture.convert('L'), float), np.asarray(mask) > 0
        darker.append(grey[seen].mean() < grey[~seen].mean())
    assert np.mean(darker) > 0.8


def test_names_follow_the_oxford_pets(small_set):
    images = sorted(p.name for p in (small_set / 'images').iterdir())
    assert all(OXFORD.match(n) for n in images)
    assert Counter(OXFORD.match(n)[1] for n in images) == {b.name: 2 for b in choose_breeds(4)}
    assert {OXFORD.match(n)[2] for n in images} == {'1', '2'}
    assert {Path(n).stem for n in images} == {p.stem for p in (small_set / 'masks').iterdir()}


def test_every_image_has_a_mask_of_its_size(small_set):
    for path in (small_set / 'images').iterdir():
        with Image.open(path) as image, Image.open(small_set / 'masks' / f'{path.stem}.png') as mask:
            assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (96, 96))
            assert (mask.format, mask.mode, mask.size) == ('PNG', 'L', (96, 96))
            assert mask.getbbox() is not None


@pytest.mark.parametrize('n', range(2, len(BREEDS) + 1))
def test_cats_and_dogs_are_balanced(n):
    kinds = Counter(b.species for b in choose_breeds(n))
    assert kinds['cat'] + kinds['dog'] == n and kinds['cat'] - kinds['dog'] in (0, 1)


def test_the_table_holds_together():
    assert len(BREEDS) >= 20 and len({b.name for b in BREEDS}) == len(BREEDS) == len(CATS) + len(DOGS)
    for b in BREEDS:
        assert b.name[0].isupper() == (b.species == 'cat'), b.name
        assert b.pattern in PATTERNS


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(small_set, tmp_path):
    assert contents(sample_pets(tmp_path / 'again', **SMALL)) == contents(small_set)
    other = contents(sample_pets(tmp_path / 'other', **SMALL, seed=1))
    same = [k for k, v in contents(small_set).items() if other[k] == v]
    assert same == []


def test_a_larger_set_starts_with_the_smaller_one(small_set, tmp_path):
    larger = contents(sample_pets(tmp_path / 'larger', n_breeds=5, n_per_breed=3, size=96))
    assert all(larger[k] == v for k, v in contents(small_set).items() if k.suffix in ('.jpg', '.png'))


def test_a_complete_set_is_left_alone(small_set):
    before = {p: p.stat().st_mtime_ns for p in small_set.rglob('*')}
    assert sample_pets(small_set, **SMALL) == small_set
    assert {p: p.stat().st_mtime_ns for p in small_set.rglob('*')} == before


def test_an_interrupted_set_is_completed(small_set, tmp_path, monkeypatch):
    import image_similarity.drawing.pets as drawing
    real, calls = drawing.draw_pet, []

    def fails_at_the_fourth(*args):
        calls.append(args)
        if len(calls) == 4: raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(drawing, 'draw_pet', fails_at_the_fourth)
    with pytest.raises(KeyboardInterrupt): sample_pets(tmp_path / 'cut', **SMALL)
    assert len(list((tmp_path / 'cut' / 'images').iterdir())) == 3
    sample_pets(tmp_path / 'cut', **SMALL)
    assert len(calls) == 4 + 5                       # the three that were there are not drawn again
    assert contents(tmp_path / 'cut') == contents(small_set)


def test_another_set_in_the_folder_is_not_touched(small_set):
    before = contents(small_set)
    with pytest.raises(ValueError, match='another folder'): sample_pets(small_set, **{**SMALL, 'n_per_breed': 3})
    assert contents(small_set) == before


@pytest.mark.parametrize('bad', [{'n_breeds': 1}, {'n_breeds': 0}, {'n_breeds': len(BREEDS) + 1}, {'n_per_breed': 0},
                                 {'n_per_breed': -3}, {'size': 8}, {'size': 100_000}], ids=str)
def test_numbers_out_of_range_say_what_to_ask_for(bad, tmp_path):
    (name, value), = bad.items()
    with pytest.raises(ValueError, match=f'{name}={value}.*ask for'): sample_pets(tmp_path / 'no', **bad)
    assert not (tmp_path / 'no').exists()


def test_without_a_path_it_goes_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = sample_pets(n_breeds=2, n_per_breed=1, size=96)
    assert folder.is_relative_to(tmp_path / 'image_similarity')
    assert json.loads((folder / 'sample_pets.json').read_text())['complete'] is True
    assert folder == default_folder(json.loads((folder / 'sample_pets.json').read_text()))
