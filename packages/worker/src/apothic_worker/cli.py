"""The command `apothic-worker`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from apothic.wire.limits import CPU_MAX, MEMORY_MB_MAX, MEMORY_MB_MIN
from apothic.wire.version import VERSION
from apothic_worker import journal
from apothic_worker.config import (
    EXECUTORS,
    TOKEN_VARIABLE,
    Config,
    ConfigError,
    check_url,
    default_name,
    token_of_environment,
)
from apothic_worker.executors.base import ExecutorUnavailable
from apothic_worker.folders import DataFolderBusy
from apothic_worker.lease import ALONE_S
from apothic_worker.link_socket import LinkRefused
from apothic_worker.worker import clean, run

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_AUTH = 3
AUTH_CODES = ("unauthenticated", "forbidden")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 after a drain, 1 failed, 2 wrong use, 3 the token is not accepted."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "clean":
            clean(options.data.expanduser().resolve())
            return 0
        config = _config(options)
        config.where()
        uvloop.run(run(config))
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except LinkRefused as error:
        return _fail(f"{error} ({error.code})", EXIT_AUTH if error.code in AUTH_CODES else EXIT_FAILED)
    except (DataFolderBusy, ExecutorUnavailable, OSError) as error:
        return _fail(str(error), EXIT_FAILED)
    return 0


def _fail(text: str, code: int) -> int:
    journal.error("worker.failed", reason=text, exit_code=code)
    return code


def _config(options: argparse.Namespace) -> Config:
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
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="apothic-worker", description="Runs user code for an Apothic control plane.")
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    cleaning = commands.add_parser("clean", help="remove what a killed worker left")
    cleaning.add_argument("--data", type=Path, required=True, help="folder of that worker")
    command = commands.add_parser("run", help="link this machine and work")
    address = command.add_mutually_exclusive_group(required=True)
    address.add_argument("--url", action="append", help="address of the control plane; several times: of each server")
    address.add_argument("--url-file", type=Path, help="file with the address, read again before each try to link")
    command.add_argument(
        "--token-file",
        type=Path,
        help=f"file with the worker token, mode 0600, read before each try; default: ${TOKEN_VARIABLE}",
    )
    command.add_argument("--data", type=Path, required=True, help="folder of this worker alone")
    command.add_argument("--executor", choices=EXECUTORS, default="sandbox", help="how user code is isolated")
    command.add_argument("--cpus", type=_cpus, help="processors to offer")
    command.add_argument("--memory-mb", type=_memory, help="memory to offer, in MiB")
    command.add_argument("--name", help="name shown to people; default: the host's")
    command.add_argument("--trust-user-code", action="store_true", help="allow `process` as root and for several orgs")
    command.add_argument("--local", action="store_true", help="the server is on this host: keep work while it is away")
    command.add_argument("--leased", action="store_true", help=argparse.SUPPRESS)
    command.add_argument("--alone-s", type=float, default=ALONE_S, help=argparse.SUPPRESS)
    return parser


def _cpus(text: str) -> float:
    number = float(text)
    if not 0 < number <= CPU_MAX:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {CPU_MAX}")
    return number


def _memory(text: str) -> int:
    number = int(text)
    if not MEMORY_MB_MIN <= number <= MEMORY_MB_MAX:
        raise argparse.ArgumentTypeError(f"must be from {MEMORY_MB_MIN} to {MEMORY_MB_MAX}")
    return number


if __name__ == "__main__":
    sys.exit(main())
