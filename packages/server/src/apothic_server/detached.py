"""`apothic up --detach`: a start in the background, and the word of how it went."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click

from apothic_server.identity import START_LOG
from apothic_server.settings import Settings
from apothic_server.telling import Form, UpFailed


def detach_cloud(settings: Settings, form: Form) -> None:
    """Run the same command in the background and return when the cloud is ready. Its data folder is there.

    Raises:
        UpFailed: It does not start.
    """
    data = settings.data
    reading, writing = os.pipe()
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--detach", "-d")]
    with (data / START_LOG).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "apothic", *arguments, "--ready-fd", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    if told.startswith("ready "):
        if form.is_for_programs:
            form.print_document(json.loads(told.removeprefix("ready ")))
            return
        click.echo(
            (data / START_LOG).read_text().replace("Ctrl-C stops it.", f"`apothic down` stops it (pid {child.pid})."),
            nl=False,
            err=True,
        )
        return
    if told:
        status, code, message = told.split(" ", 2)
        raise UpFailed(message, int(status), code)
    said = (data / START_LOG).read_text().strip()
    raise UpFailed(said or "the cloud did not start", child.wait() or 1, "internal")
