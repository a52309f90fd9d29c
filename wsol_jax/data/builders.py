"""TFDS builders of the data sets. Examples are stored in the order of their split, losslessly."""

import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from wsol_jax import choices
from wsol_jax.data import camelyon16, glas, splits, synthetic_glands

SOURCE = "source.txt"  # beside the records: a digest of what they were made of


class Glas(tfds.core.GeneratorBasedBuilder):
    """GlaS in its five published folds."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"fold{fold}") for fold in glas.FOLDS]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Optional: the archive {glas.ARCHIVE}, unpacked; it is downloaded if it is not there."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, glas.CLASSES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        try:
            folder = dl_manager.manual_dir
        except AssertionError:  # so TFDS says that there is none, or nothing in it
            folder = glas.download(str(dl_manager.download_dir / "glas"))
        fold = int(self.builder_config.name.removeprefix("fold"))
        found = {s: glas.examples(s, fold=fold, folder=str(folder)) for s in glas.SPLITS}
        return {split: self._generate_examples(found[split]) for split in found}

    def _generate_examples(self, examples: Sequence[splits.Example]) -> Iterator:
        return _records(examples)


class Camelyon16P512(tfds.core.GeneratorBasedBuilder):
    """The published 512 x 512 patches of CAMELYON16, in their divisions by slide and by patch."""

    beam = False  # whether the workers of a Beam pipeline make the records, see `prepare`

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES = {  # noqa: RUF012
        "1.1.0": "valpx of the division by slide",
        "1.2.0": "training patches in a random order, in place of all normal slides first",
    }
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in camelyon16.DIVISIONS]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The folder that scripts/prepare_camelyon16.py has made of the public slides."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, camelyon16.CLASSES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        division, folder = self.builder_config.name, str(dl_manager.manual_dir)
        return {
            split: self._generate_examples(
                camelyon16.examples(split, division=division, folder=folder)
            )
            for split in camelyon16.SPLITS
        }

    def _generate_examples(self, examples: Sequence[splits.Example]) -> Any:
        return _spread(examples) if self.beam else _records(examples)


class SyntheticGlands(tfds.core.GeneratorBasedBuilder):
    """Drawn tissue with glands, generated on first use."""

    VERSION = tfds.core.Version("1.0.0")  # to be raised whenever the drawing changes

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, synthetic_glands.CLASSES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {
            split: self._generate_examples(synthetic_glands.examples(split))
            for split in synthetic_glands.SPLITS
        }

    def _generate_examples(self, examples: Sequence[splits.Example]) -> Iterator:
        return _records(examples)


def prepare(
    name: str,
    *,
    data_dir: str | pathlib.Path | None = None,
    beam_flags: Sequence[str] | None = None,
    **options: Any,
) -> tfds.core.DatasetBuilder:
    """The builder of a data set; its examples are generated now unless `data_dir` has them.

    Args:
      data_dir: where TFDS keeps its data; its own default where None. Examples that are there are
        taken, but for those of a folder that has changed since.
      beam_flags: of Apache Beam, whose workers then make the records of camelyon16.
      options: `fold` and `folder` of glas, see `glas.examples`. Where the folder does not exist
        the official archive is downloaded. `division` and `folder` of camelyon16.

    Raises:
      FileNotFoundError, ValueError: with what is wrong with the folder or the options.
    """
    if beam_flags is not None:
        choices.require("data set that Beam makes", name, ("camelyon16",))
        options["beam_flags"] = beam_flags
    made = {"camelyon16": _camelyon16, "glas": _glas, "synthetic_glands": _synthetic_glands}
    return made[name](data_dir, **options)


def _glas(
    data_dir: str | pathlib.Path | None, *, fold: int = 0, folder: str | pathlib.Path = "data/glas"
) -> Glas:
    choices.require("fold", fold, glas.FOLDS)
    builder = Glas(config=f"fold{fold}", data_dir=data_dir)
    if not builder.data_path.exists() and pathlib.Path(folder).is_dir():
        for split in glas.SPLITS:  # what is wrong with the files is said before TFDS starts
            glas.examples(split, fold=fold, folder=folder)
    sizes = [(path.name, path.stat().st_size) for path in sorted(pathlib.Path(folder).glob("*.*"))]
    return _generated(builder, str(sizes).encode() if sizes else None, manual_dir=folder)


def _camelyon16(
    data_dir: str | pathlib.Path | None,
    *,
    division: str = camelyon16.DISJOINT,
    folder: str | pathlib.Path = "data/camelyon16_p512",
    test_patches: int | None = None,
    beam_flags: Sequence[str] | None = None,
) -> Camelyon16P512:
    choices.require("division", division, camelyon16.DIVISIONS)
    if test_patches is not None:
        raise ValueError(
            f"test_patches {test_patches}: TFDS serves all patches of a split; take source 'memory'"
        )
    builder = Camelyon16P512(config=division, data_dir=data_dir)
    if not builder.data_path.exists():
        for split in camelyon16.SPLITS:  # missing patches are reported before TFDS starts
            camelyon16.examples(split, division=division, folder=folder)
    manifest = pathlib.Path(folder, camelyon16.MANIFEST)
    source = manifest.read_bytes() if manifest.is_file() else None
    if beam_flags is None:
        return _generated(builder, source, manual_dir=folder)
    try:
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise ImportError(
            f"beam_flags need apache-beam ({error}): . scripts/environment.sh beam"
        ) from None
    builder.beam, options = True, pipeline_options.PipelineOptions(list(beam_flags))
    return _generated(builder, source, manual_dir=folder, beam_options=options)


def _synthetic_glands(data_dir: str | pathlib.Path | None) -> SyntheticGlands:
    return _generated(SyntheticGlands(data_dir=data_dir))


def _generated(builder, source=None, manual_dir=None, **options):
    """The builder with its examples, which are those of the folder, where that is at hand.

    Args:
      source: what tells the files of the folder from others, None where they are not there.
    """
    known, digest = builder.data_path / SOURCE, hashlib.sha256(source or b"").hexdigest()
    if source and known.exists() and known.read_text() != digest:
        raise ValueError(
            f"the records {builder.data_path} were made of other files than those that "
            f"{manual_dir} has now; remove that folder of records, so that they are made again"
        )
    made, config = builder.data_path.exists(), tfds.download.DownloadConfig
    options |= {"manual_dir": manual_dir, "try_download_gcs": False}
    builder.download_and_prepare(download_config=config(**options))
    if source and not made:
        known.write_text(digest)
    return builder


def _info(builder: tfds.core.DatasetBuilder, classes: Sequence[str]) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        disable_shuffling=True,  # the order of the examples
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="png"),
                "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(classes)),
                "name": tfds.features.Text(),
            }
        ),
    )


def _records(examples: Sequence[splits.Example]) -> Iterator[tuple[int, dict[str, Any]]]:
    return itertools.starmap(_record, enumerate(examples))


def _spread(examples: Sequence[splits.Example]) -> Any:
    """The same as a transform of Beam."""
    import apache_beam as beam

    return beam.Create(list(enumerate(examples))) | beam.Reshuffle() | beam.MapTuple(_record)


def _record(position: int, example: splits.Example) -> tuple[int, dict[str, Any]]:
    image, mask = example.read()
    pictures = {"image": image, "mask": mask[..., np.newaxis]}
    return position, {**pictures, "label": example.label, "name": example.name}
