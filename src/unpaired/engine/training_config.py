"""The settings of a training run that do not depend on its method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unpaired.config import BatchSize, Count, CountOrZero, Positive, Seed, Threads, settings
from unpaired.errors import ConfigError

LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow"]
"""Where a training is logged beside ``log.jsonl``."""


@settings
class TrainingConfig:
    """Length, seeds, precision, processes and bookkeeping of a training run. Intervals count images."""

    images: Count | None = None
    """Length of training in images; unset means the method's published number of epochs."""
    batch_size: BatchSize = 1
    """Images per step over all processes."""
    seed: Seed = 0
    """Seed of initial weights, sample order, augmentation and every random draw."""
    precision: Literal["32", "bf16-mixed", "auto"] = "32"
    """Arithmetic of the networks; selection and losses stay in float32. auto: bf16-mixed on a GPU that has bf16, and on
    a CPU with AMX or AVX512-BF16 if a ten-second measurement shows that it is faster; run.yaml records the choice, so
    that a resumed run uses it, too."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device."""
    devices: Threads = 1
    """Number of processes on each machine, one device each (on the CPU: gloo)."""
    nodes: Threads = 1
    """Number of machines; on more than one, start this command on each of them with torchrun, or with srun in SLURM."""
    threads: Threads | None = None
    """CPU threads of each process; unset leaves torch's choice."""
    fast_convolutions: bool = True
    """On the CPU in float32, use Winograd's algorithm where it is faster; its rounding error is about five times as
    large."""
    compile: bool = False
    """Compile the networks with torch.compile: minutes at the start, then faster steps on a GPU."""
    channels_last: bool = False
    """Use the channels-last memory format, which is often faster for half precision on a GPU; on the CPU half precision
    always uses it."""
    cuda_graph: bool = False
    """On a GPU, record the training step once as a CUDA graph and replay it, which avoids most kernel launches."""
    ema_half_life_images: Positive = 1000.0
    """Half-life, in images, of the averaged weights that are served."""
    log_every: Count = 100
    """Images between two lines of the log."""
    sample_every: Count | None = None
    """Images between two sample grids; unset means a twentieth of training."""
    checkpoint_every: Count | None = None
    """Images between two checkpoints; unset means a twentieth of training, at most 5000."""
    logger: tuple[LoggerName, ...] = ("tensorboard",)
    """Where scalars, images and settings go beside log.jsonl, any number of: tensorboard and csv (in the run folder),
    wandb and mlflow (their own environment variables decide where; pip install 'unpaired[wandb]' or [mlflow])."""
    keep_checkpoints: Count = 3
    """How many checkpoints stay on disk."""
    score_every: CountOrZero | None = None
    """Images between two scorings of held-out images, if there are any; unset means a tenth of training, at least 100;
    0 never."""
    score_images: Annotated[int, Field(ge=2, le=10**9)] = 200
    """Most held-out images of each domain that are scored during training, evenly spaced by name."""
    score_by: str = "auto"
    """Score that chooses the best weights, a name as 'unpaired evaluate' prints it without counts; auto takes KID
    (Lite0), and SWD where there are too few images for that."""
    stop_after: Count | None = None
    """End this session once this many images are seen, to be resumed later; the schedule remains that of the full
    length."""

    @property
    def processes(self) -> int:
        """Number of processes on all machines."""
        return self.nodes * self.devices

    def __post_init__(self) -> None:
        if self.cuda_graph and self.processes > 1:
            raise ConfigError("cuda_graph records the step of one process: use --devices 1 or --no-cuda-graph")
