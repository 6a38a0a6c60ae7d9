"""A blind study of translations by people: what is shown, the page that asks, the votes, and what they mean."""
