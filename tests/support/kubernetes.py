"""The manifests of Kubernetes for tests, and what Kubernetes would make of them."""

from typing import Any

import yaml

from tests.support.monitoring import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"


def objects(path: str) -> list[Any]:
    """All objects in a file of ``deploy/kubernetes``."""
    return [each for each in yaml.safe_load_all((KUBERNETES / path).read_text()) if each]


[DEPLOYMENT] = objects("deployment.yaml")
SERVICES = {each["metadata"]["name"]: each["spec"] for each in objects("services.yaml")}
POD = DEPLOYMENT["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
VARIABLES = {each["name"]: each["value"] for each in CONTAINER["env"]}
PORTS = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}


def injected(name: str, spec: Any) -> dict[str, str]:
    """The variables that Kubernetes would set in pods for a Service with an address."""
    if spec.get("clusterIP") == "None":
        return {}
    prefix, address = name.upper().replace("-", "_"), "10.96.0.7"
    first = spec["ports"][0]["port"]
    found = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(first),
        f"{prefix}_PORT": f"tcp://{address}:{first}",
    }
    for port in spec["ports"]:
        number = port["port"]
        link = f"{prefix}_PORT_{number}_TCP"
        found[f"{prefix}_SERVICE_PORT_{port['name'].upper()}"] = str(number)
        found |= {link: f"tcp://{address}:{number}", f"{link}_PROTO": "tcp"}
        found |= {f"{link}_PORT": str(number), f"{link}_ADDR": address}
    return found
