"""Cells as text."""

from wsol_jax.papers import typeset

DASH = "\N{EN DASH}"


def test_numbers_without_seeds_are_dashes():
    cell = typeset.Cell("layer_cam", "glas", "pxap", 75.1, remarks=("not run",))
    text = typeset.markdown("Title", [cell], "")
    assert f"| LayerCAM | {DASH} [a] | 75.1 | {DASH} |" in text
    assert "- a: not run" in text


def test_separability_has_two_digits():
    cell = typeset.Cell("layer_cam", "glas", "j_all", 0.10, values=(0.097, 0.131))
    text = typeset.markdown("Title", [cell], "")
    assert "| 0.11 ± 0.02 (n=2) | 0.10 | +0.01 |" in text
