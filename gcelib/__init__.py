"""gcelib: calibrated classification with Generative Cross-Entropy."""
