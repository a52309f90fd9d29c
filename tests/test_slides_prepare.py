"""A folder of slides prepared: alike on any workers and after any kill, and every fault is told."""

import csv
import functools
import os
import pathlib
import runpy
import shutil
import signal
import subprocess
import sys
import time

import filelock
import numpy as np
import processes
import pytest
import slide_factory
from PIL import Image

from wsol_jax.slides import annotations, patches, prepare, shards, tissue

SCRIPT = pathlib.Path(__file__).parents[1] / "scripts" / "prepare_camelyon16.py"
OPTIONS = {"mode": "sample", "normal_patches": 2}


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Two normal slides and one with an annotation, of 1100 x 900 pixels."""
    folder = tmp_path_factory.mktemp("slides")
    whole = slide_factory.write(folder / "a.tif", slide_factory.picture(), levels=1).read_bytes()
    (folder / "inside").mkdir()
    for name in ("b.tif", "inside/c.tif"):
        (folder / name).write_bytes(whole)
    slide_factory.write_asap(folder / "inside" / "c.xml", slide_factory.outlines())
    return folder


@pytest.fixture(scope="module")
def finished(slides, tmp_path_factory):
    """The output of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("finished") / "output"
    assert not prepare.prepare(slides, output, annotations=slides, **OPTIONS)
    return output


def files(output):
    found = (file for file in output.rglob("*") if file.is_file())
    return {str(file.relative_to(output)): file.read_bytes() for file in found}


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def cut_until_b(source, *, output, **options):
    """Is killed in the middle of the shard of b."""

    def patches_until_killed(source, **options):
        yield from patches.sample(source, **options)
        if source.name == "b":
            os.kill(os.getpid(), signal.SIGKILL)

    prepare.MODES["sample"] = patches_until_killed
    prepare_cut(source, output=output, **options)


prepare_cut = prepare.cut  # the tests put `cut_until_b` in its place


def test_manifest_tells_of_every_patch(slides, finished):
    found = rows(finished / "manifest.csv")
    assert [row["slide"] for row in found[:4]] == ["a", "a", "b", "b"]
    assert {row["label"] for row in found if row["slide"] == "c"} == {"1"}
    assert all(float(row["mpp_x"]) == pytest.approx(0.25, rel=1e-4) for row in found)
    assert len({row["fingerprint"] for row in found}) == 1  # the files are copies
    expected = list(patches.sample(prepare.find(slides, slides)[2], normal_patches=2))
    for row, patch in zip(found[4:], expected, strict=True):
        told = [float(row[k]) for k in ("x", "y", "label", "tissue", "tumor")]
        assert told == list(patch[:5])
        image, mask = shards.read(finished / "shards" / row["shard"], row)
        np.testing.assert_array_equal(image, patch.image)
        np.testing.assert_array_equal(mask, patch.mask)
    assert rows(finished / "rejected.csv") == []


@pytest.mark.parametrize("error", [OSError("disk full"), MemoryError("disk full")])
def test_every_slide_has_a_picture(slides, finished, tmp_path, monkeypatch, caplog, error):
    names = [f"{row['slide']}.png" for row in rows(finished / "manifest.csv")]
    pictures = {file.name: file for file in (finished / "pictures").iterdir()}
    assert set(pictures) == set(names)
    with Image.open(pictures["c.png"]) as picture:
        assert np.all(np.asarray(picture) == tissue.FRAME, axis=-1).any()
    again = functools.partial(prepare.prepare, slides, tmp_path, annotations=slides, **OPTIONS)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(tissue, "write_picture", fail)
        assert again() == ()  # the patches are there all the same
    assert "no picture of a: disk full" in caplog.text
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "shards").iterdir()}
    assert again() == ()
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "shards").iterdir()}
    assert files(tmp_path) == files(finished)


def test_two_workers_give_the_same_bytes_even_when_one_was_killed(
    slides, finished, tmp_path, monkeypatch
):
    again = functools.partial(
        prepare.prepare, slides, tmp_path, annotations=slides, workers=2, **OPTIONS
    )
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "cut", cut_until_b)
        rejected = {slide.slide: slide for slide in again()}
    assert rejected["b"].status == "failed"
    assert "its worker was killed; the same command goes on" in rejected["b"].reason
    assert not (tmp_path / "shards" / "b.zip").exists()
    assert again() == ()
    assert files(tmp_path) == files(finished)


def wait_in(source, *, output, **options):
    """Says which process it is in and works on without end."""
    (output / f"{source.name}.pid").write_text(str(os.getpid()))
    time.sleep(60)


WAITING = """
import sys
import test_slides_prepare as tests
if __name__ == "__main__":
    tests.prepare.cut = tests.wait_in
    tests.prepare.prepare(sys.argv[1], sys.argv[2], workers=2, **tests.OPTIONS)
"""


def test_workers_end_with_a_killed_run(slides, tmp_path):
    process = processes.start(WAITING, slides, tmp_path)
    while not (found := [f for f in tmp_path.glob("*.pid") if f.read_text()]):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and is_alive(int(found[0].read_text())):
        time.sleep(0.02)
    assert not is_alive(int(found[0].read_text()))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = pathlib.Path(f"/proc/{pid}/stat")  # one that ended may wait to be collected
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


KILLED = """
import sys
import test_slides_prepare as tests
tests.prepare.cut = tests.cut_until_b
tests.prepare.prepare(sys.argv[1], sys.argv[2], annotations=sys.argv[1], **tests.OPTIONS)
"""


def test_a_killed_run_goes_on(slides, finished, tmp_path):
    process = processes.start(KILLED, slides, tmp_path)
    assert process.wait() == -signal.SIGKILL
    left = [file.name for file in (tmp_path / "shards").iterdir()]
    assert sorted(name.split(".")[0] for name in left) == ["a", "b"]
    assert [name for name in left if name.endswith(".zip")] == ["a.zip"]  # b is no whole shard
    before = (tmp_path / "shards" / "a.zip").stat().st_mtime_ns
    assert not prepare.prepare(slides, tmp_path, annotations=slides, **OPTIONS)
    assert files(tmp_path) == files(finished)
    assert (tmp_path / "shards" / "a.zip").stat().st_mtime_ns == before


def test_a_slide_is_cut_again_only_if_it_changed(slides, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        (folder / name).write_bytes((slides / name).read_bytes())
    output = tmp_path / "output"
    prepare.prepare(folder, output, **OPTIONS)
    before = {file.name: file.stat().st_mtime_ns for file in (output / "shards").iterdir()}
    slide_factory.write_asap(folder / "b.xml", slide_factory.outlines())
    prepare.prepare(folder, output, annotations=folder, **OPTIONS)
    after = {file.name: file.stat().st_mtime_ns for file in (output / "shards").iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["b.zip"]
    (folder / "a.tif").write_bytes(b"")
    (slide,) = prepare.prepare(folder, output, annotations=folder, **OPTIONS)
    assert slide.slide == "a"
    assert {row["slide"] for row in rows(output / "manifest.csv")} == {"b"}


def test_a_set_is_cut_in_portions(slides, finished, tmp_path):
    folder, output = tmp_path / "slides", tmp_path / "output"
    for name in "abc":
        folder.mkdir()
        for file in slides.rglob(f"{name}.*"):
            (folder / file.name).write_bytes(file.read_bytes())
        outlined = folder if name == "c" else None
        assert not prepare.prepare(folder, output, annotations=outlined, **OPTIONS)
        shutil.rmtree(folder)
    assert files(output) == files(finished)


def test_no_manifest_tells_of_shards_as_they_were(slides, tmp_path, monkeypatch):
    prepare.prepare(slides, tmp_path, annotations=slides, **OPTIONS)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "cut", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(slides, tmp_path, annotations=slides, **OPTIONS)
    assert not (tmp_path / "manifest.csv").exists()


def test_the_script_goes_on_past_a_broken_slide_and_says_so(slides, tmp_path, capsys):
    folder, output = tmp_path / "slides", tmp_path / "output"
    folder.mkdir()
    whole = (slides / "a.tif").read_bytes()
    blank = np.full((600, 600, 3), slide_factory.GLASS, np.uint8)
    slide_factory.write(folder / "glass.tif", blank, levels=1)
    (folder / "broken.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "whole.tif").write_bytes(whole)
    (folder / "whole_mask.tif").write_bytes(whole)
    main = runpy.run_path(str(SCRIPT))["main"]
    command = ["--slides", str(folder), "--output", str(output), "--mode", "sample"]
    assert main(command) == 1
    assert "failed: broken: cannot read the slide" in capsys.readouterr().err
    told = [(row["slide"], row["status"]) for row in rows(output / "rejected.csv")]
    assert told == [("broken", "failed"), ("glass", "left out"), ("whole_mask", "left out")]
    assert {row["slide"] for row in rows(output / "manifest.csv")} == {"whole"}
    (folder / "broken.tif").write_bytes(whole)
    assert main(command) == 0
    assert {row["slide"] for row in rows(output / "manifest.csv")} == {"broken", "whole"}


def test_recut_of_the_slides_that_are_there(slides, tmp_path, monkeypatch):
    listed = next(iter(patches.published().values()))[0]
    patch = listed[0]._replace(slide="c", x=300, y=200, label=1, tissue=0.5)
    monkeypatch.setattr(patches, "published", lambda: {"c": [(patch, "test")], "d": [listed]})
    rejected = prepare.prepare(slides, tmp_path, annotations=slides)
    assert [(slide.slide, slide.reason) for slide in rejected] == [
        ("a", "it has no published patch"),
        ("b", "it has no published patch"),
        ("d", "it is not in the folder of slides"),
    ]
    (row,) = rows(tmp_path / "manifest.csv")
    assert (row["slide"], row["x"], row["y"], row["split"]) == ("c", "300", "200", "test")
    expected = annotations.window(slide_factory.outlines(), 300, 200, 512, 512)
    _, mask = shards.read(tmp_path / "shards" / row["shard"], row)
    np.testing.assert_array_equal(mask, expected)


def test_one_command_at_a_time(slides, tmp_path):
    (tmp_path / ".lock").touch()  # left by a command that was killed before it wrote anything
    again = functools.partial(prepare.prepare, slides, tmp_path, mode="sample", normal_patches=1)
    with filelock.FileLock(tmp_path / ".lock"):
        with pytest.raises(BlockingIOError, match=f"another command is at work in {tmp_path}"):
            again()
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    again()
    assert (tmp_path / "manifest.csv").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "cut"}, "unknown mode 'cut'; have ['recut', 'sample']"),
        ({"runner": "spark"}, "unknown runner 'spark'; have ['beam', 'local']"),
        ({"workers": 0}, "workers 0: expected at least 1"),
        ({"slides": "nowhere"}, "nowhere does not exist; name the one of the slides"),
        ({"slides": "empty"}, "empty holds no slides (.tif, "),
        ({"annotations": "empty"}, "empty holds no annotations (.xml, .json)"),
        (
            {"mode": "recut"},
            "holds none of the slides that recut cuts, only others, such as ['a', 'b', 'c']",
        ),
        ({"output": "other"}, "has files and no run.json, so that no run made it"),
        ({"output": "another"}, "is of another run, {"),
        ({"output": "slides/a.tif"}, "a.tif is a file; name a folder"),
        ({"annotations": "apart"}, "no annotation in apart has the name of a slide in slides/"),
        ({"annotations": "near"}, "near/b.tif.xml has no slide of its name, and the slide"),
        ({"annotations": "case"}, "if they belong together, call it a.json, else take it out"),
        ({"slides": "twice"}, "two slides of one name, "),
        ({"seeds": 1}, "unknown option of mode sample 'seeds'; have ['dense_share', "),
        ({"normal_patches": -1}, "normal_patches -1: expected a number that is not negative"),
        ({"rule": "holes"}, "unknown rule 'holes'; have ['published', 'exact']"),
    ],
)
def test_bad_input_is_told_before_any_work(slides, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "other", "another", "twice", "apart", "near", "case"):
        pathlib.Path(folder).mkdir()
    for file in ("other/notes.txt", "twice/a.svs", "twice/a.tif", "apart/ab.xml", "near/b.tif.xml"):
        pathlib.Path(file).touch()
    pathlib.Path("case/A.json").touch()
    pathlib.Path("another/run.json").write_text('{"mode": "recut"}')
    pathlib.Path("slides").symlink_to(slides)
    before = sorted(pathlib.Path().rglob("*"))
    arguments = {"slides": "slides/", "output": "output", "mode": "sample", **options}
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        prepare.prepare(**arguments)
    assert message in str(caught.value)
    assert sorted(pathlib.Path().rglob("*")) == before


def test_bad_input_ends_the_script_with_2(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["--slides", str(tmp_path), "--output", str(tmp_path / "output")]) == 2
    assert "holds no slides" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 4])
def test_beam_gives_the_same_bytes_even_when_it_was_killed(slides, finished, tmp_path, workers):
    pytest.importorskip("apache_beam")
    arguments = ["--slides", slides, "--annotations", slides, "--output", tmp_path]
    arguments += ["--mode", "sample", "--normal-patches", "2", "--runner", "beam", "--"]
    arguments += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    command = [sys.executable, SCRIPT, *arguments]
    with subprocess.Popen(command, start_new_session=True) as killed:
        while not any((tmp_path / "shards").glob("*.zip")):
            assert killed.poll() is None
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)
    assert not (tmp_path / "manifest.csv").exists()
    subprocess.run(command, check=True)
    assert files(tmp_path) == files(finished)


def test_without_beam_one_message_names_the_extra(slides, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"needs apache-beam .*environment.sh beam"):
        prepare.prepare(slides, tmp_path / "output", runner="beam", **OPTIONS)
    assert not (tmp_path / "output").exists()
