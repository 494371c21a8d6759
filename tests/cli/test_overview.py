"`map`, `gallery export` and `mcp`, from the command line."
import csv
import json
import sys

import pytest
from PIL import Image

from image_similarity.gallery import Gallery

pytestmark = pytest.mark.usefixtures("elsewhere", "same_encoder")


@pytest.fixture(scope="module")
def place(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("overview")
    gallery = Gallery(folder / "g", small.encoder)
    gallery.add(list(small.data.files), labels=list(small.data.labels), progress=False)
    gallery.close()
    return folder / "g"


def test_a_map_is_drawn_told_and_written(call, place, tmp_path):
    code, out, err = call("map", place, "--out", tmp_path / "map.csv")
    n = len(Gallery(place))
    assert code == 0 and f"{n} pictures on the map, 0 of them" in err
    rows = list(csv.DictReader((tmp_path / "map.csv").open()))
    assert len(rows) == n and all(-1 <= float(r["x"]) <= 1 for r in rows)
    groups = [r["group"] for r in rows if r["group"]]
    assert out.splitlines() == [f"{groups.count(name)}\t{name}" for name in sorted(set(groups), key=lambda g: (-groups.count(g), g))]
    assert json.loads(call("map", place, "--json")[1])[0]["x"] == float(rows[0]["x"])
    assert call("map", place, "--out", tmp_path / "map.png")[0] == 0 and Image.open(tmp_path / "map.png").width > 500
    assert call("map", place, "--out", tmp_path / "map.doc")[0] == 2


def test_a_file_for_another_tool(call, place, tmp_path):
    assert call("gallery", "export", place, tmp_path / "t.json", "--format", "label-studio")[0] == 0
    assert len(json.loads((tmp_path / "t.json").read_text())) == len(Gallery(place))
    code, _, err = call("gallery", "export", place, tmp_path / "t.json", "--format", "excel")
    assert code == 2 and "choose one of fiftyone, label-studio, cvat" in err


@pytest.mark.long
def test_a_program_asks_over_the_protocol(place):
    pytest.importorskip("mcp", reason="pip install 'image_similarity[mcp]'")
    import anyio
    from mcp import ClientSession, StdioServerParameters, stdio_client

    async def ask():
        command = StdioServerParameters(command=sys.executable, args=["-c", "from image_similarity.cli.commands import main; main()", "mcp", str(place)])
        async with stdio_client(command) as (reads, writes), ClientSession(reads, writes) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            found = await session.call_tool("search_by_item", {"id": 1, "top_k": 3})
            return names, found, await session.call_tool("look", {"id": 1}), await session.call_tool("explain", {"first": 1, "second": 2}), await session.call_tool("look", {"id": 10**6})
    names, found, seen, explained, wrong = anyio.run(ask)
    assert "search_by_words" in names and "label" not in names
    expected = [r.id for r in Gallery(place).search(1, 3)]
    assert [json.loads(part.text)["id"] for part in found.content] == expected or [r["id"] for r in json.loads(found.content[0].text)] == expected
    assert seen.content[0].type == "image" and [part.type for part in explained.content] == ["text", "image", "image"]
    assert wrong.content[0].type == "text" and "no item" in wrong.content[0].text
