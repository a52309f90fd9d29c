"""Runs at hand; what a plan makes of them is in test_tables.py."""

import small

from wsol_jax.papers import plan


def test_what_cannot_be_read_is_passed_over_and_named(tmp_path, caplog):
    alone = small.tiny_phases()
    alone.baseline.workdir = "gone"
    for name, text in [("damaged", "{"), ("foreign", '{"method": 3}'), ("alone", alone.to_json())]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert plan.shelf(tmp_path) == {}
    assert "alone is passed over: gone, which it stands on, is not among these runs" in caplog.text
    assert "damaged" in caplog.text
    assert "foreign is passed over" in caplog.text
