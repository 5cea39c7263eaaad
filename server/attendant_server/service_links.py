"""The environment variables that Kubernetes sets for every service of a namespace.

For a service named ``attendant`` or ``attendant-...`` they have the prefix of the server's own
variables. ``ATTENDANT_PORT`` and ``ATTENDANT_METRICS_PORT`` are even names of settings.
"""

import re
from collections.abc import Mapping

_URL = r"(tcp|udp|sctp)://\S+"
_NUMBER = r"\d{1,5}"
_ADDRESS = r"[0-9a-fA-F.:]+"
_FORMS = (
    (r"\w+_SERVICE_HOST", _ADDRESS),
    (r"\w+_PORT", _URL),
    (r"\w+_PORT_\d+_(TCP|UDP|SCTP)", _URL),
    (r"\w+_PORT_\d+_(TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
    (r"\w+_PORT_\d+_(TCP|UDP|SCTP)_PORT", _NUMBER),
    (r"\w+_PORT_\d+_(TCP|UDP|SCTP)_ADDR", _ADDRESS),
)
"""Patterns of names and of their values. The value of a setting never has such a form."""
_SERVICE_PORT = re.compile(r"(\w+_SERVICE)_PORT(_\w+)?", re.ASCII)


def is_service_link(name: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes has set this variable, judged by its name and value."""
    value = environment[name]
    if found := _SERVICE_PORT.fullmatch(name):
        # The value is a plain number, as in a mistyped setting, so the service's address must be
        # set too.
        return f"{found[1]}_HOST" in environment and bool(re.fullmatch(_NUMBER, value, re.ASCII))
    return any(
        re.fullmatch(names, name, re.ASCII) and re.fullmatch(values, value, re.ASCII)
        for names, values in _FORMS
    )
