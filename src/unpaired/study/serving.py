"""Serving a study until Ctrl-C: the socket, uvicorn, and what is said in the terminal."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable

from unpaired.errors import BackendError, ConfigError
from unpaired.study.guard import is_loopback
from unpaired.study.store import Store


def require_web_packages() -> None:
    """Raise ``BackendError`` unless the optional packages of the page are installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BackendError(
            f"the page of a study needs the package '{error.name}', which is not installed: "
            'pip install "unpaired[study]"'
        ) from error


def serve(store: Store, host: str, port: int, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve a study until the process is interrupted.

    Args:
        store: The study.
        host: Address to bind to.
        port: 0 takes any free one.
        ready: Called with the page's address once requests are answered.

    Raises:
        BackendError: The optional packages are missing.
        ConfigError: The address cannot be bound to.
    """
    require_web_packages()
    import uvicorn

    from unpaired.study.app import make_app

    with _bound(host, port) as bound:
        if not is_loopback(host):
            print(
                f"warning: bound to {host}, so other machines can reach this study, without password or encryption: "
                "whoever reaches it can vote",
                file=sys.stderr,
            )
        config = uvicorn.Config(
            make_app(store, host),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=256,
            timeout_graceful_shutdown=2,
        )
        ready(_address(host, bound))
        try:
            uvicorn.Server(config).run(sockets=[bound])
        except KeyboardInterrupt:  # uvicorn has ended its connections and hands the signal on
            return


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; made here, because uvicorn would end the process where it cannot have it."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}, but ports go from 0 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except socket.gaierror as error:
        raise ConfigError(f"host: '{host}' is no address of this machine ({error.strerror})") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use on {host}; use another --port, or --port 0 for any") from error
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _address(host: str, bound: socket.socket) -> str:
    """What to type into a browser on this machine, or on others where one address stands for all."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"
