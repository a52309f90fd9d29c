"""Whole-slide images: pixels, outlined regions, tissue, and the published patches of CAMELYON16."""
