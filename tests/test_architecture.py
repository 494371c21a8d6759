"""What holds for the project as a whole: who imports whom, what is loaded when, and where the code comes from."""
import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import image_similarity

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PACKAGE = ROOT / "image_similarity"
NAME = PACKAGE.name
HEAVY = ["torch", "torchvision", "fastai", "timm", "pandas", "matplotlib", "sklearn", "numba", "faiss",
         "pytorch_metric_learning", "safetensors"]


# --- who imports whom

def cells(notebook: Path, kind: str = "code") -> list[str]:
    "The sources of a notebook's cells."
    return ["".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            if cell["cell_type"] == kind]


def notebooks() -> list[Path]:
    "Every notebook, tutorials included."
    return sorted(p for p in NBS.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts))


def place(notebook: Path) -> tuple[int, int]:
    "Where a notebook stands: the number of its room, and its own number within the room."
    room, chapter = notebook.relative_to(NBS).parts
    return int(re.match(r"(\d\d)_[a-z]+$", room)[1]), int(re.match(r"(\d\d)_[a-z_]+\.ipynb$", chapter)[1])


def chapters() -> list[Path]:
    "The notebooks that export a module: all but the index and the tutorials."
    return [p for p in notebooks() if p.parent != NBS and p.parent.name != "tutorials"]


def module_places() -> dict[str, tuple[int, int]]:
    "Each module as `room.chapter`, with the place of the notebook that exports it."
    found = {}
    for notebook in chapters():
        names = re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(cells(notebook)), re.MULTILINE)
        assert names == [f"{notebook.parent.name[3:]}.{notebook.stem[3:]}"], f"{notebook} exports {names}"
        found[names[0]] = place(notebook)
    return found


def public_modules() -> dict[str, str]:
    "Each public name with the `room.chapter` that it comes from, as the stub of the package says."
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    return {alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}


def own_imports(source: str, module: str, modules) -> set[str]:
    "The modules of this package that `source`, which is `module`, imports anywhere: inside functions too, and by name through importlib."
    found, public = set(), public_modules()
    for node in ast.walk(ast.parse(source)):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = f"{NAME}.{module}".split(".")[:-node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            targets = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(rf"{NAME}(\.\w+)+", node.value):
            targets = [node.value]
        for target in targets:
            package, _, rest = target.partition(".")
            rest = public.get(rest, rest)  # `from image_similarity import open_image`
            name = ".".join(rest.split(".")[:2])
            if package == NAME and name in modules:
                found.add(name)
    return found


@pytest.mark.parametrize("source", [
    "from image_similarity.images.opening import open_image", "from ..images.opening import open_image", "from ..images import opening",
    "import image_similarity.images.opening as im", "from image_similarity import open_image",
    "def f():\n    from ..images.opening import open_image", "import_module('image_similarity.images.opening')"])
def test_every_way_to_import_is_seen(source):
    assert own_imports(source, "gallery.adding", ["images.opening", "metrics.ranking"]) == {"images.opening"}


def test_a_neighbour_is_seen():
    assert own_imports("from .catalogue import Item", "gallery.adding", ["gallery.catalogue"]) == {"gallery.catalogue"}


def test_a_module_imports_only_from_lower_rooms_and_lower_chapters_of_its_own():
    places = module_places()
    wrong = [f"{name} imports {other}" for name in places
             for other in own_imports((PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"), name, places)
             if places[other] >= places[name]]
    assert not wrong


def test_every_module_comes_from_a_chapter_of_its_room():
    modules = {".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in PACKAGE.rglob("*.py")} - {"_modidx", "__init__", "__main__"}
    assert {m for m in modules if not m.endswith(".__init__")} == set(module_places())


def test_rooms_and_chapters_are_numbered_without_gaps():
    numbers = sorted(set(module_places().values()))
    rooms = {room: [chapter for r, chapter in numbers if r == room] for room, _ in numbers}
    assert list(rooms) == list(range(1, len(rooms) + 1))
    assert all(numbered == list(range(1, len(numbered) + 1)) for numbered in rooms.values())


def test_no_module_is_longer_than_300_lines():
    lines = {p.relative_to(PACKAGE).as_posix(): len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py") if p.name != "_modidx.py"}
    assert {name: n for name, n in lines.items() if n > 300} == {}


def test_the_only_notebook_outside_the_rooms_is_the_index():
    assert [p.name for p in NBS.glob("*.ipynb")] == ["index.ipynb"]


def test_every_room_says_what_it_is_for_and_where_to_start():
    for room in {name.split(".")[0] for name in module_places()}:
        doc = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
        assert len(doc.splitlines()) > 2, room


# --- SQL stands in few places

SQL = re.compile(r"^\s*(SELECT|INSERT (OR \w+ )?INTO|UPDATE (OR \w+ )?\w+ SET|DELETE FROM|PRAGMA|CREATE (TABLE|INDEX|VIEW|TRIGGER)|ALTER TABLE|DROP|BEGIN|COMMIT|ROLLBACK)\b|\bSELECT\b.+\bFROM\b")
MAY_HOLD_SQL = {"gallery.decisions", "gallery.feedback", "gallery.sqlite", "gallery.sqlite_file", "gallery.adopting", "gallery.postgres", "gallery.postgres_database", "gallery.postgres_decisions", "gallery.postgres_feedback", "gallery.postgres_schema", "gallery.postgres_search", "gallery.postgres_server", "service.jobs"}


def sql_in(source: str) -> list[str]:
    "Texts that are SQL, and calls of `execute` and its like, whatever they are given."
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value): found.append(f"line {node.lineno}: {node.value[:40]}")
        elif isinstance(node, ast.Attribute) and node.attr in ("execute", "executemany", "executescript"): found.append(f"line {node.lineno}: .{node.attr}")
        elif isinstance(node, (ast.Import, ast.ImportFrom)) and "sqlite3" in ast.unparse(node): found.append(f"line {node.lineno}: sqlite3")
    return found


@pytest.mark.parametrize("source, is_sql", [
    ("rows('SELECT id FROM items')", True), ("f'SELECT {x} FROM y'", True), ("f'id IN (SELECT id FROM {x})'", True), ("run('PRAGMA quick_check')", True), ("c.execute(x)", True),
    ("import sqlite3", True), ("'DELETE FROM x'", True), ("'Select a picture from the list'", False), ("'Update the label, set it anew'", False)])
def test_sql_is_recognised(source, is_sql):
    assert bool(sql_in(source)) == is_sql


def test_sql_stands_in_the_chapters_of_the_stores_and_of_jobs_only():
    found = {name: sql_in((PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")) for name in module_places()}
    assert {name for name, lines in found.items() if lines} == MAY_HOLD_SQL, found


# --- the modules are what the notebooks export

@pytest.fixture
def check():
    "The script that `make test` runs as well."
    pytest.importorskip("nbdev", reason="nbdev is not installed: what it would export is not known")
    return importlib.import_module("check_notebooks")


@pytest.fixture
def project(check, tmp_path):
    "A copy of the project in which notebooks and modules agree, and the check."
    check.copy_project(ROOT, tmp_path)
    check.export_and_clean(tmp_path)
    return tmp_path, check.differences


@pytest.mark.soak
def test_modules_are_what_the_notebooks_export_and_notebooks_are_clean(check):
    assert check.differences(ROOT) == []


@pytest.mark.soak
def test_an_edited_a_missing_and_a_foreign_module_are_noticed(project):
    root, differences = project
    with (root / NAME / "images" / "opening.py").open("a") as file:
        file.write("\n# a line from outside the notebook\n")
    (root / NAME / "metrics" / "similarity.py").unlink()
    (root / NAME / "stray.py").write_text("answer = 42\n")
    found = differences(root)
    assert [line.split(":")[0] for line in found if "_modidx" not in line] == \
        [f"{NAME}/images/opening.py", f"{NAME}/metrics/similarity.py", f"{NAME}/stray.py"]


@pytest.mark.soak
def test_a_notebook_that_is_not_clean_is_noticed(project):
    root, differences = project
    path = root / "nbs" / "01_images/06_opening.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["execution_count"] = 7
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    assert differences(root) == ["nbs/01_images/06_opening.ipynb: differs from what nbdev would write"]


def test_the_version_is_the_one_in_settings():
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    assert image_similarity.__version__ == re.search(r"^version = (\S+)$", settings, re.MULTILINE)[1]


# --- the public names

def test_every_public_name_is_there():
    for name, module in public_modules().items():
        assert getattr(image_similarity, name) is getattr(importlib.import_module(f"{NAME}.{module}"), name)


def test_the_stubs_list_what_they_import():
    for stub in PACKAGE.rglob("__init__.pyi"):
        tree = ast.parse(stub.read_text(encoding="utf-8"))
        imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.module for alias in node.names]
        listed = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
        assert sorted(imported) == listed, stub


def test_every_public_name_is_handed_out_by_its_room_too():
    for name, module in public_modules().items():
        assert getattr(importlib.import_module(f"{NAME}.{module.split('.')[0]}"), name) is getattr(image_similarity, name)


def test_every_room_is_reachable_without_importing_it_first():
    rooms = sorted({name.split(".")[0] for name in module_places()})
    assert run(f"import {NAME} as s; print(*[getattr(s, room).__name__ for room in {rooms}])").split() == [f"{NAME}.{room}" for room in rooms]


def test_no_public_name_is_a_room_or_a_chapter():
    names = {*public_modules()}
    assert not names & {part for module in module_places() for part in module.split(".")}
    assert names <= set(dir(image_similarity))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = image_similarity.no_such_name


# --- what is loaded when

def run(code: str) -> str:
    "What `code` prints in a Python of its own."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_heavy(code: str) -> list[str]:
    "Which of the heavy packages are loaded after `code`."
    return run(f"import sys\n{code}\nprint('loaded:', *[m for m in {HEAVY} if m in sys.modules])").split("loaded:")[1].split()


def test_a_heavy_package_would_be_noticed():
    assert loaded_heavy("import matplotlib") == ["matplotlib"]


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_heavy(f"import {NAME}") == []


def test_opening_images_loads_nothing_heavy():
    assert loaded_heavy(f"from {NAME} import open_image, image_files") == []


def test_help_loads_nothing_heavy():
    assert loaded_heavy(f"sys.argv = ['{NAME}', '--help']\nfrom {NAME}.cli import main\n"
                        "try: main()\nexcept SystemExit as stop: assert not stop.code") == []


# --- what may not be in the repository

def test_notebooks_are_small():
    assert [p.name for p in notebooks() if p.stat().st_size > 500_000] == []


def texts(notebook: Path) -> str:
    "A notebook without its pictures."
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            output["data"] = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
    return json.dumps(content)


def test_notebooks_name_no_folder_of_the_machine_they_ran_on():
    foreign = re.compile(r"""(?<![\w.~/-])/(?:work|home|root|Users)/""")
    assert foreign.search("in /home/someone/x") and not foreign.search("https://example.org/home/x")
    assert [p.name for p in notebooks() if foreign.search(texts(p))] == []


def unsafe_calls(source: str) -> list[str]:
    "Calls that run whatever a file tells them to: pickle, and torch.load without weights_only=True."
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if called == "torch.load" and keywords.get("weights_only") is not True \
                or re.fullmatch(r"(c?pickle|dill|cloudpickle|joblib|marshal|shelve)\.(load|loads|open|Unpickler)", called) \
                or called in ("load_learner", "yaml.load", "eval", "exec") \
                or keywords.get("allow_pickle") is True:
            found.append(f"line {node.lineno}: {called}")
    return found


@pytest.mark.parametrize("source, is_unsafe", [
    ("torch.load(f)", True), ("torch.load(f, weights_only=False)", True), ("torch.load(f, weights_only=True)", False),
    ("pickle.load(f)", True), ("pickle.dumps(x)", False), ("np.load(f, allow_pickle=True)", True), ("np.load(f)", False),
    ("model.eval()", False), ("json.load(f)", False)])
def test_unsafe_calls_are_recognised(source, is_unsafe):
    assert bool(unsafe_calls(source)) == is_unsafe


MAY_UNPICKLE = {"image_similarity/learners/exported.py", "nbs/06_learners/20_exported.ipynb"} # a learner that fastai exported is a pickle, and is read only where the user says `--trust`


def test_nothing_reads_a_file_that_could_run_code_but_exported_learners_that_are_trusted():
    sources = {p.relative_to(ROOT): p.read_text(encoding="utf-8")
               for folder in ("image_similarity", "benchmarks", ".ci") for p in (ROOT / folder).rglob("*.py")}
    for notebook in notebooks():
        lines = "\n".join(cells(notebook)).splitlines()
        sources[notebook.relative_to(ROOT)] = "\n".join(line for line in lines if not re.match(r"\s*[%!]", line))
    found = {name.as_posix(): calls for name, source in sources.items() if (calls := unsafe_calls(source))}
    assert {name: [call.partition(": ")[2] for call in calls] for name, calls in found.items()} == dict.fromkeys(MAY_UNPICKLE, ["load_learner"])


@pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_photograph_and_no_large_file_is_kept():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert [p.name for p in files if p.suffix.lower() in {".jpg", ".jpeg", ".webp", ".gif", ".heic"}] == []
    assert [p.name for p in files if p.stat().st_size > 1_000_000] == []
