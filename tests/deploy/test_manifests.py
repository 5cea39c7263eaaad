"""The manifests of Kubernetes agree with the server, with docker-compose.yml and each other."""

import itertools

import yaml
from attendant_server import __version__
from attendant_server.setting_sources import load_settings
from attendant_server.settings import Settings

from tests.support.kubernetes import (
    CONTAINER,
    DEPLOYMENT,
    KUBERNETES,
    POD,
    PORTS,
    SERVICES,
    VARIABLES,
    injected,
    objects,
)
from tests.support.monitoring import DASHBOARDS, PROMETHEUS, ROOT, documented_metrics

DEPLOY = ROOT / "deploy"
SERVER = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["server"]


def settings() -> Settings:
    """The settings of a server in a pod, even one that gets the variables of Services."""
    links = itertools.chain.from_iterable(injected(*each).items() for each in SERVICES.items())
    return load_settings([], dict(links) | VARIABLES)


def test_the_server_takes_its_variables_beside_those_of_services():
    assert injected("attendant", SERVICES["attendant"])["ATTENDANT_PORT"] == "tcp://10.96.0.7:50051"
    found = settings()
    assert (found.port, found.metrics_port, found.health_port) == (
        PORTS["grpc"],
        PORTS["metrics"],
        PORTS["health"],
    )
    assert POD["enableServiceLinks"] is False


def test_a_pod_is_killed_only_after_the_server_has_drained():
    found = settings()
    seconds = found.lame_duck_seconds + found.drain_seconds
    assert POD["terminationGracePeriodSeconds"] >= seconds + 10
    assert found.drain_seconds >= found.max_request_seconds
    readiness = CONTAINER["readinessProbe"]
    assert found.lame_duck_seconds >= readiness["periodSeconds"] * readiness["failureThreshold"]
    assert "lifecycle" not in CONTAINER
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_all_probes_ask_the_port_without_tls():
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[name]["grpc"] == {"port": PORTS["health"]}


def test_the_container_may_do_no_more_than_with_compose():
    context = CONTAINER["securityContext"]
    assert context["readOnlyRootFilesystem"] is SERVER["read_only"]
    assert context["capabilities"]["drop"] == SERVER["cap_drop"]
    assert SERVER["security_opt"] == ["no-new-privileges:true"]
    assert context["allowPrivilegeEscalation"] is False
    mounted = [each["mountPath"] for each in CONTAINER["volumeMounts"]]
    assert mounted == SERVER["tmpfs"]
    user = f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}"
    assert f"USER {user}\n" in (ROOT / "Dockerfile").read_text()
    assert POD["automountServiceAccountToken"] is False


def test_image_limit_of_memory_and_version_are_those_of_compose():
    assert CONTAINER["image"] == SERVER["image"] == f"attendant:{__version__}"
    assert CONTAINER["resources"]["limits"]["memory"] == SERVER["mem_limit"].upper() + "i"
    chart = yaml.safe_load((DEPLOY / "helm" / "attendant" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_every_object_selects_the_pods_of_the_deployment():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    [budget], [policy] = objects("poddisruptionbudget.yaml"), objects("networkpolicy.yaml")
    selectors = [spec["selector"] for spec in SERVICES.values()]
    selectors += [DEPLOYMENT["spec"]["selector"]["matchLabels"]]
    selectors += [budget["spec"]["selector"]["matchLabels"]]
    selectors += [policy["spec"]["podSelector"]["matchLabels"]]
    for selector in selectors:
        assert selector.items() <= labels.items()
    targets = {port["targetPort"] for spec in SERVICES.values() for port in spec["ports"]}
    opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert targets == opened == PORTS.keys()


def test_autoscaling_reads_metrics_that_the_server_has():
    [hpa], [keda] = (
        objects(f"autoscaling/{name}.yaml") for name in ("horizontalpodautoscaler", "scaledobject")
    )
    names = [metric["pods"]["metric"]["name"] for metric in hpa["spec"]["metrics"]]
    assert names == ["attendant_queued_texts", "attendant_active_sentences"]
    assert all(documented_metrics()[name][0] == "gauge" for name in names)
    for name, trigger in zip(names, keda["spec"]["triggers"], strict=True):
        assert trigger["metadata"]["query"].startswith(f"sum({name}{{")
    goals = [metric["pods"]["target"]["averageValue"] for metric in hpa["spec"]["metrics"]]
    assert goals == [trigger["metadata"]["threshold"] for trigger in keda["spec"]["triggers"]]
    for scaled in (hpa["spec"]["scaleTargetRef"], keda["spec"]["scaleTargetRef"]):
        assert scaled["name"] == DEPLOYMENT["metadata"]["name"]


def test_rules_and_dashboards_are_those_of_the_repository():
    [rule] = objects("monitoring/prometheusrule.yaml")
    assert rule["spec"] == yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    found: dict[str, str] = {}
    for each in objects("monitoring/dashboards.yaml"):
        found |= each["data"]
    assert {name: text.strip() for name, text in found.items()} == {
        f"attendant-{path.name}": path.read_text().strip() for path in DASHBOARDS
    }


def test_prometheus_finds_every_pod_once_under_the_job_of_the_alerts():
    [monitor] = objects("monitoring/servicemonitor.yaml")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    metadata = [each["metadata"] for each in objects("services.yaml")]
    [found] = [each for each in metadata if wanted <= each["labels"].items()]
    assert found["labels"][monitor["spec"]["jobLabel"]] == "attendant"
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in SERVICES[found["name"]]["ports"]]
    [keda] = objects("autoscaling/scaledobject.yaml")
    for trigger in keda["spec"]["triggers"]:
        assert f'service="{found["name"]}"' in trigger["metadata"]["query"]


def test_kustomize_applies_every_file_that_is_not_optional():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
