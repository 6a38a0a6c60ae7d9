"""``python -m unpaired`` is the command ``unpaired``."""

import sys

from unpaired.cli import main

sys.exit(main())
