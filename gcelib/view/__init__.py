"""Looking at results: figures, one style for each name, explorers to play with."""
