"The files for many machines, as far as they can be checked where neither containers nor Kubernetes run."
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from image_similarity.gallery.trial_server import free_port

RAY = str(Path(sys.executable).with_name("ray"))
FOLDER = Path(__file__).resolve().parents[2] / "many_machines"


def answers(port: int) -> bool:
    with socket.socket() as s: return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def compose() -> dict:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    assert "UNTRIED" in text
    return yaml.safe_load(text)


def test_two_services_share_a_database_and_a_folder(compose):
    services = compose["services"]
    one, two = services["one"], services["two"]
    assert {**one, "volumes": None} == {**two, "volumes": None} and "postgres" in one["build"]["args"]["EXTRAS"]
    shared = {volume.partition(":")[2] for volume in set(one["volumes"]) & set(two["volumes"])}
    assert shared == {"/data", "/data/collections.toml:ro"}
    found = tomllib.loads((FOLDER / "collections.toml").read_text(encoding="utf-8"))
    addresses = [urlsplit(address) for address in [found["jobs"], *found["collections"].values()]]
    database = services["db"]["environment"]
    assert {(a.hostname, a.username, a.path) for a in addresses} == {("db", database["POSTGRES_USER"], f"/{database['POSTGRES_DB']}")} and len({a.query for a in addresses}) == len(addresses)
    assert all(a.password is None for a in addresses)  # it is in the environment
    assert one["environment"]["PGPASSWORD"] == database["POSTGRES_PASSWORD"]
    assert services["db"]["image"].startswith("pgvector/pgvector:") and all(port.startswith("127.0.0.1:") for port in services["proxy"]["ports"])
    kept = {volume.split(":")[0] for service in services.values() for volume in service["volumes"] if not volume.startswith("./")}
    assert kept == set(compose["volumes"])
    assert all((FOLDER / volume.split(":")[0]).is_file() for service in services.values() for volume in service["volumes"] if volume.startswith("./"))


def test_the_collections_are_read_as_a_service_reads_them(tmp_path):
    pytest.importorskip("fastapi", reason="the service is not installed")
    from image_similarity.service.databases import read_databases
    databases = read_databases(FOLDER)
    assert list(databases.galleries) == ["pictures"] and databases.jobs


def test_the_proxy_knows_both_services_and_keeps_a_browser_with_one(compose):
    text = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
    assert "ip_hash;" in text and re.findall(r"server (\w+):8000", text) == ["one", "two"]
    assert text.count("{") == text.count("}")


@pytest.fixture(scope="module")
def pods() -> list[dict]:
    "The head, and a worker."
    spec = yaml.safe_load((FOLDER / "ray.yaml").read_text(encoding="utf-8"))["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_the_ray_cluster_has_a_token_and_the_version_that_was_tried(pods):
    text = (FOLDER / "ray.yaml").read_text(encoding="utf-8")
    cluster = yaml.safe_load(text)
    assert "UNTRIED" in text and (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    for pod in pods:
        container, = pod["template"]["spec"]["containers"]
        assert {"RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "PGPASSWORD"} <= {one["name"] for one in container["env"]}
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["template"]["spec"]["volumes"]}
        assert int(pod["rayStartParams"]["object-store-memory"]) >= 78_643_200  # Ray takes no less
        assert all(isinstance(value, str) for value in pod["rayStartParams"].values())  # KubeRay refuses numbers
    wanted = re.search(r"cluster_requirements = ray>=([\d.]+)", (FOLDER.parent / "settings.ini").read_text(encoding="utf-8"))
    assert tuple(map(int, cluster["spec"]["rayVersion"].split(".")[:2])) >= tuple(map(int, wanted[1].split(".")))


@pytest.mark.soak
def test_ray_starts_as_kuberay_would_start_it_and_answers_the_probes(pods, monkeypatch):
    pytest.importorskip("ray", reason="the extra [cluster] is not installed")
    place, gcs, running = tempfile.mkdtemp(prefix="ray-"), free_port(), []  # sockets lie there, whose paths are short
    for name, value in (("RAY_AUTH_MODE", "token"), ("RAY_AUTH_TOKEN", "0123456789abcdef"), ("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_TMPDIR", place)): monkeypatch.setenv(name, value)
    try:
        for pod, more in zip(pods, (["--head", f"--port={gcs}"], [f"--address=127.0.0.1:{gcs}", "--num-cpus=1"])):
            container, = pod["template"]["spec"]["containers"]
            probed = {container[probe]["tcpSocket"]["port"] for probe in ("readinessProbe", "livenessProbe")}
            command = [RAY, "start", "--block", *more, *(f"--{name}={value}" for name, value in pod["rayStartParams"].items())]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            wanted = {gcs if port == 6379 else port for port in probed}  # which is the head's where none is given
            until = time.monotonic() + 120
            while not all(answers(port) for port in wanted):
                assert running[-1].poll() is None and time.monotonic() < until, command
                time.sleep(.2)
        assert subprocess.run([RAY, "health-check", "--address", f"127.0.0.1:{gcs}"], timeout=120).returncode == 0  # as workers wait for the head
        stranger = subprocess.run([RAY, "health-check", "--address", f"127.0.0.1:{gcs}"], timeout=120, env={**os.environ, "RAY_AUTH_TOKEN": "another"}, capture_output=True)
        assert stranger.returncode != 0
    finally:
        for process in reversed(running): process.terminate()
        for process in running: process.wait(60)
        shutil.rmtree(place, ignore_errors=True)
