"""Slides of CAMELYON16, or of your own, into patches with masks and a manifest.

    python scripts/prepare_camelyon16.py --slides slides --annotations annotations \\
        --output data/camelyon16_p512 --workers 8

The published patches are cut by default; --mode sample draws new ones from any slides, by the same
protocol; a slide without annotation then passes for normal, so give those of the test slides, too.
Killed, the same command goes on: finished slides are not cut again. The status is 0, or 1 if any
slide failed (OUTPUT/rejected.csv says why), or 2 if nothing could begin. Needs the extra `slides`;
--runner beam needs `beam`, too, and takes flags of Beam after --.
"""

import argparse
import logging
import sys

from wsol_jax.slides import patches, prepare, runners


def main(arguments: list[str] | None = None) -> int:
    """Prepares the folder named on the command line; returns the exit status."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    options = {name: value for name, value in options.items() if value is not None}
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        rejected = prepare.prepare(**options)
    except (ValueError, OSError, ImportError) as error:
        print(f"prepare_camelyon16: {error}", file=sys.stderr)
        return 2
    failed = [slide for slide in rejected if slide.status == "failed"]
    for slide in failed:
        print(f"failed: {slide.slide}: {slide.reason}", file=sys.stderr)
    left_out = len(rejected) - len(failed)
    print(f"{len(failed)} slides failed, {left_out} left out: {options['output']}/rejected.csv")
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--slides", required=True, help="folder of slides, looked through with all inside of it")
    add("--annotations", help="folder of outlined tumors, .xml or .json, named as the slides")
    add("--output", required=True, help="folder of shards and manifest.csv")
    add("--mode", default="recut", help=f"one of {', '.join(prepare.MODES)}")
    add("--workers", type=int, default=1, help="processes of --runner local")
    add("--runner", default="local", help=f"one of {', '.join(runners.RUNNERS)}")
    add("--seed", type=int, help="of --mode sample, 0")
    add("--normal-patches", type=int, help=f"of a normal slide, {patches.NORMAL_PATCHES}")
    add(
        "--dense-share",
        type=float,
        help="patches of more than half tumor, for each of less: "
        f"{patches.RELEASED_DENSE_SHARE} as published, {patches.WRITTEN_DENSE_SHARE} as meant",
    )
    add("--rule", help="of the masks of --mode sample: exact, or published, without the holes")
    add("beam_flags", nargs="*", help="of Beam, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
