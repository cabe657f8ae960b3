"""A proxy that loses answers: the request arrives, the answer comes back to the proxy, and the client sees the end."""

import select
import socket
import threading
from urllib.parse import urlsplit

FIRST = b"Idempotency-Try: first"


class LossyProxy:
    """Loses the answer to every request whose key is sent for the first time; everything else passes.

    Attributes:
        lost: Answers that were lost.
    """

    def __init__(self, url):
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lost = 0
        self._open = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client):
        server = socket.create_connection(self._server)
        self._open |= {client, server}
        try:
            self._relay(client, server)
        finally:
            self._open -= {client, server}
            client.close()
            server.close()

    def _relay(self, client, server):
        loses, tail = False, b""
        while True:
            for end in select.select([client, server], [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                if end is client:
                    loses = loses or FIRST in tail + data
                    tail = data[-len(FIRST) :]
                    server.sendall(data)
                elif loses:
                    self.lost += 1
                    return
                else:
                    client.sendall(data)
