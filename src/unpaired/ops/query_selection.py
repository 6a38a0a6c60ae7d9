"""Query-selected attention: checks, choice of the backend, selection.

The backends (``ops/backends/``) compute significance and routing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from unpaired.errors import BackendError, ConfigError, nearest
from unpaired.ops.attention import Attention, Similarity, as_positions, take_rows
from unpaired.ops.backends import BACKENDS, RouteFunction, SignificanceFunction
from unpaired.ops.checks import (
    AttentionMode,
    Formulation,
    Routing,
    Significance,
    check_choices,
    check_formulation,
    check_indices,
    check_numbers,
    check_tensors,
    checked_seeds,
    listed,
)
from unpaired.ops.location_draws import as_draws, location_keys

_DEFAULT_TEMPERATURE = {"dot": 1.0, "scaled": 1.0, "cosine": 0.1}


class SelectedFeatures(NamedTuple):
    """Result of :func:`query_selected_attention`.

    Attributes:
        indices: (B, N) int64, row-major positions y * W + x, the most significant first.
        significance: (B, H*W) float32 (float64 for float64 input), without gradient: the entropy in nats (H of
            Eq. 4, 5), the max-mean value (M of Eq. 6) or the uniform draw; (B, 0) where ``indices`` were given.
        source: (B, N, C) routed source features (z_x), in the dtype of the source.
        targets: One (B, N, C) per target (z_y), in the dtype of that target.
    """

    indices: Tensor
    significance: Tensor
    source: Tensor
    targets: list[Tensor]


def backend_report() -> list[tuple[str, bool, list[str]]]:
    """Backends of this machine, best first: (name, available, reasons).

    The reasons say why it cannot run or, if it can, why it is used only when requested by name.

    >>> [name for name, available, reasons in backend_report()]
    ['triton', 'blocked', 'reference']
    """
    rows = [(name, backend, backend.missing()) for name, backend in BACKENDS.items()]
    return [(name, not missing, missing or backend.only_by_name()) for name, backend, missing in rows]


def query_selected_attention(
    source: Tensor,
    targets: Sequence[Tensor],
    num_queries: int = 256,
    *,
    attention: AttentionMode = "global",
    significance: Significance = "entropy",
    routing: Routing = "cross",
    similarity: Similarity = "dot",
    temperature: float | None = None,
    window: int = 7,
    detach_attention: bool = False,
    random_seeds: Tensor | None = None,
    indices: Tensor | None = None,
    formulation: Formulation = "equations",
    backend: str | None = None,
) -> SelectedFeatures:
    """Select the N most significant positions of the source and route source and targets by their attention rows.

    The paper's QS-Attn (section 3.2): F_x is ``source``, F_y a target, A_g or A_l the attention, A_QS its
    N selected rows. Attention of half-precision features is computed in float32, also under
    autocast. The gradients of source and targets are contiguous in (B, C, H, W); those of channels-last maps in half
    precision are channels-last.

    Args:
        source: (B, C, H, W) floating features of the source image, which determine the selection.
        targets: Features of the same shape and device, usually of the translated image; may be empty.
        num_queries: N; at most H*W are returned.
        attention: ``global`` selects and routes with A_g, ``local`` with A_l, ``local_global`` selects with A_l and
            routes with A_g.
        significance: ``entropy`` (Eq. 4, 5; smallest first), ``max_mean`` (Eq. 6; largest first; over the keys of the
            window for A_l) or ``random`` (smallest draw first; needs ``random_seeds``). The smaller position wins ties;
            keys that would be equal in exact arithmetic may differ by rounding.
        routing: ``cross``: the source's rows route everything; ``self``: each tensor's own rows route it, at the
            source's positions; ``none``: plain features at the positions. ``random`` with ``none`` is CUT's sampling
            and computes no attention.
        similarity: ``dot`` f_i . f_j as in the paper, ``scaled`` by 1 / sqrt(C), ``cosine``.
        temperature: Divides the logits; None means 1.0 for ``dot`` and ``scaled`` and 0.1 for ``cosine``.
        window: Side w of the local window in positions, odd. Keys outside the map are masked.
        detach_attention: No gradient through the attention rows, only through the routed features. By default gradient
            flows through the rows, as in the published code.
        random_seeds: (B,) int64 for ``random``: image b's draws are ``location_draws(random_seeds, H*W)[b]``; ignored
            by the other measures.
        indices: (B, N) int64 in [0, H*W): route these positions instead of selecting; ``num_queries`` and
            ``significance`` are ignored and the returned significance is empty, (B, 0).
        formulation: ``equations``: the paper's equations; ``published``: its released code (see the end of
            ``ops/backends/reference.py``), for ``dot`` at temperature 1 and without ``max_mean``.
        backend: None uses the best that can run; a name runs that one or raises.

    Returns:
        The positions, the significance of every position and the routed features.

    Raises:
        ConfigError: A setting or a tensor has an invalid value, shape, dtype or device.
        BackendError: The named backend does not exist or cannot run this; the message lists every reason.
    """
    check_tensors(source, targets)
    check_choices(
        attention=(attention, AttentionMode),
        significance=(significance, Significance),
        routing=(routing, Routing),
        similarity=(similarity, Similarity),
    )
    check_numbers(num_queries, window, temperature)
    check_formulation(formulation, significance, similarity, temperature)
    measure, route_by_rows = _choose_backend(backend, source, formulation)
    height, width = source.shape[2:]
    logit_temperature = _DEFAULT_TEMPERATURE[similarity] if temperature is None else float(temperature)
    select_by = Attention(height, width, attention != "global", window, similarity, logit_temperature)
    route_by = Attention(height, width, attention == "local", window, similarity, logit_temperature)

    # Autocast would compute the products, and with them the selection, in half precision.
    with torch.autocast(source.device.type, enabled=False), _float32_products():
        no_attention = routing == "none" and (indices is not None or significance == "random")
        source_BCn = source.flatten(2) if no_attention else as_positions(source)
        if indices is not None:
            check_indices(indices, source)
            significance_Bn = source_BCn.new_empty((source.shape[0], 0), dtype=_significance_dtype(source))
        else:
            with torch.no_grad():
                if significance == "random":
                    seeds = checked_seeds(random_seeds, source)
                    key_Bn = location_keys(seeds, height * width)
                    significance_Bn = as_draws(key_Bn, _significance_dtype(source))
                else:
                    key_Bn, significance_Bn = measure(source_BCn, select_by, significance)
                # The published code sorts unstably; otherwise the smaller position wins ties.
                order_Bn = key_Bn.sort(dim=1, stable=formulation == "equations").indices
            indices = order_Bn[:, :num_queries].contiguous()

        def route(rows_of_BCn: Tensor, values: list[Tensor]) -> list[Tensor]:
            return route_by_rows(rows_of_BCn, values, indices, route_by)

        if routing == "none":
            routed = [take_rows(each, indices) for each in (source, *targets)]
        elif routing == "cross":
            rows_of = source_BCn.detach() if detach_attention else source_BCn
            routed = route(rows_of, [source_BCn, *map(as_positions, targets)])
        else:
            each_BCn = (source_BCn, *map(as_positions, targets))
            routed = [route(each.detach() if detach_attention else each, [each])[0] for each in each_BCn]
        routed = [each.to(given.dtype) for each, given in zip(routed, (source, *targets), strict=True)]
    return SelectedFeatures(
        indices, significance_Bn, routed[0].contiguous(), [each.contiguous() for each in routed[1:]]
    )


def significance_map(
    features: Tensor,
    *,
    attention: AttentionMode = "global",
    significance: Literal["entropy", "max_mean"] = "entropy",
    similarity: Similarity = "dot",
    temperature: float | None = None,
    window: int = 7,
    formulation: Formulation = "equations",
    backend: str | None = None,
) -> Tensor:
    """Significance of every position as a heat map, without gradient (Figure 2 of the paper).

    Arguments as in :func:`query_selected_attention`.

    Returns:
        (B, H, W) float32 (float64 for float64 input): entropy in nats in [0, log(number of keys)], small at
        significant positions, or the value of Eq. 6, large there.

    Raises:
        ConfigError: As :func:`query_selected_attention`; also for ``significance="random"``, which has no map.
        BackendError: As :func:`query_selected_attention`.
    """
    if significance not in ("entropy", "max_mean"):
        raise ConfigError(f"significance must be 'entropy' or 'max_mean' for a map, got {significance!r}")
    with torch.no_grad():
        selected = query_selected_attention(
            features,
            [],
            1,
            attention=attention,
            significance=significance,
            routing="none",
            similarity=similarity,
            temperature=temperature,
            window=window,
            formulation=formulation,
            backend=backend,
        )
    return selected.significance.unflatten(1, features.shape[2:])


@contextmanager
def _float32_products() -> Iterator[None]:
    """Full float32 in matrix products, whatever ``torch.set_float32_matmul_precision`` allows the networks.

    TF32 changes a logit of 47,000 by up to 20, and with it the selection. Set on the host, without synchronisation.
    """
    backends: Any = torch.backends
    settings = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [setting.fp32_precision for setting in settings]
    reduced = [(s, b) for s, b in zip(settings, before, strict=True) if b not in ("none", "ieee")]
    for setting, _ in reduced:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, value in reduced:
            setting.fp32_precision = value


def _significance_dtype(source: Tensor) -> torch.dtype:
    return torch.float64 if source.dtype == torch.float64 else torch.float32


def _choose_backend(
    name: str | None, source: Tensor, formulation: Formulation
) -> tuple[SignificanceFunction, RouteFunction]:
    """The functions of the named backend, or of the best one that can run."""
    if name is not None and name not in BACKENDS:
        raise BackendError(f"backend {name!r} does not exist; there are {listed(BACKENDS)}{nearest(name, BACKENDS)}")
    refused: list[str] = []
    for backend in BACKENDS.values() if name is None else [BACKENDS[name]]:
        reasons = backend.reasons(source, formulation) or (backend.only_by_name() if name is None else [])
        if not reasons:
            return backend.formulations[formulation]
        refused.append(f"backend {backend.name!r} cannot run: {'; '.join(reasons)}")
    raise BackendError("\n".join(refused))
