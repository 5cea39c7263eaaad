"""Writes the plain manifests of Kubernetes from the Helm chart, which is their only source.

    python -m deploy.manifests deploy/kubernetes

Needs helm-python-sdk, which is Helm itself as a library, and no cluster.
"""

import sys
from pathlib import Path
from typing import Any

CHART = Path(__file__).parent / "helm" / "attendant"
NAME = NAMESPACE = "attendant"
HEADER = "# Written by `make manifests` from deploy/helm/attendant: change the chart.\n"
BASE = ("deployment", "networkpolicy", "poddisruptionbudget", "serviceaccount", "services")
"""The templates that every installation needs, with the default values."""
MONITORING = dict.fromkeys(("serviceMonitor", "rules", "dashboards"), True)
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "servicemonitor": ("monitoring", {"monitoring": MONITORING}),
    "prometheusrule": ("monitoring", {"monitoring": MONITORING}),
    "dashboards": ("monitoring", {"monitoring": MONITORING}),
    "horizontalpodautoscaler": ("autoscaling", {"autoscaling": {"kind": "hpa"}}),
    "scaledobject": ("autoscaling", {"autoscaling": {"kind": "keda"}}),
}
"""Further templates, each with its folder and the values that it needs."""
KUSTOMIZATION = f"""{HEADER}apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {NAMESPACE}
resources:
"""


def rendered(values: dict[str, Any]) -> dict[str, str]:
    """The text of each template, by its name; raises HelmError for values that the chart refuses.

    Templates that give nothing with these values are left out.
    """
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        found = chart.render(values, name=NAME, namespace=NAMESPACE)
    return {Path(path).stem: text.strip() + "\n" for path, text in found.items() if text.strip()}


def manifests() -> dict[str, str]:
    """The files of ``deploy/kubernetes``, by their paths in it."""
    base = rendered({})
    files = {f"{name}.yaml": HEADER + base[name] for name in BASE}
    for name, (folder, values) in OPTIONS.items():
        files[f"{folder}/{name}.yaml"] = HEADER + rendered(values)[name]
    resources = "".join(f"  - {name}.yaml\n" for name in BASE)
    return files | {"kustomization.yaml": KUSTOMIZATION + resources}


if __name__ == "__main__":
    for path, text in manifests().items():
        file = Path(sys.argv[1]) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
