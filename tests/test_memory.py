"""Memory that training keeps between its steps."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from unpaired.environment import freed_memory_kept
from unpaired.inference.large_images import taken_memory


def page_faults_of_maps(count: int) -> int:
    """Of filling and freeing so many maps of 64 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(16 << 20).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_freed_maps_are_used_again_without_page_faults_and_given_back_at_the_end() -> None:
    outside = page_faults_of_maps(4)
    with freed_memory_kept():
        page_faults_of_maps(4)  # until the heap is large enough
        inside, kept = page_faults_of_maps(4), taken_memory()
    assert inside < outside / 8
    assert kept - taken_memory() > 48 << 20  # of the 64 MB; faults vary with the system's huge pages
