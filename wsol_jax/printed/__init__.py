"""The tables of both papers, as printed."""
