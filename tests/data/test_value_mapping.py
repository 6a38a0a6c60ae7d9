"""The mapping of file values to [-1, 1]: there and back, its ends, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from unpaired.data import BYTES, Picture, PixelFormat, ValueMapping, average_copies, repeat_channels
from unpaired.data.mapping import LARGEST, own_range
from unpaired.data.percentiles import set_percentiles
from unpaired.data.reading import describe
from unpaired.errors import ConfigError

FINITE = st.floats(-1e6, 1e6, width=32)


def there_and_back(values: np.ndarray, mapping: ValueMapping, dtype: str) -> np.ndarray:
    floats = mapping.to_floats(torch.from_numpy(values))
    assert floats.dtype == torch.float32
    assert floats.isfinite().all()
    assert floats.abs().max() <= 1
    back = mapping.to_values(floats, dtype).numpy()  # type: ignore[arg-type]
    assert back.dtype == dtype
    return back


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_integer_survives_the_range_of_its_type(dtype: str) -> None:
    every = np.arange(LARGEST[dtype] + 1, dtype=dtype).reshape(1, -1, 1)
    assert np.array_equal(there_and_back(every, own_range(dtype), dtype), every)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["uint8", "uint16"]))
def test_integers_inside_a_fixed_range_survive(data: st.DataObject, dtype: str) -> None:
    top = LARGEST[dtype]
    low = data.draw(st.integers(-top, top - 1))
    high = data.draw(st.integers(low + 1, 2 * top))
    values = data.draw(npst.arrays(dtype, (2, 3, 4), elements=st.integers(0, top)))
    back = there_and_back(values, ValueMapping("range", (low,), (high,)), dtype)
    assert np.array_equal(back, np.clip(values.astype(int), low, high).clip(0, top))


@settings(max_examples=80, deadline=None)
@given(low=FINITE, span=st.floats(1e-3, 1e6), values=npst.arrays(np.float32, (2, 3, 4), elements=FINITE))
def test_floats_lose_at_most_a_level(low: float, span: float, values: np.ndarray) -> None:
    """One level of float32 is 2**-23 of the range, or the distance of neighbours where the values are large."""
    back = there_and_back(values, ValueMapping("range", (low,), (low + span,)), "float32")
    inside = np.clip(values.astype(np.float64), low, low + span)
    level = np.maximum(span * 2.0**-23, np.spacing(np.abs(inside).astype(np.float32)).astype(np.float64))
    assert (np.abs(back - inside) <= level).all()


def test_bytes_are_mapped_to_the_bit_as_they_always_were() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(BYTES.to_floats(every), every.float().div(127.5).sub(1.0))
    floats = torch.linspace(-1.2, 1.2, 999).view(1, 9, 111)
    expected = floats.add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(BYTES.to_values(floats, "uint8"), expected)


def test_each_channel_has_its_own_ends_and_what_lies_beyond_is_clipped() -> None:
    mapping = ValueMapping("percentiles", (0.0, 100.0), (10.0, 300.0))
    values = torch.tensor([[-5.0, 0.0, 5.0, 20.0], [0.0, 100.0, 200.0, 900.0]]).view(2, 1, 4)
    assert mapping.to_floats(values).view(2, 4).tolist() == [[-1, -1, 0, 1]] * 2
    back = mapping.to_values(torch.tensor([-3.0, 0.0, 3.0]).expand(2, 1, 3), "float32")
    assert back.view(2, 3).tolist() == [[0, 5, 10], [100, 200, 300]]
    with pytest.raises(ValueError, match="NaN"):
        mapping.to_values(torch.full((2, 1, 1), torch.nan), "float32")


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_ranges_that_are_none(ends: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"from a smaller to a larger number|must be a finite number"):
        ValueMapping("range", ends[:1], ends[1:])


def test_formats_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="no range of their own"):
        own_range("float32")
    with pytest.raises(ConfigError, match="too wide for uint16"):
        PixelFormat(1, "uint16", ValueMapping("range", (0.0,), (1e9,)))
    with pytest.raises(ConfigError, match="2 ranges, but the images 3 channels"):
        PixelFormat(3, "float32", ValueMapping("percentiles", (0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(ConfigError, match="channels must be at most 16, not 17"):
        PixelFormat(17)


@settings(max_examples=40, deadline=None)
@given(own=st.integers(1, 16), more=st.integers(0, 15))
def test_repeated_channels_average_to_what_they_were(own: int, more: int) -> None:
    images = torch.randint(0, 1000, (2, own, 3, 4)).float()
    repeated = repeat_channels(images, own + more)
    assert repeated.shape == (2, own + more, 3, 4)
    assert all(torch.equal(repeated[:, i], images[:, i % own]) for i in range(own + more))
    torch.testing.assert_close(average_copies(repeated, own), images)
    assert repeat_channels(images, own) is images


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(["uint8", "uint16", "float32"]))
def test_percentiles_of_a_set_are_exact(data: st.DataObject, dtype: str) -> None:
    elements = FINITE if dtype == "float32" else st.integers(0, LARGEST[dtype])
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)), min_size=1, max_size=4))
    images = [data.draw(npst.arrays(dtype, shape, elements=elements)) for shape in shapes]
    wanted = data.draw(st.lists(st.floats(0, 100), min_size=1, max_size=3))
    everything = np.concatenate([image.reshape(-1, 3) for image in images])
    expected = np.percentile(everything, wanted, axis=0, method="inverted_cdf")
    pictures = [Picture(image, None, describe(image)) for image in images]
    found = set_percentiles(lambda: iter(pictures), wanted)
    # Ranks next to a whole number depend on how the quotient was rounded: one neighbour is allowed then.
    ranks = np.array(wanted) / 100 * len(everything)
    sure = np.abs(ranks - np.rint(ranks)) > 1e-6
    assert np.array_equal(found[sure], expected[sure])
    assert np.array_equal(set_percentiles(lambda: iter(pictures), [0, 100]), [everything.min(0), everything.max(0)])
