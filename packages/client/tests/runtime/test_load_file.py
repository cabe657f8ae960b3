"""Loading an app's file for the command line."""

from __future__ import annotations

import sys
import threading

import pytest

from apothic._loading import is_loading, load_file, stop_if_loading


@pytest.fixture(autouse=True)
def clean_modules():
    """Forget what a test loads."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, name: str, source: str):
    path = folder / name
    path.write_text(source)
    return path


def test_definitions_before_the_deploy_are_there_and_the_path_is_as_before(tmp_path) -> None:
    write(tmp_path, "helper_of_the_app.py", "value = 7\n")
    path = write(
        tmp_path,
        "the_app.py",
        "import sys\nfrom helper_of_the_app import value\nfrom apothic._loading import stop_if_loading\n"
        "sys.path.append('/nowhere')\nname = __name__\nstop_if_loading()\nraise RuntimeError\n",
    )
    search_path, entries, finders = sys.path, list(sys.path), list(sys.meta_path)
    module = load_file(path)
    assert (module.value, module.name, module.__file__) == (7, "the_app", str(path))
    assert sys.modules["the_app"] is module
    assert sys.path is search_path
    assert (sys.path, sys.meta_path) == (entries, finders)
    assert not is_loading()


@pytest.mark.parametrize(
    ("source", "kind"),
    [("x = (", SyntaxError), ("import no_such_module", ModuleNotFoundError), ("1 / 0", ZeroDivisionError)],
)
def test_errors_propagate_and_leave_nothing_behind(tmp_path, source, kind) -> None:
    entries, finders = list(sys.path), list(sys.meta_path)
    with pytest.raises(kind):
        load_file(write(tmp_path, "broken_app.py", source))
    assert "broken_app" not in sys.modules
    assert (sys.path, sys.meta_path) == (entries, finders)
    assert not is_loading()


def test_a_file_named_like_a_known_module_is_refused(tmp_path) -> None:
    import json

    with pytest.raises(ImportError, match="rename"):
        load_file(write(tmp_path, "json.py", ""))
    with pytest.raises(ImportError, match="rename"):
        load_file(write(tmp_path, "pytest.py", ""))
    assert sys.modules["json"] is json


def test_a_file_can_be_loaded_again(tmp_path) -> None:
    path = write(tmp_path, "twice_app.py", "value = 1\n")
    assert load_file(path).value == 1
    path.write_text("value = 22\n")
    assert load_file(path).value == 22


def test_a_file_whose_name_is_no_identifier_is_loaded(tmp_path) -> None:
    assert load_file(write(tmp_path, "my-app.py", "value = 1\n")).value == 1


def test_nothing_stops_outside_a_load_nor_in_another_thread(tmp_path) -> None:
    stop_if_loading()
    module = load_file(
        write(
            tmp_path,
            "threaded_app.py",
            "import threading\nfrom apothic._loading import is_loading\nseen = [is_loading()]\n"
            "thread = threading.Thread(target=lambda: seen.append(is_loading()))\nthread.start()\nthread.join()\n",
        )
    )
    assert module.seen == [True, False]
    assert threading.active_count() >= 1
