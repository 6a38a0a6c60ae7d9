"""Translation with trained weights: one class for the command line, the metrics and your own scripts.

Names are imported on first use, so that importing ``hub``, ``export`` or ``large_images`` does not load
torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # __init__.pyi lists the names
