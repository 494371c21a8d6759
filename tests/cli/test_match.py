"""`match`: two catalogues become a table of pairs, with known products to learn from or without."""
import pandas as pd
import pytest

pytestmark = pytest.mark.usefixtures("elsewhere", "same_encoder")
THINGS = ["red cotton shirt", "blue denim jeans", "leather office shoes", "wool winter coat", "silk evening dress", "canvas running shoes", "black rain jacket", "green summer hat",
          "white linen trousers", "striped knitted scarf", "golden wrist watch", "brown travel bag", "yellow swim shorts", "grey woollen socks", "purple velvet skirt", "pink baby romper"]


@pytest.fixture(scope="module")
def catalogues(tmp_path_factory):
    pytest.importorskip("sentence_transformers", reason="the extra [text] is not installed")
    folder = tmp_path_factory.mktemp("catalogues")
    order = [(7 * i + 3) % len(THINGS) for i in range(len(THINGS))]
    pd.DataFrame({"name": THINGS, "product": range(len(THINGS))}).to_csv(folder / "a.csv", index=False)
    pd.DataFrame({"name": [f"{THINGS[i]} for men, new" for i in order], "product": order}).to_csv(folder / "b.csv", index=False)
    return folder, order


@pytest.mark.parametrize("options", [[], ["--same", "product"], ["--same", "product", "--one-to-one"]])
def test_the_same_products_are_paired(call, catalogues, tmp_path, options):
    folder, order = catalogues
    code, out, err = call("match", folder / "a.csv", folder / "b.csv", "--title", "name", "--out", tmp_path / "pairs.csv", *options)
    assert (code, out) == (0, "") and "16 pairs of 16 and 16 products" in err and ("nothing was known" in err) == (not options)
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert [order[j] for j in pairs["second"]] == pairs["first"].tolist() == list(range(16))
    assert pairs["probability"].between(.5, 1).all() and "from_title" in pairs


def test_what_is_missing_is_told(call, catalogues, tmp_path):
    folder, _ = catalogues
    assert "Name a column of pictures" in call("match", folder / "a.csv", folder / "b.csv")[2]
    assert "no column 'title'" in call("match", folder / "a.csv", folder / "b.csv", "--title", "title")[2]
    assert "no such CSV file" in call("match", "gone.csv", folder / "b.csv", "--title", "name")[2]
