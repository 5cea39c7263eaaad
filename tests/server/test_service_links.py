import pytest
from attendant_server.service_links import is_service_link
from attendant_server.setting_sources import load_settings
from attendant_server.settings import Settings

from tests.server.test_settings import problems_of


def links(service: str, host: str = "10.96.7.8", port: int = 50051) -> dict[str, str]:
    """Variables that Kubernetes sets for a service with a port named ``grpc``."""
    name = service.upper().replace("-", "_")
    url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    return {
        f"{name}_SERVICE_HOST": host,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_GRPC": str(port),
        f"{name}_PORT": url,
        f"{name}_PORT_{port}_TCP": url,
        f"{name}_PORT_{port}_TCP_PROTO": "tcp",
        f"{name}_PORT_{port}_TCP_PORT": str(port),
        f"{name}_PORT_{port}_TCP_ADDR": host,
    }


@pytest.mark.parametrize(
    "service", ["attendant", "attendant-metrics", "attendant-en-de", "attendant-port"]
)
@pytest.mark.parametrize("host", ["10.96.7.8", "fd00::7"])
def test_a_server_beside_a_service_of_its_name_has_the_default_settings(service: str, host: str):
    assert load_settings([], links(service, host)) == Settings()


def test_a_setting_beside_service_links_is_still_read():
    environment = links("attendant") | {"ATTENDANT_PORT": "7", "ATTENDANT_MAX_ROWS": "16"}
    settings = load_settings([], environment)
    assert (settings.port, settings.max_rows) == (7, 16)
    assert load_settings(["--port", "8"], links("attendant")).port == 8


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:53", "udp://10.0.0.1:53", "sctp://10.0.0.1:53"])
def test_every_protocol_of_a_service_is_known(value: str):
    protocol = value.partition(":")[0]
    name = f"ATTENDANT_PORT_53_{protocol.upper()}"
    environment = {name: value, f"{name}_PROTO": protocol, "ATTENDANT_PORT": value}
    assert all(is_service_link(name, environment) for name in environment)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATTENDANT_PROT", "50052"),
        ("ATTENDANT_PORTS", "tcp://10.0.0.1:50051"),
        ("ATTENDANT_METRIC_PORT", "9465"),
        ("ATTENDANT_SERVICE_PORT", "50052"),
        ("ATTENDANT_SERVICE_HOST", "attendant.example"),
        ("ATTENDANT_SERVICE_HOSTS", "10.0.0.1"),
        ("ATTENDANT_PORT_50051_TCP", "50052"),
        ("ATTENDANT_PORT_GRPC_TCP", "tcp://10.0.0.1:50051"),
        ("ATTENDANT_MAX_ROW", "16"),
    ],
)
def test_a_mistyped_setting_is_not_taken_for_a_service_link(name: str, value: str):
    assert problems_of([], {name: value}) == (f"{name}: unknown variable",)


def test_a_mistyped_setting_beside_a_service_is_refused():
    environment = links("attendant") | {"ATTENDANT_METRIC_PORT": "9465"}
    assert problems_of([], environment) == ("ATTENDANT_METRIC_PORT: unknown variable",)


def test_a_bad_port_is_not_taken_for_a_service_link():
    [problem] = problems_of([], {"ATTENDANT_PORT": "http://10.0.0.1:50051"})
    assert problem.startswith("port: ")
