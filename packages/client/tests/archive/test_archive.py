"""What an app uploads, and which bytes that makes."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import apothic._archive
from apothic._archive import ArchiveLimits, Packed, describe, pack, write_archive
from apothic._sources import find_sources
from apothic.errors import ApothicError, ConflictError, InvalidRequestError, TooLargeError
from apothic_server.testing.guarantees import guarantee


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def packed(app_file: Path) -> Packed:
    return pack(app_file, search_path=[])


def paths(found: Packed) -> list[str]:
    return [file.path for file in found.files]


def content(found: Packed) -> bytes:
    return found.data if isinstance(found.data, bytes) else found.data.read_bytes()


def members(found: Packed) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content(found)), mode="r:gz") as tar:
        return tar.getmembers()


def pythons() -> list[str]:
    """Every supported CPython here: the running one, those on PATH and those of pyenv; a missing one is no skip."""
    names = [f"python3.{minor}" for minor in range(10, 16)]
    kept = sorted(Path.home().glob(".pyenv/versions/3.1*/bin/python3"))
    found = [sys.executable, *filter(None, map(shutil.which, names)), *map(str, kept)]
    return [python for python in found if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0]


def refusal(app_file: Path) -> ApothicError:
    with pytest.raises(ApothicError) as caught:
        packed(app_file)
    return caught.value


def test_a_file_alone_is_one_file_with_its_name_as_module(tmp_path: Path):
    plant(tmp_path, {"hello.py": "from apothic import App\n", "other.py": "", "notes.txt": "x"})

    found = packed(tmp_path / "hello.py")

    assert paths(found) == ["hello.py"]
    assert found.module == "hello"
    assert describe(found.files) == "1 file, 24 bytes"
    assert found.notes == ()


def test_imports_beside_the_file_are_followed_to_the_end(tmp_path: Path):
    plant(
        tmp_path,
        {
            "app.py": "import one\ndef f():\n    from two import thing\n",
            "one.py": "import three.deep\n",
            "two.py": "thing = 1\n",
            "three/__init__.py": "",
            "three/deep.py": "from . import other\n",
            "three/other.py": "",
            "three/data.json": "{}",
            "unused.py": "",
        },
    )

    found = packed(tmp_path / "app.py")

    assert paths(found) == [
        "app.py", "one.py", "three/__init__.py", "three/deep.py", "three/other.py", "two.py",
    ]  # fmt: skip


def test_the_archive_imports_in_a_fresh_interpreter(tmp_path: Path):
    plant(
        tmp_path / "src",
        {
            "tools/app.py": "import near, shop.stock as s\nfrom space.inner import deep\nV = near.X+deep.Y+s.left()\n",
            "tools/near.py": "X = 1\n",
            "shop/__init__.py": "",
            "shop/stock.py": "from .count import base\ndef left():\n    return base\n",
            "shop/count.py": "base = 10\n",
            "space/inner/deep.py": "Y = 100\n",
            "pyproject.toml": "",
        },
    )
    found = packed(tmp_path / "src" / "tools" / "app.py")
    target = tmp_path / "out"
    with tarfile.open(fileobj=io.BytesIO(content(found)), mode="r:gz") as tar:
        # Early 3.11 has no filters; later versions warn when none is named. The archive is our own.
        tar.extractall(target, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))

    program = f"import sys; sys.path.insert(0, {str(target)!r}); import {found.module} as m; print(m.V)"

    answer = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout == "111\n"


def test_without_a_project_only_the_own_folder_counts(tmp_path: Path):
    plant(tmp_path, {"helper.py": "", "work/app.py": "import helper\nimport near\n", "work/near.py": ""})

    found = packed(tmp_path / "work" / "app.py")

    assert paths(found) == ["app.py", "near.py"]


@pytest.mark.parametrize("mark", ["pyproject.toml", ".git/HEAD"])
def test_a_project_above_is_the_root(tmp_path: Path, mark: str):
    plant(tmp_path, {mark: "", "shop/__init__.py": "", "shop/x.py": "", "work/app.py": "from shop import x\n"})

    found = packed(tmp_path / "work" / "app.py")

    assert paths(found) == ["app.py", "shop/__init__.py", "shop/x.py"]


def test_the_nearest_project_wins(tmp_path: Path):
    plant(tmp_path, {".git/HEAD": "", "shared.py": "", "a/pyproject.toml": "", "a/app.py": "import shared\n"})

    assert paths(packed(tmp_path / "a" / "app.py")) == ["app.py"]


def test_an_app_in_a_source_layout_is_named_without_src(tmp_path: Path):
    plant(
        tmp_path,
        {
            "pyproject.toml": "",
            "src/shop/__init__.py": "",
            "src/shop/app.py": "from shop.models import M\nfrom . import prices\n",
            "src/shop/models.py": "M = 1\n",
            "src/shop/prices.py": "",
            "src/other/__init__.py": "",
            "tests/test_shop.py": "",
        },
    )

    found = packed(tmp_path / "src" / "shop" / "app.py")

    assert found.module == "shop.app"
    assert paths(found) == ["shop/__init__.py", "shop/app.py", "shop/models.py", "shop/prices.py"]


def test_a_script_reaches_the_source_layout_of_its_project(tmp_path: Path):
    plant(tmp_path, {"pyproject.toml": "", "src/shop/__init__.py": "", "jobs/app.py": "import shop\n", "src/x.py": ""})

    assert paths(packed(tmp_path / "jobs" / "app.py")) == ["app.py", "shop/__init__.py"]


def test_relative_imports_in_a_folder_without_init_name_the_folder(tmp_path: Path):
    plant(
        tmp_path, {"pyproject.toml": "", "jobs/app.py": "from . import near\nfrom .far import x\n", "jobs/near.py": ""}
    )
    plant(tmp_path, {"jobs/far.py": "x = 1\n", "jobs/unused.py": ""})

    found = packed(tmp_path / "jobs" / "app.py")

    assert found.module == "jobs.app"
    assert paths(found) == ["jobs/app.py", "jobs/far.py", "jobs/near.py"]


def test_namespace_packages_give_only_what_is_imported(tmp_path: Path):
    plant(tmp_path, {"app.py": "import space.a.one\nfrom space.b import two, name\n", "space/a/one.py": ""})
    plant(tmp_path, {"space/b/two.py": "", "space/b/three.py": "", "space/c/four.py": ""})

    assert paths(packed(tmp_path / "app.py")) == ["app.py", "space/a/one.py", "space/b/two.py"]


def test_folders_of_the_search_path_count_below_the_root_only(tmp_path: Path):
    plant(tmp_path, {"pyproject.toml": "", "lib/inside.py": "", "app/app.py": "import inside, outside\n"})
    plant(tmp_path.parent / f"{tmp_path.name}-elsewhere", {"outside.py": ""})

    found = pack(
        tmp_path / "app" / "app.py",
        search_path=[str(tmp_path / "lib"), str(tmp_path.parent / f"{tmp_path.name}-elsewhere")],
    )

    assert paths(found) == ["app.py", "inside.py"]
    assert found.imports == ("outside",)


def test_the_home_folder_as_root_uploads_only_the_app_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decoys = [".env", ".ssh/id_rsa", ".aws/credentials", "credentials.json", "server.pem", "helper.py", ".git/config"]
    plant(tmp_path, dict.fromkeys(decoys, "SECRET"))
    plant(tmp_path, {"hello.py": "import helper\nimport json\n", "pyproject.toml": ""})
    monkeypatch.setenv("HOME", str(tmp_path))

    found = packed(tmp_path / "hello.py")

    assert paths(found) == ["hello.py"]
    assert b"SECRET" not in content(found)
    assert len(found.notes) == 1
    assert "helper" in found.notes[0]


def test_a_repository_around_the_home_folder_is_too_wide_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plant(tmp_path, {".git/HEAD": "", "me/work/app.py": "import near\n", "me/work/near.py": ""})
    monkeypatch.setenv("HOME", str(tmp_path / "me"))

    assert paths(packed(tmp_path / "me" / "work" / "app.py")) == ["app.py"]


def test_apothic_environments_hidden_folders_and_caches_are_never_uploaded(tmp_path: Path):
    plant(
        tmp_path,
        {
            "pyproject.toml": "",
            "app.py": "import apothic, pkg, lib.python.thing, sub.mod\n",
            "apothic/__init__.py": "",
            "lib/pyvenv.cfg": "",
            "lib/python/thing.py": "",
            "pkg/__init__.py": "",
            "pkg/.hidden/x.py": "",
            "pkg/__pycache__/y.py": "",
            "pkg/venv/pyvenv.cfg": "",
            "pkg/venv/lib/z.py": "",
            "pkg/site-packages/w.py": "",
            "pkg/plain/v.py": "",
        },
    )

    assert paths(packed(tmp_path / "app.py")) == ["app.py", "pkg/__init__.py", "pkg/plain/v.py"]


def test_the_standard_library_wins_over_the_root_but_not_over_the_own_folder(tmp_path: Path):
    plant(tmp_path, {"pyproject.toml": "", "types.py": "", "work/app.py": "import types, queue\n", "work/queue.py": ""})

    assert paths(packed(tmp_path / "work" / "app.py")) == ["app.py", "queue.py"]


def test_ignore_files_are_honoured_with_a_note(tmp_path: Path):
    plant(
        tmp_path,
        {
            "pyproject.toml": "",
            ".gitignore": "build.py\n_version.py\npkg/skipped/\n",
            ".apothicignore": "!_version.py\nheavy.py\n",
            "app.py": "import build_info, build, _version, heavy, pkg\n",
            "build.py": "",
            "build_info.py": "",
            "_version.py": "",
            "heavy.py": "",
            "pkg/__init__.py": "",
            "pkg/.gitignore": "local_*.py\n",
            "pkg/local_settings.py": "",
            "pkg/skipped/a.py": "",
            "pkg/kept/a.py": "",
        },
    )

    found = packed(tmp_path / "app.py")

    assert paths(found) == ["_version.py", "app.py", "build_info.py", "pkg/__init__.py", "pkg/kept/a.py"]
    assert "build.py is imported but not uploaded, because an ignore file names it" in found.notes
    assert "heavy.py is imported but not uploaded, because an ignore file names it" in found.notes


def test_links_out_of_the_root_are_refused_with_a_note(tmp_path: Path):
    outside = plant(tmp_path / "outside", {"stolen.py": "SECRET = 1\n", "pkg/__init__.py": "SECRET = 2\n"})
    root = plant(
        tmp_path / "root", {"pyproject.toml": "", "app.py": "import stolen, pkg, own\n", "own/__init__.py": ""}
    )
    (root / "stolen.py").symlink_to(outside / "stolen.py")
    (root / "pkg").symlink_to(outside / "pkg")
    (root / "own" / "deep").symlink_to(outside)

    found = packed(root / "app.py")

    assert paths(found) == ["app.py", "own/__init__.py"]
    assert b"SECRET" not in content(found)
    assert f"stolen.py is a link that leaves {root}, so it is not uploaded" in found.notes
    assert f"own/deep is a link that leaves {root}, so it is not uploaded" in found.notes


def test_links_inside_the_root_are_uploaded_as_files(tmp_path: Path):
    plant(
        tmp_path, {"pyproject.toml": "", "app.py": "import alias, pkg\n", "real.py": "X = 1\n", "pkg/__init__.py": ""}
    )
    (tmp_path / "alias.py").symlink_to("real.py")
    (tmp_path / "pkg" / "again").symlink_to(tmp_path / "pkg")
    (tmp_path / "pkg" / "loop.py").symlink_to("loop.py")
    (tmp_path / "pkg" / "gone.py").symlink_to("nowhere.py")

    found = packed(tmp_path / "app.py")

    assert paths(found) == ["alias.py", "app.py", "pkg/__init__.py"]
    assert all(member.isreg() or member.isdir() for member in members(found))


@pytest.mark.parametrize("name", ["id_rsa_backup.py", ".env.py"])
def test_a_file_named_like_a_secret_stops_the_deploy(tmp_path: Path, name: str):
    plant(tmp_path, {"app.py": "import pkg\n", "pkg/__init__.py": "", f"pkg/{name}": "k"})

    error = refusal(tmp_path / "app.py")

    assert (type(error), error.code) == (InvalidRequestError, "secret_refused")
    assert f"pkg/{name} looks like a secret" in str(error)


@pytest.mark.parametrize("name", [".env", "server.pem", "deploy.key", "credentials-prod.json", "id_ed25519"])
def test_a_module_that_links_to_a_secret_stops_the_deploy(tmp_path: Path, name: str):
    plant(tmp_path, {"app.py": "import settings\n", name: "k"})
    (tmp_path / "settings.py").symlink_to(name)

    assert refusal(tmp_path / "app.py").code == "secret_refused"


def test_a_secret_that_an_ignore_file_names_is_left_out(tmp_path: Path):
    plant(
        tmp_path, {"app.py": "import pkg\n", "pkg/__init__.py": "", "pkg/id_rsa.py": "k", ".apothicignore": "id_rsa*"}
    )

    assert paths(packed(tmp_path / "app.py")) == ["app.py", "pkg/__init__.py"]


def test_a_syntax_error_in_the_app_file_names_the_line(tmp_path: Path):
    plant(tmp_path, {"app.py": "x = 1\ndef broken(:\n    pass\n"})

    error = refusal(tmp_path / "app.py")

    assert error.code == "syntax_error"
    assert f"{tmp_path / 'app.py'}:2: " in str(error)
    assert str(error).endswith("\n    def broken(:")


def test_a_syntax_error_elsewhere_is_a_note(tmp_path: Path):
    plant(tmp_path, {"app.py": "import old\n", "old.py": "print 'hello'\n"})

    found = packed(tmp_path / "app.py")

    assert paths(found) == ["app.py", "old.py"]
    assert found.notes == ("old.py does not parse; what it imports is not uploaded",)


@pytest.mark.parametrize(
    ("name", "code"),
    [("app.txt", "invalid"), ("missing.py", "file_missing"), ("json.py", "name_taken"), ("__main__.py", "name_taken")],
)
def test_files_that_can_be_no_app_are_refused(tmp_path: Path, name: str, code: str):
    plant(tmp_path, {"app.txt": "", "json.py": "", "__main__.py": ""})

    assert refusal(tmp_path / name).code == code


def test_a_name_that_the_system_refuses_is_an_error_with_a_sentence(tmp_path: Path):
    error = refusal(tmp_path / ("x" * 300 + ".py"))

    assert error.code in {"file_unreadable", "file_missing"}


def test_a_script_name_that_is_no_module_name_is_adapted(tmp_path: Path):
    plant(tmp_path, {"my-app 2.py": "", "2nd.py": ""})

    assert (paths(packed(tmp_path / "my-app 2.py")), packed(tmp_path / "my-app 2.py").module) == (
        ["my_app_2.py"],
        "my_app_2",
    )
    assert packed(tmp_path / "2nd.py").module == "_2nd"


def test_a_link_to_the_app_file_is_the_file(tmp_path: Path):
    plant(tmp_path, {"real/app.py": "import near\n", "real/near.py": ""})
    (tmp_path / "link.py").symlink_to(tmp_path / "real" / "app.py")

    assert paths(packed(tmp_path / "link.py")) == ["app.py", "near.py"]


def test_equal_content_makes_equal_bytes_anywhere(tmp_path: Path):
    files = {"app.py": "import pkg.b\n", "pkg/__init__.py": "", "pkg/b.py": "x = 'ä'\n", "pkg/ü/c.py": "y" * 99}
    first, second = tmp_path / "one", tmp_path / "two"
    plant(first, files)
    plant(second, dict(reversed(files.items())))
    for place, mode in ((first, 0o600), (second, 0o755)):
        for file in place.rglob("*.py"):
            file.chmod(mode)
            os.utime(file, (mode, mode))

    one, two = packed(first / "app.py"), packed(second / "app.py")

    assert content(one) == content(two)
    assert one.sha256 == two.sha256 == hashlib.sha256(content(one)).hexdigest()
    assert one.size_bytes == len(content(one))


def test_every_python_on_this_machine_makes_the_same_bytes(tmp_path: Path):
    plant(tmp_path, {"app.py": "import pkg\n", "pkg/__init__.py": "X = 1\n"})
    program = (
        "import sys; from pathlib import Path; from apothic._archive import pack; print(pack(Path(sys.argv[1])).sha256)"
    )
    source = str(Path(apothic._archive.__file__).parents[1])

    digests = {
        python: subprocess.run(
            [python, "-S", "-B", "-c", f"import sys; sys.path.append({source!r}); {program}", str(tmp_path / "app.py")],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        ).stdout.strip()
        for python in pythons()
    }  # fmt: skip

    assert set(digests.values()) == {"a9e91cdbfa7479614d6da88bc0202911d3fbff9261f05c5519a40d2b6c00f333"}, digests


@guarantee("G19.4", "archive_corpus")
def test_an_archive_holds_plain_files_and_folders_only(tmp_path: Path):
    plant(tmp_path, {"app.py": "import pkg\n", "pkg/__init__.py": "", "pkg/sub/x.py": "", "pkg/run.py": "#!x\n"})
    (tmp_path / "pkg" / "run.py").chmod(0o4777)
    (tmp_path / "pkg" / "link.py").symlink_to("run.py")
    os.mkfifo(tmp_path / "pkg" / "pipe.py")

    found = members(packed(tmp_path / "app.py"))

    assert [(member.name, member.type, member.mode) for member in found] == [
        ("app.py", tarfile.REGTYPE, 0o644),
        ("pkg", tarfile.DIRTYPE, 0o755),
        ("pkg/__init__.py", tarfile.REGTYPE, 0o644),
        ("pkg/link.py", tarfile.REGTYPE, 0o644),
        ("pkg/run.py", tarfile.REGTYPE, 0o644),
        ("pkg/sub", tarfile.DIRTYPE, 0o755),
        ("pkg/sub/x.py", tarfile.REGTYPE, 0o644),
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in found} == {(0, 0, 0, "", "")}


@pytest.mark.parametrize("changed", ["x = 22\n", "y = 1\n", ""])
def test_a_file_that_changes_while_it_is_packed_is_refused(tmp_path: Path, changed: str):
    plant(tmp_path, {"app.py": "import near\n", "near.py": "x = 1\n"})
    sources = find_sources(tmp_path / "app.py", search_path=[])
    (tmp_path / "near.py").write_text(changed)
    os.utime(tmp_path / "near.py", ns=(1, 1))

    with pytest.raises(ConflictError) as caught:
        write_archive(sources)

    assert caught.value.code == "file_changed"
    assert "near.py" in str(caught.value)


@guarantee("G15.1", "limits_table")
@pytest.mark.parametrize(
    "limits",
    [
        ArchiveLimits(packed_bytes=9_000),
        ArchiveLimits(unpacked_bytes=9_000),
        ArchiveLimits(packed_bytes=10_500),
        ArchiveLimits(entries=2),
    ],
)
def test_an_archive_over_a_limit_names_the_biggest_files(tmp_path: Path, limits: ArchiveLimits):
    plant(tmp_path, {"app.py": "import big, small\n", "big.py": "#" * 10_000, "small.py": "x = 1\n"})
    sources = find_sources(tmp_path / "app.py", search_path=[])

    with pytest.raises(TooLargeError) as caught:
        write_archive(sources, limits=limits)

    assert caught.value.code == "too_large"
    assert "The biggest: big.py (10000 bytes), app.py (18 bytes), small.py (6 bytes)." in str(caught.value)


def test_large_archives_are_written_to_a_file_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plant(tmp_path, {"work/app.py": "#" * 200_000, "tmp/keep": ""})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    sources = find_sources(tmp_path / "work" / "app.py", search_path=[])
    in_memory = write_archive(sources)

    found = write_archive(sources, limits=ArchiveLimits(in_memory_bytes=1_000))

    assert isinstance(found.data, Path)
    assert found.data.read_bytes() == in_memory.data
    assert gzip.decompress(content(found))[512:200_512] == b"#" * 200_000
    del found
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["keep"]
