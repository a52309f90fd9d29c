"""The folder of a finished run, fabricated: every file, without any training."""

import json

import numpy as np

PHASES = {"baseline": ("classifier", "layer_cam"), "pixelcam": ("pixelcam", "pixelcam")}
RATES = ("tp", "fn", "tn", "fp", "dice_foreground", "dice_background", "miou")


def rates(random):
    tp, tn = random.uniform(50, 100, 2)
    shares = dict(zip(RATES, (tp, 100 - tp, tn, 100 - tn, tp, tn, 60.0), strict=True))
    return {"threshold": float(random.integers(1000) / 1000), **shares}


def result(random, epoch, pxap):
    recall = np.linspace(0, 1, 21)
    return {
        "epoch": epoch,
        "step": 9 * epoch,
        "valcl": {"accuracy": random.uniform(90, 100)},
        "valpx": {"pxap": pxap + 7, "pixels": 6 * 224**2},
        "test": {
            "accuracy": random.uniform(90, 100),
            "pxap": pxap,
            "at_validation_threshold": rates(random),
            "at_best_test_threshold": rates(random),
            "curve": {"recall": list(recall), "precision": list(1 - recall / 2)},
        },
    }


def config_of(phases):
    methods = [method for method, _ in phases.values()]
    config = {
        "name": f"{methods[-1]}_glas",
        "seed": 3,
        "data": {"name": "glas", "fold": 0},
        "backbone": {"name": "resnet50"},
        "method": {"name": methods[-1]},
        "baseline": None,
    }
    if len(methods) > 1:
        config["baseline"] = {"method": {"name": methods[0]}, "cam": "layer_cam"}
    return config


def gallery_of(random, phases, size=32):
    mask = np.zeros((10, size, size), np.uint8)
    mask[:, 8:20, 8:20] = 1
    maps = {
        f"map_{phase}_{name}": random.random(mask.shape).astype(np.float16)
        for phase, (_, name) in phases.items()
    }
    image = random.integers(0, 256, (*mask.shape, 3), np.uint8)
    name = np.array([f"testA_{i}" for i in range(len(mask))])
    label = np.array([0] * 7 + [1] * 3, np.int32)
    return {"name": name, "label": label, "image": image, "mask": mask, **maps}


def fabricate(folder, *, pxap=(74.64, 83.16), phases=PHASES):
    """Writes the folder of a finished run of one or two phases and returns its metrics."""
    random = np.random.default_rng(0)
    results = {}
    for score, (phase, (method, name)) in zip(pxap, phases.items(), strict=False):
        found = {"last": (9, score - 1), "b_loc": (5, score), "b_cl": (9, score - 1)}
        checkpoints = {key: result(random, *value) for key, value in found.items()}
        results[phase] = {"method": method, "maps": {name: checkpoints}}
        rows = [
            {"epoch": e, "step": 9 * e, "valcl/accuracy": 90.0 + e, f"valpx/pxap/{name}": 70.0 + e}
            for e in range(10)
        ]
        (folder / phase).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / phase / "history.jsonl").write_text(lines)
    floors = {"constant_map": 51.23, "mean_feature_map": 70.04}
    facts = {"data": {"name": "glas"}, "seed": 3, "images": {"train": 67, "valpx": 6}}
    metrics = {**facts, "floors": floors, "phases": results}
    record = {
        "command": "python -m wsol_jax.main --config=configs/pixelcam_glas.py",
        "commit": "3f2a9c1",
        "versions": {"jax": "0.10.2"},
        "seconds": 3725.0,
        "weights": {"source": "resnet50.npz", "folded": True},
        "notes": ["30 epochs <instead> of 1000"],
        "origins": {},
        "earlier": [{"started": "2026-11-01", "commit": "1ca4b61", "seconds": 60.0, "notes": []}],
    }
    files = {"config": config_of(phases), "metrics": metrics, "record": record}
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    np.savez(folder / "gallery.npz", **gallery_of(random, phases))
    return metrics
