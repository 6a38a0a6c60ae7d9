"""Images of any size within a bound on memory, as if they were translated whole (docs/large_images.md)."""

from unpaired.inference.large_images.memory import free_memory, memory_bound, taken_memory
from unpaired.inference.large_images.program import Program, UnsuitableNetworkError, trace
from unpaired.inference.large_images.translate import (
    memory_needed,
    of_image,
    run_whole,
    translate_in_stripes,
    translate_within,
)

__all__ = [
    "Program",
    "UnsuitableNetworkError",
    "free_memory",
    "memory_bound",
    "memory_needed",
    "of_image",
    "run_whole",
    "taken_memory",
    "trace",
    "translate_in_stripes",
    "translate_within",
]
