"""What README names is there: files, configs and their variants, options."""

import importlib
import pathlib
import re

import pytest
from absl import flags

from wsol_jax import main

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = sorted(set(re.findall(r"\b(?:configs/)?([\w/]+)\.py((?::[\w/+,=.-]+)?)", TEXT)))
CONFIGS = [
    (file, variant)
    for file, variant in CONFIGS
    if (path := ROOT / f"configs/{file}.py").is_file() and "def get_config" in path.read_text()
]
SCRIPTS = "\n".join(path.read_text() for path in (ROOT / "scripts").iterdir() if path.is_file())
OTHERS = r"--(nodes|ntasks-per-node|gpus-per-node|worker|command|direct_\w+|runner|flink_\w+"
OTHERS += (
    r"|parallelism|environment_\w+|spark_\w+|project|region|temp_location|sdk_\w+|service_port)"
)


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_files_are_there():
    named = re.findall(
        r"\b((?:scripts|configs|results|tests|wsol_jax|requirements)/[\w/.]+\w)", TEXT
    )
    assert len(set(named)) > 25
    assert [name for name in set(named) if not (ROOT / name).exists() and "NAME" not in name] == []


@pytest.mark.parametrize(("file", "variant"), CONFIGS)
def test_configs_and_their_variants_load(file, variant):
    module = importlib.import_module("configs." + file.replace("/", "."))
    given = [variant[1:]] if variant else []
    assert module.get_config(*given).name


def test_several_configs_were_found():
    assert len(CONFIGS) > 12
    assert ("paper/table01", ":glas/sat+pixelcam") in CONFIGS


def test_options_are_known():
    named = set(re.findall(r"--[a-z]\w*", re.sub(OTHERS, "", TEXT)))
    known = {f"--{name}" for name in flags.FLAGS} | set(re.findall(r"--[a-z]\w*", SCRIPTS))
    assert len(named) > 20
    assert named <= known | {"--config", "--distributed"}
    modes = set(re.findall(r"--mode=(\w+)", TEXT))
    assert modes == set(main.MODES)
