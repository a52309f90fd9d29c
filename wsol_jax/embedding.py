"""The pixel features of test images in the plane, by t-SNE, and the pixel classifier's logits.

After figures 19 to 24 of PixelCAM: whether foreground and background part in the encoder's
features, and, where the method has a pixel classifier, how that tells them apart.
"""

import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wsol_jax import (
    augment,
    experiment,
    figures,
    files,
    ops,
    pixel_labels,
    separability,
    trained,
    wording,
)
from wsol_jax.data import splits
from wsol_jax.method import Method

PERPLEXITY = 30.0  # scikit-learn's own, as in the authors' scripts


def run(config: Any, workdir: pathlib.Path, images: Sequence[str] = ()) -> pathlib.Path:
    """Writes `embedding.svg`, of the checkpoint that the papers report, and returns its path.

    Args:
      images: names of test images; the first with foreground and background unless given.

    Raises:
      FileExistsError: the run is of another version of a method.
      ImportError: scikit-learn is not installed.
      FileNotFoundError: the run is not trained.
      ValueError: there is no such test image, or it has no pixel labels.
    """
    require_manifold()
    phase = trained.phase(config, workdir, config.method.name)
    name = experiment.map_names(config.method)[0]
    step = phase.best.step(phase.checkpoint, name)
    test = experiment.open_split(config, "test")
    batches = [example(test, image) for image in images or (None,)]
    variables = jax.device_put(phase.best.variables(step, phase.like))
    pixels, embedded = make_pixels(phase.method), {}
    for batch in batches:
        features, truth, logits = pixels(variables, batch)
        place = embed(features, config.seed)
        embedded[test.names[batch["index"][0]]] = figures.Embedded(place, truth == 1, logits)
    chosen = f"{wording.name_of(phase.checkpoint)} of {wording.name_of(name)}"
    title = f"epoch {phase.best.epoch(step)}, {chosen}"
    figure = figures.embedding_figure(embedded, title=title)
    path = workdir / "embedding.svg"
    files.write_text(path, figure.decode())
    return path


def example(split: splits.Split, name: str | None) -> splits.Batch:
    """A batch of one image: that called `name` or, without, the first with both classes."""
    if name is not None and name not in split.names:
        raise ValueError(
            f"no test image is called {name!r}; the {split.size} names are {split.names[0]!r} ... "
            f"{split.names[-1]!r}"
        )
    for batch in split.ordered(1):
        both = np.any(batch["mask"] == 0) and np.any(batch["mask"] == 1)
        if name == split.names[batch["index"][0]] or (name is None and both):
            return batch
    raise ValueError(
        "no test image has labels of foreground and background; choose one: --image=NAME, such as "
        f"{split.names[0]!r}"
    )


def make_pixels(method: Method) -> Callable[[Any, splits.Batch], tuple]:
    """(variables, batch) -> features (n c), truth (n) and pixel logits (n 2) of annotated pixels.

    Logits are None where the method has no pixel head. Compiled once for each size of images.
    """

    @jax.jit
    @ops.in_single_precision
    def apply(variables, batch):
        image = augment.eval_view(batch, **method.normalization)["image"]
        outputs, features = method.model.apply(variables, image), method.features(variables, image)
        logits = outputs["pixel_logits"] if "pixel_head" in variables["params"] else None
        truth = separability.truth_of_features(batch["mask"], features.shape[1:3])
        return features.astype(jnp.float32), truth, logits

    def pixels(variables, batch):
        features, truth, logits = jax.device_get(apply(variables, batch))
        known = truth != pixel_labels.UNANNOTATED
        if not known.any():
            raise ValueError(
                "the image has no pixel labels at the resolution of the features, by which to "
                "colour them; expected some: pass --image=NAME of one that has"
            )
        return features[known], truth[known], None if logits is None else logits[known]

    return pixels


def embed(features: Float[np.ndarray, "n c"], seed: int) -> Float[np.ndarray, "n 2"]:
    """Places in the plane that keep neighbours together (van der Maaten and Hinton, JMLR 2008)."""
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = require_manifold().TSNE(2, perplexity=perplexity, random_state=seed)
    import threadpoolctl  # which scikit-learn depends on

    with threadpoolctl.threadpool_limits(1):  # sums by several threads would end elsewhere
        return tsne.fit_transform(features)


def require_manifold() -> ModuleType:
    """scikit-learn's module, or an ImportError that names the extra that it comes with."""
    try:
        from sklearn import manifold
    except ImportError as error:
        raise ImportError(
            f"--mode=embed needs the extra 'figures' ({error}): pip install scikit-learn"
        ) from None
    return manifold
