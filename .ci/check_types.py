"""Check the types of the package, and of the code that its readers copy: check_types.py [--pages-only]

The Python of README.md and of the tutorials is written out as plain files, each line where it stood, and goes to the type checker
with the package, under the rules of pyproject.toml. What is wrong is told by its place in the README, or in a cell of a notebook.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, README, TUTORIALS = ROOT / "image_similarity", ROOT / "README.md", ROOT / "nbs" / "tutorials"
MAGIC = re.compile(r"^\s*[%!]")


def readme_code(text: str) -> str:
    "The Python of a markdown page, on the lines where it stands; all other lines are empty."
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        if fence: inside = line.strip() == "```python"
    return "\n".join(lines) + "\n"


def cell_code(source: str) -> list[str]:
    "The lines of a cell without what only a notebook understands: magics and shell commands. A cell magic empties its cell."
    lines = source.splitlines()
    if lines and lines[0].startswith("%%"): return [""] * len(lines)
    return [re.sub(r"\S.*", "pass", line) if MAGIC.match(line) else line for line in lines]


def notebook_code(notebook: Path) -> tuple[str, list[tuple[int, int]]]:
    "A notebook's Python as one file, and for each of its lines the cell and the line in it that it comes from."
    lines, places = [], []
    for number, cell in enumerate(json.loads(notebook.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code": continue
        code = cell_code("".join(cell["source"]))
        lines += code
        places += [(number, i + 1) for i in range(len(code))]
    return "\n".join(lines) + "\n", places


def pages() -> dict[str, tuple[str, list[str]]]:
    "The code that readers copy: name of the file to check, its text, and where each of its lines stands."
    text = readme_code(README.read_text(encoding="utf-8"))
    found = {"readme.py": (text, [f"README.md:{i}" for i in range(1, text.count("\n") + 2)])}
    for notebook in sorted(TUTORIALS.glob("*.ipynb")):
        text, places = notebook_code(notebook)
        found[f"tutorial_{notebook.stem}.py"] = text, [f"{notebook.relative_to(ROOT)}, cell {cell}, line {line}" for cell, line in places]
    return found


def checked(folder: Path, include: list[Path]) -> list[dict]:
    "What the type checker says, under the rules of pyproject.toml. `folder` takes the file that says so."
    rules = folder / "pyrightconfig.json"
    rules.write_text(json.dumps({"extends": str(ROOT / "pyproject.toml"), "include": [str(path) for path in include], "extraPaths": [str(ROOT)],
                                 "venvPath": str(ROOT), "venv": ".venv"}))
    command = [sys.executable, "-m", "basedpyright", "--project", str(rules), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    try: return json.loads(done.stdout)["generalDiagnostics"]
    except (ValueError, KeyError): raise RuntimeError(f"basedpyright failed:\n{done.stdout}{done.stderr}") from None


def problems(pages_only: bool = False, found: dict | None = None) -> list[str]:
    "Every error, a line each: where, what, and the rule."
    found = pages() if found is None else found
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file, (text, _) in found.items(): (folder / file).write_text(text, encoding="utf-8")
        said = checked(folder, [folder, *([] if pages_only else [PACKAGE])])
    lines = []
    for one in (one for one in said if one["severity"] == "error"):
        file, line = Path(one["file"]), one["range"]["start"]["line"]
        where = found[file.name][1][line] if file.name in found and PACKAGE not in file.parents else f"{file.relative_to(ROOT)}:{line + 1}"
        lines.append(f"{where}: {' '.join(one['message'].split())}" + (f" [{one['rule']}]" if "rule" in one else ""))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages-only", action="store_true", help="only the code of README.md and the tutorials, not the package")
    found = problems(parser.parse_args().pages_only)
    if found: sys.exit("\n".join([*found, f"{len(found)} errors" if len(found) > 1 else "1 error"]))
    print("The types of the package, the README and the tutorials are right.")


if __name__ == "__main__":
    main()
