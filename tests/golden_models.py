"""Our models with the weights of a recorded case."""

import functools
import os
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
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
OPTIMIZED = {  # where conftest.py asks for none of it; more takes longer than it saves
    "xla_backend_optimization_level": 1,
    "xla_cpu_parallel_codegen_split_count": 32,
}
if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):  # which later jaxlibs lack
    OPTIMIZED["xla_cpu_use_fusion_emitters"] = True
LABELS = jnp.array([0, 1])
ZERO = 1e-12  # a bias before a normalisation has no gradient; what is recorded is rounding
ENCODED = {}


class Given(nn.Module):
    """An encoder whose feature levels are a variable: `Encoded.levels`."""

    def __call__(self, image, keys=None, train=False):
        return self.get_variable("levels", "given")


class Encoded(NamedTuple):
    """What an encoder makes of the recorded images.

    Attributes:
      params: its parameters.
      levels: its features.
      stats: its batch statistics, after a step if in training.
      gradients: cotangents of the levels -> gradients of the parameters; None if not asked for.
    """

    params: dict
    levels: tuple
    stats: dict
    gradients: Callable | None


def known(prefix, *parts):
    """The cases of a kind on the backbones and heads that are here."""
    found = [c for c in golden_cases.cases(prefix) if any(p in c.name for p in parts)]
    return pytest.mark.parametrize("case", found, ids=[c.name for c in found])


def compiled(function):
    """`jax.jit` for models of full size, which run longer than they compile."""
    return jax.jit(function, compiler_options=OPTIMIZED)


@functools.cache
def images(dtype="float32"):
    """The recorded network input: float32 values, in float64 too."""
    with jax.ensure_compile_time_eval():  # the first to ask may be traced
        return jnp.asarray(golden_cases.inputs()[0].astype(np.float32), dtype)


def encoder_name(case: Case) -> str:
    """The backbone that the case was recorded with."""
    if case.name.startswith("09_maxmin_original"):
        return "resnet18_deep"
    if "_deit_tiny" in case.name:
        return "sat" if "_sat_" in case.name else "deit_tiny"
    return case.spec.get("encoder") or case.spec.get("spec", {}).get("enc", "resnet50")


def build(case: Case, name: str, encoder: nn.Module | None = None, **keywords) -> method.Method:
    """The method `name` on the case's backbone, or on another encoder, and head."""
    encoder = encoder or ENCODERS[encoder_name(case)]()
    return method.build(name, encoder, head(case), **keywords)


def encoded(
    case: Case, dtype: str = "float32", *, train: bool = False, gradients: bool = False
) -> Encoded:
    """What the case's encoder makes of the recorded images, computed once for all cases.

    Weights follow from their names, so that an encoder has the same features in all of them.
    """
    key = (encoder_name(case), case.spec["seed"], dtype, train)
    found = ENCODED.get(key)
    if found is None or (gradients and not found.gradients):
        found = _encode(ENCODERS[key[0]](), case.state("encoder."), dtype, train, gradients)
        ENCODED[key] = found
    return found


def _products(primitive, *_, **__):
    """What is kept of a pass for its gradient: what takes long to make."""
    return primitive.name in ("dot_general", "conv_general_dilated")


def _encode(encoder, state, dtype, train, gradients):
    filled = weights.assign(shapes(encoder), state)
    variables = jax.tree.map(lambda x: x.astype(dtype), filled)
    params, image, backward = variables["params"], images(dtype), None

    def forward(params):
        inputs = {**variables, "params": params}
        return encoder.apply(inputs, image, None, train, mutable=["batch_stats"])

    if gradients:
        lean = jax.checkpoint(forward, policy=_products)
        encode = compiled(functools.partial(jax.vjp, lean, has_aux=True))
        levels, pullback, updates = encode(params)
        pull_back = compiled(lambda pullback, cotangents: pullback(cotangents)[0])
        backward = functools.partial(pull_back, pullback)
    else:
        levels, updates = compiled(forward)(params)
    return Encoded(params, levels, updates.get("batch_stats", {}), backward)


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


def given(built, case: Case, encoder: Encoded):
    """Variables of a method on `Given` levels: the case's weights, and the levels."""
    levels = {"encoder": {"given": encoder.levels}}
    create = functools.partial(built.model.apply, mutable=["params", "batch_stats"])
    rngs = {"params": jax.random.key(0)}
    _, blank = jax.eval_shape(lambda image: create({"levels": levels}, image, rngs=rngs), images())
    state = {k: v for k, v in renamed(case.state()).items() if not k.startswith("encoder.")}
    filled = weights.assign(blank, state)
    dtype = encoder.levels[-1].dtype
    return {**jax.tree.map(lambda x: x.astype(dtype), filled), "levels": levels}


def said(built, variables):
    """What a method's model says of the images, and its read-out of that, as one program."""

    @jax.jit
    def both(variables, image):
        return built.model.apply(variables, image), built.localize(variables, image)

    return both(variables, images())


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


def check_gradients(case, prefix, gradients):
    """Those of the tensors that are recorded under `prefix`."""
    ours = named({"params": gradients}, case)
    names = [n for n in case.arrays if n.startswith(f"{prefix}/")]
    assert names, f"{case.name} records no gradients under {prefix}"
    for name in names:
        gradient = ours[name.removeprefix(f"{prefix}/")][case.strides(name)]
        if np.abs(case.arrays[name]).max() < ZERO:
            assert np.abs(gradient).max() < ZERO
        else:
            close(gradient, case.arrays[name], 1e-8)


def check_lengths(case, name, gradients):
    """The L2 norm of every tensor's gradient."""
    ours = named({"params": gradients}, case)
    for tensor, length in case.spec["losses"][name].items():
        assert np.linalg.norm(ours[tensor]) == pytest.approx(length, rel=1e-7, abs=ZERO), tensor


def named(collections, case):
    """Our leaves under the recorded names, in PyTorch's layout."""
    shapes = case.shapes
    blank = renamed({name: np.zeros(shape) for name, shape in shapes.items()})
    originals = dict(zip(blank, shapes, strict=True))
    leaves = {}
    for path, leaf in flax.traverse_util.flatten_dict(collections).items():
        name = originals[weights.torch_name(path)]
        leaves[name] = torch_layout(np.asarray(leaf), shapes[name])
    return leaves
