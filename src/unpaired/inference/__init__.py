"""Translation with trained weights: one class for the command line, the metrics and anybody's own script.

Names are imported on first use, so that the rooms inside (``hub``, ``export``, ``large_images``) load no torch of their
own accord.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # __init__.pyi lists the names
