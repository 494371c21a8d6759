"Arguing with a gallery on the command line: it prints what the library says, and is refused in one line."
import json

import pytest

from image_similarity.drawing.pets import draw_pet
from image_similarity.encoders.encoder import create_encoder
from image_similarity.gallery.gallery import Gallery


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("argued")
    for n in range(6): draw_pet(["beagle", "Persian"][n % 2], n, 96)[0].save(place / f"pet_{n}.png")
    Gallery(place / "kept", create_encoder(size=64), regions=True).add(sorted(place.glob("*.png")), progress=False)
    return place


def found(call, *args):
    code, out, err = call("find", *args, "--json")
    assert code == 0, err
    return json.loads(out)


def test_examples_and_marks_rank(call, folder):
    kept, query = ["--gallery", folder / "kept", "--top-k", "3"], folder / "pet_0.png"
    expected = [r.id for r in Gallery(folder / "kept").search(1, 3, positives=3, negatives=[2])]
    argued = found(call, query, "--like", "3", "--unlike", folder / "pet_1.png", *kept)
    assert [r["id"] for r in argued["results"]] == expected and argued["scores"] == "log odds, by the examples"
    code, numbers, _ = call("feedback", "mark", folder / "kept", query, "--right", "3", "--wrong", "2")
    assert code == 0 and [r["id"] for r in found(call, query, "--marks", *kept)["results"]] == expected
    assert call("feedback", "undo", folder / "kept", *numbers.split())[0] == 0


def test_a_region_and_parts(call, folder):
    kept = ["--gallery", folder / "kept", "--top-k", "3"]
    results = found(call, folder / "pet_0.png", "--region", "0,0,48,96", *kept)["results"]
    assert [r["id"] for r in results] == [r.id for r in Gallery(folder / "kept").search(folder / "pet_0.png", 3, region=(0, 0, 48, 96))]
    assert any("box" in r for r in found(call, folder / "pet_0.png", "--region", "30,30,60,60", *kept)["results"])
    assert len(found(call, folder / "pet_0.png", "--parts", *kept)["results"]) == 3


@pytest.mark.parametrize("args, said", [(["--region", "1,2,3"], "give left,upper,right,lower"), (["--region", "200,0,300,50"], "nothing of it is in a picture"), (["--like", "99"], "no item of that id"),
                                        (["--like", "2", "--unlike", "2"], "marked as right and as wrong"), (["--like", "2", "--plus", "a dog"], "--plus and --minus mix")])
def test_what_cannot_be_done_is_one_line(call, folder, args, said):
    code, out, err = call("find", folder / "pet_0.png", "--gallery", folder / "kept", *args)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
