"""The variables that Kubernetes sets for every service of a namespace.

Beside a service named ``attendant`` or ``attendant-...`` they begin as our own variables do, and
``ATTENDANT_PORT`` and ``ATTENDANT_METRICS_PORT`` even have the names of settings.
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
"""Names, and the values that each has. A setting's own value never has such a form."""
_SERVICE_PORT = re.compile(r"(\w+_SERVICE)_PORT(_\w+)?", re.ASCII)


def is_service_link(name: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes has set this variable, as its name and its value say."""
    value = environment[name]
    if found := _SERVICE_PORT.fullmatch(name):
        # A plain number, as a mistyped setting has: its service's address must be beside it.
        return f"{found[1]}_HOST" in environment and bool(re.fullmatch(_NUMBER, value, re.ASCII))
    return any(
        re.fullmatch(names, name, re.ASCII) and re.fullmatch(values, value, re.ASCII)
        for names, values in _FORMS
    )
