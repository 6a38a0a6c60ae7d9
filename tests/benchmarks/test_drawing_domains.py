"""The drawings as four domains, arranged from made-up files."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_published_attention import load

from tiny import write_images
from unpaired.data import find_domains


@pytest.mark.parametrize("copy", [False, True])
def test_two_sets_become_four_domains(tmp_path: Path, copy: bool) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    sizes = {"fluent/trainA": 2, "fluent/trainB": 3, "emoji/trainA": 4, "emoji/trainB": 5}
    for seed, (place, count) in enumerate(sizes.items()):
        write_images(data / place, count, seed=seed)
        write_images(data / place.replace("train", "test"), 1, seed=seed)
    arrange = load("make_drawing_domains").arrange
    for _ in range(2):  # again, over what is there
        counts = arrange(data, out, copy=copy)
    train = {key.removeprefix("train/"): count for key, count in counts.items() if key.startswith("train/")}
    assert train == {"fluent_colour": 2, "fluent_contrast": 3, "noto": 5, "twemoji": 4}
    assert find_domains(out).names == tuple(sorted(train))
    one = out / "train" / "noto" / "image4.png"
    assert one.read_bytes() == (data / "emoji" / "trainB" / "image4.png").read_bytes()
    assert one.is_symlink() != copy
