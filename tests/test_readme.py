"""README.md: rendered from the index notebook, from results that are still the ones in the repository, with links that lead somewhere."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("nbconvert", reason="nbconvert is not installed: the README cannot be rendered")
nbformat = pytest.importorskip("nbformat")
import render_readme  # noqa: E402  (from .ci, see pyproject.toml)


def notebook(*cells):
    "A notebook of markdown (text) and code (text, outputs) cells."
    v4 = nbformat.v4
    return v4.new_notebook(cells=[v4.new_markdown_cell(c) if isinstance(c, str) else v4.new_code_cell(c[0], outputs=c[1])
                                  for c in cells])


def rendered(tmp_path, *cells):
    path = tmp_path / "index.ipynb"
    nbformat.write(notebook(*cells), path)
    return render_readme.render(path)


def shown(text):
    "An output as `display(Markdown(text))` stores it."
    return nbformat.v4.new_output("display_data", {"text/markdown": text, "text/plain": "<Markdown object>"})


def printed(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_readme_agrees_with_the_index_notebook():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == render_readme.render(), "run: make readme"


def test_a_cell_shows_its_code_and_what_it_prints(tmp_path):
    text = rendered(tmp_path, ("#| slow\nprint(6*7)", [printed("42\n"), printed("50 %", "stderr")]))
    assert "```python\nprint(6*7)\n```\n\n    42\n" in text
    assert "slow" not in text and "50 %" not in text


def test_hidden_cells_are_left_out_and_silent_ones_show_their_output_only(tmp_path):
    text = rendered(tmp_path, "# Title", ("#| hide\nsecret = 1", [printed("whisper")]),
                    ("#| echo: false\ncode = 2", [shown("**loud**")]), ("#| echo: false\nmute = 3", []))
    assert "**loud**" in text
    assert not re.search("secret|whisper|code = 2|mute|```|Markdown object", text)


def test_links_and_pictures_are_addresses_that_work_anywhere(tmp_path):
    text = rendered(tmp_path, "[a](01_images/06_opening.ipynb#top) [b](../LICENSE) ![c](images/x.png) [d](https://example.org/a) [e](#f) [![h](images/h.svg)](../NOTES.md)",
                    "<img src=\"images/y.png\" width=\"9\">", "```md\n[kept](as_it_is.md)\n```", ("1", [shown("![g](images/z.png)")]))
    page, raw = ("https://github.com/image-similarity/image_similarity/blob/main/", "https://raw.githubusercontent.com/image-similarity/image_similarity/main/")
    for wanted in (f"[a]({page}nbs/01_images/06_opening.ipynb#top)", f"[b]({page}LICENSE)", f"![c]({raw}nbs/images/x.png)", "[d](https://example.org/a)", "[e](#f)",
                   f"[![h]({raw}nbs/images/h.svg)]({page}NOTES.md)", f"<img src=\"{raw}nbs/images/y.png\" width=\"9\">", "[kept](as_it_is.md)", f"![g]({raw}nbs/images/z.png)"):
        assert wanted in text


def test_a_picture_in_an_output_is_refused(tmp_path):
    picture = nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8="})
    with pytest.raises(ValueError, match="nbs/images"):
        rendered(tmp_path, ("plot()", [picture]))


def test_every_link_and_picture_in_the_readme_leads_somewhere_on_github_and_on_pypi():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [m["target"].partition("#")[0] for m in render_readme.LINK.finditer(render_readme.FENCE.sub("", text))]
    assert [t for t in targets if not t.startswith("https://")] == []
    ours = [t.removeprefix(place) for t in targets for place in (render_readme.PLACE, render_readme.RAW) if t.startswith(place)]
    assert {"LICENSE", "docs/chapters.md", "docs/measured.md", "ARCHITECTURE.md", "nbs/images/page.png"} <= set(ours)
    assert [t for t in ours if not (ROOT / t).exists()] == []
    assert [t for t in targets if "image_similarity" in t and t.partition("/main/")[2] not in ours] == []


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_tables_and_lists_are_made_from_what_is_in_the_repository_now(monkeypatch):
    "Runs the cells of index.ipynb that show only their output, and compares it with the output that is stored."
    index = nbformat.read(render_readme.INDEX, as_version=4)
    silent = [c for c in index.cells if c.cell_type == "code" and "echo: false" in render_readme.directives(c.source)]
    assert silent
    monkeypatch.chdir(render_readme.INDEX.parent)
    names = {} # as in a notebook, a cell sees what those before it have defined
    for cell in silent:
        now = []
        monkeypatch.setattr("IPython.display.display", lambda shown, now=now: now.append(shown.data))
        exec(compile(cell.source, "index.ipynb", "exec"), names)
        assert now == [output.data["text/markdown"] for output in cell.outputs], "out of date; run: make readme"
