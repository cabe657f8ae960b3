"""Owns an embedded server in a process of its own: `launcher_child.py FOLDER UID PG_USER PROGRAMS`.

Drops to UID when it is not the own one, starts, prints what it has as one JSON line, and stops after a line on standard
input. PG_USER may be empty. A refusal is printed as its code.
"""

import asyncio
import concurrent.futures.thread
import encodings.ascii
import encodings.idna
import json
import os
import sys
from pathlib import Path

from apothic_server.store.errors import StoreError
from apothic_server.store.launcher import EmbeddedPostgres


async def own(folder, pg_user, programs):
    server = EmbeddedPostgres(folder, pg_user=pg_user or None, binaries=programs)
    try:
        address = await server.start()
    except StoreError as error:
        print(json.dumps({"code": error.code, "detail": error.detail}), flush=True)
        return
    print(json.dumps({"host": address.host, "password": address.password}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop()
    print(json.dumps({"stopped": True}), flush=True)


folder, uid, pg_user, programs = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
if uid != os.geteuid():
    # From here on the interpreter's own folder may be closed to us, so what it loads late was imported above.
    assert concurrent.futures.thread and encodings.ascii and encodings.idna
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
asyncio.run(own(folder, pg_user, programs))
