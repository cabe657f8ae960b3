"""The command `apothic-worker`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from apothic.wire.limits import CPU_MAX, DISK_FLOOR_MB, DISK_FLOOR_MB_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN
from apothic.wire.names import WORKER_NAME_RULE, is_worker_name
from apothic.wire.version import VERSION
from apothic_worker import enrolment, journal
from apothic_worker.config import (
    EXECUTORS,
    TOKEN_VARIABLE,
    Config,
    ConfigError,
    check_sending,
    check_url,
    default_name,
    default_worker_name,
    token_of_environment,
)
from apothic_worker.enrolment import Enrolled, JoinFailed, JoinRefused
from apothic_worker.executors.base import ExecutorUnavailable
from apothic_worker.folders import DataFolderBusy, DataFolderUnusable, lock_folder, made_folder
from apothic_worker.lease import ALONE_S
from apothic_worker.link_socket import LinkRefused
from apothic_worker.worker import check_executor, clean, run

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_AUTH = 3
EXIT_UNAVAILABLE = 9
ALONE_S_MAX = 604_800.0
EXIT_OF_STATUS = {401: EXIT_AUTH, 403: 4, 409: 6, 422: 8}
AUTH_CODES = ("unauthenticated", "forbidden")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 after a drain, 1 failed, 2 wrong use, 3 the token is not accepted; of `join` also 4 and 6 for other refusals, 8
    for a name that the server does not take, 9 without an answer.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "clean":
            clean(options.data.expanduser().resolve())
            return 0
        config = _joined_config(options) if options.command == "join" else _config(options)
        config.where()
        while _was_given_up(config, is_alone=options.command == "join"):
            journal.warning("worker.starts_again", reason="its lease had ended: it was away for too long")
    except ConfigError as error:
        return _fail(options, str(error), "config_invalid", EXIT_USAGE)
    except JoinRefused as error:
        return _fail(options, str(error), error.code, EXIT_OF_STATUS.get(error.status, EXIT_FAILED))
    except JoinFailed as error:
        return _fail(options, str(error), "unreachable", EXIT_UNAVAILABLE)
    except LinkRefused as error:
        text, code = f"{error} ({error.code})", EXIT_AUTH if error.code in AUTH_CODES else EXIT_FAILED
        if options.command == "join" and code == EXIT_AUTH:
            file = options.data / enrolment.FILE
            text += f"; to have this machine join again, remove {file} and give a new token"
        return _fail(options, text, error.code, code)
    except DataFolderUnusable as error:
        return _fail(options, str(error), "data_folder", EXIT_USAGE)
    except (DataFolderBusy, ExecutorUnavailable) as error:
        return _fail(options, str(error), "worker_failed", EXIT_FAILED)
    except OSError as error:
        return _fail(options, f"{error.strerror or error}: {error.filename}", "worker_failed", EXIT_FAILED)
    return 0


def _was_given_up(config: Config, *, is_alone: bool) -> bool:
    """Work to the end; true when the server had given this start up and nobody else begins another one."""
    try:
        uvloop.run(run(config))
    except LinkRefused as error:
        if not is_alone or error.code != "fenced":
            raise
        return True
    return False


def _fail(options: argparse.Namespace, text: str, code: str, exit_code: int) -> int:
    if options.command != "join":
        journal.error("worker.failed", reason=text, exit_code=exit_code)
    elif options.json:
        sys.stderr.write(json.dumps({"error": {"code": code, "detail": text, "exit_code": exit_code}}) + "\n")
    else:
        sys.stderr.write(f"Error: {text}\n")
    return exit_code


def _joined_config(options: argparse.Namespace) -> Config:
    """Have the worker of the data folder join, unless it has, and return its settings."""
    if options.executor == "process" and not options.trust_user_code:
        raise ConfigError("`process` does not isolate user code: say --trust-user-code, or use `sandbox`")
    options.data = options.data.expanduser().resolve()
    if options.name is not None and not is_worker_name(options.name):
        raise ConfigError(f"{options.name!r} is no name for a worker: {WORKER_NAME_RULE}")
    with made_folder(options.data, kept=enrolment.FILE):
        lock = lock_folder(options.data, wait_s=0.0)
        try:
            is_first = options.name is None and not (options.data / enrolment.FILE).exists()
            name = default_worker_name() if is_first else options.name
            worker = enrolment.prepare(options.data, server=options.server, name=name, is_insecure=options.insecure)
            if not worker.is_joined:
                worker = _join(options, worker)
        finally:
            os.close(lock)
    return _config_of(options, worker)


def _join(options: argparse.Namespace, worker: Enrolled) -> Enrolled:
    if options.token_file is None:
        raise ConfigError("give the join token with --token-file; `apothic worker token` makes one")
    token = enrolment.read_join_token(options.token_file)
    check_executor(_config_of(options, worker))  # before the token is spent
    joined = enrolment.join(options.data, worker, token)
    journal.info("worker.joined", name=joined.name, server=joined.server, data=str(options.data))
    return joined


def _config_of(options: argparse.Namespace, worker: Enrolled) -> Config:
    return Config(
        url=worker.server,
        token=worker.token,
        data=options.data,
        executor=options.executor,
        cpus=options.cpus,
        memory_mb=options.memory_mb,
        name=worker.name,
        trust_user_code=options.trust_user_code,
        is_insecure=worker.is_insecure,
        disk_floor_mb=options.disk_floor_mb,
    )


def _config(options: argparse.Namespace) -> Config:
    for url in options.url or ():
        if not options.local:
            check_sending(check_url(url), is_insecure=options.insecure)
    return Config(
        url=options.url_file or check_url(options.url[0]),
        more_urls=tuple(check_url(url) for url in (options.url or ())[1:]),
        is_leased=options.leased,
        token=options.token_file or token_of_environment(),
        data=options.data.expanduser().resolve(),
        executor=options.executor,
        cpus=options.cpus,
        memory_mb=options.memory_mb,
        name=options.name or default_name(),
        trust_user_code=options.trust_user_code,
        is_local=options.local,
        alone_s=options.alone_s,
        is_insecure=options.insecure,
        disk_floor_mb=options.disk_floor_mb,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="apothic-worker", description="Runs user code for an Apothic control plane.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    cleaning = commands.add_parser("clean", help="remove what a killed worker left")
    cleaning.add_argument("--data", type=_folder, required=True, help="folder of that worker")
    _add_run(commands.add_parser("run", help="link this machine and work"))
    _add_join(commands.add_parser("join", help="join a cloud with a token that works once, then work"))
    return parser


def _add_run(command: argparse.ArgumentParser) -> None:
    address = command.add_mutually_exclusive_group(required=True)
    address.add_argument("--url", action="append", help="address of the control plane; several times: of each server")
    address.add_argument("--url-file", type=Path, help="file with the address, read again before each try to link")
    command.add_argument(
        "--token-file",
        type=Path,
        help=f"file with the worker token, mode 0600, read before each try; default: ${TOKEN_VARIABLE}",
    )
    _add_machine(command)
    command.add_argument("--name", help="name shown to people; default: the host's")
    command.add_argument("--local", action="store_true", help="the server is on this host: keep work while it is away")
    command.add_argument("--leased", action="store_true", help=argparse.SUPPRESS)
    command.add_argument("--alone-s", type=_seconds, default=ALONE_S, help=argparse.SUPPRESS)


def _add_join(command: argparse.ArgumentParser) -> None:
    command.add_argument("--server", help="address of the control plane; known once it has joined")
    command.add_argument("--token-file", help="file with the join token, mode 0600; `-` reads standard input")
    _add_machine(command)
    command.add_argument("--name", help="name of this worker in the cloud; default: the host's")
    command.add_argument("--json", action="store_true", help="tell errors as JSON")


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=_folder, required=True, help="folder of this worker alone")
    command.add_argument("--executor", choices=EXECUTORS, default="sandbox", help="how user code is isolated")
    command.add_argument("--cpus", type=_cpus, help="processors to offer")
    command.add_argument("--memory-mb", type=_memory, help="memory to offer, in MiB")
    command.add_argument(
        "--disk-floor-mb",
        type=_floor,
        default=DISK_FLOOR_MB,
        help="stop what writes most while less is free on the disk of --data, in MiB; 0 never",
    )
    command.add_argument("--trust-user-code", action="store_true", help="allow `process` as root and for several orgs")
    command.add_argument("--insecure", action="store_true", help="send the token over plain http to another host")


def _cpus(text: str) -> float:
    return _number(text, 0, CPU_MAX, f"must be above 0 and at most {CPU_MAX}")


def _floor(text: str) -> int:
    return _whole(text, 0, DISK_FLOOR_MB_MAX)


def _memory(text: str) -> int:
    return _whole(text, MEMORY_MB_MIN, MEMORY_MB_MAX)


def _whole(text: str, least: int, most: int) -> int:
    wrong = f"must be a whole number from {least} to {most}"
    number = _number(text, least - 1, most, wrong)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(wrong)
    return int(number)


def _seconds(text: str) -> float:
    return _number(text, 0, ALONE_S_MAX, f"must be above 0 and at most {ALONE_S_MAX}")


def _number(text: str, above: float, most: float, wrong: str) -> float:
    """Return a finite number; what is no number at all compares with no bound."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(wrong) from None
    if not above < number <= most:
        raise argparse.ArgumentTypeError(wrong)
    return number


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("names no folder")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
