"""Rows of `bench.py` for data at scale: cutting slides, decoding patches, streaming records."""

import importlib.util
import io
import itertools
import pathlib
import resource
import tempfile
import time

import numpy as np
from PIL import Image

from wsol_jax.data import pictures, splits
from wsol_jax.slides import patches, shards

PATCHES = 64  # cut of a slide, and decoded
RECORDS, SIDE = 50_000, 64  # streamed, pixels


def cutting(options):
    """Patches of 512² cut of `--slide` and stored with their masks, per second of one core."""
    title = "slides: patches of 512² cut and stored"
    if options.slide is None:
        yield title, "not measured: pass --slide=FILE", ""
        return
    if importlib.util.find_spec("openslide") is None:
        yield title, "not measured: openslide-python is not installed", ""
        return
    source = patches.Source("slide", options.slide, None)
    with tempfile.TemporaryDirectory() as folder:
        list(patches.sample(source, normal_patches=1))  # opens the slide, and what it needs
        began = time.process_time()
        cut = list(patches.sample(source, normal_patches=PATCHES))
        shards.write(pathlib.Path(folder, "slide.zip"), {"slide": "slide"}, cut)
        seconds = time.process_time() - began
    yield title, f"{len(cut) / seconds:.1f} per second and core ({len(cut)} patches)", ""
    for encoding in ("PNG", "JPEG"):
        pairs = [(_file(patch.image, encoding), _file(patch.mask, "PNG")) for patch in cut]
        began = time.process_time()
        for image, mask in pairs:
            pictures.resize(pictures.read(image, mask), pictures.Sizing(256))
        rate = len(pairs) / (time.process_time() - began)
        yield f"input: 512² {encoding} decoded, to 256²", f"{rate:.0f} images/s per core", ""


def streaming(options):
    """Resident memory while tf.data streams synthetic records that are not kept."""
    del options
    title = f"input: memory over {RECORDS} streamed records of {SIDE}²"
    try:
        import tensorflow_datasets as tfds

        from wsol_jax.data import builders, pipeline
    except ImportError as error:
        yield title, f"not measured: {error}", ""
        return

    class SyntheticRecords(tfds.core.GeneratorBasedBuilder):
        """Noise, as many records as a large set has."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return builders._info(self, ("normal", "metastatic"))

        def _split_generators(self, dl_manager):
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            return builders._records(map(_noise, range(RECORDS)))

    with tempfile.TemporaryDirectory() as folder:
        builder = SyntheticRecords(data_dir=folder)
        builder.download_and_prepare()
        pipeline.MEMORY = 0
        split = pipeline.open_split(builder, "train", sizing=pictures.Sizing(SIDE), window=512)
        batches = split.shuffled(32, seed=0)
        used, ends = [], [RECORDS // 32 * fifths // 5 for fifths in (0, 1, 5, 10)]
        for begin, end in itertools.pairwise(ends):
            for _ in range(begin, end):
                next(batches)
            used.append(_resident() / 2**20)  # after a fifth of an epoch, one, and two
    first, second = np.diff(used)
    yield title, f"{first:+.0f} MiB in the first epoch, {second:+.0f} MiB in the second", "flat"


def _noise(number):
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    return splits.Example(str(number), number % 2, lambda: (pixels, pixels[..., 0] // 128))


def _file(pixels, encoding):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=encoding, quality=90)
    stream.seek(0)
    return stream


def _resident():
    """Bytes of memory that the process holds now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
