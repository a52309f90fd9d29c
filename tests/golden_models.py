"""Our models with the weights of a recorded case."""

import functools
import re

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cases import Case

from wsol_jax import heads, method
from wsol_jax.backbones import inception, resnet, vgg, vit, weights

ENCODERS = {
    "resnet18": resnet.resnet18,
    "resnet18_deep": functools.partial(
        resnet.resnet18, deep_stem=True, strides=resnet.STANDARD_STRIDES
    ),
    "resnet50": resnet.resnet50,
    "vgg16": vgg.VGG16,
    "inceptionv3": inception.InceptionV3,
    "deit_tiny": functools.partial(vit.build, "deit_tiny_patch16_224"),
    "sat": functools.partial(vit.build, "deit_tiny_patch16_224", location=True),
}
HEADS = {  # the released class -> ours, and the names of its keywords
    "WGAP": ("wgap", {}),
    "GAP": ("wgap", {}),
    "MaxPool": ("max", {}),
    "LogSumExpPool": ("lse", {"r": "sharpness"}),
    "WildCatCLHead": ("wildcat", {k: k for k in ("modalities", "kmax")}),
    "DeepMil": ("deep_mil", {"gated": "gated"}),
}
RENAMED = (
    (r"^classification_head\.(fc|conv)\.", "head.linear."),
    (r"^classification_head\.to_modalities\.", "head.to_modalities."),
    (r"^classification_head\.attention\.non_lin_1\.0\.", "head.value."),
    (r"^classification_head\.attention\.non_lin_2\.0\.", "head.gate."),
    (r"^classification_head\.attention\.to_score\.", "head.score."),
    (r"^classification_head\.classification\.(\d)\.", r"head.linear_\1."),
    (r"^classification_head1\.", "localizer."),
    (r"^classification_head2\.", "classifier."),
    (r"^mask_head\.", "localizer."),
    (r"^pull_mask\.", "mask_head."),
    (r"^cl32\.", "classifier."),
    (r"^((?:conv|bn)\d|layer\d)", r"encoder.\1"),
    (r"^segmentation_head\.0\.", "decoder.head."),
    (r"^pixel_wise_classification_head\.conv4\.", "pixel_head.output."),
    (r"^pixel_wise_classification_head\.bn\.", "pixel_head.norm."),
)
SAT_ENCODER = re.compile(r"^(cls|loc)_token|^(pos|loc)_embed|^(patch_embed|blocks|norm)\.")
HIDDEN = re.compile(r"^pixel_wise_classification_head\.conv(\d)\.(0|1)\.")
AS_IN_TRAINING = {  # XLA's defaults, where conftest.py sets others
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
LABELS = jnp.array([0, 1])


def known(prefix, *parts):
    """The cases of a kind on the backbones and heads that are here."""
    found = [c for c in golden_cases.cases(prefix) if any(p in c.name for p in parts)]
    return pytest.mark.parametrize("case", found, ids=[c.name for c in found])


def compiled(function):
    """`jax.jit` as in training, for models of full size, which run longer than they compile."""
    return jax.jit(function, compiler_options=AS_IN_TRAINING)


@functools.cache
def images(dtype="float32"):
    return jnp.asarray(golden_cases.inputs()[0], dtype)


def float64_images():
    """The recorded network input: float32 values, upcast."""
    return jnp.asarray(golden_cases.inputs()[0].astype(np.float32), jnp.float64)


def encoder_name(case: Case) -> str:
    """The backbone that the case was recorded with."""
    if case.name.startswith("09_maxmin_original"):
        return "resnet18_deep"
    if "_deit_tiny" in case.name:
        return "sat" if "_sat_" in case.name else "deit_tiny"
    return case.spec.get("encoder") or case.spec.get("spec", {}).get("enc", "resnet50")


def build(case: Case, name: str, **keywords) -> method.Method:
    """The method `name` on the case's backbone and head."""
    return method.build(name, ENCODERS[encoder_name(case)](), head(case), **keywords)


def head(case: Case, **keywords):
    """Our form of the case's pooling head."""
    if encoder_name(case) == "sat":
        return heads.build("conv_gap", 2)
    if case.name.startswith("06_"):
        return heads.build("wgap", 2)
    recorded = case.spec.get("spec", case.spec)
    options = {**recorded.get("kwargs", {}), **recorded.get("aux", {})}
    ours, names = HEADS[recorded.get("head", "WGAP")]
    if ours == "wildcat":
        keywords = {"alpha": 0.0, **keywords}  # the term that the released code loses
    if ours != "deep_mil":
        keywords["background_row"] = options.get("support_background", True)
    given = {ours_name: options[theirs] for theirs, ours_name in names.items()}
    return heads.build(ours, 2, **given, **keywords)


def variables(built, case: Case, dtype=jnp.float32, **constants):
    """Initial variables, all of them replaced by the case's weights, or by constants."""
    filled = weights.assign(shapes(built.model), {**renamed(case.state()), **constants})
    return jax.tree.map(lambda x: x.astype(dtype), filled)


@functools.cache
def shapes(model):
    """Shapes of a model's variables, without values."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))


def renamed(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch names of the recorded model -> PyTorch names of ours."""
    stages = sorted({m[1] for m in map(HIDDEN.match, state) if m})
    result = {}
    is_sat = "loc_token" in state
    for name, value in state.items():
        if is_sat:
            name = re.sub(r"^head\.", "head.conv.", name)
            name = f"encoder.{name}" if SAT_ENCODER.match(name) else name
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        hidden = HIDDEN.match(name)
        if hidden:
            kind = "hidden" if hidden[2] == "0" else "norm"
            name = f"pixel_head.{kind}.{stages.index(hidden[1])}.{name[hidden.end() :]}"
        is_1x1 = value.shape[2:] == (1, 1) and not name.startswith("encoder.")
        result[name] = value[:, :, 0, 0] if is_1x1 else value
    return result


def torch_layout(value: np.ndarray, shape: list[int]) -> np.ndarray:
    """A flax leaf in the layout that PyTorch keeps it in."""
    order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim, range(value.ndim))
    return value.transpose(order).reshape(shape)


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
