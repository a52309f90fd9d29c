"""What is wrong with the arguments of a command, told in one message before they are parsed.

Absl and ml_collections, which parse them, end in a traceback that does not name the argument.
"""

import inspect
import itertools
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

CONFIG, SETTING = "config", "config."  # of flags without their dashes


def check(arguments: Sequence[str]) -> None:
    """Looks at a command line without the program's name.

    Raises:
      FileNotFoundError: there is no such config file.
      ValueError: a setting without a config, or that the config does not have; a ~ that the shell
        does not replace; whatever the config has to say of what stands behind its colon.
    """
    for argument in arguments:
        if "=~" in argument:
            raise ValueError(f"{argument}: the shell leaves ~ as it is here; write $HOME")
    given = flags.FLAGS.read_flags_from_files(list(arguments))  # where there is --flagfile
    file = _file(given)
    settings = [argument for argument in given if argument.lstrip("-").startswith(SETTING)]
    if file:
        config = _config(*file.split(":", 1))
        for setting in settings:
            _require(setting, config)
    elif settings:
        raise ValueError(f"{settings[0]} is a setting of a config; pass --config=FILE before it")


def _file(arguments: Sequence[str]) -> str | None:
    """What --config is given: a file and, behind a colon, a variant; None without."""
    for argument, following in itertools.pairwise([*arguments, None]):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == CONFIG:
            return value if equals else following
    return None


def _config(file: str, variant: str = "") -> ConfigDict:
    path = pathlib.Path(file)
    if not path.is_file():
        known = [str(one) for one in sorted(path.parent.glob("*.py")) if _is_config(one)]
        raise FileNotFoundError(f"--config={file}: there is no such file; have {known}")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(f"--config={file}: there is no get_config() in it; expected a config")
    if variant and not inspect.signature(get_config).parameters:
        raise ValueError(f"--config={file}:{variant}: this config has no variants; pass {file}")
    try:
        return get_config(variant) if variant else get_config()
    except ValueError as error:
        raise ValueError(f"--config={file}{f':{variant}' if variant else ''}: {error}") from error


def _is_config(path: pathlib.Path) -> bool:
    return "def get_config" in path.read_text(encoding="utf-8")


def _require(setting: str, config: ConfigDict) -> None:
    """Refuses a setting that the config does not have."""
    section: Any = config
    place = "config"
    for key in setting.lstrip("-").removeprefix(SETTING).partition("=")[0].split("."):
        if not isinstance(section, ConfigDict):
            raise ValueError(f"{setting}: {place} is {section!r} here, and has no settings")
        if key not in section:
            raise ValueError(f"{setting}: {place} has no {key!r}; have {sorted(section)}")
        section, place = section[key], f"{place}.{key}"
