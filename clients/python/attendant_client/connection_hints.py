"""Says what to do about connections that fail, as far as gRPC's message tells the cause."""

_HINTS = (
    (
        "backend unhealthy",
        "No server of the target is serving: they are loading their models or stopping.",
    ),
    (
        "certificate has expired",
        "The server's certificate has expired.",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "The client does not trust the server's certificate: give the authority that issued it "
        "(tls_ca, --tls-ca).",
    ),
    (
        "ostname Verification Check failed",
        "The server's certificate is for another host name: use that name in the target.",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "The server does not speak TLS on this port: use a target without grpcs:// and --tls.",
    ),
    (
        "Socket closed",
        "The server ended the connection at once. If it speaks TLS, use a target with grpcs://; "
        "if it asks for client certificates, give one that it accepts (tls_cert and tls_key, "
        "--cert and --key).",
    ),
)
"""A part of gRPC's message, and the hint. The first that fits counts."""
_NOT_CONNECTED = ("failed to connect", "connections to all backends failing")
"""How gRPC begins its message, with one and with several servers."""


def connection_hint(message: str) -> str:
    """The hint for the message of a failed connection; empty if there is none."""
    if not any(beginning in message for beginning in _NOT_CONNECTED):
        return ""
    return next((hint for part, hint in _HINTS if part in message), "")
