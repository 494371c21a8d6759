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


def order(stem: str) -> tuple[int, str]:
    "Where a notebook stands: `00_images` before `00a_painting` before `01_datasets`."
    number, letter = re.match(r"(\d+)([a-z]*)_", stem).groups()
    return int(number), letter


def module_order() -> dict[str, tuple[int, str]]:
    "Each module with the place of the notebook that exports it."
    found = {}
    for notebook in NBS.glob("[0-9]*.ipynb"):
        names = re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(cells(notebook)), re.MULTILINE)
        assert len(names) <= 1, f"{notebook.name} has more than one default_exp"
        for name in names:
            assert name not in found, f"two notebooks export {name}"
            found[name] = order(notebook.stem)
    return found


def own_imports(source: str, modules) -> set[str]:
    "The modules of this package that `source` imports anywhere, inside functions too, and by name through importlib."
    found = set()
    for node in ast.walk(ast.parse(source)):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [NAME if node.level else None, node.module]))
            targets = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(rf"{NAME}\.\w+", node.value):
            targets = [node.value]
        for target in targets:
            package, _, rest = target.partition(".")
            name = rest.split(".")[0]
            name = image_similarity._module_of.get(name, name)  # `from image_similarity import open_image`
            if package == NAME and name in modules:
                found.add(name)
    return found


def test_notebooks_are_ordered_by_number_and_letter():
    assert sorted(["01_b", "00a_z", "10_a", "00_y", "02_c"], key=order) == ["00_y", "00a_z", "01_b", "02_c", "10_a"]


@pytest.mark.parametrize("source", [
    "from image_similarity.images import open_image", "from .images import open_image", "from . import images",
    "import image_similarity.images as im", "from image_similarity import open_image",
    "def f():\n    from .images import open_image", "import_module('image_similarity.images')"])
def test_every_way_to_import_is_seen(source):
    assert own_imports(source, ["images", "metrics"]) == {"images"}


def test_a_module_imports_only_from_lower_numbers():
    places = module_order()
    wrong = [f"{name} imports {other}" for name in places
             for other in own_imports((PACKAGE / f"{name}.py").read_text(encoding="utf-8"), places)
             if places[other] >= places[name]]
    assert not wrong


def test_every_module_comes_from_a_numbered_notebook():
    modules = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__", "_modidx"}
    assert modules == set(module_order())


def test_every_notebook_at_the_top_is_numbered_or_the_index():
    assert [p.name for p in NBS.glob("*.ipynb") if not re.match(r"\d+[a-z]?_", p.name)] == ["index.ipynb"]


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


def test_modules_are_what_the_notebooks_export_and_notebooks_are_clean(check):
    assert check.differences(ROOT) == []


def test_an_edited_a_missing_and_a_foreign_module_are_noticed(project):
    root, differences = project
    with (root / NAME / "images.py").open("a") as file:
        file.write("\n# a line from outside the notebook\n")
    (root / NAME / "similarity.py").unlink()
    (root / NAME / "stray.py").write_text("answer = 42\n")
    found = differences(root)
    assert [line.split(":")[0] for line in found if "_modidx" not in line] == \
        [f"{NAME}/images.py", f"{NAME}/similarity.py", f"{NAME}/stray.py"]


def test_a_notebook_that_is_not_clean_is_noticed(project):
    root, differences = project
    path = root / "nbs" / "00_images.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["execution_count"] = 7
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    assert differences(root) == ["nbs/00_images.ipynb: differs from what nbdev would write"]


def test_the_version_is_the_one_in_settings():
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    assert image_similarity.__version__ == re.search(r"^version = (\S+)$", settings, re.MULTILINE)[1]


# --- the public names

def test_every_public_name_is_there():
    for name in image_similarity.__all__:
        assert getattr(image_similarity, name) is getattr(
            importlib.import_module(f"{NAME}.{image_similarity._module_of[name]}"), name)


def test_every_module_is_reachable_without_importing_it_first():
    code = f"import {NAME} as s; print(*[getattr(s, m).__name__ for m in s._exports])"
    assert run(code).split() == [f"{NAME}.{module}" for module in image_similarity._exports]


def test_no_public_name_is_a_module_or_stands_for_two_things():
    modules = {p.stem for p in PACKAGE.glob("*.py")}
    names = [name for names in image_similarity._exports.values() for name in names]
    assert not modules.intersection(names)
    assert len(names) == len(set(names))
    assert set(names) <= set(dir(image_similarity))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        image_similarity.no_such_name


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


@pytest.mark.skipif(not (PACKAGE / "cli.py").exists(), reason="there is no command line yet")
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


def test_nothing_reads_a_file_that_could_run_code():
    sources = {p.relative_to(ROOT): p.read_text(encoding="utf-8")
               for folder in ("image_similarity", "benchmarks", ".ci") for p in (ROOT / folder).rglob("*.py")}
    for notebook in notebooks():
        lines = "\n".join(cells(notebook)).splitlines()
        sources[notebook.relative_to(ROOT)] = "\n".join(line for line in lines if not re.match(r"\s*[%!]", line))
    assert {str(name): found for name, source in sources.items() if (found := unsafe_calls(source))} == {}


@pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_photograph_and_no_large_file_is_kept():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert [p.name for p in files if p.suffix.lower() in {".jpg", ".jpeg", ".webp", ".gif", ".heic"}] == []
    assert [p.name for p in files if p.stat().st_size > 1_000_000] == []
