"""``saledit saliency``: the scores of all layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saledit.config import RunConfig, SiteConfig
from saledit.report import Ui
from saledit.run.checks import check
from saledit.run.picking import SWEEP, check_site, save_saliency, score_layers
from saledit.run.setup.launching import alone
from saledit.run.setup.prepare import prepare
from saledit.run.setup.reading import VALIDATION


def saliency(config: RunConfig, ui: Ui) -> dict[str, Any]:
    """Score every layer; write ``saliency.json`` and ``saliency.png`` into the run's folder.

    Args:
        config: the run; ``site.select: fixed`` is scored by trial-step.
        ui: where progress is shown.

    Returns:
        The table, see ``Saliency.as_json``.

    Raises:
        UserError: the configuration, the data or the model is wrong.
    """
    site = replace(config.site, layer=SiteConfig.layer)  # which is not asked for here
    edited = []
    if site.select == SWEEP:  # trains, where others leave the editor out
        check(replace(config, site=site))
        edited = [VALIDATION]
    else:
        check_site(site, config.train.validation_edits)
    prepared = prepare(replace(config, trainer=alone(config.trainer)), ui, edited)
    table = score_layers(prepared)
    save_saliency(prepared, table)
    return table
