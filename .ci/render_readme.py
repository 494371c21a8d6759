"""Write every page that is made from something else, or check that they are up to date: render_readme.py [--check]

README.md comes from nbs/index.ipynb, docs/measured.md and docs/pets.md from benchmarks/results/, docs/chapters.md from the first lines of the
notebooks, docs/rooms.svg and a table in ARCHITECTURE.md from the imports.

Nothing is executed for the README: the outputs are those stored in the notebook. As on the documentation site, a cell whose
directive is `#| hide` is left out, one with `#| echo: false` shows only its output, and directives never show. Relative links
and pictures become addresses in the repository, so that they work on PyPI too.
"""
import argparse
import os
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import page_chapters
import page_measured
import page_pets
import page_rooms
import picture_rooms
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "nbs" / "index.ipynb"
README = ROOT / "README.md"

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
PLACE = f"{REPOSITORY}/blob/main/"  # of a file, as a page
RAW = PLACE.replace("https://github.com/", "https://raw.githubusercontent.com/").replace("/blob/", "/")  # of its bytes

DIRECTIVE = re.compile(r"^\s*#\s*\|\s*(?P<name>[\w-]+)(?P<value>.*)$")
LINK = re.compile(r"(?P<before>!\[[^\]]*\]\(|\]\(|\b(?:src|href)=\")(?P<target>[^)\"\s]+)")
FENCE = re.compile(r"^(```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)


def directives(source: str) -> set:
    "The directives at the top of a code cell, as `echo: false` or `hide`."
    found = set()
    for line in source.splitlines():
        match = DIRECTIVE.match(line)
        if not match:
            break
        found.add(f"{match['name']}{match['value'].rstrip()}")
    return found


def without_directives(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if not DIRECTIVE.match(line)).strip("\n")


def shown_outputs(cell) -> list:
    "The cell's outputs without progress bars and warnings; tables as markdown where there is one."
    outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    for output in outputs:
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data):
            raise ValueError("index.ipynb holds a picture in an output; save it in nbs/images and link to it instead")
        if "text/markdown" in data:
            data.pop("text/html", None)
    return outputs


def prepare(notebook):
    "Drop what the README does not show."
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "raw":
            continue
        if cell.cell_type == "code":
            found = directives(cell.source)
            if "hide" in found:
                continue
            cell.outputs = shown_outputs(cell)
            cell.source = without_directives(cell.source)
            if "echo: false" in found:
                cell.metadata["transient"] = {"remove_source": True}  # what nbconvert's own preprocessors say to its templates
                if not cell.outputs:
                    continue
        kept.append(cell)
    notebook.cells = kept
    notebook.metadata["language_info"] = {"name": "python"}  # nbdev_clean drops it; it names the code blocks
    return notebook


def address(target: str, picture: bool = False) -> str:
    "A link as seen from nbs/, as an address in the repository."
    if re.match(r"[a-z][a-z0-9+.-]*:|#|/", target, re.IGNORECASE):
        return target
    path, hash_, anchor = target.partition("#")
    return (RAW if picture else PLACE) + Path(os.path.normpath(Path("nbs") / path)).as_posix() + hash_ + anchor


def tidy(markdown: str) -> str:
    "Relative links as addresses, no runs of blank lines, no trailing spaces; code blocks stay as they are."
    parts = FENCE.split(markdown)
    for i in range(0, len(parts), 2):  # the odd ones are the code blocks
        parts[i] = LINK.sub(lambda m: m["before"] + address(m["target"], m["before"].startswith(("!", "src"))), parts[i])
        parts[i] = re.sub(r"[ \t]+$", "", parts[i], flags=re.MULTILINE)
        parts[i] = re.sub(r"\n{3,}", "\n\n", parts[i])
    return "".join(parts).strip() + "\n"


def render(index: Path = INDEX) -> str:
    "README.md as it should be."
    notebook = prepare(nbformat.read(index, as_version=4))
    markdown, _ = MarkdownExporter().from_notebook_node(notebook)
    note = f"<!-- Made from nbs/{index.name} by `make readme`: edit that notebook, not this page. -->\n\n"
    return note + tidy(markdown)


def pages() -> dict[Path, str]:
    "Every page that is made from something else, as it should be."
    return {README: render(), ROOT / "docs" / "measured.md": page_measured.page(), page_pets.PAGE: page_pets.page(), page_pets.PICTURE: page_pets.picture(),
            ROOT / "docs" / "chapters.md": page_chapters.page(),
            ROOT / "docs" / "rooms.svg": picture_rooms.picture(), page_rooms.PAGE: page_rooms.page()}


def stale() -> list[str]:
    "The pages that are not what they are made from."
    return [file.relative_to(ROOT).as_posix() for file, text in pages().items() if not file.exists() or file.read_text(encoding="utf-8") != text]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is out of date")
    if not parser.parse_args().check:
        for file, text in pages().items():
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        print("Written:", *(file.relative_to(ROOT) for file in pages()))
    elif found := stale():
        sys.exit(f"Out of date: {', '.join(found)}. Run: make readme")
    else:
        print("README.md, ARCHITECTURE.md and docs/ agree with what they are made from.")


if __name__ == "__main__":
    main()
