"Arguing with a gallery on the command line: it prints what the library says, and is refused in one line."
import json

import pytest
from PIL import Image

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


def test_a_mask_is_a_region(call, folder):
    mask = Image.new("L", (96, 96))
    mask.paste(255, (0, 0, 48, 96))
    mask.save(folder / "mask.gif")
    by = lambda region: found(call, folder / "pet_0.png", "--region", region, "--gallery", folder / "kept")["results"]
    assert by(folder / "mask.gif") == by("0,0,48,96")


def test_examples_rank_a_models_pictures_too(call, small):
    like, unlike = (r.id for r in small.finder.search(small.query, 2))
    expected = small.finder.search(small.query, 4, positives=[like], negatives=[unlike])
    argued = found(call, small.query, "--model", small.model, "--like", like, "--unlike", unlike, "--top-k", 4)
    assert [r["id"] for r in argued["results"]] == [r.id for r in expected] and argued["scores"] == "log odds, by the examples"
    code, out, err = call("find", small.query, "--model", small.model, "--like", like, "--candidates", "all")
    assert (code, out) == (2, "") and "--candidates and --coverage: examples rank" in err


def test_a_model_looks_into_pictures_too(call, small, tmp_path):
    kept = Gallery(tmp_path / "kept", small.finder.encoder, regions=True)
    kept.add(small.finder.files[:6], progress=False)
    first = kept.files[0]
    expected = [r.id for r in kept.search(kept.ids[0], 3, parts=True)]
    argued = found(call, first, "--model", small.model, "--gallery", tmp_path / "kept", "--parts", "--top-k", 3)
    assert [r["id"] for r in argued["results"]] == expected and kept.ids[0] not in expected and argued["scores"] == "cosine"
    code, out, err = call("find", first, "--model", small.model, "--gallery", tmp_path / "kept", "--parts", "--coverage", ".9")
    assert (code, out) == (2, "") and "and so do parts" in err
    code, _, err = call("find", first, "--model", small.model, "--parts")
    assert code == 2 and "keeps no parts" in err


def test_a_models_head_learns_from_marks_and_goes_back(call, small, tmp_path):
    place = tmp_path / "kept"
    kept = Gallery(place, small.finder.encoder)
    kept.add(small.finder.files[:8], progress=False)
    query, finder = kept.files[0], small.finder.load(small.model, place)
    before = {r.id: r.pair_probability for r in finder.search(query, 7, "all")}
    right, wrong = min(before, key=before.__getitem__), max(before, key=before.__getitem__)
    code, _, err = call("feedback", "refit", place, "--model", small.model)
    assert code == 2 and "nothing to learn from" in err
    assert call("feedback", "mark", place, query, "--right", right, "--wrong", wrong)[0] == 0
    assert call("feedback", "refit", place, "--model", small.model)[1] == "version 1\tpairs\tat work\n"
    after = {r.id: r.pair_probability for r in small.finder.load(small.model, place).search(query, 7, "all")}
    assert after[right] > before[right] and after[wrong] < before[wrong]
    assert call("feedback", "go-back", place, "--kind", "pairs")[0] == 0
    assert {r.id: r.pair_probability for r in small.finder.load(small.model, place).search(query, 7, "all")} == before


def test_a_brush_says_what_the_answer_would_be(call, small, folder):
    result = small.finder.search(small.query, 1)[0]
    width, height = Image.open(small.query).size
    before, after = small.finder.explain(result), small.finder.explain(result, query_away=(0, 0, width, height / 2))
    brush = ["feedback", "brush", small.model, small.query, result.id, "--box", "0,0,1,.5"]
    code, out, err = call(*brush, "--model", small.model, "--json", "--explain", folder / "left.png")
    assert code == 0, err
    told = json.loads(out)
    assert [told["before"], told["after"], told["probability"]] == pytest.approx([before.logit + before.agreement, after.logit + after.agreement, after.probability], abs=1e-3)
    assert Image.open(folder / "left.png").width > 100
    code, out, _ = call(*brush) # the cosine
    assert code == 0 and float(out.split("\t")[0]) == pytest.approx(small.finder.gallery.search(small.query, 24)[[r.id for r in small.finder.gallery.search(small.query, 24)].index(result.id)].score, abs=2e-3)


def test_links_are_those_of_the_model(call, small, folder):
    result = small.finder.search(small.query, 1)[0]
    code, out, err = call("feedback", "links", small.model, small.query, result.id, "--model", small.model, "-n", 2, "--json", "--draw", folder / "links.png")
    assert code == 0, err
    expected = small.finder.links(result)
    assert [(tuple(one["query"]), one["adds"]) for one in json.loads(out)] == [(divmod(i, expected.query_shape[1]), pytest.approx(by, abs=1e-3)) for i, _, by in expected.strongest(2)]
    assert Image.open(folder / "links.png").width > 100


@pytest.mark.parametrize("args, said", [(["--region", "1,2,3"], "give left,upper,right,lower"), (["--region", "200,0,300,50"], "nothing of it is in a picture"), (["--like", "99"], "no item of that id"),
                                        (["--like", "2", "--unlike", "2"], "marked as right and as wrong"), (["--like", "2", "--plus", "a dog"], "--plus and --minus mix")])
def test_what_cannot_be_done_is_one_line(call, folder, args, said):
    code, out, err = call("find", folder / "pet_0.png", "--gallery", folder / "kept", *args)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
