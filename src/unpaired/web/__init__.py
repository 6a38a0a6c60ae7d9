"""What the pages that we serve share: sockets, and what is let through to them."""
