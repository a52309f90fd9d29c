"""Patches of your own slides as a folder that trains: PNG files and `labels.csv`.

    python scripts/prepare_camelyon16.py --mode sample --slides SLIDES --annotations ANNOTATIONS \\
        --output data/patches
    python scripts/unpack_patches.py --patches data/patches --output data/my_patches
    python -m wsol_jax.main --config=configs/pixelcam_folder.py \\
        --config.data.folder=data/my_patches --config.method.negatives=background \\
        --config.baseline.cam_checkpoint=b_loc

All patches of a slide are in one split: slides called `test_...` are the test; of all others one in
five with tumor, and one in five without, go to validation and, where no slide is called so, as many
to test, by the hash of their names. Every patch has its mask, so that validation and test are
scored by pixels. The table is written last: a folder that has one is whole, and is not written to
again.
"""

import argparse
import collections
import csv
import hashlib
import io
import pathlib
import sys
import zipfile

from wsol_jax import files
from wsol_jax.data import folder

# Normal patches hold no tumor, and validation patches have masks.
SETTINGS = "--config.method.negatives=background --config.baseline.cam_checkpoint=b_loc"
ALIKE = 1.1  # the coarsest and the finest slide whose patches show fields of about one size


def main(arguments: list[str] | None = None) -> int:
    """Unpacks the patches named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patches", type=pathlib.Path, required=True, help="with manifest.csv")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a new folder")
    options = parser.parse_args(arguments)
    try:
        rows = read_manifest(options.patches / "manifest.csv")
        unpack(rows, options.patches / "shards", options.output)
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        print(f"unpack_patches: {error}", file=sys.stderr)
        return 2
    print(described(rows))
    print(
        "python -m wsol_jax.main --config=configs/pixelcam_folder.py --config.data.folder="
        f"{options.output} {SETTINGS}"
    )
    return 0


def read_manifest(file: pathlib.Path) -> list[dict[str, str]]:
    """The lines of a manifest, each with the split that its slide is trained in.

    Raises:
      FileNotFoundError, ValueError: it is not there, or tells of too few slides.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; make it by scripts/prepare_camelyon16.py")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise ValueError(f"{file} tells of no patch; rejected.csv beside it says why")
    tested = {row["slide"] for row in rows if row["split"] == "test"}
    others = {row["slide"]: row["label"] for row in rows if row["slide"] not in tested}
    held = ("valcl",) if tested else ("valcl", "test")
    splits = {**dict.fromkeys(tested, "test"), **divided(others, held)}
    return [{**row, "split": splits[row["slide"]]} for row in rows]


def divided(slides: dict[str, str], held: tuple[str, ...]) -> dict[str, str]:
    """The split of each slide; of each class one in five, but at least one, is in each of `held`.

    Args:
      slides: the class of each; the patches of a slide are of one.
    """
    splits = dict.fromkeys(slides, "train")
    for label in sorted(set(slides.values())):
        own = [name for name in slides if slides[name] == label]
        own.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        if len(own) <= len(held):
            raise ValueError(
                f"{len(own)} slides of class {label}, {sorted(own)}: expected {len(held) + 1} or "
                f"more of each class, for train, {', '.join(held)}"
            )
        count = max(1, len(own) // 5)
        for i, split in enumerate(held):
            splits |= dict.fromkeys(own[i * count : (i + 1) * count], split)
    return splits


def unpack(rows: list[dict[str, str]], shards: pathlib.Path, output: pathlib.Path) -> None:
    """Writes every patch and its mask, and at last the table.

    Raises:
      FileExistsError: there is a table already.
    """
    table = output / folder.TABLE
    if table.exists():
        raise FileExistsError(f"{table} is there already; name a new folder")
    lines = [folder.COLUMNS]
    for shard in dict.fromkeys(row["shard"] for row in rows):
        with zipfile.ZipFile(shards / shard) as archive:
            for row in (row for row in rows if row["shard"] == shard):
                image, mask = (f"{row['slide']}/{row[name]}" for name in ("image", "mask"))
                (output / image).parent.mkdir(parents=True, exist_ok=True)
                (output / image).write_bytes(archive.read(row["image"]))
                (output / mask).write_bytes(archive.read(row["mask"]))
                lines.append((image, row["label"], row["split"], mask))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    files.write_text(table, text.getvalue())


def described(rows: list[dict[str, str]]) -> str:
    """How many slides and patches each split has, and how wide a patch is."""
    lines = []
    for split in folder.SHARES:
        own = [row for row in rows if row["split"] == split]
        labels = collections.Counter(int(row["label"]) for row in own)
        counts = ", ".join(f"{count} of class {label}" for label, count in sorted(labels.items()))
        lines.append(f"{split}: {len({row['slide'] for row in own})} slides, {counts or 'none'}")
    scales = sorted(float(row["mpp_x"]) for row in rows if row["mpp_x"])
    if scales:
        fields = " to ".join(
            f"{512 * scale:.0f}" for scale in dict.fromkeys((scales[0], scales[-1]))
        )
        lines.append(f"a patch is {fields} microns wide (--field of predict_slides)")
        if scales[-1] > ALIKE * scales[0]:
            lines.append("WARNING: these are slides of different scales; cut and train them apart")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
