"""A folder of slides into shards of patches and a manifest; killed, the same call goes on.

A slide is one piece of work, which leaves a whole shard or the reason why there is none. Nothing
else is handed back, so that a pool of processes and Beam run it alike. The manifest is made of
the shards that lie there at the end, also of slides that are no longer in the folder, so that a
set too large for the disk is cut in portions.

OUTPUT/run.json       what was asked for
OUTPUT/shards/*.zip   the patches of a slide, see `shards`
OUTPUT/pictures/*.png the slide, small, its tissue outlined and its patches framed
OUTPUT/failed/*.txt   why a slide has none
OUTPUT/manifest.csv   every patch, ordered by slide
OUTPUT/rejected.csv   every slide without patches, with the reason
"""

import csv
import functools
import hashlib
import inspect
import json
import logging
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wsol_jax import choices, locks
from wsol_jax.slides import patches, reader, runners, shards, tissue
from wsol_jax.slides.annotations import RULES

MODES = {"recut": patches.recut, "sample": patches.sample}
# Of the formats that OpenSlide reads; a DICOM slide is a folder of files, and is not found.
SLIDES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
ANNOTATIONS = (".xml", ".json")
MASK = "_mask"  # at the end of the names of CAMELYON16's masks, which lie among its slides
FORMAT = 1  # of the output folder
RECORD = "run.json"
TABLES = MANIFEST, REJECTED = "manifest.csv", "rejected.csv"
COLUMNS = ("slide", "fingerprint", "mpp_x", "mpp_y", "x", "y", "label", "tissue", "tumor", "split")
COLUMNS += ("shard", "image", "mask")

Folder = str | pathlib.Path


class Rejected(NamedTuple):
    """A slide without patches: whether it "failed" or was "left out", and why."""

    slide: str
    status: str
    reason: str


def prepare(
    slides: Folder,
    output: Folder,
    *,
    annotations: Folder | None = None,
    mode: str = "recut",
    workers: int = 1,
    runner: str = "local",
    beam_flags: Sequence[str] = (),
    **options: Any,
) -> tuple[Rejected, ...]:
    """Cuts every slide that is not cut yet, and returns those that have no patches.

    Args:
      slides, annotations: folders, looked through with all inside of them; an annotation has the
        name of its slide.
      output: an empty or new folder, or that of the same call, which goes on where it stopped.
      mode: "recut", the published patches of CAMELYON16, or "sample", new ones.
      workers: processes of the runner "local"; those of "beam" are set by `beam_flags`, Beam's own.
      options: of `patches.sample`.

    Raises:
      BlockingIOError: another command is at work in the output folder.
      FileNotFoundError, ValueError, ImportError: before any work, with what mends it.
    """
    choices.require("mode", mode, MODES)
    choices.require("runner", runner, runners.RUNNERS)
    if workers < 1:
        raise ValueError(f"workers {workers}: expected at least 1, the number of processes")
    options = _resolved(mode, options)
    reader.require_openslide()
    run = runners.RUNNERS[runner](workers, beam_flags)
    found = find(slides, annotations)
    if mode == "sample" and annotations and not any(source.annotation for source in found):
        raise ValueError(
            f"no annotation in {annotations} has the name of a slide in {slides}, so that all "
            "would be cut as normal ones; expected SLIDE.xml or SLIDE.json, or no folder"
        )
    sources, left_out = _chosen(found, mode, slides)
    output, asked = pathlib.Path(output), {"format": FORMAT, "mode": mode, **options}
    _require_output(output, asked)
    output.mkdir(parents=True, exist_ok=True)
    with locks.tried(output) as free:
        locks.require(free, output)
        _require_output(output, asked)  # which another command may have made meanwhile
        _make(output, asked)
        run(functools.partial(cut, output=output, mode=mode, options=options), sources)
        return _gather(output, sources, left_out)


def find(slides: Folder, annotations: Folder | None = None) -> tuple[patches.Source, ...]:
    """Slides with the annotations that have their names, ordered by name.

    Raises:
      FileNotFoundError, ValueError: a folder does not exist, holds none, or two of one name; an
        annotation has nearly the name of a slide, which would be cut as a normal one.
    """
    files = _by_name(pathlib.Path(slides), SLIDES, "slides")
    outlined = {}
    if annotations is not None:
        outlined = _by_name(pathlib.Path(annotations), ANNOTATIONS, "annotations")
        _require_own_names(files, outlined)
    return tuple(patches.Source(name, files[name], outlined.get(name)) for name in sorted(files))


def cut(
    source: patches.Source, *, output: pathlib.Path, mode: str, options: Mapping[str, Any]
) -> None:
    """Leaves the shard of a slide and its picture, or the reason why there is none.

    A shard stays as it is if its slide and annotation are still those that it was cut from.
    """
    shard, failed = _shard(output, source.name), _failed(output, source.name)
    picture = output / "pictures" / f"{source.name}.png"
    try:
        slide = _facts(source)
        if not _is_done(shard, slide):
            picture.unlink(missing_ok=True)  # of the slide as it was, like the shard
            shards.write(shard, slide, MODES[mode](source, **options))
        failed.unlink(missing_ok=True)
        if not picture.is_file():
            _draw(source, shard, picture)
    except (ValueError, OSError, MemoryError) as error:
        shard.unlink(missing_ok=True)
        failed.write_text(str(error) or type(error).__name__)


def _draw(source: patches.Source, shard: pathlib.Path, picture: pathlib.Path) -> None:
    """The slide with its tissue and the patches of its shard, which can do without a picture."""
    side, partial = patches.SIDE, _partial(picture)
    windows = [(p["x"], p["y"], side, side) for p in shards.contents(shard)["patches"]]
    try:
        tissue.write_picture(reader.open_slide(source.file), partial, windows=windows)
        partial.replace(picture)
    except (ValueError, OSError, MemoryError) as error:
        partial.unlink(missing_ok=True)
        logging.warning("no picture of %s: %s", source.name, str(error) or type(error).__name__)


def _require_own_names(
    files: Mapping[str, pathlib.Path], outlined: Mapping[str, pathlib.Path]
) -> None:
    for stray in sorted(outlined.keys() - files.keys()):
        for name in files.keys() - outlined.keys():
            rest = stray.lower().removeprefix(name.lower())
            if rest != stray.lower() and not rest[:1].isalnum():
                raise ValueError(
                    f"the annotation {outlined[stray]} has no slide of its name, and the slide "
                    f"{files[name]} no annotation; if they belong together, call it "
                    f"{name}{outlined[stray].suffix}, else take it out"
                )


def _by_name(folder: pathlib.Path, suffixes: Sequence[str], kind: str) -> dict[str, pathlib.Path]:
    """Files of a folder, and of those inside of it, by their names without suffix."""
    found: dict[str, pathlib.Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in suffixes and file.is_file() and not file.name.startswith("."):
            if file.stem in found:
                raise ValueError(
                    f"two {kind} of one name, {found[file.stem]} and {file}; take one of them out"
                )
            found[file.stem] = file
    if not found:
        state = "is a file" if folder.is_file() else "does not exist"
        state = "holds no" if folder.is_dir() else f"{state}; name the one of the"
        raise FileNotFoundError(f"the folder {folder} {state} {kind} ({', '.join(suffixes)})")
    return found


def _resolved(mode: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a mode, defaults included: a run is the same whether they are named or not."""
    parameters = inspect.signature(MODES[mode]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for name, value in options.items():
        choices.require(f"option of mode {mode}", name, known)
        if name == "rule":
            choices.require("rule", value, RULES)
        elif value < 0:
            raise ValueError(f"{name} {value}: expected a number that is not negative")
    return {**known, **options}


def _chosen(
    sources: Sequence[patches.Source], mode: str, folder: Folder
) -> tuple[list[patches.Source], list[Rejected]]:
    """The slides that are cut, and those that are not, with the reason."""
    names = {source.name for source in sources}
    if mode == "sample":
        reasons = {name: "it is a mask, by its name" for name in names if name.endswith(MASK)}
    else:
        listed = patches.published()
        reasons = dict.fromkeys(names - listed.keys(), "it has no published patch")
        reasons |= dict.fromkeys(listed.keys() - names, "it is not in the folder of slides")
    chosen = [source for source in sources if source.name not in reasons]
    if not chosen:
        raise ValueError(
            f"the folder {folder} holds none of the slides that {mode} cuts, only "
            f"others, such as {sorted(names)[:3]}; expected names such as tumor_001.tif"
        )
    return chosen, [Rejected(name, "left out", reason) for name, reason in reasons.items()]


def _require_output(output: pathlib.Path, asked: Mapping[str, Any]) -> None:
    """Refuses an output folder that is neither new nor of an equal call."""
    record = output / RECORD
    if output.exists() and not output.is_dir():
        raise ValueError(f"the output {output} is a file; name a folder")
    if record.is_file():
        if (before := json.loads(record.read_text())) != asked:
            raise ValueError(
                f"the output folder {output} is of another run, {before}, and this one is {asked}; "
                "name another folder, or remove it"
            )
    elif output.is_dir() and any(path.name != locks.FILE for path in output.iterdir()):
        raise ValueError(
            f"the output folder {output} has files and no run.json, so that no run made it; name "
            "an empty or new folder"
        )


def _make(output: pathlib.Path, asked: Mapping[str, Any]) -> None:
    """Makes the output folder, or clears it of what is not known to be whole."""
    for table in TABLES:  # of the shards as they were
        (output / table).unlink(missing_ok=True)
    _write(output / RECORD, json.dumps(asked))
    for folder in ("shards", "pictures", "failed"):
        (output / folder).mkdir(exist_ok=True)
    for partial in (output / "shards").glob(f"*{shards.PARTIAL}"):
        partial.unlink()


def _shard(output: pathlib.Path, name: str) -> pathlib.Path:
    return output / "shards" / f"{name}{shards.SUFFIX}"


def _failed(output: pathlib.Path, name: str) -> pathlib.Path:
    return output / "failed" / f"{name}.txt"


def _facts(source: patches.Source) -> shards.Record:
    """What a shard says of its slide, from which it shows whether it is still that slide's."""
    slide = reader.open_slide(source.file)
    outlined = source.annotation and hashlib.sha256(source.annotation.read_bytes()).hexdigest()
    return {
        "slide": source.name,
        "fingerprint": reader.fingerprint(source.file),
        "annotation": outlined,
        "mpp": slide.mpp and list(slide.mpp),
        "size": list(slide.size),
    }


def _is_done(shard: pathlib.Path, slide: shards.Record) -> bool:
    try:
        found = shards.contents(shard)
    except (FileNotFoundError, ValueError):
        return False
    return all(found.get(name) == value for name, value in slide.items())


def _gather(
    output: pathlib.Path, sources: Iterable[patches.Source], rejected: Sequence[Rejected]
) -> tuple[Rejected, ...]:
    """Writes the manifest and the list of rejected slides, which it returns."""
    whole = {shard.stem for shard in (output / "shards").glob(f"*{shards.SUFFIX}")}
    rejected, rows = [slide for slide in rejected if slide.slide not in whole], []
    for name in sorted(whole.union(source.name for source in sources)):
        shard, failed = _shard(output, name), _failed(output, name)
        if name in whole:
            found = list(_rows(shards.contents(shard), shard.name))
            rows += found
            if not found:
                reason = "no place in it has tissue, or tumor, enough"
                rejected.append(Rejected(name, "left out", reason))
        else:
            reason = "its worker was killed; the same command goes on"
            reason = failed.read_text() if failed.is_file() else reason
            rejected.append(Rejected(name, "failed", reason))
    rejected.sort()
    _write_csv(output / MANIFEST, COLUMNS, rows)
    _write_csv(output / REJECTED, Rejected._fields, rejected)
    return tuple(rejected)


def _rows(slide: shards.Record, shard: str) -> Iterator[tuple]:
    """The rows of a slide in the manifest."""
    mpp_x, mpp_y = slide["mpp"] or ("", "")
    known = {**slide, "mpp_x": mpp_x, "mpp_y": mpp_y, "shard": shard}
    for patch in slide["patches"]:
        row = {**known, **patch}
        yield tuple(row[column] for column in COLUMNS)


def _write_csv(file: pathlib.Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    with (partial := _partial(file)).open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([columns, *rows])
    partial.replace(file)


def _write(file: pathlib.Path, text: str) -> None:
    (partial := _partial(file)).write_text(text)
    partial.replace(file)


def _partial(file: pathlib.Path) -> pathlib.Path:
    return file.with_name(file.name + shards.PARTIAL)
