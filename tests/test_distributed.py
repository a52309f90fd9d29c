"""Several processes are one run: they compute, count, save and stop as one process does."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import types

import jax
import numpy as np
import processes
import pytest
import small

from wsol_jax import checkpoint, distributed, experiment, parallel, report, train

ROOT = pathlib.Path(__file__).parents[1]
WHO = [(1, 0), (2, 0), (2, 1)]  # number of processes, and which one
RUN = """
import runpy, sys
sys.modules.update(dict.fromkeys(["tensorflow", "clu"]))  # TensorBoard, slow to import
import small
from wsol_jax import experiment

experiment.open_data = small.small_data
runpy.run_module("wsol_jax.main", run_name="__main__", alter_sys=True)
"""
COMPARE = """
import pathlib, sys
import jax, numpy as np
import small
from wsol_jax import distributed, evaluate, identity, parallel, pseudo_labels, train
from wsol_jax.data import memory

identity.PATIENCE = 0.0
folder, *plain = sys.argv[1:]
if plain:
    distributed.join(plain[0], int(plain[1]), int(plain[2]), cluster=False)
jax.config.update("jax_enable_x64", True)  # rounding, at the kink of a ReLU, is no small matter
crop = 16  # float64 convolutions are slow unless they are optimised
own = slice(*(small.BATCH * (jax.process_index() + i) // jax.process_count() for i in (0, 1)))
results = {"processes": parallel.gather(jax.process_index() == 1)}


def wide(tree):
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, tree)


def train_two_steps(name):
    engine = parallel.engine(name)
    method = small.tiny_method("pixelcam", engine.axis, dropout=0.1)
    transform = small.transform(method)
    step = engine.compile(train.make_step(method, transform, crop, axis=engine.axis))
    state = engine.place(wide(jax.device_get(small.begin(method))))
    for number in range(2):
        batch = jax.tree.map(lambda x: x[own], small.batch(number))
        state, losses = step(state, engine.feed(batch), jax.random.key(0))
    leaves = jax.tree.leaves(engine.fetch((state.params, state.batch_stats, losses)))
    return np.concatenate([np.ravel(x) for x in leaves])


def several_shapes():
    arrays = small.squares(7, seed=5)
    cuts = [(32, 40), (40, 32), (32, 40), (40, 32), (40, 32), (40, 32), (40, 32)]
    rows = zip(arrays["image"], arrays["mask"], cuts, strict=True)
    pictures = [(image[:h, :w], mask[:h, :w]) for image, mask, (h, w) in rows]
    return memory.serve(tuple("abcdefg"), arrays["label"], pictures, window=7)


for engine in ("jit", "pmap"):
    results[engine] = train_two_steps(engine)
method = small.tiny_method("classifier", readouts=("cam",))
variables = wide(jax.device_get(small.initialize(method)))
for metric, split in [("pxap", small.small_data().test), ("dice", several_shapes())]:
    evaluator = evaluate.Evaluator(method, 4, metric)
    scores = evaluator.scores(evaluator.place(variables), split)
    for i, leaf in enumerate(jax.tree.leaves(scores)):
        results[f"counts/{metric}/{i}"] = leaf
results["maps"] = pseudo_labels.cams(evaluator, variables, small.small_data().seen, "cam")
shared = pathlib.Path(folder) / f"first_of_{jax.process_count()}"
with parallel.first_process_first():
    results["later"] = shared.exists()
    shared.touch()
try:
    own = pathlib.Path(folder, f"host{jax.process_index()}")
    with identity.claim(own, small.small_config(), "images"):
        pass
except FileNotFoundError as error:
    results["refused"] = str(error)
try:
    with identity.claim(pathlib.Path(folder, "shared"), small.small_config(), str(own)):
        pass
except ValueError as error:
    results["unlike"] = str(error)
np.savez(f"{folder}/{jax.process_count()}_{jax.process_index()}.npz", **results)
"""


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What one process on eight devices computes, and what two on four devices each do."""
    folder, address = tmp_path_factory.mktemp("compared"), f"127.0.0.1:{free_port()}"
    pair = [(address, 2, process) for process in (0, 1)]
    started = [processes.start(COMPARE, folder, *plain, devices=4) for plain in pair]
    processes.run(COMPARE, folder, devices=8)
    assert [process.wait() for process in started] == [0, 0]
    return {who: np.load(folder / f"{who[0]}_{who[1]}.npz") for who in WHO}


@pytest.mark.parametrize("engine", ["jit", "pmap"])
def test_two_processes_on_eight_devices_train_as_one_process(compared, engine):
    alone, *pair = (compared[who][engine] for who in WHO)
    for one in pair:
        np.testing.assert_allclose(one, alone, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(*pair)


def test_every_process_has_all_counts_and_maps(compared):
    alone, *pair = (compared[who] for who in WHO)
    names = [name for name in alone.files if name.startswith(("counts", "maps"))]
    assert {name.split("/")[0] for name in names} == {"counts", "maps"}
    for name in names:
        for one in pair:
            np.testing.assert_array_equal(one[name], alone[name], err_msg=name)


def test_processes_gather_what_each_says(compared):
    assert compared[1, 0]["processes"].tolist() == [False]
    for process in (0, 1):
        assert compared[2, process]["processes"].tolist() == [False, True]
    assert [bool(compared[who]["later"]) for who in WHO] == [False, False, True]


def test_processes_without_a_shared_folder_are_refused(compared):
    assert "refused" not in compared[1, 0]
    for process in (0, 1):
        message = str(compared[2, process]["refused"])
        assert message.startswith("processes [1] do not find their config in ")
        assert "a disk that they share" in message


def test_processes_that_see_other_images_are_refused(compared):
    assert "unlike" not in compared[1, 0]
    for process in (0, 1):
        message = str(compared[2, process]["unlike"])
        assert message.startswith("processes [1] see other images, labels or splits than process 0")


def begin(workdir):
    """Starts the run of `small.tiny_phases` in two processes."""
    config = workdir.parent / "config.py"
    config.write_text("from small import tiny_phases as get_config\n")
    flags = [f"--config={config}", f"--workdir={workdir}"]
    flags += [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    return [processes.start(RUN, *flags, f"--process={i}") for i in range(2)]


def weights_of(folder):
    """Every array of the last checkpoint of the second phase, as one vector."""
    config = small.tiny_phases()
    checkpoints = checkpoint.Checkpoints(folder / "pixelcam" / "checkpoints")
    like = experiment.zeros(config, experiment.build(config, config.method))
    variables = checkpoints.restore_variables(checkpoints.latest(), like)
    checkpoints.close()
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(variables)])


def steps_of(phase):
    checkpoints = checkpoint.Checkpoints(phase / "checkpoints")
    latest = checkpoints.latest()
    checkpoints.close()
    return latest


def signal_when(process, number, path):
    """Sends a signal once a file is there, if the process still is."""
    while not path.is_file() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run, uninterrupted; stopped by SIGTERM to one of two processes, and ended by one;
    killed by SIGKILL to one of two, and ended by two.
    """
    folder = tmp_path_factory.mktemp("runs")
    stopped, killed = (begin(folder / name) for name in ("stopped", "killed"))
    signal_when(stopped[1], signal.SIGTERM, folder / "stopped/baseline/history.jsonl")
    signal_when(killed[1], signal.SIGKILL, folder / "killed/pixelcam/history.jsonl")
    killed[0].kill()  # as the launcher and clusters do: alone it waits for the other one
    codes = {"stopped": [p.wait() for p in stopped], "killed": [p.wait() for p in killed]}
    shutil.copytree(folder / "stopped", folder / "by_one")
    shutil.copytree(folder / "killed", folder / "by_two")
    pair = begin(folder / "by_two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "open_data", small.small_data)
        for name in ("whole", "by_one"):
            train.run(small.tiny_phases(), folder / name)
        report.write(folder / "whole")
    assert [process.wait() for process in pair] == [0, 0]
    return folder, codes


def test_sigterm_to_one_process_stops_all_at_one_step(runs):
    folder, codes = runs
    assert codes["stopped"] == [0, 0]
    assert 0 < steps_of(folder / "stopped/baseline") < 4
    assert not (folder / "stopped/metrics.json").exists()


@pytest.mark.parametrize(("end", "ended"), [("killed", "by_two"), ("stopped", "by_one")])
def test_a_run_that_two_processes_did_not_end_ends_as_one_that_they_did(runs, end, ended):
    folder, codes = runs
    assert not (folder / end / "metrics.json").exists()
    assert codes[end] == {"killed": [-signal.SIGKILL] * 2, "stopped": [0, 0]}[end]
    one, whole = weights_of(folder / ended), weights_of(folder / "whole")
    np.testing.assert_allclose(one, whole, rtol=1e-5, atol=1e-6)  # float32


def test_the_first_process_leaves_what_one_alone_would(runs):
    folder, _ = runs
    names = {path.name for path in (folder / "by_two").iterdir()}
    assert names == {path.name for path in (folder / "whole").iterdir()}
    assert names >= {"metrics.json", "report.html", "gallery.npz", "cams.npy"}
    records = [
        json.loads((folder / run / "record.json").read_text()) for run in ("by_two", "by_one")
    ]
    assert [(record["hosts"], record["device"]) for record in records] == [
        (2, "2 x cpu"),
        (1, "1 x cpu"),
    ]
    assert [len(record["earlier"]) for record in records] == [1, 1]
    assert records[1]["earlier"][0]["hosts"] == 2


@pytest.mark.parametrize(
    ("plain", "cluster", "message"),
    [
        ((None, 2, 0), False, "are given together; missing: --coordinator"),
        (("a:1", None, None), False, "missing: --processes, --process"),
        (("node01", 2, 0), False, "--coordinator=node01 is not HOST:PORT, such as node01:8476"),
        (("node01:port", 2, 0), False, "is not HOST:PORT"),
        (("a:1", 2, 2), False, "--process=2 of --processes=2: expected 0 to 1"),
        (("a:1", 2, 0), True, "pass either it or those three"),
    ],
)
def test_flags_that_do_not_fit_together(plain, cluster, message):
    with pytest.raises(ValueError, match=message):
        distributed.join(*plain, cluster=cluster)


def test_tasks_of_slurm_do_not_each_do_the_whole_run(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[01-02]")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    distributed.join(None, None, None, cluster=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="one of 4 processes of a SLURM step: pass --distributed"):
        distributed.join(None, None, None, cluster=False)


def test_processes_with_unequal_devices_are_refused():
    devices = [types.SimpleNamespace(process_index=i, id=n) for n, i in enumerate((0, 1, 0))]
    with pytest.raises(ValueError, match=r"the processes have \[2, 1\] devices; expected as many"):
        parallel._in_order(devices)
    ordered = parallel._in_order([devices[1], devices[2]])
    assert [device.process_index for device in ordered] == [0, 1]


PYTHON = f"""#!/usr/bin/env bash
if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi
echo "called with $*"
case "$*" in
  *--process=1*) until [ -e "$0.called" ]; do sleep 0.05; done; exit $FIRST ;;
  *) touch "$0.called"; exec sleep $LATER ;;
esac
"""


@pytest.mark.parametrize(("status", "seconds", "expected"), [(3, 60, 3), (0, 0.5, 0)])
def test_the_launcher_ends_with_what_it_started(tmp_path, status, seconds, expected):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "FIRST": str(status), "LATER": str(seconds)}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    command = ["bash", ROOT / "scripts/launch_local.sh", "2", "--config=a.py"]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, time.monotonic() - began < 30) == (expected, True)
    assert "[1] called with -u -m wsol_jax.main --coordinator=127.0.0.1:" in done.stdout
    assert done.stdout.count("--processes=2 --process=") == 2
    assert done.stdout.count("--config=a.py") == 2


def test_of_a_cluster_jax_finds_out_itself(monkeypatch):
    told = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: told.append(setting))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: told.append((a, k)))
    distributed.join(None, None, None, cluster=True)
    seconds = {"shutdown_timeout_seconds": distributed.SHUTDOWN_SECONDS}
    assert told == [("jax_enable_preemption_service", False), ((), seconds)]
