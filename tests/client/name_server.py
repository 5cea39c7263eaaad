"""A name server for tests, which answers every question with the same addresses."""

import socket
import struct
import threading
from typing import Self

TYPE_A = 1


class NameServer:
    """Resolves every name to `addresses`, IPv4; use it as a context manager.

    `target(port)` is a target whose name this server resolves.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # ends the thread
        self._thread.join()
        self._socket.close()

    def target(self, port: int) -> str:
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/servers.test:{port}"

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        """The header, the question, and one record for each address (RFC 1035)."""
        question = query[12 : query.index(b"\0", 12) + 5]
        kind = struct.unpack(">H", question[-4:-2])[0]
        addresses = self.addresses if kind == TYPE_A else []
        records = [
            struct.pack(">HHHIH", 0xC00C, TYPE_A, 1, 0, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
        return header + question + b"".join(records)
