"""A blind study of translations: preparation, the page for raters, the votes, and their statistics."""
