"""``python -m unpaired.benchmarking ORDER.json``: what a benchmark starts in its slots."""

import sys
from pathlib import Path

from unpaired.benchmarking.worker import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
