"""How other packages behave in a run: silent, on so many threads, and good neighbours."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings

# Lightning sets the levels of its upper loggers anew on import, but not those of the loggers
# below, through which it speaks ("GPU available", "`Trainer.fit` stopped", tips about its cloud).
_LOGGERS = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.callbacks.model_summary",
    "lightning_utilities.core.rank_zero",
    "accelerate.big_modeling",
    "torch.distributed",
    "torch.distributed.elastic.multiprocessing.redirects",
    "datasets",
    "huggingface_hub",
    "matplotlib",
)
_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# How often one of torch's threads looks for the others before it sleeps. OpenMP's own number keeps
# processors busy for milliseconds; beside other jobs the threads that are waited for then come to
# no processor, and steps take 1.6 times as long (benchmarks/waiting.py). Alone this is as quick.
_SPINS, _POLICY = ("GOMP_SPINCOUNT", "10000"), "OMP_WAIT_POLICY"


def quiet_libraries() -> None:
    """Turn off the log lines, progress bars and warnings of other packages, for the process.

    And let threads that wait leave the processor to others, where the user has no policy of that.
    Call it before they are imported; what the user has set in the environment or with
    ``python -W`` stays. Warnings of saledit itself still show.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if _POLICY not in os.environ:  # it would be overruled
        os.environ.setdefault(*_SPINS)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", category=UserWarning, module=r"saledit(\.|$)")
    if "transformers" in sys.modules or importlib.util.find_spec("transformers") is not None:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()


def use_threads(n: int) -> None:
    """Let torch, and what reads ``OMP_NUM_THREADS``, use so many processor threads."""
    os.environ["OMP_NUM_THREADS"] = str(n)
    import torch

    torch.set_num_threads(n)
