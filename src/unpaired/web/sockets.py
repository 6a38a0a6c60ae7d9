"""The socket of a page that we serve, and the address to open."""

from __future__ import annotations

import errno
import socket

from unpaired.errors import ConfigError


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket; made here, because uvicorn would end the process where it cannot have it.

    Args:
        host: Address to bind to.
        port: 0 takes any free one.

    Raises:
        ConfigError: The address cannot be bound to.
    """
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


def page_address(host: str, bound: socket.socket) -> str:
    """What to type into a browser on this machine, or on others where one address stands for all."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"
