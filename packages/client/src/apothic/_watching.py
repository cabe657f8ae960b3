"""Watching apps, deployments and groups: readers of their events, from what users say about where to begin."""

from __future__ import annotations

import math
from typing import Any

from apothic._core import Core
from apothic._events import EventReader, Subject
from apothic._operations import part
from apothic._position import position
from apothic.streams import APP_EVENT_TYPES, DEPLOYMENT_EVENT_TYPES, GROUP_EVENT_TYPES


def app_reader(core: Core, app: str, **where: Any) -> EventReader:
    """Return a reader of an app's events; `where` as `position` takes it.

    Raises:
        InvalidRequestError: An argument is malformed.
    """
    subject = Subject("app", f"app {app}", f"/v1/apps/{part(app)}/events")
    return EventReader(core, subject, position(None, known=APP_EVENT_TYPES, **where))


def deployment_reader(core: Core, deployment_id: str, **where: Any) -> EventReader:
    """Return a reader of a deployment's events; as `app_reader`."""
    subject = Subject("deployment", deployment_id, f"/v1/deployments/{part(deployment_id)}/events")
    return EventReader(core, subject, position(None, known=DEPLOYMENT_EVENT_TYPES, **where))


def group_reader(core: Core, group_id: str, *, timeout_s: float = math.inf, **where: Any) -> EventReader:
    """Return a reader of a group's events; as `app_reader`. `timeout_s` bounds all the reading."""
    subject = Subject("group", group_id, f"/v1/groups/{part(group_id)}/events")
    return EventReader(core, subject, position(None, known=GROUP_EVENT_TYPES, **where), timeout_s=timeout_s)
