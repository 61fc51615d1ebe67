"""A trained network leaves PyTorch: export and parity checks."""
