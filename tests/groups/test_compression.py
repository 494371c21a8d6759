"What compression explains: beside scipy's transform block by block, on files that Pillow wrote, and in a verdict."
import io

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from image_similarity.drawing.pets import draw_pet
from image_similarity.groups.compression import as_saved, beyond_compression, steps_of
from image_similarity.groups.verdicts import Look, compare
from image_similarity.images.opening import open_image


def saved(image, **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **how)
    return buffer.getvalue()


def apart(first, second) -> np.ndarray: return np.asarray(first, np.float32) - np.asarray(second, np.float32)


@pytest.fixture(scope="module")
def photo():
    "A drawn pet with noise, as a photo has it: there is something to round in every block."
    drawn = np.asarray(draw_pet("beagle", 5, size=384)[0], np.float32)
    noise = np.random.default_rng(0).normal(0, 9, drawn.shape[:2] + (1,))
    return Image.fromarray(np.clip(drawn + noise, 0, 255).astype(np.uint8))


def test_as_scipy_does_it_block_by_block():
    rng = np.random.default_rng(1)
    grey, steps = rng.normal(0, 30, (24, 40)), rng.integers(1, 120, 64)
    expected = np.zeros_like(grey)
    for y in range(0, 24, 8):
        for x in range(0, 40, 8):
            waves = scipy.fft.dctn(grey[y:y + 8, x:x + 8], norm="ortho")
            left = np.sign(waves) * np.maximum(np.abs(waves) - steps.reshape(8, 8) / 2, 0)
            expected[y:y + 8, x:x + 8] = scipy.fft.idctn(left, norm="ortho")
    found = beyond_compression(np.repeat(grey[..., None], 3, 2).astype(np.float32), ((tuple(steps.tolist()),), (1, 1)))
    assert np.abs(found - expected[..., None]).max() < 1e-3


@pytest.mark.parametrize("quality", [8, 30, 75, 95])
def test_a_jpeg_explains_what_it_lost_and_no_more(photo, quality):
    file = saved(photo, quality=quality, subsampling=0)
    again = open_image(file)
    assert list(steps_of(again)[0]) == [tuple(Image.open(io.BytesIO(file)).quantization[k]) for k in (0, 1)]
    lost = np.abs(apart(photo, again))
    left = np.abs(beyond_compression(apart(photo, again), steps_of(again)))
    assert left.mean() < .3 and left.max() < max(6, .1 * lost.max()) # what is cut off at black and white cannot be told, nor the last whole shade
    other = photo.copy()
    other.paste("black", (100, 100, 112, 112))
    assert np.abs(beyond_compression(apart(other, again), steps_of(again)))[100:112, 100:112].max() > 60


def test_pixels_that_share_a_colour(photo):
    for shared in (1, 2):
        again = open_image(saved(photo, quality=20, subsampling=shared))
        assert steps_of(again)[1] == ((2, 1), (2, 2))[shared - 1]
        left = np.abs(beyond_compression(apart(photo, again), steps_of(again)))
        assert left.mean() < .25 * np.abs(apart(photo, again)).mean()


def test_steps_are_told_only_of_what_is_as_it_was_stored(photo):
    turned = Image.Exif()
    turned[0x0112] = 6
    for file in (saved(photo, exif=turned), saved(photo.convert("CMYK"))): assert open_image(file).info == {}
    assert open_image(saved(photo), at_least=100).info == {} and steps_of(photo) is None
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    assert open_image(buffer.getvalue()).info == {}
    named = Image.Exif()
    named[0x010f] = "a camera"
    assert set(open_image(saved(photo, exif=named, comment=b"by whom")).info) == {"jpeg"} # and nothing of who made it
    assert len(steps_of(open_image(saved(photo.convert("L"))))[0]) == 1


def test_blurred_and_then_saved(photo):
    import cv2
    soft = Image.fromarray(np.rint(cv2.GaussianBlur(np.asarray(photo, np.float32), (0, 0), 1.2)).astype(np.uint8))
    again = open_image(saved(soft, quality=50, subsampling=0))
    a, b = (np.asarray(p, np.float32) for p in (photo, again))
    for one, other, steps in ((a, b, (None, steps_of(again))), (b, a, (steps_of(again), None))): # whichever comes first
        first, second, explained = as_saved(one, other, np.ones(a.shape[:2], bool), steps)
        assert explained and np.abs(first - second).mean() < .1


def test_a_copy_that_was_saved_as_roughly_as_can_be_and_a_moment_later(photo):
    def look(file): return Look(open_image(file), lambda: open_image(file))
    first = look(saved(photo, quality=92))
    found = compare(first, look(saved(photo.resize((300, 300)), quality=10)))
    assert found is not None and found.kind == "saved again" and found.margin < 1
    later = np.asarray(photo).copy()
    later[150:250, 150:250] = np.roll(later[150:250, 150:250], 4, axis=1) # what is in the middle has moved
    found = compare(first, look(saved(Image.fromarray(later), quality=30)))
    assert found is None or found.kind != "saved again"
