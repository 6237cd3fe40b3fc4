"""Closed tables: the names that a configuration may use, and what they stand for.

A YAML file names things from here; it never imports code.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import Any

from saledit.bundled import bundled
from saledit.errors import ConfigError, did_you_mean

#: Each has a section of its name in ``EditorConfig``.
EDITORS = MappingProxyType(
    {
        "mend": "saledit.editors.mend:Mend",
        "step": "saledit.editors.step:Step",
        "ft": "saledit.editors.ft:FineTuning",
        "enn": "saledit.editors.enn:EditableNetwork",
        "ke": "saledit.editors.ke:KnowledgeEditor",
        "memoe": "saledit.editors.memoe:MixtureOfExperts",
        "malmen": "saledit.editors.malmen:Malmen",
        "locate": "saledit.editors.locate:Locate",
    }
)
TASKS = MappingProxyType(
    {
        "nli": "saledit.tasks.nli:Nli",
        "qa": "saledit.tasks.qa:Qa",
        "generation": "saledit.tasks.generation:Generation",
    }
)
PICKERS = MappingProxyType(
    {
        "gradient": "saledit.saliency.gradient:GradientSaliency",
        "trial-step": "saledit.saliency.trial:TrialStep",
        "causal-tracing": "saledit.saliency.tracing:CausalTracing",
    }
)


def look_up(table: MappingProxyType[str, str], name: str, key: str) -> Any:
    """Import what a name stands for.

    Args:
        table: one of the tables of this module.
        name: what the configuration says.
        key: the configuration key, for the message.

    Raises:
        ConfigError: the table has no such name.

    Example:
        >>> look_up(TASKS, "nli", "task.name").__name__
        'Nli'
    """
    if name not in table:
        presets = {path.stem for path in bundled("bundled:configs/editors").glob("*.yaml")}
        remedy = did_you_mean(name, table)
        if table is EDITORS and name in presets:
            remedy = f"that is a preset of one: include editors/{name}, or compare --editors {name}"
        raise ConfigError(f"{key}: unknown name '{name}'; {remedy}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
