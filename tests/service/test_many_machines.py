"The files for many machines, as far as they can be checked where neither containers nor Kubernetes run."
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "many_machines"


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


def test_the_ray_cluster_has_a_token_and_the_version_that_was_tried():
    text = (FOLDER / "ray.yaml").read_text(encoding="utf-8")
    cluster = yaml.safe_load(text)
    assert "UNTRIED" in text and (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    pods = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for pod in pods:
        container, = pod["template"]["spec"]["containers"]
        assert {"RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "PGPASSWORD"} <= {one["name"] for one in container["env"]}
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["template"]["spec"]["volumes"]}
        assert int(pod["rayStartParams"]["object-store-memory"]) >= 78_643_200  # Ray takes no less
    wanted = re.search(r"cluster_requirements = ray>=([\d.]+)", (FOLDER.parent / "settings.ini").read_text(encoding="utf-8"))
    assert tuple(map(int, cluster["spec"]["rayVersion"].split(".")[:2])) >= tuple(map(int, wanted[1].split(".")))
