"""What a run's data and model are on disk, as hashes: whether results are of what is there now."""

from __future__ import annotations

from contextlib import suppress

from saledit.building import make_task
from saledit.config import RunConfig
from saledit.config.editors import MomentsConfig
from saledit.data.rewriter import by_rules
from saledit.data.sources import source_digest, source_files
from saledit.errors import SaleditError
from saledit.files import known_hash
from saledit.models import find_weights, model_files


def origins(config: RunConfig) -> dict[str, str]:
    """Hashes of the files that a configuration names, by their settings.

    Of what is on a hub, or is not there at all, there is none.
    """
    d, f = config.data, config.model.finetune
    named = {"data.train": d.train, "data.test": d.test}
    named |= {f"data.locality[{i}]": source for i, source in enumerate(d.locality)}
    named["model.finetune.data"] = f.data if f.enabled else ""
    named["editor.moments.corpus"] = config.editor.moments.corpus
    named |= {"test.texts": config.test.texts, "test.abilities": config.test.abilities}
    files = {}
    models = {"model.name": config.model.name}
    if by_rules(d.adapt, make_task(config.task)):
        models["data.adapt.similarity_model"] = d.adapt.similarity_model
    for key, model in models.items():
        with suppress(SaleditError, OSError):
            files[key] = model_files(find_weights(model)) if model else []
    for key, source in named.items():
        with suppress(SaleditError, OSError):
            files[key] = source_files(source) if source else []
    hashes = {}
    for key, paths in files.items():
        with suppress(OSError):
            hashes[key] = "-".join(known_hash(path)[:16] for path in paths)
    return {key: mark for key, mark in hashes.items() if mark}


def corpus_digest(c: MomentsConfig) -> str:
    """Fingerprint of the text that second moments are of; "" where none is named."""
    return source_digest(c.corpus) if c.corpus else ""
