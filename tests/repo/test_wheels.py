"""The three wheels build, install alone with exactly what they declare, and every module of them imports.

The two packages that run inside a user's environment are also imported under every CPython this machine has, with
nothing else installed. Interpreters that are not here are listed, not skipped: they are no part of the machine.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from apothic_server.testing.skips import note

ROOT = Path(__file__).parents[2]
PACKAGES = ("client", "worker", "server")
OWN_CACHE = ROOT / ".venv/.cache/uv"  # see tools/setup
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
OLDEST, NEWEST = 10, 14

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if ".testing." not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""

IMPORT_LEAN = """
import importlib, pkgutil, sys
sys.path.append(sys.argv[1])
for name in ("apothic.wire", "apothic._runtime"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
for name in ("apothic._serialize", "apothic._loading"):
    importlib.import_module(name)
known = sys.stdlib_module_names | {"apothic", "__main__"}
print("\\n".join(sorted(name for name in sys.modules if name.partition(".")[0] not in known)))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("wheels")
    for package in PACKAGES:
        _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out / package)], package)
    return {package: next((out / package).glob("*.whl")) for package in PACKAGES}


@pytest.mark.parametrize(
    ("package", "with_wheels", "modules"),
    [
        ("client", ["client"], ["apothic"]),
        ("worker", ["client", "worker"], ["apothic", "apothic_worker"]),
        ("server", ["client", "worker", "server"], ["apothic", "apothic_worker", "apothic_server"]),
    ],
)
def test_each_wheel_imports_with_only_what_it_declares(
    wheels: dict[str, Path], tmp_path: Path, package: str, with_wheels: list[str], modules: list[str]
):
    python = _environment(tmp_path / "venv", package)
    _run(
        ["uv", "pip", "install", "--quiet", "--no-deps", "--python", python, *(str(wheels[one]) for one in with_wheels)]
    )

    _run([python, "-I", "-c", IMPORT_ALL, *modules])


def test_the_runtime_imports_under_every_cpython_with_nothing_else(
    wheels: dict[str, Path], tmp_path: Path, pytestconfig: pytest.Config
):
    zipfile.ZipFile(wheels["client"]).extractall(tmp_path)
    found = {minor: python for minor in range(OLDEST, NEWEST + 1) if (python := _interpreter(minor))}
    missing = [f"3.{minor}" for minor in range(OLDEST, NEWEST + 1) if minor not in found]
    note(pytestconfig, f"CPython not on this machine: {', '.join(missing) or 'none'}")

    strangers = {f"3.{minor}": _lean_import(python, tmp_path) for minor, python in found.items()}

    assert sys.version_info.minor in found
    assert strangers == dict.fromkeys(strangers, "")


def test_every_wheel_is_typed_and_brings_its_data(wheels: dict[str, Path]):
    names = {name for wheel in wheels.values() for name in zipfile.ZipFile(wheel).namelist()}

    assert {"apothic/py.typed", "apothic_worker/py.typed", "apothic_server/py.typed"} <= names
    assert {name for name in _data_files() if name not in names} == set()


def _environment(folder: Path, package: str) -> str:
    """Make a virtual environment with the locked dependencies of one package, without our own packages."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    _run(
        [
            *("uv", "sync", "--frozen", "--quiet", "--no-dev", "--no-install-workspace"),
            *("--package", f"apothic-{package}", "--python", str(folder / "bin/python")),
        ],
        UV_PROJECT_ENVIRONMENT=str(folder),
    )
    return str(folder / "bin/python")


def _lean_import(python: str, tree: Path) -> str:
    return _run([python, "-I", "-S", "-B", "-c", IMPORT_LEAN, str(tree)]).strip()


def _interpreter(minor: int) -> str | None:
    """Return a CPython 3.`minor` of this machine: on the PATH or among the versions of pyenv or uv."""
    installed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
    installed += sorted(Path.home().glob(f".local/share/uv/python/cpython-3.{minor}.*/bin/python3"))
    return next((name for name in (f"python3.{minor}", *map(str, installed)) if _is_cpython(name, minor)), None)


def _is_cpython(name: str, minor: int) -> bool:
    code = f"import sys; sys.exit(sys.implementation.name != 'cpython' or sys.version_info[:2] != (3, {minor}))"
    try:
        return subprocess.run([name, "-I", "-S", "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _data_files() -> list[str]:
    source = ROOT / "packages/server/src"
    return [str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in {".sql", ".json"}]


def _run(command: list[str], package: str | None = None, **variables: str) -> str:
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    environment.pop("VIRTUAL_ENV", None)
    if OWN_CACHE.is_dir():
        environment.setdefault("UV_CACHE_DIR", str(OWN_CACHE))
    if SYSTEM_CERTIFICATES.is_file():
        environment.setdefault("SSL_CERT_FILE", str(SYSTEM_CERTIFICATES))
    folder = ROOT / "packages" / package if package else ROOT
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
