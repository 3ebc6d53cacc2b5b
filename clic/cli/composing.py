"""Settings of a command composed from its file, its flags and its ``key=value`` words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from clic.cli.overrides import for_hydra
from clic.errors import ConfigError, did_you_mean

Schema = TypeVar("Schema")


def compose(
    config_name: str,
    words: Sequence[str],
    schema: type[Schema],
    flags: Mapping[str, Any] | None = None,
) -> Schema:
    """Compose ``configs/<config_name>.yaml`` with overrides into a schema dataclass.

    Args:
        config_name: Name of the file under ``clic.configs``, without its ending.
        words: ``key=value`` overrides; for a list setting ``key=a,b`` means ``key=[a,b]``.
        schema: Dataclass that the settings must fit.
        flags: Settings that were given as flags, those that are None left out.

    Raises:
        ConfigError: A setting is unknown, has the wrong type, or was given both ways.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    given = {key: value for key, value in (flags or {}).items() if value is not None}
    words = [for_hydra(word, schema) for word in words]
    _check_keys(words, schema, given)
    try:
        with initialize_config_module("clic.configs", version_base="1.3"):
            # The file's settings lie in a node of its own name, because a bare `model=M` would
            # choose from the group configs/model.
            overrides = [f"{config_name}.{word}" for word in words]
            composed = hydra_compose(config_name, overrides=overrides)[config_name]
        settings = OmegaConf.merge(OmegaConf.structured(schema), composed, given)
        result = OmegaConf.to_object(settings)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(reason(error, f"{config_name}.")) from error
    if not isinstance(result, schema):
        raise TypeError(f"{config_name}: composed {type(result)}, expected {schema}")
    return result


def _check_keys(words: Sequence[str], schema: type, given: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(schema)]
    for word in words:
        key = word.split("=", 1)[0]
        if key not in known:
            choices = ", ".join(known)
            raise ConfigError(
                f"setting {key!r} is not known{did_you_mean(key, known)} (settings: {choices})"
            )
        if key in given:
            raise ConfigError(f"{key} is given twice, as a flag and as {word!r}; keep one")


def reason(error: Exception, prefix: str = "") -> str:
    """Return what helps of a Hydra or OmegaConf message on one line: the setting and its fault.

    Args:
        error: What Hydra raised.
        prefix: Of the settings' names, which the user did not write.
    """
    override = getattr(error, "override", None)
    if override is not None:
        key, _, value = str(override).removeprefix(prefix).partition("=")
        return (
            f"'{key}={value}' cannot be read; check its brackets and quotes, and write a text with "
            f"signs of its own in two pairs of quotes, \"{key}='TEXT'\", as the shell takes one"
        )
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if "Ambiguous value for argument" in str(cause):
        key = str(cause).split("'")[1].partition("=")[0].removeprefix(prefix)
        return (
            f"{key} has commas: [A,B] is a list, -m trains with each of A,B in turn, and a text "
            f"with commas is written in two pairs of quotes, \"{key}='TEXT'\""
        )
    key = str(getattr(cause, "full_key", None) or "").removeprefix(prefix)
    if not key and (found := re.search(r"full_key: (\S+)", str(cause))):
        key = found.group(1).removeprefix(prefix)
    text = re.sub(r"\s+(full_key|object_type|reference_type)[:=]\s*\S*", " ", str(cause))
    return " ".join((f"{key}: {text}" if key else text).split()) or type(error).__name__
