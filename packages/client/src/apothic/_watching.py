"""Watching apps and deployments: readers of their events, from what users say about where to begin."""

from __future__ import annotations

from typing import Any

from apothic._core import Core
from apothic._events import EventReader, Subject
from apothic._operations import part
from apothic._position import position
from apothic.streams import APP_EVENT_TYPES, DEPLOYMENT_EVENT_TYPES


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
