"""Arrange the drawings beside this repository as four domains, for translators between several domains.

    python benchmarks/make_drawing_domains.py OUT [--data ../shared/data] [--copy]

OUT gets train/<domain> and test/<domain> with the domains fluent_colour, fluent_contrast, noto and twemoji, 64 x 64
pixels each, as links unless --copy is given. Equal names in two folders of test show the same emoji (among the two
fluent domains, and among noto and twemoji), so those translations can be scored against the truth. The files keep their
licences and must not be committed: Fluent Emoji (MIT, Microsoft Corporation), Twemoji (CC BY 4.0), Noto Emoji
(Apache 2.0).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

DOMAINS = {
    "fluent_colour": ("fluent", "A"),
    "fluent_contrast": ("fluent", "B"),
    "noto": ("emoji", "B"),
    "twemoji": ("emoji", "A"),
}
"""Domain -> set of two domains and which of them."""


def arrange(data: Path, out: Path, *, copy: bool) -> dict[str, int]:
    """Write the folders; those that are there are made anew. Returns the number of images in each."""
    counts = {}
    for domain, (name, letter) in DOMAINS.items():
        for split in ("train", "test"):
            source, folder = (data / name / f"{split}{letter}").resolve(strict=True), out / split / domain
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            for path in sorted(source.glob("*.png")):
                if copy:
                    shutil.copyfile(path, folder / path.name)
                else:
                    (folder / path.name).symlink_to(path)
            counts[f"{split}/{domain}"] = sum(1 for _ in folder.iterdir())
    return counts


def main() -> None:
    """Read the arguments, arrange, and say how many images there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--copy", action="store_true", help="copy the files instead of linking to them")
    options = parser.parse_args()
    for folder, count in arrange(options.data, options.out, copy=options.copy).items():
        print(f"{count:5} {folder}")


if __name__ == "__main__":
    main()
