"""Patches of CAMELYON16 into the records of TFDS, by the workers of Apache Beam.

    python scripts/prepare_records.py --folder data/camelyon16_p512 -- \\
        --direct_num_workers=8 --direct_running_mode=multi_processing

Training makes the same records on first use, in one process, where they are not there; this is for
many, or for a cluster. Flags of Beam come after --. Needs the extra `beam`.
"""

import argparse
import sys

from wsol_jax.data import builders, camelyon16


def main(arguments: list[str] | None = None) -> int:
    """Prepares the records named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", required=True, help="what prepare_camelyon16.py has made of the slides")
    add("--division", default=camelyon16.DISJOINT, help=f"one of {', '.join(camelyon16.DIVISIONS)}")
    add("--data_dir", help="where TFDS keeps its data (default: its own)")
    add("beam_flags", nargs="*", help="of Beam, after --")
    try:
        builder = builders.prepare("camelyon16", **vars(parser.parse_args(arguments)))
    except (ValueError, OSError, ImportError) as error:
        print(f"prepare_records: {error}", file=sys.stderr)
        return 2
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    print(f"{builder.data_path}: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
