"""Query-selected attention (QS-Attn): significant positions of a feature map, and features routed by attention."""

from unpaired.ops.attention import widen
from unpaired.ops.location_draws import location_draws, normal_draws, splitmix64
from unpaired.ops.query_selection import SelectedFeatures, backend_report, query_selected_attention, significance_map

__all__ = [
    "SelectedFeatures",
    "backend_report",
    "location_draws",
    "normal_draws",
    "query_selected_attention",
    "significance_map",
    "splitmix64",
    "widen",
]
