"""The Helm chart: Helm's own checks, the schemas of what it gives, and its refusals.

`make check` runs these tests in an environment of their own, which has Helm and the schemas.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.manifests import CHART, manifests, rendered

pytestmark = pytest.mark.charts

ROOT = Path(__file__).parents[2]
NEWEST, OLDEST = "1.37.0", "1.29.0"
"""The versions of Kubernetes whose schemas the manifests are compared with."""
CHOICES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "imagePullSecrets": [{"name": "registry"}],
        "settings": {"models": ["en-de", "de-en"], "max_held_bytes": 8589934592, "host": "::"},
        "bundles": {"claim": "bundles"},
        "tls": {"secret": "certificate", "requireClientCertificates": True},
        "apiKeys": {"secret": "keys"},
        "bundleKeys": {"configMap": "keys"},
        "glossaries": {"configMap": "glossaries"},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "networkPolicy": {"egress": [{"to": [{"podSelector": {}}]}]},
        "autoscaling": {"kind": "keda"},
        "monitoring": {
            "serviceMonitor": True,
            "rules": True,
            "dashboards": True,
            "labels": {"a": "b"},
        },
        "podLabels": {"a": "b"},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
    },
    "url": {
        "bundles": {"url": "s3://bucket/models", "cacheSize": "30Gi", "credentials": "store"},
        "http": {"enabled": True},
        "settings": {"max_bundles_cache_bytes": 30000000000},
    },
    "hpa": {"autoscaling": {"kind": "hpa"}},
    "gpu": {
        "image": {"tag": "0.1.0-gpu"},
        "settings": {"device": "cuda"},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    },
}
IMAGE_VOLUME = {"bundles": {"image": "registry.example/bundles:1"}}


def objects(values: dict[str, Any]) -> list[Any]:
    texts = rendered(values)
    texts.pop("NOTES")
    return [each for text in texts.values() for each in yaml.safe_load_all(text) if each]


def pod(values: dict[str, Any]) -> Any:
    [found] = [each for each in objects(values) if each["kind"] == "Deployment"]
    return found["spec"]["template"]["spec"]


def variables(values: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod(values)["containers"][0]["env"]}


def problems(found: Any, version: str) -> str:
    """What the schemas say against an object; empty for nothing."""
    import kubernetes_validate
    from cloudcoil.models.keda.v1alpha1 import ScaledObject
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

    models = {model.__name__: model for model in (ScaledObject, PrometheusRule, ServiceMonitor)}
    if model := models.get(found["kind"]):
        # The models drop what they do not know.
        read = model.model_validate(found).model_dump(
            by_alias=True, exclude_unset=True, mode="json"
        )
        return "" if read == found else f"{read} instead of {found}"
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{found['kind']}: {error.message}"
    return ""


def test_the_manifests_in_the_repository_are_what_the_chart_gives():
    folder = ROOT / "deploy" / "kubernetes"
    written = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.yaml")}
    assert written == manifests(), "run `make manifests`"


@pytest.mark.parametrize("choice", CHOICES)
def test_helm_finds_no_fault_in_the_chart(choice):
    import helm_python

    found = helm_python.lint(CHART, CHOICES[choice], strict=True)
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_all_objects_follow_their_schemas(choice, version):
    assert [
        problem for each in objects(CHOICES[choice]) if (problem := problems(each, version))
    ] == []


def test_bundles_may_be_the_volume_of_an_image_where_kubernetes_has_them():
    found = {problem for each in objects(IMAGE_VOLUME) if (problem := problems(each, NEWEST))}
    assert found == set()
    assert {problem for each in objects(IMAGE_VOLUME) if (problem := problems(each, OLDEST))}


def test_the_schemas_find_mistakes_in_every_kind_of_object():
    for each in objects(CHOICES["everything"]) + objects(CHOICES["hpa"]):
        broken = (
            each | {"bogus": 1}
            if "spec" not in each
            else each | {"spec": each["spec"] | {"bogus": 1}}
        )
        assert problems(broken, NEWEST), each["kind"]


def test_values_of_settings_become_the_text_that_the_server_reads():
    found = variables(CHOICES["everything"])
    assert found["ATTENDANT_MODELS"] == "en-de,de-en"
    assert found["ATTENDANT_MAX_HELD_BYTES"] == "8589934592"
    assert (
        variables({"settings": {"max_batch_seconds": 0.25}})["ATTENDANT_MAX_BATCH_SECONDS"]
        == "0.25"
    )


def test_bundles_from_a_url_are_cached_on_a_volume_that_can_be_written():
    found = variables(CHOICES["url"])
    assert found["ATTENDANT_BUNDLES"] == "s3://bucket/models"
    [container] = pod(CHOICES["url"])["containers"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert "readOnly" not in mounts[found["ATTENDANT_BUNDLES_CACHE_DIR"]]
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]


def test_the_port_of_http_is_open_in_services_and_for_callers():
    for each in objects(CHOICES["url"]):
        if each["kind"] == "Service":
            assert {"name": "http", "port": 8080, "targetPort": "http"} in each["spec"]["ports"]
        if each["kind"] == "NetworkPolicy":
            assert {"protocol": "TCP", "port": "http"} in each["spec"]["ingress"][0]["ports"]
    assert variables(CHOICES["url"])["ATTENDANT_HTTP_PORT"] == "8080"
    assert "ATTENDANT_HTTP_PORT" not in variables({})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"replica": 2}, "replica"),
        ({"settings": {"port": 1}}, "port"),
        ({"settings": {"ATTENDANT_PORT": 1}}, "ATTENDANT_PORT"),
        ({"settings": {"http_port": 1}}, "http_port"),
        ({"drainSeconds": 30}, "at least settings.max_request_seconds"),
        ({"settings": {"max_request_seconds": 90}}, "at least settings.max_request_seconds"),
        ({"bundles": {"claim": "a", "image": "b"}}, "exclude each other"),
        ({"bundles": {"claim": "a", "url": "https://b"}}, "exclude each other"),
        ({"autoscaling": {"kind": "cpu"}}, "autoscaling"),
    ],
)
def test_values_that_would_do_harm_are_refused(values, problem):
    import helm_python

    with pytest.raises(helm_python.HelmError, match=problem):
        rendered(values)


def test_longer_drains_give_pods_more_time():
    values = {"drainSeconds": 600, "lameDuckSeconds": 20}
    assert pod(values)["terminationGracePeriodSeconds"] == 635


def test_a_packaged_chart_has_the_rules_and_dashboards(tmp_path):
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        archive = Path(chart.save(tmp_path))
    with helm_python.Chart.load_archive(archive.read_bytes()) as chart:
        values = {"monitoring": {"serviceMonitor": True, "rules": True, "dashboards": True}}
        found = chart.render(values, name="attendant", namespace="attendant")
    assert "AttendantDown" in found["attendant/templates/prometheusrule.yaml"]
    assert "attendant: engine" in found["attendant/templates/dashboards.yaml"]
