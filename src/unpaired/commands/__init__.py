"""One module per subcommand: words for people around the floors below; no maths."""
