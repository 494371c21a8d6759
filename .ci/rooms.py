"""The rooms of the house: what each is for, and which imports which, read from the package itself."""
import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, NBS = ROOT / "image_similarity", ROOT / "nbs"


def rooms() -> list[str]:
    "The rooms, from the ground up: as the folders of the notebooks are numbered."
    return [folder.name[3:] for folder in sorted(NBS.iterdir()) if re.match(r"\d\d_", folder.name)]


def chapters(room: str) -> list[Path]:
    "The notebooks of a room, in the order of their numbers."
    return sorted(next(NBS.glob(f"[0-9][0-9]_{room}")).glob("[0-9][0-9]_*.ipynb"))


def about(room: str) -> tuple[str, str]:
    "What a room is for, and where to start reading: the two paragraphs of its docstring."
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    first, _, rest = text.partition("\n\n")
    return " ".join(first.split()), " ".join(rest.split())


@cache
def _public() -> dict[str, str]:
    "The room that each public name comes from, as the stub of the package says."
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    return {alias.name: node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}


def imported_rooms(file: Path) -> set[str]:
    "The rooms that a module imports from, anywhere in it: inside functions too, through the package's public names, and by a module's name as text."
    found, here = set(), (PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*(here[:-node.level] if node.level else ()), *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(rf"{PACKAGE.name}(\.\w+)+", node.value): targets = [node.value]
        else: continue
        for package, _, rest in (target.partition(".") for target in targets):
            if package == PACKAGE.name and rest: found.add(_public().get(rest, rest.split(".")[0]))
    return found & set(rooms())


def arrows() -> dict[str, set[str]]:
    "The rooms that each room imports from, by the files that its chapters export."
    return {room: {other for file in (PACKAGE / room).glob("[!_]*.py") for other in imported_rooms(file)} - {room} for room in rooms()}


def below(room: str, imports: dict[str, set[str]]) -> set[str]:
    "Every room that a room reaches."
    return set().union(*({other} | below(other, imports) for other in imports[room]))


def reduced(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    "Without the arrows that follow from others: what a reader has to see to know who reaches whom."
    return {room: {o for o in others if not any(o in below(between, imports) for between in others)} for room, others in imports.items()}


def height(room: str, imports: dict[str, set[str]]) -> int:
    "How high a room stands: on the ground, or one above the highest that it imports."
    return max((1 + height(other, imports) for other in imports[room]), default=0)
