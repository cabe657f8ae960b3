"""A proxy that does TLS in front of a server, as installations have one; its certificate is for `localhost`."""

import asyncio
import ssl
import threading
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from .people import ROOT

CERTIFICATE = ROOT / "packages/client/tests/sdk/localhost.pem"


@contextmanager
def tls_in_front_of(url):
    """Run the proxy until the block ends; yields its address."""
    parts = urlsplit(url)
    loop = asyncio.new_event_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def serve(reader, writer):
        there_reader, there_writer = await asyncio.open_connection(parts.hostname, parts.port)
        ways = [asyncio.create_task(relay(*way)) for way in ((reader, there_writer), (there_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, there_writer):
                end.transport.abort()

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def relay(reader, writer):
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def stop(server):
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
