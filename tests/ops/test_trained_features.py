"""Selection on features of a trained generator: float32 picks what float64 picks, where shortcuts pick otherwise.

``benchmarks/make_trained_features.py`` made the features: bfloat16 numbers, so that every dtype sees the same ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ops_parity import KEY_TOLERANCE, USABLE_BACKENDS, assert_ranked, reference_key
from safetensors.torch import load_file
from torch import Tensor

from unpaired.ops import query_selected_attention
from unpaired.ops.backends import blocked, routing

FEATURES = {
    name: each.double() for name, each in load_file(Path(__file__).parent / "trained_features.safetensors").items()
}
TEMPERATURE = {"dot": 1.0, "scaled": 1.0, "cosine": 0.1}

# Positions, of 64 or 256, that float32 may pick and float64 not. None differs on these features, nor in 1,152
# comparisons on others (four trained generators, 12 drawings at 96 and 192 px); near ties may swap in the order.
MOST_DIFFERENT = 0
MOST_OUT_OF_ORDER = 4


def picks(key: Tensor, count: int) -> list[int]:
    """The smallest, the first of equals first."""
    return key.sort(stable=True).indices[:count].tolist()


def naive_entropy(logits: Tensor) -> Tensor:
    probabilities = logits.softmax(-1)
    return -(probabilities * probabilities.log().nan_to_num(neginf=0.0)).sum(-1)


def cancelling_entropy(logits: Tensor) -> Tensor:
    """L - f . o: logsumexp minus query times routed query, both of which flash attention returns."""
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


@pytest.mark.parametrize("path", ["as it comes", "many tiles", "windows"])
@pytest.mark.parametrize("similarity", ["dot", "scaled", "cosine"])
@pytest.mark.parametrize("attention", ["global", "local", "local_global"])
@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("backend", [name for name in USABLE_BACKENDS if name != "reference"])
def test_float32_and_bfloat16_select_as_float64_does(
    backend: str, name: str, attention: Any, similarity: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "many tiles":
        monkeypatch.setattr(blocked, "_TILE_LOGITS_CPU", 128 * 128)
    if path == "windows":  # these maps are small enough to be taken as masked rows otherwise
        monkeypatch.setattr(routing, "SMALL_MAP", 0)
    features = FEATURES[name]
    key = reference_key(
        features,
        "entropy",
        local=attention != "global",
        window=7,
        similarity=similarity,
        temperature=TEMPERATURE[similarity],
    )
    for dtype, count in ((torch.float32, 64), (torch.float32, 256), (torch.bfloat16, 256)):
        got = query_selected_attention(
            features.to(dtype), [], count, attention=attention, similarity=similarity, backend=backend
        ).indices
        assert_ranked(got, key, KEY_TOLERANCE[dtype])
        expected = picks(key[0], count)
        different = len(set(expected) - set(got[0].tolist()))
        out_of_order = sum(a != b for a, b in zip(expected, got[0].tolist(), strict=True))
        assert different <= MOST_DIFFERENT
        assert out_of_order <= MOST_OUT_OF_ORDER


def wrong_picks(features: Tensor, shortcut: Any, count: int) -> tuple[int, int]:
    """Positions that a shortcut in float32 picks wrongly, and that the default backend does."""
    tokens = features.float().flatten(2)[0].T
    expected = set(picks(reference_key(features, "entropy", **GLOBAL_DOT)[0], count))
    ours = query_selected_attention(features.float(), [], count).indices[0].tolist()
    return len(expected - set(picks(shortcut(tokens @ tokens.T), count))), len(expected - set(ours))


GLOBAL_DOT: dict[str, Any] = {"local": False, "window": 7, "similarity": "dot", "temperature": 1.0}


@pytest.mark.parametrize(
    ("name", "shortcut", "count", "at_least"),
    [
        # Entropies of exactly 0, more of them than positions to select: a tie that the sort breaks.
        ("trained block5 test-tube", naive_entropy, 16, 5),
        ("trained block5 performing-arts", naive_entropy, 16, 5),
        ("initial block5 abacus", naive_entropy, 64, 20),
        # Two numbers near a thousand whose difference is looked for.
        ("trained block5 test-tube", cancelling_entropy, 64, 40),
        ("trained block5 performing-arts", cancelling_entropy, 64, 40),
        ("trained block5 performing-arts", cancelling_entropy, 256, 60),
        ("initial block5 abacus", cancelling_entropy, 64, 40),
    ],
)
def test_shortcuts_pick_wrong_rows_of_real_features(name: str, shortcut: Any, count: int, at_least: int) -> None:
    theirs, ours = wrong_picks(FEATURES[name], shortcut, count)
    assert theirs >= at_least
    assert ours == 0


def test_a_ladder_of_gaps_is_climbed_in_order() -> None:
    """One-hot rows whose best key leads by 10 to 10,000: H = R (1 + gap), R = exp(-gap) and less than any float32."""
    gaps = torch.linspace(10, 10_000, 200)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    features = gaps.sqrt().diag().view(1, 200, 10, 20)
    expected = gaps.argsort(descending=True)[:150].tolist()
    assert query_selected_attention(features, [], 150).indices[0].tolist() == expected
    assert query_selected_attention(features.double(), [], 150).indices[0].tolist() == expected
    shown = query_selected_attention(features, [], 150).significance
    assert (shown == 0).sum() > 150  # nothing to rank by is left in the entropies themselves
