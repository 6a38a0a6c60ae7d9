"""Work on a Ray cluster of the user's: connecting to it, and mapping a function over items on it.

Ray is imported on first use. Its machines share a file system and have this package installed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from unpaired.errors import BackendError, UserError, require_packages

Item = TypeVar("Item")
Made = TypeVar("Made")

_LARGEST_BLOCK = 32
"""Most items per task, which is what a lost worker costs."""


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Be connected to a Ray cluster.

    Args:
        address: ``host:port`` of its head; empty takes that of ``RAY_ADDRESS``, else the one that runs on this machine,
            else makes one of this machine alone, which ends with the connection.

    Raises:
        BackendError: Ray is not installed, or no cluster answers there.
    """
    require_packages("--ray", "cluster", "ray", "pyarrow")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data

    own = {name: value for name, value in os.environ.items() if name.startswith("UNPAIRED_")}
    where = address or os.environ.get("RAY_ADDRESS", "")
    host, _, port = where.rpartition(":")
    try:
        if port.isdecimal() and "://" not in host:  # Ray itself tries for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address or None, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": own})
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(f"ray: no cluster answers at '{where or 'this machine'}': {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def ray_has_gpus() -> bool:
    """Whether the cluster that one is connected to has any GPU."""
    import ray

    return ray.cluster_resources().get("GPU", 0) >= 1


def ray_workers(cpus: int, gpus: int) -> int:
    """How many workers of so many CPU cores and GPUs each fit into the cluster at the same time.

    Raises:
        BackendError: None does.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(
        int(min(has.get(kind, 0) // each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each)) for has in machines
    )
    if not fitting:
        needs = f"{cpus} CPU core{'s' * (cpus != 1)}" + " and a GPU" * bool(gpus)
        raise BackendError(f"ray: none of the {len(machines)} machines of the cluster has the {needs} of one worker")
    return fitting


def map_on_ray(
    make: Callable[[], Callable[[Sequence[Item]], Made]], items: Sequence[Item], *, workers: int, gpus: int
) -> Iterator[Made]:
    """Apply a function to all items, some at a time, on the workers of a Ray cluster (Ray Data).

    Items that were being processed in a worker or on a machine that is lost are processed again elsewhere, as often as
    necessary, so the function must be idempotent; each result is returned once.

    Args:
        make: Makes the function, once in each worker, in the working folder of this process.
        items: What it is applied to.
        workers: Most worker processes, with one CPU core each.
        gpus: Of each worker.

    Yields:
        What the function returned, in whatever order.

    Raises:
        BackendError: The cluster is lost.
        UserError, OSError: What ``make`` or the function raised first.
    """
    if not items:
        return
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    folder = os.getcwd()

    class Worker:
        function: Callable[[Sequence[Item]], Made] | None = None

        def __call__(self, block: dict[str, Any]) -> dict[str, list[bytes]]:
            try:
                if self.function is None:
                    os.chdir(folder)
                    self.function = make()
                made: Any = (self.function([pickle.loads(item) for item in block["item"]]), None)
            except (UserError, OSError) as error:
                made = (None, error)
            return {"made": [pickle.dumps(made)]}

    size = max(1, min(_LARGEST_BLOCK, len(items) // (4 * workers)))
    rows = ray.data.from_items(
        [{"item": pickle.dumps(item)} for item in items], override_num_blocks=-(-len(items) // size)
    )
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers)
    results = rows.map_batches(Worker, batch_size=None, compute=pool, num_cpus=1, num_gpus=gpus)
    try:
        for row in results.iter_rows():
            made, error = pickle.loads(row["made"])
            if error is not None:
                raise error
            yield made
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(f"ray: the cluster gave up ({reason}); what was made is kept") from error
