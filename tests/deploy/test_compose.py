"""The deployment files agree with each other and with the server's requirements."""

import json
import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.monitoring import DASHBOARDS, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"


def pinned(file: str) -> dict[str, Version]:
    """The versions pinned in a requirements file and in the files that it includes."""
    found: dict[str, Version] = {}
    for line in (ROOT / "deploy" / "requirements" / file).read_text().splitlines():
        if line.startswith("-r "):
            found |= pinned(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            name, _, version = line.partition("==")
            found[name] = Version(version)
    return found


def test_every_service_is_hardened_and_of_one_exact_version():
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":v?\d+\.\d+\.\d+(-gpu)?$", service["image"])
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"PYTHON_IMAGE=\S+:3\.11\.\d+-slim-bookworm\n", dockerfile)
    assert "HEALTHCHECK" in dockerfile
    assert all("healthcheck" in SERVICES[name] for name in ("prometheus", "grafana"))


def test_only_grpc_is_open_to_the_network():
    ports = [port for service in SERVICES.values() for port in service["ports"]]
    assert {port for port in ports if not port.startswith("127.0.0.1:")} == {"50051:50051"}


def test_the_gpu_server_takes_the_place_of_the_other():
    server, gpu = SERVICES["server"], SERVICES["server-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["networks"]["default"]["aliases"] == ["server"]
    assert gpu["ports"] == server["ports"]


def test_what_compose_mounts_is_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume


def test_grafana_finds_prometheus_and_the_dashboards():
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"]
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "attendant.yml").read_text())[
        "providers"
    ]
    mounts = dict(volume.split(":")[:2][::-1] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"
    assert (ROOT / mounts[provider["options"]["path"]]) == DASHBOARDS[0].parent
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/overview.json"
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            expected = {"type": "prometheus", "uid": "${datasource}"}
            assert panel["type"] == "row" or panel["datasource"] == expected


def test_prometheus_scrapes_the_port_that_the_server_shows_its_metrics_on():
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = {c["job_name"]: c["static_configs"][0]["targets"] for c in config["scrape_configs"]}
    assert targets["attendant"] == ["server:9464"]
    assert "EXPOSE 50051 9464" in (ROOT / "Dockerfile").read_text()


def test_the_images_packages_are_what_the_server_asks_for():
    project = tomllib.loads((ROOT / "server" / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for device in ("cpu", "gpu"):
        installed = pinned(f"{device}.txt")
        for line in (
            project["dependencies"] + extras["tracing"] + extras["detection"] + extras[device]
        ):
            requirement = Requirement(line)
            if requirement.name != "attendant-protos":
                assert installed[requirement.name] in requirement.specifier
