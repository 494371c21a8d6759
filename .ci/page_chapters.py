"""docs/chapters.md: every notebook by room, with the path of those that make one lesson, from their own first lines."""
import json
import re
from pathlib import Path

from figures import table
from rooms import NBS, ROOT, about, chapters, rooms

PATH = ["images/opening", "metrics/similarity", "encoders/encoder", "learners/classifier", "learners/siamese_data", "learners/siamese_head", "learners/siamese",
        "explain/maps", "finder/finder"]  # and the tutorial that tells it all once more


def opening(notebook: Path) -> dict[str, str]:
    "The first lines of a notebook: its title, what it is for, and what has to be read before it (empty where it does not say)."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells[:3] if cell["cell_type"] == "markdown")
    found = {"title": r"^# (.+)", "purpose": r"^> ?((?:.+\n?)(?:^> ?.+\n?)*)", "needs": r"^Needs: ((?:.+\n?)+)"}
    lines = {name: re.search(pattern, text, re.MULTILINE) for name, pattern in found.items()}
    return {name: re.sub(r"\n> ?|\n", " ", match[1]).strip() if match else "" for name, match in lines.items()}


def chapter(module: str) -> Path:
    "The notebook that exports a module, given as room/chapter."
    room, name = module.split("/")
    return next(notebook for notebook in chapters(room) if notebook.stem[3:] == name)


def lesson() -> list[Path]:
    "The notebooks of the path, in the order to read them."
    return [*map(chapter, PATH), NBS / "tutorials" / "pets.ipynb"]


def seen_from_docs(text: str, notebook: Path) -> str:
    "The links of a notebook, as the page in docs/ has to write them."
    def link(match):
        if re.match(r"[a-z]+:|#", match[1]): return match[0]
        return f"](../{(notebook.parent / match[1]).resolve().relative_to(ROOT).as_posix()})"
    return re.sub(r"\]\(([^)]+)\)", link, text)


def line(notebook: Path, marked: bool = True) -> list[str]:
    "A notebook as a row: its number on the path, its title, what it is for and what it needs."
    said, path = opening(notebook), lesson()
    needs = f" *Needs: {seen_from_docs(said['needs'], notebook).rstrip('.')}.*" if said["needs"] else ""
    name = notebook.relative_to(NBS).with_suffix("").as_posix()
    module = "/".join(part[3:] for part in name.split("/")) if name[0].isdigit() else ""
    return [f"**{path.index(notebook) + 1}**" if marked and notebook in path else "", f"[{said['title'] or notebook.stem}](../nbs/{name}.ipynb)",
            *([f"`{module}`"] if module else []), said["purpose"] + needs]


def page() -> str:
    "The whole page."
    parts = ["# Chapters", "The package is written in notebooks. Each explains one module, shows it at work and tests it: read one, change a line, run it again. "
             "`nbs/01_images/06_opening.ipynb` exports `image_similarity/images/opening.py`; a room imports only from the rooms above it on this page "
             "([the picture of them](../ARCHITECTURE.md)).",
             "## The path", "For someone who wants to learn how it works: from a file to the most similar picture, how sure that is, and why. Every notebook runs in less than "
             "a minute on a CPU, offline. The last one tells the whole story once more, from the answer backwards; if you prefer, begin with that one.",
             table([["", "chapter", "what it is for"], *([row[0], row[1], row[-1]] for row in map(line, lesson()))]),
             "## All rooms", "From the ground up. A number in bold is a place on the path."]
    for room in rooms():
        what, where = about(room)
        parts += [f"### {room}", f"{what} {where}".strip(), table([["", "chapter", "module", "what it is for"], *map(line, chapters(room))])]
    tutorials = sorted((NBS / "tutorials").glob("*.ipynb"))
    parts += ["## Tutorials", "Stories from beginning to end.", table([["", "tutorial", "what it is for"], *map(line, tutorials)])]
    return "\n\n".join(parts) + "\n"
