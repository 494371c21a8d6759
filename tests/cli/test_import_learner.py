"""`import-learner`: two exported fastai learners become a model, and their pickles are read only when that is asked for."""
import json
import pickle

import pytest
import torch
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, RandomSplitter, Resize, create_body, create_head, get_image_files, vision_learner
from fastai.learner import Learner
from torchvision.models import resnet18

from image_similarity import SiameseModel, SimilarityFinder, create_encoder, labelled_images, sample_pets, siamese_loss
from image_similarity.images.listing import label_func
from image_similarity.learners.siamese_data import siamese_dls


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "The folder with both files and the pictures."
    folder = tmp_path_factory.mktemp("exported")
    data = labelled_images(sample_pets(folder / "drawn", n_breeds=3, n_per_breed=5, size=96) / "images", valid_pct=.2)
    torch.manual_seed(0)
    block = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=label_func, splitter=RandomSplitter(seed=2), item_tfms=Resize(96))
    clearn = vision_learner(block.dataloaders(data.files[0].parent, bs=4, num_workers=0), resnet18, pretrained=False, path=folder)
    slearn = Learner(siamese_dls(data, create_encoder("test_resnet", "random", 96)), SiameseModel(create_body(resnet18(), cut=-2), create_head(1024, 1)), siamese_loss, path=folder)
    clearn.export("classifier.pkl")
    slearn.export("siamese.pkl")
    return folder, data, SimilarityFinder(clearn, slearn, data.files, progress=False)


@pytest.mark.long
def test_the_commands_work_with_what_was_imported(exported, call, tmp_path):
    folder, data, finder = exported
    code, out, err = call("import-learner", folder / "classifier.pkl", folder / "siamese.pkl", "--trust", "--out", tmp_path / "model", "--images", data.files[0].parent)
    assert (code, out) == (0, "") and "with 15 pictures to search" in err
    code, out, _ = call("find", data.files[0], "--model", tmp_path / "model", "--top-k", 4, "--json")
    expected = finder.search(data.files[0], 4)
    assert code == 0 and [r["path"] for r in json.loads(out)["results"]] == [str(r.path) for r in expected]
    assert [r["pair_probability"] for r in json.loads(out)["results"]] == pytest.approx([r.pair_probability for r in expected], abs=1e-4)
    code, out, _ = call("evaluate", tmp_path / "model", data.files[0].parent, "--json")
    assert code == 0 and json.loads(out)["n_images"] == 15


class Bomb:
    def __reduce__(self): return open, (str(self.place), "w")


@pytest.mark.parametrize("first", [True, False])
def test_nothing_is_unpickled_unless_it_is_trusted(exported, call, tmp_path, first):
    folder, data, _ = exported
    Bomb.place = tmp_path / "exploded"
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    files = (tmp_path / "bomb.pkl", folder / "siamese.pkl") if first else (folder / "classifier.pkl", tmp_path / "bomb.pkl")
    code, out, err = call("import-learner", *files, "--out", tmp_path / "model", "--images", data.files[0].parent)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and "runs any code that the file holds" in err and "--trust" in err
    assert not Bomb.place.exists() and not (tmp_path / "model").exists()


def test_what_cannot_be_imported_is_one_line(exported, call, tmp_path):
    folder, data, _ = exported
    (tmp_path / "notes.txt").write_text("no pickle")
    for files, said in (((folder / "siamese.pkl", folder / "classifier.pkl"), "where a classifier is a body and a head"), ((tmp_path / "none.pkl", folder / "siamese.pkl"), "no such file"),
                        ((folder / "classifier.pkl", tmp_path / "notes.txt"), "not a learner that learn.export() wrote")):
        code, out, err = call("import-learner", *files, "--trust", "--out", tmp_path / "model", "--images", data.files[0].parent)
        assert (code, out) == (2, "") and said in err.splitlines()[-1] and len(err.splitlines()) == 1
    assert not (tmp_path / "model").exists()
