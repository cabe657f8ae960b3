"""`python -m tests.chaos.maps.client SPEC OUT`: one map with the SDK, in a process that may be killed at any time.

What the SDK gave is written to OUT, whole or not at all. Beside it may lie, with the same name: `.group`, the id of a
group that `spawn_map` made; `.go`, without which the last item of a map that somebody cancels is not sent.
"""

import json
import sys
import time
from pathlib import Path

from apothic import ApothicError, ControlPlaneClient, JobCancelledError, JobGroup, RemoteFunction

from . import work

TIMEOUT_S = 900.0
POLL_S = 0.05


def main():
    """Map what SPEC says."""
    spec, out = work.MapSpec.of(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    function, items = RemoteFunction.from_name(work.APP, spec.function), _items(spec, out.with_suffix(".go"))
    if spec.verb == "spawn":
        told = _spawn(function, items, out.with_suffix(".group"))
    else:
        told = VERBS[spec.verb](function, items, stop_after=spec.stop_after, key=spec.key or None, timeout_s=TIMEOUT_S)
    _write(out, json.dumps(told))


def _items(spec, go):
    for number in range(spec.items):
        if spec.pace_s:
            time.sleep(spec.pace_s)
        while spec.cancel == "group" and number == spec.items - 1 and not go.exists():
            time.sleep(POLL_S)
        yield work.item(spec, number)


def _map(function, items, **wishes):
    return {"values": [_shown(found) for found in function.map(items, errors="collect", **wishes)]}


def _starmap(function, items, **wishes):
    return {"values": [_shown(found) for found in function.starmap(items, errors="collect", **wishes)]}


def _raises(function, items, **wishes):
    try:
        return {"values": function.map(items, **wishes)}
    except ApothicError as error:
        if error.item is None:
            raise
        return {"raised": error.item, **_shown(error)}


def _unordered(function, items, **wishes):
    values, twice = {}, []
    for number, found in function.map_unordered(items, errors="collect", **wishes):
        if number in values:
            twice.append(number)
        values[number] = _shown(found)
    return {"values": [values.get(number) for number in range(max(values, default=-1) + 1)], "twice": twice}


def _spawn(function, items, known):
    """Send the items, or go on with the group that the process before this one made."""
    if not known.exists():
        _write(known, function.spawn_map(items).group.id)
    group = JobGroup(known.read_text(), ControlPlaneClient.from_env())
    return {"values": [_shown(found) for found in group.results(errors="collect", timeout_s=TIMEOUT_S)]}


def _shown(found):
    if isinstance(found, JobCancelledError):
        return {"code": "cancelled"}
    return {"code": found.code} if isinstance(found, Exception) else found


def _write(path, text):
    half = path.with_suffix(".half")
    half.write_text(text)
    half.rename(path)


VERBS = {"map": _map, "starmap": _starmap, "raises": _raises, "unordered": _unordered}

if __name__ == "__main__":
    main()
