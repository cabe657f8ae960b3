"""One cloud for most tests, and the means to run others."""

import pytest

from .clouds import RunningCloud
from .joined import JoinedWorker
from .people import Person

APP = "jobs"


@pytest.fixture(scope="session")
def person(tmp_path_factory):
    """Somebody whose cloud is shared by many tests."""
    return Person(tmp_path_factory.mktemp("home"), installs=True)


@pytest.fixture(scope="session")
def cloud(person):
    """A running cloud of `person`."""
    running = RunningCloud(person)
    yield running
    running.close()


@pytest.fixture(scope="session")
def jobs_app(cloud, person):
    """The app of jobs_app.py, deployed; returns its name."""
    person.python(person.copy("tests/system/jobs_app.py")).ok()
    return APP


@pytest.fixture
def stranger(tmp_path):
    """Somebody with an empty home folder and no cloud."""
    home = tmp_path / "home"
    home.mkdir()
    return Person(home)


@pytest.fixture
def own_cloud(stranger):
    """Start clouds of `stranger` that end with the test."""
    running = []

    def start(*options, **keywords):
        running.append(RunningCloud(stranger, *options, **keywords))
        return running[-1]

    yield start
    for one in reversed(running):
        one.close()


@pytest.fixture
def workers(stranger):
    """Start workers that end with the test."""
    running = []

    def start(*options, name, **keywords):
        data = stranger.home / f"worker-{name}"
        running.append(JoinedWorker(stranger, "--name", name, *options, data=data, **keywords))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.end()
