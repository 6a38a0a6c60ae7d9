"""Named full runs: one readable function per published result or demonstration.

Each takes the data folder (and a seed) and returns the ``RunConfig`` that ``unpaired train --config`` would read; its
docstring states what was published, what it costs and what to expect. ``unpaired runs`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unpaired.runs import more, table1, table3, table4, table5
from unpaired.runs.demo import demo, small_images
from unpaired.training import RunConfig

_FUNCTIONS: tuple[Callable[[Path], RunConfig], ...] = (
    small_images,
    table1.cityscapes_cyclegan, table1.cityscapes_munit, table1.cityscapes_cut,
    table1.cityscapes_fsesim, table1.cityscapes_qs_attn_global, table1.cityscapes_qs_attn_local,
    table1.cityscapes_qs_attn_local_global,
    table1.cat2dog_cyclegan, table1.cat2dog_munit, table1.cat2dog_cut,
    table1.cat2dog_fsesim, table1.cat2dog_qs_attn_global, table1.cat2dog_qs_attn_local,
    table1.cat2dog_qs_attn_local_global,
    table1.horse2zebra_cyclegan, table1.horse2zebra_munit, table1.horse2zebra_cut,
    table1.horse2zebra_fsesim, table1.horse2zebra_qs_attn_global, table1.horse2zebra_qs_attn_local,
    table1.horse2zebra_qs_attn_local_global,
    table3.table3_a, table3.table3_b, table3.table3_c, table3.table3_d,
    table3.table3_e, table3.table3_f, table3.table3_g, table3.table3_h,
    table4.table4_last_two, table4.table4_all_pooled, table4.table4_all_full,
    table5.table5_qs_attn_64, table5.table5_qs_attn_128, table5.table5_qs_attn_256, table5.table5_qs_attn_512,
    table5.table5_cut_64, table5.table5_cut_128, table5.table5_cut_256, table5.table5_cut_512,
    more.fastcut, more.sincut, more.lsesim, more.monce, more.hneg_src, more.enco, more.santa, more.dclgan,
    more.cyclegan_qs_attn, more.dclgan_qs_attn, more.multi_domain_qs_attn,
)  # fmt: skip
RUNS: dict[str, Callable[[Path], RunConfig]] = {function.__name__: function for function in _FUNCTIONS}
"""Name -> function from the data folder to the run's settings; the function has the run's name."""

__all__ = ["RUNS", "demo", "small_images"]
