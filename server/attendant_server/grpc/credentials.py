"""TLS of the gRPC server. Every new connection gets the newest certificate."""

import grpc

from attendant_server.security.certificates import Certificate
from attendant_server.security.watching import WatchedFiles


def server_credentials(certificate: WatchedFiles[Certificate]) -> grpc.ServerCredentials:
    """Credentials that follow the watched files. Connections that are open keep theirs."""
    newest = certificate.value, _configuration(certificate.value)

    def fetch() -> grpc.ServerCertificateConfiguration:
        nonlocal newest
        value = certificate.value
        if value is not newest[0]:
            newest = value, _configuration(value)
        return newest[1]

    return grpc.dynamic_ssl_server_credentials(
        newest[1], fetch, certificate.value.client_authorities is not None
    )


def _configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificate.key, certificate.chain)], certificate.client_authorities
    )
