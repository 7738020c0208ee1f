"""Configs for tests: Hydra composes each choice of groups once in a process, and sets single values in a copy."""

import copy
from dataclasses import replace
from functools import cache

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser

from transfergen.config import CONF_DIR

SHIPPED = ["hydra.conf", str(CONF_DIR), ""]
"""Where Hydra looks unless it is told otherwise: its own configs, ours, and its schemas."""


class Parts(list):
    """The files of a config, and what they are composed to."""

    composed = None


def share_configs():
    """From now on Hydra keeps each parsed override, each shipped file, and their configs before single values are set.

    To compose took a third of a small training's time. Each config is still a copy of its own, and files of other
    folders are read again.
    """
    known, compose = {}, ConfigLoaderImpl._compose_config_from_defaults_list
    files, read = {}, ConfigRepository.load_config
    parse = cache(OverridesParser.create().parse_rule)

    def load(repo, config_path):
        if [source.path for source in repo.get_sources()] != SHIPPED:
            return read(repo, config_path)
        if files.get(config_path) is None:  # a file that is not there may come, as with a plugin
            files[config_path] = read(repo, config_path)
        return copy.deepcopy(files[config_path])

    def list_parts(repo, config_name, overrides_list, **options):
        if [source.path for source in repo.get_sources()] != SHIPPED:
            return create_defaults_list(repo, config_name, overrides_list, **options)
        groups = [o for o in overrides_list if repo.group_exists(o.key_or_group) and not isinstance(o.value(), dict)]
        values = [o for o in overrides_list if o not in groups and not o.is_sweep_override()]
        key = (config_name, *(override.input_line for override in groups), *options.items())
        if key not in known:
            listed = create_defaults_list(repo, config_name, groups, **options)
            known[key] = replace(listed, defaults=Parts(listed.defaults))
        return replace(known[key], config_overrides=values)

    def compose_parts(loader, defaults, repo):
        if not isinstance(defaults, Parts):
            return compose(loader, defaults, repo)
        if defaults.composed is None:
            defaults.composed = compose(loader, defaults, repo)
        return copy.deepcopy(defaults.composed)

    ConfigRepository.load_config = load
    config_loader_impl.create_defaults_list = list_parts
    ConfigLoaderImpl._compose_config_from_defaults_list = compose_parts
    OverridesParser.parse_rule = lambda parser, *rule: parse(*rule)
