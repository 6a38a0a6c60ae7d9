"""The page and the picture of the selection benchmark, from made-up numbers."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from test_published_attention import load

MEMORY = [
    {"contender": contender, "side": side, "peak_mib": mib, "features_mib": 8.0, "seconds": 1.0}
    for side, contender, mib in [
        (64, "ours", 26.0),
        (64, "published", 338.0),
        (96, "ours", 52.0),
        (96, "published", 1700.0),
        (128, "ours", 96.0),
        (128, "published", 5400.0),
        (256, "ours", 350.0),
    ]
]


def test_picture() -> None:
    picture = load("selection_report").growth_png(MEMORY)
    assert Image.open(io.BytesIO(picture)).size == (900, 560)


def test_page_names_work_speed_up_memory_and_load() -> None:
    report = load("selection_report")
    result: dict[str, Any] = {
        **report.machine(),
        "date": "2026-11-25",
        "num_queries": 256,
        "minutes": 1.0,
        "load_average_at_start": (0.1, 0.2, 0.3),
        "load_average_at_end": (1.1, 0.2, 0.3),
        "times": [
            {
                "work": "global 64x64",
                "threads": 1,
                "ours_seconds": [0.2, 0.2],
                "ours_seconds_median": 0.2,
                "published_seconds_median": 1.0,
                "speed_up": 5.0,
                "speed_up_range": (4.5, 5.5),
            }
        ],
        "memory": [{"work": "global 64x64", **each} for each in MEMORY[:2]],
        "anatomy": [],
        "growth": MEMORY,
    }
    page = report.markdown(result)
    assert "| global 64x64 | 1 | 0.200 | 1.000 | 5.0x (4.5 to 5.5) | 2 |" in page
    assert "| 26 MiB | 338 MiB | 13.0x less |" in page
    assert "load average 0.10, 0.20, 0.30 at the start" in page
