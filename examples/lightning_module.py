"""QS-Attn in Lightning's Trainer: networks, losses and draws from unpaired, everything else from Lightning.

python examples/lightning_module.py   # a few steps on the embedded drawings
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

import unpaired
from unpaired.engine.step import make_optimizers, set_learning_rate, training_step
from unpaired.methods import ImageBatch, Method, image_seeds


class Translation(lightning.LightningModule):
    """Any method of unpaired; its phases optimise by themselves, so Lightning's optimisation is manual."""

    def __init__(self, method: Method, images: int, seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method, self.images, self.seed = method, images, seed

    def setup(self, stage: str) -> None:
        self.method.prepare()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return list(make_optimizers(self.method, self.method.config.optimiser).values())

    def training_step(self, batch: dict[str, Tensor], number: int) -> None:
        adam = self.optimizers()  # wrapped by Lightning, which counts their steps
        optimizers = dict(zip((phase.name for phase in self.method.phases), adam, strict=True))
        done = float(batch["index"][0]) / self.images
        optimiser = self.method.config.optimiser
        set_learning_rate(optimizers, optimiser.learning_rate * optimiser.factor(done))
        progress = torch.tensor(done, dtype=torch.float64)
        seeds = image_seeds(self.seed, batch["index"].cpu())
        images = ImageBatch(batch["source"], batch["target"], seeds, progress=progress, number=number)
        self.log_dict(training_step(self.method, optimizers, images, number=number), prog_bar=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.method.translate(x_BCHW)


def main(images: int = 8) -> Translation:
    """Train on so many images."""
    lightning.seed_everything(0)
    drawings = unpaired.DatasetConfig(folder=unpaired.embedded_dataset().root, direction="BtoA")
    stream = drawings.stream(unpaired.DataConfig(image_size=32, num_workers=0), seed=0)
    qs_attn = unpaired.METHODS["qs_attn"]
    module = Translation(qs_attn(qs_attn.Config(base_channels=8, blocks=5, num_queries=16), channels=3), images)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    # Sample k of the stream is a function of (seed, k); your own data need the same three entries.
    loader = DataLoader(range(images), collate_fn=lambda numbers: default_collate([stream[k] for k in numbers]))
    trainer.fit(module, loader)
    return module


if __name__ == "__main__":
    main()
