"""Encoders: image (b H W 3) -> feature levels, fine to coarse; and the import of their weights."""
