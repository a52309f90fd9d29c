"""Data sets and input sources: splits of named images as uint8 batches; `sources` is the way in."""
