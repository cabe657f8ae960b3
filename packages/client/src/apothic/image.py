"""`Image`: packages, variables and files beside a function, written in code."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from apothic import _requirements
from apothic._loading import is_loading
from apothic._local_files import LocalFiles, local_file, local_folder, local_modules
from apothic._ranges import wrong
from apothic.errors import InvalidRequestError
from apothic.wire.attempts import SOCKET_VARIABLE
from apothic.wire.images import (
    VARIABLE_BYTES_MAX,
    WORKDIR_RULE,
    ImageSpec,
    image_id,
    is_python,
    is_variable,
    is_workdir,
)

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,511}")
_FIRST_MINOR = 10
_LOCAL_MAX = 256
"""Files and folders that one image may add."""


@dataclass(frozen=True)
class Image:
    """What is installed and set where a function runs. Make one with `Image.debian_slim()`; methods return new ones.

    Packages of all calls are resolved together and come as wheels from the package index of the worker, once for all
    functions and deployments that want the same. Steps that need a real image (`from_registry`, `apt_install`,
    `run_commands`, …) are recorded: the deploy succeeds, and calls wait until an image builder exists.

    Files of the deploying machine are read when an image is written or deployed, never on a worker: there the methods
    that name some return the image as it is.

    Attributes:
        spec: What a deploy says about it, but for the places of `local_files`.
        local_files: What it adds of the deploying machine, in order.
    """

    spec: ImageSpec = field(default_factory=lambda: ImageSpec(python_here()))
    local_files: tuple[LocalFiles, ...] = ()

    @property
    def image_id(self) -> str:
        """Hash of all that it says, 32 hexadecimal digits: equal images have equal ids; content of files is apart."""
        named = {one.remote: str(one.path) for one in self.local_files}
        return image_id(replace(self.spec, mounts=named))

    @staticmethod
    def debian_slim(*, python_version: str | None = None) -> Image:
        """Return an image with nothing but Python.

        Args:
            python_version: `major.minor`, such as `3.12`, of an interpreter that a worker has; None for that of the
                deploying process. None is downloaded: without it calls wait and say which versions are there.

        Raises:
            InvalidRequestError: It is no such version.
        """
        return Image(ImageSpec(_python(python_version)))

    @staticmethod
    def from_registry(image_ref: str, *, prebuilt: bool = False) -> Image:
        """Return an image from a registry; recorded.

        Args:
            prebuilt: It needs no further step of ours.

        Raises:
            InvalidRequestError: It is no reference to an image.
        """
        if not isinstance(image_ref, str) or not _REFERENCE.fullmatch(image_ref):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise wrong("image_ref", image_ref, "a reference such as python:3.12-slim")
        return _from(f"from_registry {image_ref}" + (" prebuilt" if prebuilt else ""))

    @staticmethod
    def from_dockerfile(path: str, *, context_dir: str | None = None, base: str = "python:3.11-slim") -> Image:
        """Return an image of a Dockerfile, read now; recorded.

        Raises:
            InvalidRequestError: A file or folder does not exist.
        """
        if _is_on_worker():
            return _from("from_dockerfile")
        text = _read("path", path)
        if context_dir is not None and not Path(context_dir).is_dir():
            raise wrong("context_dir", context_dir, "an existing folder")
        return _from(f"from_dockerfile {Path(path).name} on {base} ({len(text)} characters)")

    def pip_install(self, *packages: str) -> Image:
        """Add packages, each as a line of a requirements file: a name, extras, versions, a marker, hashes.

        Raises:
            InvalidRequestError: One is something else; addresses and folders are not installed from.
        """
        _some("pip_install", packages)
        return self._with([_requirements.checked(package) for package in packages])

    def uv_pip_install(self, *packages: str) -> Image:
        """Do as `pip_install`: both resolve and install with uv."""
        return self.pip_install(*packages)

    def pip_install_from_requirements(self, path: str) -> Image:
        """Add the packages of a requirements file and of those it includes with `-r`; read now.

        Raises:
            InvalidRequestError: It cannot be read, or a line is none that `pip_install` takes.
        """
        return self if _is_on_worker() else self._with(_requirements.of_file(path))

    def uv_pip_install_from_requirements(self, path: str) -> Image:
        """Do as `pip_install_from_requirements`."""
        return self.pip_install_from_requirements(path)

    def pip_install_from_pyproject(self, path: str, *, optional_dependencies: str | list[str] | None = None) -> Image:
        """Add `dependencies` of a pyproject.toml and of the named groups of its `optional-dependencies`; read now.

        Raises:
            InvalidRequestError: It cannot be read, a group is not in it, or an entry is none that `pip_install` takes.
        """
        return self if _is_on_worker() else self._with(_requirements.of_pyproject(path, optional_dependencies))

    def uv_pip_install_from_pyproject(
        self, path: str, *, optional_dependencies: str | list[str] | None = None
    ) -> Image:
        """Do as `pip_install_from_pyproject`."""
        return self.pip_install_from_pyproject(path, optional_dependencies=optional_dependencies)

    def env(self, values: dict[str, Any] | None = None, /, **kwargs: Any) -> Image:
        """Set environment variables; later ones win. Numbers and booleans become text. Python's own (`PYTHON…`) are
        not obeyed by the interpreter that runs functions. Everybody who may see the deployment sees the values.

        Raises:
            InvalidRequestError: A name or a value cannot be one.
        """
        given: dict[str, Any] = {**({} if values is None else values), **kwargs}
        variables = {**self.spec.variables, **{name: _variable(name, value) for name, value in given.items()}}
        if sum(len(name) + len(value) for name, value in variables.items()) > VARIABLE_BYTES_MAX:
            raise InvalidRequestError(f"env: all variables together exceed {VARIABLE_BYTES_MAX:,} characters.")
        return self._changed(variables=variables)

    def env_file(self, path: str) -> Image:
        """Set the variables of a file with lines `NAME=value`; read now. Blank lines and `#` comments are skipped,
        `export` and quotes around a value are taken off, and nothing is expanded.

        Raises:
            InvalidRequestError: It cannot be read or a line is none.
        """
        return self if _is_on_worker() else self.env(_env_lines(path))

    def workdir(self, path: str) -> Image:
        """Begin calls in a folder: one of the app's files when relative, else one that is made, empty and writable.

        Raises:
            InvalidRequestError: It is no such path.
        """
        if not isinstance(path, str) or not path or not is_workdir(path):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise wrong("workdir", path, WORKDIR_RULE)
        return self._changed(workdir=path)

    def add_local_file(self, local_path: str, remote_path: str | None = None) -> Image:
        """Let functions find a file of the deploying machine; it is uploaded with the app and read-only there.

        Args:
            local_path: Absolute, or below the current folder of the deploying process.
            remote_path: Where functions find it: absolute, below one of the folders that `workdir` names, or below the
                folder in which calls begin. With a slash at its end a folder for it; None for its own name.

        Raises:
            InvalidRequestError: There is no such file or no such place. A deploy also refuses what looks like a secret
                (`secret_refused`) and, with `ConflictError`, two files at one place (`place_taken`).
        """
        return self if _is_on_worker() else self._adding([local_file(local_path, remote_path)])

    def add_local_dir(self, local_path: str, remote_path: str | None = None) -> Image:
        """Let functions find the files of a folder of the deploying machine, read-only; see `add_local_file`.

        Left out are hidden files and folders, virtual environments, and what a `.gitignore` or `.apothicignore` in the
        folder or below it names.

        Raises:
            InvalidRequestError: As `add_local_file`; a deploy also refuses links that leave the folder
                (`link_outside`).
        """
        return self if _is_on_worker() else self._adding([local_folder(local_path, remote_path)])

    def add_local_python_source(self, *modules: str) -> Image:
        """Let functions import modules that can be imported here, from wherever they lie; uploaded are `.py` files.

        Args:
            modules: Names of modules and outermost packages; they are found now, without being imported.

        Raises:
            InvalidRequestError: There is no such module, or it has no Python source.
        """
        return self if _is_on_worker() else self._adding(local_modules(modules))

    def copy_local_file(self, local_path: str, remote_path: str | None = None) -> Image:
        """Do as `add_local_file`: no image is built yet into which something could be copied."""
        return self.add_local_file(local_path, remote_path)

    def copy_local_dir(self, local_path: str, remote_path: str | None = None) -> Image:
        """Do as `add_local_dir`."""
        return self.add_local_dir(local_path, remote_path)

    def apt_install(self, *packages: str) -> Image:
        """Add packages of the system; recorded."""
        return self._recorded(f"apt_install {' '.join(_some('apt_install', packages))}")

    def run_commands(self, *commands: str) -> Image:
        """Run commands while the image is built; recorded."""
        return self._recorded(*(f"run_commands {command}" for command in _some("run_commands", commands)))

    def command_shell(self, shell: str | None) -> Image:
        """Run later `run_commands` with another shell, None for the usual one; recorded."""
        if shell is not None:
            _some("command_shell", (shell,))
        return self._recorded(f"command_shell {shell or 'default'}")

    def with_dockerfile(self, contents: str) -> Image:
        """Add lines of a Dockerfile; recorded."""
        _some("with_dockerfile", (contents,))
        return self._recorded(f"with_dockerfile ({len(contents)} characters)")

    def _with(self, requirements: list[str]) -> Image:
        return self._changed(requirements=tuple(dict.fromkeys((*self.spec.requirements, *requirements))))

    def _adding(self, files: list[LocalFiles]) -> Image:
        together = tuple(dict.fromkeys((*self.local_files, *files)))
        if len(together) > _LOCAL_MAX:
            raise InvalidRequestError(f"An image adds at most {_LOCAL_MAX} files and folders; add a folder of them.")
        return replace(self, local_files=together)

    def _recorded(self, *steps: str) -> Image:
        return self._changed(recorded=(*self.spec.recorded, *(step[:4_096] for step in steps)))

    def _changed(self, **values: Any) -> Image:
        return replace(self, spec=replace(self.spec, **values))


def _from(step: str) -> Image:
    return Image(ImageSpec(python_here(), recorded=(step,)))


def _is_on_worker() -> bool:
    """Whether a deployed app is being loaded, where the files of the deploying machine are not."""
    return is_loading() and SOCKET_VARIABLE in os.environ


def python_here() -> str:
    """Return `major.minor` of this interpreter."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _python(version: Any) -> str:
    if version is None:
        return python_here()
    if not isinstance(version, str) or not is_python(version) or int(version.partition(".")[2]) < _FIRST_MINOR:
        raise wrong("python_version", version, f"a text such as '3.11', from 3.{_FIRST_MINOR} up")
    return version


def _some(name: str, texts: tuple[Any, ...]) -> tuple[str, ...]:
    if not texts:
        raise InvalidRequestError(f"{name}: name at least one.")
    for text in texts:
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise wrong(name, text, "a text that is not empty; give several as several arguments")
    return texts


def _variable(name: Any, value: Any) -> str:
    if not isinstance(name, str) or not is_variable(name):
        raise wrong("env", name, "letters, digits and underscores, and must not begin with APOTHIC_ or a digit")
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise wrong(f"env {name}", value, "a text, a number, True or False")
    text = str(value)
    if "\0" in text:
        raise wrong(f"env {name}", value, "without NUL")
    return text


def _env_lines(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_read("env_file", path).splitlines(), start=1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not is_variable(name):
            _wrong_line(path, number, "is no NAME=value with a name of letters, digits and underscores")
        quote = value[:1]
        if quote in {'"', "'"}:
            if len(value) < 2 or not value.endswith(quote):
                _wrong_line(path, number, "has a quote that does not end")
            value = value[1:-1]
        found[name] = value
    return found


def _wrong_line(path: str, number: int, what: str) -> NoReturn:
    raise InvalidRequestError(f"{os.path.basename(path)}, line {number}: {what}.")  # noqa: PTH119 - may be no path


def _read(name: str, path: Any) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"{name}: {path} cannot be read: {error}") from error
