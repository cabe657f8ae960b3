"""The runtime tree: the Python files that are put beside user code, and nothing else (D6).

It holds the installed `apothic` without its command line, and `cloudpickle`, at `<data>/runtime/<hash>/`, compiled
for every interpreter of the machine and read-only. The hash covers every byte, so a tree that exists is whole and
right.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from apothic_worker.folders import make_read_only, remove, sync_tree
from apothic_worker.interpreters import Interpreter

PACKAGES = ("apothic", "cloudpickle")
LEFT_OUT = ("apothic/cli/",)


def build_tree(root: Path, interpreters: Iterable[Interpreter]) -> Path:
    """Return the tree of this release below `root`, building it when needed; trees of other releases are removed."""
    pythons = sorted(interpreters, key=lambda interpreter: interpreter.version)
    files = dict(_sources())
    digest = hashlib.sha256(" ".join(python.version for python in pythons).encode())
    for name in sorted(files):
        digest.update(f"\n{name}\n{len(files[name])}\n".encode() + files[name])
    tree = root / digest.hexdigest()[:32]
    for other in root.iterdir():
        if other != tree:
            remove(other)
    if not tree.is_dir():
        _write(tree, files, pythons)
    return tree


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the package {package} is not installed beside the worker")
        folder = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(folder.rglob("*.py")):
            name = f"{package}/{path.relative_to(folder).as_posix()}"
            if not name.startswith(LEFT_OUT):
                yield name, path.read_bytes()


def _write(tree: Path, files: dict[str, bytes], pythons: list[Interpreter]) -> None:
    half = Path(tempfile.mkdtemp(prefix="new-", dir=tree.parent))
    for name, data in files.items():
        path = half / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for python in pythons:
        _compile(half, python)
    make_read_only(half)
    half.chmod(0o755)
    sync_tree(half)  # found by its name after a power cut, it has to be whole
    half.rename(tree)
    tree.chmod(0o555)


def _compile(tree: Path, python: Interpreter) -> None:
    """Compile ahead, for user code runs with `-B`. A file that an old interpreter cannot compile is its own problem."""
    command = [str(python.executable), "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [*command, str(tree)], check=False, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
