"""Workers that join a cloud from outside, and what the command line lists of them."""

import json
import signal

from .people import APOTHIC


class JoinedWorker:
    """One `apothic worker join`, in front of the test; `before` are words that run it somewhere else."""

    def __init__(self, person, *options, data, before=(), **environment):
        self.log = data.with_suffix(".log")
        self.data = data
        with self.log.open("a") as log:
            self.process = person.popen(
                *before, APOTHIC, "worker", "join", "--data", data, *options,
                stdout=log, stderr=log, start_new_session=True, **environment,
            )  # fmt: skip

    @property
    def said(self):
        return self.log.read_text()

    def end(self, number=signal.SIGTERM):
        """Signal it and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


def token_file(person, name="token"):
    """Make a join token with the command that the documentation shows, in a file of its own."""
    file = person.home / name
    file.touch(mode=0o600)
    file.write_text(person.apothic("worker", "token").ok().out)
    return file


def listed(person):
    """Return the workers as the command line lists them, by name."""
    found = json.loads(person.apothic("worker", "list", "--json").ok().out)["items"]
    return {one["name"]: one for one in found}


def is_live(person, name):
    return listed(person).get(name, {}).get("status") == "live"
