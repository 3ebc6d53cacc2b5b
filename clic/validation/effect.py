"""The error of a setting that would have no effect."""

from __future__ import annotations

from clic.errors import ConfigError


def no_effect(setting: str, value: object, because: str, remedy: str) -> ConfigError:
    """Return the error that says so, why, and what to do."""
    return ConfigError(f"{setting}={value} has no effect with {because}; {remedy}")
