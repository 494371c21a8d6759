"Learners of few pictures, and one way of resizing for all who look at a picture."
import numpy as np
import pytest
import torch
from PIL import Image

from image_similarity import SiameseImage, SimilarityFinder, classifier_learner, create_encoder, embedding_learner, labelled_images, siamese_learner


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Ten photos of 1600 x 1200 in two classes, as JPEG: large enough that they are decoded smaller."
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(10):
        small = rng.integers(0, 128, (12, 16, 3), dtype=np.uint8) + np.uint8(127 * (i % 2)) * np.array([1, 0, 0], np.uint8)
        Image.fromarray(small).resize((1600, 1200), Image.Resampling.BICUBIC).save(folder / f"{'red' if i % 2 else 'dark'}_{i}.jpg", quality=85)
    return labelled_images(folder, valid_pct=0)


@pytest.fixture(scope="module")
def learners(photos):
    encoder = create_encoder(size=64)
    with pytest.MonkeyPatch.context() as patch:
        from conftest import few_pairs
        few_pairs(patch)
        return classifier_learner(photos, encoder, augment=1, epochs=1, progress=False), siamese_learner(photos, encoder, augment=1, epochs=1, progress=False)


def test_siampredict_and_the_finder_say_the_same_of_large_photos(photos, learners):
    finder = SimilarityFinder(*learners, photos.files, photos.labels, progress=False)
    query = photos.files[0]
    found = finder.search(query, 9, candidates="all")
    assert len(found) == 9 and {result.probability for result in found} == {None} # of two classes there is none
    for result in found:
        _, probability = learners[1].siampredict(SiameseImage(query, result.path))
        assert float(probability) == pytest.approx(result.pair_probability, abs=1e-4)


@pytest.mark.parametrize("which", ["classifier", "siamese", "embedding"])
def test_fine_tuning_on_few_pictures_trains(photos, learners, which):
    learn = {"classifier": lambda: learners[0], "siamese": lambda: learners[1],
             "embedding": lambda: embedding_learner(photos, encoder=create_encoder(size=64), epochs=1, augment=1, progress=False)}[which]()
    before = [p.detach().clone() for p in learn.model.parameters() if p.requires_grad]
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1)
    assert len(learn.recorder.losses) > 0 and np.isfinite([float(loss) for loss in learn.recorder.losses]).all()
    after = [p.detach() for p in learn.model.parameters() if p.requires_grad]
    assert len(before) <= len(after) and any(not torch.equal(a, b) for a, b in zip(before, after)) or len(before) != len(after)
