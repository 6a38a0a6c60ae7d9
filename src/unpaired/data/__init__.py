"""Images in, tensors out: reading, folders, training crops, and the reproducible stream of unpaired samples.

Names are imported on first use, so that options and folders can be read without torch.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # __init__.pyi lists the names
