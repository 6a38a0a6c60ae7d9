"""Settings of query selection, for every method that chooses its anchors by significance."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from unpaired.config import settings
from unpaired.errors import ConfigError, nearest
from unpaired.ops import backend_report

RANDOM: dict[str, Any] = {"significance": "random", "routing": "none"}
"""Options of ``query_selected_attention`` of a tap that samples at random, as CUT does."""


@settings
class QuerySelectionConfig:
    """The options of QS-Attn; a method's Config inherits them beside its own settings, ``taps`` among them."""

    attention: Literal["global", "local", "local_global"] = "global"
    """The paper's mode: select and route with A_g, with A_l, or select with A_l and route with A_g."""
    attention_taps: tuple[str, ...] = ("block1", "block5")
    """Taps that select by significance; the others sample at random as CUT does."""
    significance: Literal["entropy", "max_mean", "random"] = "entropy"
    """What ranks the queries: entropy (Eq. 4, 5), Informer's max-mean (Eq. 6), or nothing (ablations B, E)."""
    routing: Literal["cross", "self", "none"] = "cross"
    """Which attention routes the translated features: the source's, their own (ablations D, E), none (ablation C)."""
    similarity: Literal["dot", "scaled", "cosine"] = "dot"
    """Logits of the attention: dot product as in the paper, divided by sqrt(C), or cosine over a temperature."""
    similarity_temperature: PositiveFloat | None = None
    """Divides the logits; unset means 1 for dot and scaled and 0.1 for cosine."""
    pool_attention_to: Annotated[int, Field(ge=2)] | None = None
    """Average-pool larger maps to this side before they attend (the paper's Table 4 takes 64 for all five taps)."""
    window: Annotated[int, Field(ge=1)] = 7
    """w: side of the local attention's window, odd."""
    detach_attention: bool = False
    """Stop the gradient through the source's attention rows (published behaviour: it flows)."""
    backend: str | None = None
    """Which implementation of query selection trains (see 'unpaired info'); unset takes the best that can run."""
    formulation: Literal["equations", "published"] = "equations"
    """The paper's equations, or the published code with its scrambled windows and zero-key borders."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # of the method's settings, which a Config inherits after these
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
            raise ConfigError("formulation 'published' knows the plain dot product only; set similarity to 'dot'")
        if self.formulation == "published" and self.significance == "max_mean":
            raise ConfigError("formulation 'published' knows significance 'entropy' and 'random', not 'max_mean'")

    def selection(self, tap: str) -> dict[str, Any]:
        """Options of ``query_selected_attention`` at one tap, and ``pool_to``, the side to pool to before it."""
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
        """Whether any gradient flows into the encodings of the inputs (through attention rows)."""
        return self.routing == "cross" and not self.detach_attention
