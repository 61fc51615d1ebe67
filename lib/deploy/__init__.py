"""Export of trained networks, and parity checks of the exported files."""
