"""Serving a study until Ctrl-C: uvicorn, and what is said in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

from unpaired.errors import BackendError
from unpaired.study.store import Store
from unpaired.web.guard import is_loopback
from unpaired.web.sockets import bound_socket, page_address


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

    with bound_socket(host, port) as bound:
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
        ready(page_address(host, bound))
        try:
            uvicorn.Server(config).run(sockets=[bound])
        except KeyboardInterrupt:  # uvicorn has ended its connections and hands the signal on
            return
