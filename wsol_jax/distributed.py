"""How a process joins the others of its run, on a TPU pod, SLURM, Kubernetes or plain machines.

All processes do the same work, each on its own devices and its own rows of every batch
(`parallel.py`). Process 0 alone writes files; all of them read those, in one shared folder.
"""

import os

import jax

SHUTDOWN_SECONDS = 30  # that a process which ends, perhaps by an error, waits for the others
SLURM_STEP = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS")  # of an allocation's shell, too: 1


def join(
    coordinator: str | None, processes: int | None, process: int | None, *, cluster: bool
) -> None:
    """Waits for the other processes of the run; does nothing where nothing is asked for.

    It must come before the first use of a device. CPUs then talk by gloo, JAX's default.

    Args:
      coordinator: HOST:PORT that process 0 will listen to and all others can reach.
      processes: how many there are.
      process: which of them this is, from 0.
      cluster: JAX is to find out all three from the TPU pod, SLURM or Kubernetes.

    Raises:
      ValueError: the arguments do not fit together, or not the place where this runs.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if cluster and len(missing) < len(given):
        raise ValueError(
            "--distributed lets the cluster say what --coordinator, --processes and --process do; "
            "pass either it or those three"
        )
    if cluster:
        _join_cluster()
    elif not missing:
        _check(**given)
        _initialize(coordinator, processes, process, cluster_detection_method="deactivate")
    elif len(missing) < len(given):
        raise ValueError(
            "--coordinator=HOST:PORT, --processes=N and --process=I are given together; "
            f"missing: {', '.join(missing)}"
        )
    else:
        _require_alone()


def _join_cluster():
    try:
        _initialize()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed: JAX could not join a TPU pod, a SLURM step or a Kubernetes Job "
            f"({error}); elsewhere pass --coordinator=HOST:PORT --processes=N --process=I"
        ) from error


def _initialize(*arguments, **keywords):
    # JAX's own service would catch a SIGTERM that comes before training, and nobody would ask it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(*arguments, shutdown_timeout_seconds=SHUTDOWN_SECONDS, **keywords)


def _check(coordinator, processes, process):
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit()):
        raise ValueError(f"--coordinator={coordinator} is not HOST:PORT, such as node01:8476")
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process} of --processes={processes}: expected 0 to {processes - 1}"
        )


def _require_alone():
    """Raises ValueError where several processes would each do the whole run, in one folder."""
    nodes, tasks = (os.environ.get(name) for name in SLURM_STEP)
    if nodes and int(tasks or 1) > 1:
        count, place = tasks, "SLURM step"
    elif jax.process_count() > 1:
        count, place = jax.process_count(), "TPU pod"
    else:
        return
    raise ValueError(
        f"this is one of {count} processes of a {place}: pass --distributed to make them one run, "
        "or start a single process"
    )
