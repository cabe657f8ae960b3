"""What the maps of a run are: their items, and what each item has to give. Pure, and the same for every side."""

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b

APP = "chaosmaps"
RETRIES = {"steady": 20, "fan": 20, "weak": 1, "plain": 0}
"""`max_retries` of the app's functions."""

LINES = 2
"""Lines that an item writes which writes any."""

BASE = 10**9


@dataclass(frozen=True, kw_only=True)
class MapSpec:
    """One map.

    Attributes:
        tag: Number of the map, unlike all others of the run.
        verb: How its client maps: `map`, `starmap`, `unordered`, `raises` or `spawn`.
        key: Empty for none; with one, a client that dies is followed by another.
        stop_after: As in the SDK.
        cancel: What a second client cancels: `group`, `items` or nothing.
        cancel_after_s: When it does, in seconds after the beginning.
        kills: Seconds after which the client is killed, once for each of its first processes.
        pace_s: Pause of the client before each item.
        fails, flaky, says, long: Shares of items that always fail, fail the first time, write output, take long.
    """

    tag: int
    function: str = "steady"
    verb: str = "map"
    items: int = 10_000
    key: str = ""
    stop_after: int | None = None
    cancel: str = ""
    cancel_after_s: float = 0.0
    kills: tuple[float, ...] = ()
    pace_s: float = 0.0
    fails: float = 0.0
    flaky: float = 0.0
    says: float = 0.0
    long: float = 0.0

    def text(self):
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text):
        """Return what `text` made."""
        told = json.loads(text)
        return MapSpec(**{**told, "kills": tuple(told["kills"])})


def does(spec, number):
    """Return what an item does beside its work: `fail`, `flaky`, `say`, `long` or nothing."""
    told = blake2b(f"{spec.tag} {number}".encode(), digest_size=4).digest()
    chance = int.from_bytes(told, "big") / 2**32
    for name, share in (("fail", spec.fails), ("flaky", spec.flaky), ("say", spec.says), ("long", spec.long)):
        if chance < share:
            return name
        chance -= share
    return ""


def item(spec, number):
    """Return what the function is called with."""
    return [spec.tag, number, does(spec, number)]


def value(spec, number):
    """Return what an item gives that succeeds; no two items of a run give the same."""
    return spec.tag * BASE + number * number


def token(spec, number):
    """Return the name under which user code tells of an item."""
    return f"{spec.tag}-{number}"


FAILS, FLAKY, SAYS, LONG = 0.001, 0.001, 0.01, 0.002


@dataclass(frozen=True)
class Shape:
    """A kind of map: what all of this kind have in common, and what chance leaves open."""

    name: str
    common: dict = field(default_factory=dict)
    is_keyed: bool = True
    kills: int = 0
    is_paced: bool = False


SHAPES = (
    Shape("fed by clients that are killed", {"flaky": FLAKY, "long": LONG}, kills=2, is_paced=True),
    Shape("handed on as items end", {"verb": "unordered", "flaky": FLAKY}, kills=1),
    Shape("sent, then waited for", {"verb": "spawn", "flaky": FLAKY, "long": LONG}, is_keyed=False),
    Shape("spread, with output", {"verb": "starmap", "says": SAYS, "flaky": FLAKY}, kills=1),
    Shape("several in one process", {"function": "fan", "flaky": FLAKY}, is_paced=True),
    Shape("with failures", {"function": "weak", "verb": "raises", "fails": FAILS, "says": SAYS}),
    Shape("without retries", {"function": "plain", "fails": FAILS}),
    Shape("stopped after failures", {"function": "weak", "stop_after": 4, "fails": 2 * FAILS}, is_paced=True),
    Shape("cancelled", {"cancel": "group", "flaky": FLAKY}, is_paced=True),
    Shape("some items cancelled", {"function": "fan", "cancel": "items", "long": LONG}, is_paced=True),
)
"""All of these come equally often."""


def specs(chance, *, items, life_s):
    """Yield maps without end: each shape once in every round, in an order of the seed.

    Args:
        life_s: About how long one lasts, in seconds; kills and cancels fall into that time.
    """
    tag = 0
    while True:
        for shape in chance.sample(SHAPES, len(SHAPES)):
            tag += 1
            spec = MapSpec(tag=tag, items=items, **shape.common)
            yield (
                shape,
                replace(
                    spec,
                    key=f"map {tag}" if shape.is_keyed else "",
                    kills=tuple(round(chance.uniform(0.1, 0.6) * life_s, 3) for _ in range(shape.kills)),
                    pace_s=0.5 * life_s / items if shape.is_paced else 0.0,
                    cancel_after_s=round(chance.uniform(0.05, 0.3) * life_s, 3),
                ),
            )
