"""Driver of Apothic for deploys: change one module of an app of 1 MB, `app.deploy()`, call, wait for the new result.

Usage: redeploy_cloud.py FOLDER
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

from changing import change, lay_out
from clouds import cloud
from rounds import claim_output, serve, timed

APP = """
from apothic import App
import ballast, changing

app = App("redeployed")


@app.function()
def number() -> int:
    return changing.NUMBER
"""


def main() -> None:
    """Measure until the input ends, then stop the cloud."""
    answer = claim_output()
    folder = Path(sys.argv[1])
    with cloud(folder):
        _serve(answer, folder / "project")


def _serve(answer: Any, project: Path) -> None:
    lay_out(project, APP)
    sys.path.insert(0, str(project))
    module = importlib.import_module("redeployed")
    numbers = itertools.count(1)
    done: list[Any] = []

    def deploy(_: int) -> None:
        client = module.app.client
        done.append(client.run(module.app.deploy_steps(client, is_quiet=True)))

    def redeploy(_: int) -> None:
        number = next(numbers)
        change(project, number)
        deploy(number)
        if module.number.remote() != number:
            raise RuntimeError("a call ran an older version")

    def deploy_alone(_: int) -> None:
        change(project, next(numbers))
        deploy(0)

    def sent(_: dict[str, Any]) -> dict[str, Any]:
        return {"uploaded": done[-1].uploaded_bytes, "archive": done[-1].packed.size_bytes}

    redeploy(0)
    serve(answer, {"redeploy": timed(redeploy), "deploy": timed(deploy_alone)}, extra={"sent": sent})


if __name__ == "__main__":
    main()
