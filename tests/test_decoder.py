"""The decoder's sizes: every level may have any, and the logits have the image's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax import decoder

LEVELS = {
    "stride 8": [(12, 10), (6, 5), (3, 3), (3, 3), (3, 3)],
    "odd, as InceptionV3's": [(11, 9), (7, 5), (3, 3), (3, 2), (3, 2)],
}


def levels(sizes):
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return [
        jax.random.normal(k, (2, *s, 4 + i))
        for i, (k, s) in enumerate(zip(keys, sizes, strict=True))
    ]


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("channels", [(8, 6, 4, 4, 4), (6, 4, 4)])
@pytest.mark.parametrize("centre", [True, False])
def test_logits_have_the_size_of_the_image(name, channels, centre):
    model = decoder.Decoder(channels, centre)
    inputs = levels(LEVELS[name])
    logits, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(1), inputs, (23, 19)))
    assert logits.shape == (2, 23, 19, 2)


def test_every_level_it_joins_matters_and_no_other():
    model, inputs = decoder.Decoder((8, 4, 4)), levels(LEVELS["stride 8"])

    @jax.jit
    def gradients(inputs):
        variables = model.init(jax.random.key(1), inputs, (24, 20))

        def total(inputs):
            return jnp.sum(model.apply(variables, inputs, (24, 20)) ** 2)

        return jax.grad(total)(inputs)

    used = [bool(np.any(gradient)) for gradient in gradients(inputs)]
    assert used == [False, False, True, True, True]
