"""Settings of query selection, for methods that select their anchors by significance."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from unpaired.config import Positive, Side, settings
from unpaired.errors import ConfigError, nearest
from unpaired.ops import backend_report

RANDOM: dict[str, Any] = {"significance": "random", "routing": "none"}
"""Options of ``query_selected_attention`` at a tap that samples at random, as CUT does."""


@settings
class QuerySelectionConfig:
    """The settings of QS-Attn; a method's Config inherits them beside its own, which include ``taps``."""

    attention: Literal["global", "local", "local_global"] = "global"
    """The paper's mode. global: select and route with global attention (A_g). local: with local attention (A_l).
    local_global: select with A_l and route with A_g."""
    attention_taps: tuple[str, ...] = ("block1", "block5")
    """Taps that select by significance; the others sample at random as CUT does."""
    significance: Literal["entropy", "max_mean", "random"] = "entropy"
    """Ranking of the queries: entropy (Eq. 4, 5), Informer's max-mean (Eq. 6), or random (ablations B, E)."""
    routing: Literal["cross", "self", "none"] = "cross"
    """Attention that routes the translated features: the source's, their own (ablations D, E), none (ablation C)."""
    similarity: Literal["dot", "scaled", "cosine"] = "dot"
    """Attention logits: dot product as in the paper, dot product / sqrt(C), or cosine over a temperature."""
    similarity_temperature: Positive | None = None
    """Divides the logits; unset means 1 for dot and scaled and 0.1 for cosine."""
    pool_attention_to: Annotated[int, Field(ge=2, le=2**14)] | None = None
    """Average-pool larger feature maps to this side first (the paper's Table 4 uses 64 with all five taps)."""
    window: Side = 7
    """w: side of the local attention's window, odd."""
    detach_attention: bool = False
    """Stop the gradient through the source's attention rows (the published code does not)."""
    backend: str | None = None
    """Implementation of query selection (see 'unpaired info'); unset uses the best that can run."""
    formulation: Literal["equations", "published"] = "equations"
    """The paper's equations, or the published code with its scrambled windows and zero keys at the borders."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # the method's own settings follow in the MRO
        taps: tuple[str, ...] = self.taps  # type: ignore[attr-defined]
        if unknown := [tap for tap in self.attention_taps if tap not in taps]:
            raise ConfigError(
                f"attention_taps: '{unknown[0]}' is not among the taps ({', '.join(taps)}); add it to 'taps'"
            )
        if self.window % 2 == 0:
            raise ConfigError(f"window must be odd, not {self.window}")
        known = [name for name, _, _ in backend_report()]
        if self.backend is not None and self.backend not in known:
            raise ConfigError(
                f"backend: there is no '{self.backend}'{nearest(self.backend, known)}; known: {', '.join(known)}"
            )
        if self.formulation == "published" and (self.similarity, self.similarity_temperature) != ("dot", None):
            raise ConfigError("formulation 'published' supports similarity 'dot' without temperature only")
        if self.formulation == "published" and self.significance == "max_mean":
            raise ConfigError("formulation 'published' supports significance 'entropy' and 'random', not 'max_mean'")

    def selection(self, tap: str) -> dict[str, Any]:
        """Options of ``query_selected_attention`` at one tap, and ``pool_to``, the side to pool to first."""
        if tap not in self.attention_taps:
            return dict(RANDOM)
        return {
            "pool_to": self.pool_attention_to,
            "attention": self.attention,
            "significance": self.significance,
            "routing": self.routing,
            "similarity": self.similarity,
            "temperature": self.similarity_temperature,
            "window": self.window,
            "detach_attention": self.detach_attention,
            "formulation": self.formulation,
            "backend": self.backend,
        }

    @property
    def keys_need_gradient(self) -> bool:
        """Whether gradient flows into the encodings of the inputs (through attention rows)."""
        return self.routing == "cross" and not self.detach_attention
