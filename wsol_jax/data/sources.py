"""The way in: a split of a data set by name, as batches, from memory or from TFDS.

Both sources give equal batches. Only `tfds` imports TensorFlow, and only when it is asked for.
"""

import logging
from typing import Any

import numpy as np

from wsol_jax import choices, parallel
from wsol_jax.data import camelyon16, folder, glas, memory, pictures, splits, synthetic_glands

DATASETS = {
    "camelyon16": camelyon16,
    "folder": folder,
    "glas": glas,
    "synthetic_glands": synthetic_glands,
}
PREPARED = tuple(name for name in DATASETS if name != "folder")  # by TFDS, too
SOURCES = ("memory", "tfds")


def open_split(
    name: str,
    split: str,
    *,
    sizing: pictures.Sizing,
    source: str = "memory",
    window: int = splits.WINDOW,
    **options: Any,
) -> splits.Split | None:
    """A split whose pictures are brought to the size of `sizing`; None where there is none.

    Args:
      source: "memory" reads the files now and keeps the pictures; "tfds" has tensorflow-datasets
        prepare the set on first use, and streams splits that are too large to keep, whose
        pictures then must have one shape.
      window: examples that are shuffled together.
      options: of the data set, `folder`; `fold` for glas, `division` for camelyon16, and, from
        memory, `test_patches`; `data_dir` for tfds, which has no builder for folders of one's own.

    Raises:
      ValueError, FileNotFoundError: before any work starts, saying what mends it.
    """
    _require_known(name, split, source)
    if split == "valcl" and options.get("division", camelyon16.DISJOINT) != camelyon16.DISJOINT:
        logging.warning(
            "slides of %r are in 'train' too: its accuracy, by which B-CL is chosen, is optimistic",
            split,
        )
    if source == "memory":
        examples = DATASETS[name].examples(split, **options)
        if not examples:
            return None
        if name not in PREPARED:
            window = len(examples)  # all together, in whatever order they are listed
        opened = memory.open_split(examples, sizing=sizing, window=window)
        return opened._replace(contents=_contents(examples))
    pipeline, builder = _prepared(name, options)
    if split not in builder.info.splits:
        return None
    return pipeline.open_split(builder, split, sizing=sizing, window=window)


def list_split(
    name: str, split: str, *, source: str = "memory", **options: Any
) -> splits.Listing | None:
    """Names and labels of what `open_split` opens, without reading a picture.

    Both sources list the same, so that TFDS is asked only where the folder is not at hand.
    """
    _require_known(name, split, source)
    own = {key: value for key, value in options.items() if key != "data_dir"}
    try:
        examples = DATASETS[name].examples(split, **own)
    except FileNotFoundError:
        if source == "memory":
            raise
        pipeline, builder = _prepared(name, options)
        return pipeline.listing(builder, split) if split in builder.info.splits else None
    if not examples:
        return None
    labels = np.array([example.label for example in examples], np.int32)
    return splits.Listing(tuple(e.name for e in examples), labels, _contents(examples))


def _contents(examples):
    contents = tuple(example.content for example in examples)
    return contents if any(contents) else ()


def _require_known(name, split, source):
    choices.require("data set", name, tuple(DATASETS))
    choices.require("split", split, tuple(DATASETS[name].SPLITS))
    choices.require("source", source, SOURCES if name in PREPARED else ("memory",))


def _prepared(name, options):
    """The module that reads TFDS, and the builder of a data set."""
    try:
        from wsol_jax.data import builders, pipeline
    except ImportError as error:
        raise ImportError(
            f"source 'tfds' needs tensorflow-datasets ({error}): install it or take 'memory'"
        ) from error
    with parallel.first_process_first():  # two at once would fail at renaming the same folder
        return pipeline, builders.prepare(name, **options)
