"""``unpaired serve``: a REST server around one trained run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unpaired.cli.options import parse
from unpaired.config import Gib, InferencePrecision, Port, settings
from unpaired.errors import ConfigError, require_packages
from unpaired.files import contents
from unpaired.studio.limits import Limits, Megabytes, Megapixels, Pictures, Requests
from unpaired.web import bound_socket, is_loopback, page_address, run_server

TOKEN = "UNPAIRED_TOKEN"
"""Environment variable with the token, which a command line would show to everybody on the machine."""


@settings
class Serve:
    """Serve a trained run over HTTP: POST an image to /translate and get its translation, several to /batch; /health
    gives its state, /openapi.json describes the API. Needs the extra: pip install "unpaired[serve]".

    If the environment variable UNPAIRED_TOKEN or --token-file holds a token, requests must send it as
    'Authorization: Bearer TOKEN'.

    Example: unpaired serve runs/mine --port 8000
    """

    run: Positional[
        Annotated[
            str,
            arg(metavar="RUN", help="A run folder, owner/name[@revision] on the Hub, or an .onnx file."),
        ]
    ]
    host: str = "127.0.0.1"
    """Address to serve at; the default is reached from this machine alone. There is no encryption."""
    port: Port = 8000
    """Port to serve at; 0 takes any free one."""
    token_file: Path | None = None
    """File that holds the token."""
    weights: Literal["ema", "last", "best"] = "ema"
    """The averaged weights, those of the last step, or those that scored best on held-out images during training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: InferencePrecision = "32"
    """Arithmetic of the networks; auto uses bf16 where it is faster on this machine; bf16 always uses it."""
    memory_gib: Gib | None = None
    """Most memory to use, in GiB; unset means half of what is free."""
    megapixels: Megapixels = Limits.megapixels
    """Most pixels of one image, in millions."""
    megabytes: Megabytes = Limits.megabytes
    """Most bytes of one image, in millions."""
    batch: Pictures = Limits.batch
    """Most images of one request."""
    queue: Requests = 64
    """Most requests at work and waiting; further ones are answered by 503."""


def main(argv: Sequence[str]) -> int:
    """Load the run and serve it until Ctrl-C."""
    options = parse(Serve, argv, "unpaired serve")
    limits = Limits(options.megapixels, options.megabytes, options.batch, options.queue)
    token = _token(options.token_file)
    require_packages("the server", "serve", "fastapi", "uvicorn", "python_multipart")
    from unpaired.cli.runtime import ONNX_SUFFIX, onnx_translator
    from unpaired.inference import Translator
    from unpaired.inference.large_images import memory_bound
    from unpaired.studio.rest import make_app

    memory_bound(options.memory_gib)
    if options.run.endswith(ONNX_SUFFIX):
        translator = onnx_translator(options.run, options.weights, options.device)
    else:
        translator = Translator.from_pretrained(
            options.run, weights=options.weights, device=options.device, precision=options.precision
        )
    translator.memory_gib = options.memory_gib
    with bound_socket(options.host, options.port) as bound:
        if not token and not is_loopback(options.host):
            words = f"bound to {options.host} without a token: whoever reaches it can translate images; set {TOKEN}"
            print(f"warning: {words}", file=sys.stderr)
        app = make_app(translator, Path(options.run).name, limits, token, options.host)
        print(f"serving {options.run} at {page_address(options.host, bound)}; Ctrl-C ends it", flush=True)
        run_server(app, bound)
    return 0


def _token(file: Path | None) -> str:
    """The token, or nothing where none was given. Raises ``ConfigError`` for one that cannot be read or is empty."""
    if file is None and TOKEN not in os.environ:
        return ""
    try:
        token = (os.environ[TOKEN] if file is None else contents(file).decode()).strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"token_file: {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not token:
        raise ConfigError(f"{file or TOKEN}: holds no token; write one there, or leave it out to serve without")
    return token
