"""Addresses: what makes two phases one, and what does not."""

import json

import small

from wsol_jax.papers import addresses


def test_defaults_and_absent_options_have_one_address():
    config = json.loads(small.tiny_phases().to_json())
    versions = {"classifier": 1, "pixelcam": 1}
    known = addresses.of_phases(config, versions, "data")
    spelt = json.loads(json.dumps(config))
    spelt["method"]["pixel_head"] = "linear"
    del spelt["keep_aspect"]
    assert addresses.of_phases(spelt, versions, "data") == known
    spelt["head"] = {"name": "deep_mil", "gated": False}
    assert addresses.of_phases(spelt, versions, "data")["baseline"] != known["baseline"]
    spelt["head"] = {"name": "deep_mil"}
    usual = addresses.of_phases(spelt, versions, "data")["baseline"]
    spelt["head"]["gated"] = False
    assert addresses.of_phases(spelt, versions, "data")["baseline"] != usual
    spelt["head"] = config["head"]
    spelt["method"]["pixel_head"] = "multi_layer"
    other = addresses.of_phases(spelt, versions, "data")
    assert other["baseline"] == known["baseline"]
    assert other["pixelcam"] != known["pixelcam"]
