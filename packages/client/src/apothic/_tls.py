"""TLS of one connection, without I/O: plain bytes in, encrypted bytes out, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

READ_SIZE = 64 * 1024


class Tls:
    """Client side of one TLS connection; certificates and host name are checked against the system's authorities.

    Args:
        host: Name that the certificate must be valid for.
    """

    def __init__(self, host: str) -> None:
        import ssl

        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._wants = (ssl.SSLWantReadError,)
        self._ended = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
        context: ssl.SSLContext = ssl.create_default_context()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete. Send `outgoing()` after every call.

        Raises:
            ssl.SSLError: The peer is not who it must be, or speaks no TLS.
        """
        try:
            self._object.do_handshake()
        except self._wants:
            return False
        return True

    def outgoing(self) -> bytes:
        """Return encrypted bytes that must be sent now; may be empty."""
        return self._outgoing.read()

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """Return `data` encrypted, together with whatever else must be sent."""
        self._object.write(data)
        return self._outgoing.read()

    def incoming(self, data: bytes) -> None:
        """Add received bytes; `b""` says that the stream ended."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def decrypt(self) -> bytes | None:
        """Return received plain bytes, `b""` at the end of the stream, or None when more bytes must come first."""
        try:
            return self._object.read(READ_SIZE)
        except self._wants:
            return None
        except self._ended:
            return b""
