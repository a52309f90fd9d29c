"""Our models with the weights of a recorded case."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from golden_cases import Case

from wsol_jax import heads, method
from wsol_jax.backbones import resnet, weights

ENCODERS = {"resnet18": resnet.resnet18, "resnet50": resnet.resnet50}
RENAMED = (
    (r"^classification_head\.(fc|conv)\.", "head.linear."),
    (r"^pixel_wise_classification_head\.conv4\.", "pixel_head.output."),
    (r"^pixel_wise_classification_head\.bn\.", "pixel_head.norm."),
)
HIDDEN = re.compile(r"^pixel_wise_classification_head\.conv(\d)\.(0|1)\.")


def encoder_name(case: Case) -> str:
    """The backbone that the case was recorded with."""
    return case.spec.get("encoder") or case.spec.get("spec", {}).get("enc", "resnet50")


def build(case: Case, name: str, **keywords) -> method.Method:
    """The method `name` on the case's backbone and head."""
    options = case.spec.get("kwargs", {})
    background = options.get("support_background", True)
    head = heads.build("wgap", 2, background_row=background)
    return method.build(name, ENCODERS[encoder_name(case)](), head, **keywords)


def variables(built, case: Case, dtype=jnp.float32):
    """Initial variables, all of them replaced by the case's weights."""
    fresh = jax.eval_shape(built.model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    tensors = renamed(case.state())
    filled = weights.assign(fresh, tensors)
    return jax.tree.map(lambda x: x.astype(dtype), filled)


def renamed(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch names of the recorded model -> PyTorch names of ours."""
    stages = sorted({m[1] for m in map(HIDDEN.match, state) if m})
    result = {}
    for name, value in state.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        hidden = HIDDEN.match(name)
        if hidden:
            kind = "hidden" if hidden[2] == "0" else "norm"
            name = f"pixel_head.{kind}.{stages.index(hidden[1])}.{name[hidden.end() :]}"
        is_1x1 = value.ndim == 4 and not name.startswith("encoder.")
        result[name] = value[:, :, 0, 0] if is_1x1 else value
    return result


def torch_layout(value: np.ndarray, shape: list[int]) -> np.ndarray:
    """A flax leaf in the layout that PyTorch keeps it in."""
    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return value.reshape(shape)


def nchw(features):
    """NHWC -> NCHW."""
    return np.moveaxis(np.asarray(features), -1, 1)


def close(got, expected, relative):
    """Raises unless max|got - expected| <= relative * max|expected|."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    error, scale = np.abs(got - expected).max(), np.abs(expected).max()
    assert error <= relative * scale, (
        f"off by {error / scale:.2e} of the maximum, not {relative:.0e}"
    )
