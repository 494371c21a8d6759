"""docs/, ARCHITECTURE.md and the tutorials: up to date with what they are made from, true to the rooms, with links that lead somewhere."""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbconvert", reason="nbconvert is not installed: the pages cannot be rendered")
import check_types  # noqa: E402  (these are in .ci, see pyproject.toml)
import figures  # noqa: E402
import page_chapters  # noqa: E402
import page_measured  # noqa: E402
import page_rooms  # noqa: E402
import picture_rooms  # noqa: E402
import render_readme  # noqa: E402
import rooms  # noqa: E402
import test_architecture as architecture  # noqa: E402

PAGES = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/measured.md", "docs/chapters.md", "docs/pets.md", "docs/sources.md", "docs/encoders.md"]


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


# --- made from something else

@pytest.mark.long
def test_no_page_is_stale():
    assert render_readme.stale() == [], "run: make readme"


@pytest.mark.long
def test_a_stale_page_is_noticed(monkeypatch):
    monkeypatch.setattr(page_measured, "page", lambda: "other figures")
    monkeypatch.setattr(picture_rooms, "picture", lambda: "<svg/>")
    assert render_readme.stale() == ["docs/measured.md", "docs/rooms.svg"]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    targets = [m["target"].partition("#")[0] for m in render_readme.LINK.finditer(render_readme.FENCE.sub("", text(page)))]
    local = [t for t in targets if t and not re.match(r"https?:|mailto:", t)]
    assert [t for t in local if not ((ROOT / page).parent / t).exists()] == []


def anchors(markdown):
    "What GitHub calls the headings of a page."
    return {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in markdown.splitlines() if line.startswith("#")}


def test_every_place_within_a_page_that_is_linked_to_exists():
    assert set(re.findall(r"\]\(#([^)]+)\)", text("docs/measured.md"))) <= anchors(text("docs/measured.md"))
    assert set(re.findall(r"docs/chapters\.md#([^)]+)\)", text("README.md"))) <= anchors(text("docs/chapters.md"))


def test_every_link_of_a_notebook_leads_somewhere():
    for notebook in architecture.notebooks():
        for cell in nbformat.read(notebook, as_version=4).cells:
            if cell.cell_type != "markdown": continue
            targets = [m["target"].partition("#")[0] for m in render_readme.LINK.finditer(render_readme.FENCE.sub("", cell.source))]
            assert [t for t in targets if t and not t.startswith("https://") and not (notebook.parent / t).exists()] == [], notebook.name


# --- figures

def test_a_figure_has_its_interval_and_a_table_its_goals():
    rows = {"accuracy": {"value": .91234, "low": .9, "high": .92, "goal": .92}, "cosine_accuracy": {"value": .8, "low": None, "high": None},
            "head_seconds": {"value": 41.26, "low": None, "high": None, "goal": 60}}
    assert figures.grid(rows, page_measured.MEASURES, page_measured.SYSTEMS).splitlines()[2:] == [
        "| 37 breeds: accuracy | 0.912 (0.900 to 0.920) |  | 0.800 |  | 0.92 |",
        "| training, after the encoder: seconds | 41.3 |  |  |  | 60 |"]
    without = {name: row | {"goal": None} for name, row in rows.items()}
    assert figures.grid(without, {"accuracy": "right"}, {"": "ours", "cosine_{}": "cosine"}).splitlines() == [
        "|  | ours | cosine |", "| --- | --- | --- |", "| right | 0.912 (0.900 to 0.920) | 0.800 |"]


def test_a_script_that_has_not_run_has_no_rows(tmp_path):
    assert figures.results("pets", tmp_path)["rows"] == {}


def test_a_table_has_a_column_for_each_kind_of_processor(tmp_path, monkeypatch):
    row = lambda name, value, against=None: {"name": name, "value": value, "goal": 1, "better": "higher", "against": against}
    run = lambda cpu, *rows: {"machine": {"cpu": cpu}, "rows": list(rows)}
    (tmp_path / "speed.json").write_text(json.dumps(run("two", row("a", 2., "that")) | {"elsewhere": [run("one", row("a", 1., "this"), row("b", 3.))]}))
    (tmp_path / "time.json").write_text(json.dumps(run("one", row("c", 4.))))
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert figures.goal_table({"speed": {"a": "A", "b": "B"}, "time": {"c": "C"}, "none": {"d": "D"}}).splitlines() == [
        "|  | one | two | goal | beside, or against |", "| --- | --- | --- | --- | --- |", "| A | 1.000 | 2.000 | at least 1 | that |", "| B | 3.000 |  | at least 1 |  |",
        "| C | 4.000 |  | at least 1 |  |"]
    assert figures.goal_table({"time": {"c": "C"}}).splitlines()[0] == "|  | measured | goal | beside, or against |"


def test_five_headlines_each_stand_beside_a_peer_and_repeat_a_measured_figure():
    lines = figures.headlines().splitlines()[2:]
    assert len(lines) == 5 and all(line.count("|") == 4 and line.split("|")[3].strip() for line in lines)
    measured = figures.results("pets")["rows"]
    assert f"**{100 * measured['recall_at_1']['value']:.1f}%**" in lines[0] and f"{100 * measured['cosine_recall_at_1']['value']:.1f}%" in lines[0]


def test_every_script_with_results_is_on_the_page():
    assert {f"`{file.stem}.py`" for file in figures.RESULTS.glob("*.json") if (figures.RESULTS.parent / f"{file.stem}.py").exists()} <= set(re.findall(r"`\w+\.py`", page_measured.machines()))


# --- rooms

def twin():
    "The arrows between rooms, by the architecture test's own way to read imports."
    places = architecture.module_places()
    found = {room: set() for room in rooms.rooms()}
    for name in places:
        source = (architecture.PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        found[name.split(".")[0]] |= {other.split(".")[0] for other in architecture.own_imports(source, name, places)}
    return {room: others - {room} for room, others in found.items()}


def test_the_arrows_are_the_imports():
    assert rooms.arrows() == twin()


def test_what_is_not_drawn_follows_from_what_is():
    drawn, every = rooms.reduced(rooms.arrows()), rooms.arrows()
    for room in every: assert rooms.below(room, drawn) == rooms.below(room, every)
    assert rooms.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_arrows_point_down_and_boxes_do_not_overlap():
    imports = rooms.reduced(rooms.arrows())
    layers, pieces = picture_rooms.storeys(imports)
    lanes = picture_rooms.placed(layers, pieces)
    assert all(a[1] == b[1] + 1 for a, b in pieces)
    assert all(len({lanes[node] for node in layer}) == len(layer) for layer in layers)
    assert {room for room, level in lanes if level == rooms.height(room, imports)} == set(imports)


def test_the_picture_is_an_svg_that_names_every_room():
    from xml.etree import ElementTree
    svg = ElementTree.fromstring(picture_rooms.picture())
    assert set(rooms.rooms()) <= {element.text for element in svg.iter() if element.tag.endswith("text")}


def test_a_table_without_its_place_is_refused(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("no place for it")
    monkeypatch.setattr(page_rooms, "PAGE", tmp_path / "page.md")
    with pytest.raises(ValueError, match="comments"): page_rooms.page()


def test_what_the_architecture_page_names_is_there():
    package = ROOT / "image_similarity"
    named = re.findall(r"`(\w+/\w+\.py)`((?:[:,] `\w+`)*)", text("ARCHITECTURE.md"))
    assert len(named) > 20
    for file, names in named:
        source = (package / file).read_text(encoding="utf-8")
        assert [name for name in re.findall(r"`(\w+)`", names) if not re.search(rf"\b{name}\b", source)] == [], file
    assert all((package / folder).is_dir() for folder in re.findall(r"`(\w+/\w+)/`", text("ARCHITECTURE.md")) if not folder.startswith(("nbs", "image_similarity")))


# --- chapters

def test_every_notebook_is_on_the_page_of_chapters_once_in_its_room():
    page = text("docs/chapters.md").partition("## All rooms")[2]
    listed = re.findall(r"^\|[^|]*\| \[[^\]]+\]\(\.\./nbs/([^)]+)\)", page, re.MULTILINE)
    assert listed == [p.relative_to(architecture.NBS).as_posix() for p in architecture.notebooks() if p.parent != architecture.NBS]


def test_the_path_has_eight_to_ten_chapters_that_each_say_what_they_need():
    path = page_chapters.lesson()
    assert 8 <= len(path) <= 10 and path[-1].stem == "pets"
    assert [p.name for p in path if not page_chapters.opening(p)["needs"]] == []


def test_a_chapter_on_the_path_comes_after_those_below_it():
    places = [architecture.place(p) for p in page_chapters.lesson() if p.parent.name != "tutorials"]
    assert places == sorted(places)


def test_every_notebook_has_a_title_and_says_what_it_is_for():
    said = {p.name: page_chapters.opening(p) for p in architecture.notebooks()}
    assert [name for name, lines in said.items() if not (lines["title"] and lines["purpose"])] == []


def test_the_first_lines_of_a_notebook_are_read(tmp_path):
    v4 = nbformat.v4
    file = tmp_path / "x.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Title\n\n> What it\n> is for.\n\nNeeds: [a](a.ipynb),\nthen b.\n\nMore.")]), file)
    assert page_chapters.opening(file) == {"title": "Title", "purpose": "What it is for.", "needs": "[a](a.ipynb), then b."}
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Title\n> Short.\n\nText that needs: nothing")]), file)
    assert page_chapters.opening(file) == {"title": "Title", "purpose": "Short.", "needs": ""}


def test_links_of_a_notebook_are_seen_from_the_page():
    notebook = page_chapters.NBS / "01_images" / "08_tables.ipynb"
    assert page_chapters.seen_from_docs("[o](06_opening.ipynb) [x](https://example.org)", notebook) == "[o](../nbs/01_images/06_opening.ipynb) [x](https://example.org)"


# --- types of the code that readers copy

def test_the_readmes_python_keeps_its_lines():
    assert check_types.readme_code("a\n```python\nx = 1\n```\n```sh\nls\n```\n") == "\n\nx = 1\n\n\n\n\n"


def test_a_cell_loses_its_magics_only():
    assert check_types.cell_code("%matplotlib inline\nx = 1\nif x:\n    !ls\ny = 3 % 2") == ["pass", "x = 1", "if x:", "    pass", "y = 3 % 2"]
    assert check_types.cell_code("%%bash\nls") == ["", ""]


def test_wrong_code_in_a_page_is_told_by_its_place(tmp_path):
    pytest.importorskip("basedpyright")
    found = check_types.problems(pages_only=True, found={"readme.py": ("import os\nos.no_such_thing()\n", ["README.md:1", "README.md:2"])})
    assert len(found) == 1 and found[0].startswith("README.md:2: ") and "no_such_thing" in found[0] and found[0].endswith("[reportAttributeAccessIssue]")


# --- what PyPI would show

@pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="not a git checkout")
def test_twine_finds_nothing_wrong_with_what_would_be_uploaded(tmp_path):
    pytest.importorskip("twine", reason="twine is not installed")
    source, out = tmp_path / "source", tmp_path / "dist"
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in listed:
        if (name.startswith("image_similarity/") or "/" not in name) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", out, "bdist_wheel", "--dist-dir", out], cwd=source, check=True, capture_output=True)
    assert sorted(file.suffix for file in out.iterdir()) == [".gz", ".whl"]
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *out.iterdir()], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr
