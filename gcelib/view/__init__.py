"""Looking at results: figures, one style for each name, and explorers that answer to the hand."""
