"""Which packages a function without an image gets: those that provide what the app's files import."""

import ast
import json
import zipfile
from pathlib import Path

import pytest

from apothic._archive import pack
from apothic._difference import difference
from apothic._packages import imports_of, packages_of
from apothic_worker.testing.wheels import make_wheel


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages that Python finds first."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, name: str, version: str = "1.0", files: dict[str, str] | None = None, origin: object = None):
    """Lay out a distribution as an installer does, with one module of its name or these files.

    Args:
        origin: What its direct_url.json says; None for one from an index.
    """
    with zipfile.ZipFile(make_wheel(site.parent / "wheels", name, version)) as wheel:
        wheel.extractall(site)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    if files is not None:
        (site / f"{name.replace('-', '_')}.py").unlink()
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text)
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))


def test_imports_count_wherever_they_stand_but_not_those_for_type_checkers():
    text = """
import one, two.deep as d
from three import four
from five import *
from . import near
from .near import thing
try:
    import six
except ImportError:
    six = None
def f():
    if True:
        import seven
from typing import TYPE_CHECKING
import typing as t
if TYPE_CHECKING:
    import never
else:
    import eight
if t.TYPE_CHECKING:
    import never_either
"""
    found = imports_of(ast.parse(text)) - {"typing.TYPE_CHECKING", "typing"}

    assert found == {"one", "two.deep", "three.four", "five", "six", "seven", "eight"}


def test_what_provides_a_module_is_pinned_to_the_version_that_is_installed(site: Path):
    install(site, "Tiny-Thing", "2.5", {"tiny/__init__.py": "", "tiny/core.py": ""})
    install(site, "fast", "0.1", {"fast_core.cpython-311-x86_64-linux-gnu.so": "", "single.py": ""})
    install(site, "unused")
    found = packages_of(["tiny.core.make", "fast_core", "single.x", "apothic.App", "apothic_server"])

    assert found.requirements == ("fast==0.1", "Tiny-Thing==2.5")
    assert found.notes == ()


def test_of_packages_that_share_a_namespace_those_are_pinned_that_hold_what_is_imported(site: Path):
    install(site, "shared-one", files={"shared/one/__init__.py": ""})
    install(site, "shared-two", files={"shared/two/__init__.py": "", "shared/two/deep.py": ""})
    install(site, "shared-three", files={"shared/three.py": ""})

    assert packages_of(["shared", "shared.two.deep.make"]).requirements == ("shared-two==1.0",)
    assert packages_of(["shared.one", "shared.three.X"]).requirements == ("shared-one==1.0", "shared-three==1.0")


def test_a_package_without_a_list_of_files_is_known_by_its_top_level_names(site: Path):
    install(site, "old-style", files={"oldie/__init__.py": ""})
    info = site / "old_style-1.0.dist-info"
    (info / "RECORD").unlink()
    (info / "top_level.txt").write_text("oldie\n")

    assert packages_of(["oldie"]).requirements == ("old-style==1.0",)


def test_what_no_worker_could_install_is_told_and_left_out(site: Path):
    install(site, "from-git", origin={"url": "https://example.com/x.git", "vcs_info": {"vcs": "git"}})
    install(site, "edited", files={}, origin={"url": "https://example.com/edited", "dir_info": {"editable": True}})
    (site / "edited.py").write_text("")  # as an editable install leads there
    found = packages_of(["edited", "from_git.part", "nowhere_to_be_found"])

    assert found.requirements == ()
    assert [note.split(",")[0] for note in found.notes] == [
        "edited is imported here from a folder or an address",
        "from_git comes from from-git",
        "not installed here",
    ]
    assert found.notes[2].endswith(": nowhere_to_be_found")


def test_modules_of_the_app_need_no_package_and_those_they_import_count(site: Path, tmp_path: Path):
    for name in ("near", "deep-thing", "app-thing"):
        install(site, name)
    project = tmp_path / "project"
    (project / "kit").mkdir(parents=True)
    (project / "app.py").write_text("import json\nimport near, kit.part\ndef f():\n    import app_thing\n")
    (project / "near.py").write_text("from kit import part\n")
    (project / "kit/__init__.py").write_text("")
    (project / "kit/part.py").write_text("from deep_thing import VERSION\nfrom . import other\n")
    found = pack(project / "app.py", search_path=[])

    assert packages_of(found.imports).requirements == ("app-thing==1.0", "deep-thing==1.0")


def test_a_difference_of_images_names_what_is_installed_otherwise():
    def manifest(image):
        return {"functions": [{"name": "f", "image": image}], "files": {"app.py": "0"}}

    one = {"python": "3.11", "requirements": ["a==1", "b==1"], "workdir": "", "variables": {}}
    other = {"python": "3.11", "requirements": ["a==2", "b==1"], "workdir": "/srv", "variables": {}}

    assert difference(manifest(None), manifest(one)).lines() == ["~ function f: packages + a==1, + b==1"]
    assert difference(manifest(one), manifest(other)).lines() == [
        "~ function f: packages - a==1, + a==2",
        '~ function f: image workdir "" → /srv',
    ]
    assert difference(manifest(one), manifest(one)).lines() == []
