"""A worker of the simulation: the real protocol state of a worker, and user code that does what the seed says.

Messages are real bytes that lie on the link until somebody delivers them, so that anything can happen in between.
"""

from collections import deque

import msgspec

from apothic.wire.lease import HEARTBEAT_S, grace_of
from apothic.wire.link import (
    Assign,
    Cancel,
    Finished,
    LogLine,
    Machine,
    Ping,
    Refused,
    RunnerEnded,
    RunnerRef,
    StartRunner,
    StopRunner,
    Welcome,
)
from apothic.wire.values import RemoteError, Value
from apothic_server.api.links.codec import decode_worker
from apothic_server.domain.errors import PlatformError
from apothic_worker.lease import Stage, stage
from apothic_worker.link_state import Drop, LinkState

from .checker import Execution

MACHINE = Machine("host", "sandbox", [], [], {}, 4, 8192, ["3.11"])


class SimLink:
    """One connection: the server's end, and what is on the way in both directions."""

    def __init__(self):
        self.to_worker = deque()
        self.to_server = deque()
        self.is_open = True

    def send(self, name, item):
        """The server sends."""
        if self.is_open:
            self.to_worker.append(msgspec.msgpack.encode({name: [item]}))

    def close(self, code, detail):
        """The server refuses the link: its last word is on the way."""
        self.send("refused", Refused(code, detail))
        self.is_open = False

    def supersede(self):
        """The server has a newer link of this worker."""
        self.is_open = False


class SimRun:
    """User code of one attempt."""

    def __init__(self, assign, token):
        self.assign = assign
        self.token = token
        self.began = None

    @property
    def key(self):
        return (self.assign.job, self.assign.fence)


class SimWorker:
    """One incarnation.

    Args:
        world: The simulation: its clock, its cloud, its ticks, its list of executions.
        number: Stands for the process id in the log of executions.
    """

    def __init__(self, world, number, name):
        self.world = world
        self.number = number
        self.name = name
        self.state = LinkState(incarnation=world.new_key(), name=name, machine=MACHINE, credit=16, wake=lambda _: None)
        self.specs = {}
        self.runs = {}
        self.link = None
        self.greeted = None
        self.is_frozen = False
        self.is_dead = False
        self.beat_at = 0.0
        self.echo = 0

    def __repr__(self):
        return f"{self.name}#{self.number}"

    # --- the link

    async def connect(self):
        """Dial in and be greeted; a worker whose lease is over ends."""
        links = self.world.cloud.links
        link = self.link = SimLink()
        self.state.open(self._now_ms(), [_described(spec) for spec in self.specs.values()])
        (hello,) = decode_worker(self.state.take()[0])["hello"]
        self.beat_at = self.world.clock.monotonic() + HEARTBEAT_S
        try:
            self.greeted = await links.opened(self.world.worker_actor, hello, link)
        except PlatformError as error:
            self.lose_link()
            if error.code == "fenced":
                self.die()

    def lose_link(self):
        """The connection breaks: what was on the way is lost."""
        link, self.link = self.link, None
        if link is not None:
            link.is_open = False
            self.state.close()
            if self.greeted is not None:
                self.world.cloud.links.closed(self.greeted, link)
            self.greeted = None

    async def serve_one(self):
        """The server acts on the oldest message of this worker."""
        link, worker = self.link, self.greeted
        if link is None or worker is None or not link.to_server or not link.is_open:
            return
        frame = decode_worker(link.to_server.popleft())
        links = self.world.cloud.links
        try:
            for heartbeat in frame["heartbeat"]:
                await links.heartbeat(worker, heartbeat)
            links.report(worker, frame)
        except PlatformError as error:
            link.close(error.code, error.detail)

    def receive_one(self):
        """The worker acts on the oldest message of the server."""
        link = self.link
        if link is None or self.is_frozen:
            return
        if not link.to_worker:
            if not link.is_open:
                self.lose_link()
            return
        for item in self.state.receive(link.to_worker.popleft()):
            self._act(item)
            if self.is_dead or self.link is None:
                return
        self.flush()

    def flush(self):
        """Put on the wire what the worker wants to say."""
        if self.link is not None and not self.is_frozen:
            self.link.to_server.extend(self.state.take())

    def beat(self):
        """Send a heartbeat when it is time; hang up when the last one was not answered."""
        now = self.world.clock.monotonic()
        if self.link is None or self.is_frozen or now < self.beat_at:
            return
        self.beat_at = now + HEARTBEAT_S
        if self.state.heartbeat(self._now_ms(), self.echo):
            self.flush()
        else:
            self.lose_link()

    def guard(self):
        """Stop user code when the lease runs out by the worker's own clock (G3.2)."""
        session, renewed = self.state.session, self.state.renewed_at_ms
        if self.is_frozen or session is None or renewed is None:
            return
        age_s = (self._now_ms() - renewed) / 1000
        for runner, spec in list(self.specs.items()):
            if stage(age_s, grace_of(spec.disconnect_grace_s, session.grace_s, session.heartbeat_s)) is not Stage.LIVE:
                for run in [run for run in self.runs.values() if run.assign.runner == runner]:
                    self.finish(run, "lost")
                del self.specs[runner]

    # --- what happens in it

    def start(self, run):
        """User code gets the call."""
        if run.began is None:
            run.began = self.world.tick()
            self.state.started(run.key)
            self.flush()

    def finish(self, run, outcome):
        """The attempt is over, and nothing of it runs any more."""
        self._stop(run, has_finished=outcome == "succeeded")
        value = Value("json", b'"' + run.token.encode() + b'"') if outcome == "succeeded" else None
        code = {"failed": "exception", "timed_out": "timeout"}.get(outcome, "worker_lost")
        error = None if outcome in ("succeeded", "cancelled") else RemoteError("ValueError", "no", "…", code)
        self.state.finished(Finished(run.assign.job, run.assign.fence, outcome, value, error))
        self.flush()

    def write(self, run, text):
        """User code writes a line."""
        self.state.logs(run.key, [LogLine("stdout", 0, text)])
        self.flush()

    def end_runner(self, runner):
        """A runner dies: its attempts end first, then it is reported."""
        for run in [run for run in self.runs.values() if run.assign.runner == runner]:
            self.finish(run, "lost")
        if self.specs.pop(runner, None) is not None:
            self.state.runner_ended(RunnerEnded(runner, "it died"))
            self.flush()

    def die(self):
        """The process is gone, with everything below it."""
        self.lose_link()
        self.is_dead = True
        for run in list(self.runs.values()):
            self._stop(run, has_finished=False)
        self.specs.clear()

    def _act(self, item):
        match item:
            case StartRunner():
                self.specs[item.runner] = item
            case StopRunner():
                if any(run.assign.runner == item.runner for run in self.runs.values()):
                    self.world.found("G2.7", item.runner, "was told to stop while it had work")
                self.end_runner(item.runner)
            case Assign():
                self._assign(item)
            case Cancel():
                run = self.runs.get((item.job, item.fence))
                if run is not None:
                    self.finish(run, "cancelled")
            case Drop():
                for key in item.attempts:
                    if key in self.runs:
                        self._stop(self.runs[key], has_finished=False)
                for runner in item.runners:
                    self._drop_runner(runner)
            case Refused():
                if item.code == "fenced":
                    self.die()
                else:
                    self.lose_link()
            case Ping():
                self.echo = item.number
            case Welcome():
                self.echo = 0
                self.beat_at = self.world.clock.monotonic() + HEARTBEAT_S
            case _:
                pass

    def _assign(self, item):
        spec = self.specs.get(item.runner)
        if spec is None:
            error = RemoteError("apothic.WorkerLost", "the runner has ended", "", "worker_lost")
            self.state.finished(Finished(item.job, item.fence, "lost", None, error))
            return
        token = msgspec.json.decode(item.arguments.data)[0][0]
        self.runs[item.job, item.fence] = SimRun(item, token)
        busy = sum(run.assign.runner == item.runner for run in self.runs.values())
        if busy > spec.tasks:
            self.world.found("G2.7", item.runner, f"has {busy} attempts and room for {spec.tasks}")
        if sum(run.assign.job == item.job for run in self.runs.values()) > 1:
            self.world.found("I4", item.job, "was granted twice to one worker")

    def _drop_runner(self, runner):
        for run in [run for run in self.runs.values() if run.assign.runner == runner]:
            self._stop(run, has_finished=False)
        self.specs.pop(runner, None)

    def _stop(self, run, *, has_finished):
        self.runs.pop(run.key, None)
        if run.began is not None:
            ended = self.world.tick()
            self.world.executions.append(
                Execution(token=run.token, pid=self.number, began=run.began, ended=ended, has_finished=has_finished)
            )

    def _now_ms(self):
        return int(self.world.clock.monotonic() * 1000)


def _described(spec):
    return RunnerRef(spec.runner, spec.org, spec.deployment, spec.function, spec.cpu, spec.memory_mb, spec.tasks)
