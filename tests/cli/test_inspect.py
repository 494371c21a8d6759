"`inspect`: what it says, the table in which somebody decides, and taking it back."
import csv
import json
import shutil

import pytest
from PIL import Image, ImageFilter

from image_similarity.gallery import Gallery

pytestmark = pytest.mark.usefixtures("elsewhere", "same_encoder")


@pytest.fixture
def kept(small, tmp_path):
    "A gallery of drawn pets, beside whose pictures lie a blurred one, and a copy of the first with the label of another species."
    files = list(small.data.files)
    Image.open(files[0]).resize((300, 300)).filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "blurred.png")
    shutil.copy(files[0], tmp_path / "copy.jpg")
    gallery = Gallery(tmp_path / "g", small.encoder)
    gallery.add(files, labels=list(small.data.labels), progress=False)
    wrong = next(label for label in small.data.labels if label != small.data.labels[0])
    gallery.add([tmp_path / "blurred.png", tmp_path / "copy.jpg"], labels=[small.data.labels[0], wrong], progress=False)
    gallery.close()
    return tmp_path / "g", tmp_path, wrong


def test_it_tells_then_does_what_was_decided_and_takes_it_back(call, kept, small):
    place, folder, wrong = kept
    code, out, err = call("inspect", place, "--out", folder / "findings.csv", "--sheet", folder / "sheet.png")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and "findings.csv" in err and Image.open(folder / "sheet.png").width > 100
    assert ["blurred", str(folder / "blurred.png")] in [[kind, path] for kind, _, path, _ in lines]
    assert any(kind == "contradiction" and str(folder / "copy.jpg") in path + says for kind, _, path, says in lines)
    found = json.loads(call("inspect", place, "--json")[1])
    assert len(found["findings"]) == len(lines) and found["items"] == len(small.data.files) + 2

    rows = list(csv.DictReader((folder / "findings.csv").open()))
    copy, blurred = (next(item for item in Gallery(place).items() if item.path == folder / name) for name in ("copy.jpg", "blurred.png"))
    with (folder / "decided.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerow({**rows[0], "id": copy.id, "fix": "relabel", "likely": small.data.labels[0]})
        writer.writerow({**rows[0], "id": blurred.id, "fix": "exclude"})
    assert call("inspect", place, "--apply", folder / "decided.csv")[2] == "1 relabelled, 1 excluded; --undo takes it back\n"
    after = {item.id: item for item in Gallery(place).items()}
    assert after[copy.id].label == small.data.labels[0] and after[blurred.id].metadata == {"excluded": True}
    assert not [f for f in json.loads(call("inspect", place, "--json")[1])["findings"] if f["id"] == blurred.id or f["kind"] == "contradiction"]
    assert call("inspect", place, "--undo")[2] == "2 items as before\n"
    again = {item.id: item for item in Gallery(place).items()}
    assert (again[copy.id].label, again[copy.id].metadata, again[blurred.id].metadata) == (wrong, {}, {})


def test_what_cannot_be_applied_changes_nothing(call, kept):
    place, folder, _ = kept
    before = Gallery(place).items()
    for text, said in (("a,b\n1,2\n", "no columns fix and id"), ("fix,id,likely\nexclude,1,\nrelabel,2,\n", "row 3: write the new label"), ("fix,id,likely\nexclude,99,\n", "no item '99'")):
        (folder / "f.csv").write_text(text)
        code, out, err = call("inspect", place, "--apply", folder / "f.csv")
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert call("inspect", place, "--apply", folder / "f.csv", "--undo")[2].startswith("error: --apply and --undo go alone")
    assert Gallery(place).items() == before
