"""What a config asks for is checked against the data before any work."""

import types

import numpy as np
import pytest
import small

from wsol_jax import experiment
from wsol_jax.data import sources


@pytest.mark.parametrize("num_classes", [2, 3])
def test_labels_that_no_output_stands_for(monkeypatch, num_classes):
    split = types.SimpleNamespace(labels=np.array([0, 2, 1]))
    monkeypatch.setattr(sources, "open_split", lambda **_: split)
    config = small.small_config()
    config.num_classes = num_classes
    if num_classes == 3:
        assert experiment.open_data(config).seen is split
        return
    message = r"labels up to 2, but num_classes is 2; pass --config.num_classes=3"
    with pytest.raises(ValueError, match=message):
        experiment.open_data(config)


def test_unknown_backbones_list_the_known():
    config = small.small_config()
    config.backbone.name = "resnet34"
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet34'; have .*'inception_v3'"):
        experiment.build(config, config.method)
