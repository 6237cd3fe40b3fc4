"""Presets of published numbers hold the numbers of the files that they name.

The table below has each number as its file has it, in the file's own terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from saledit import config as configuration

EDITORS = Path(__file__).parents[2] / "configs" / "editors"
#: n_positions, or max_position_embeddings where a model has none: what second moments read of a
#: passage (layer_stats.py of each of the repositories).
POSITIONS = {"gpt2-xl": 1024, "gpt-j": 2048, "llama-2-7b": 4096, "llama-3-8b": 8192}
GPT_J = "EleutherAI_gpt-j-6B.json"
ROME, EASY = "kmeng01/rome", "zjunlp/EasyEdit"
ALPHA, ENCORE = "jianghoucheng/AlphaEdit", "scalable-model-editing/encore"
UNIFIED = "scalable-model-editing/unified-model-editing"


@dataclass(frozen=True)
class Published:
    """Numbers of a file of hyperparameters.

    Attributes:
        repository, commit, file: where they are from.
        layers: the first and the last of layers.
        steps: v_num_grad_steps, one more than are taken (compute_v.py, compute_z.py).
        rate: v_lr.
        decay: v_weight_decay.
        clamp: clamp_norm_factor.
        weight: mom2_update_weight; EMMET's is in effect a factor on emmet_lambda, 0.1.
    """

    repository: str
    commit: str
    file: str
    layers: tuple[int, int]
    steps: int
    rate: float
    decay: float
    clamp: float
    weight: float = 1.0


PUBLISHED = {
    "rome-gpt2-xl": Published(ROME, "0c06752", "ROME/gpt2-xl.json", (17, 17), 20, 0.5, 0.5, 4),
    "rome-gpt-j": Published(ROME, "0c06752", f"ROME/{GPT_J}", (5, 5), 20, 0.5, 0.5, 4),
    "rome-llama-2-7b": Published(EASY, "d3a0c8c", "ROME/llama-7b.yaml", (5, 5), 25, 0.5, 1e-3, 4),
    "rome-llama-3-8b": Published(EASY, "f88aa80", "ROME/llama3-8b.yaml", (5, 5), 25, 0.5, 1e-3, 4),
    "memit-gpt2-xl": Published(
        ALPHA, "d04ed2c", "MEMIT/gpt2-xl.json", (13, 17), 20, 0.5, 0.5, 0.75, 20000
    ),
    "memit-gpt-j": Published(
        "kmeng01/memit", "ef6f4cd", f"MEMIT/{GPT_J}", (3, 8), 25, 0.5, 0.5, 0.75, 15000
    ),
    "memit-llama-2-7b": Published(
        EASY, "3fb01b3", "MEMIT/llama-7b.yaml", (4, 8), 25, 0.5, 1e-3, 4, 15000
    ),
    "memit-llama-3-8b": Published(
        ENCORE, "1f2264e", "MEMIT/llama3-8b.json", (4, 8), 25, 0.5, 0.5, 0.75, 15000
    ),
    "emmet-gpt2-xl": Published(
        UNIFIED, "dabbb96", "EMMET/gpt2-xl.json", (17, 17), 20, 0.5, 0.5, 0.75, 1000
    ),
    "emmet-gpt-j": Published(
        UNIFIED, "dabbb96", f"EMMET/{GPT_J}", (5, 5), 25, 0.5, 0.5, 0.75, 10000
    ),
    "emmet-llama-2-7b": Published(
        UNIFIED, "dabbb96", "EMMET/llama2-7b.json", (5, 5), 25, 0.5, 0.5, 0.75, 10000
    ),
    "emmet-llama-3-8b": Published(
        ENCORE, "1f2264e", "EMMET/llama3-8b.json", (5, 5), 25, 0.5, 0.5, 0.75, 100000
    ),
    "alphaedit-gpt2-xl": Published(
        ALPHA, "110e051", "AlphaEdit/gpt2-xl.json", (13, 17), 20, 0.5, 0.5, 0.75
    ),
    "alphaedit-gpt-j": Published(
        ALPHA, "110e051", f"AlphaEdit/{GPT_J}", (3, 8), 25, 0.5, 0.5, 0.75
    ),
    "alphaedit-llama-2-7b": Published(
        ENCORE, "1f2264e", "AlphaEdit/llama2-7b.json", (4, 8), 25, 0.1, 0.5, 0.75
    ),
    "alphaedit-llama-3-8b": Published(
        ALPHA, "110e051", "AlphaEdit/Llama3-8B.json", (4, 8), 25, 0.1, 0.5, 0.75
    ),
}


def _words_above(editor: str) -> str:
    lines = (EDITORS / f"{editor}.yaml").read_text(encoding="utf-8").splitlines()
    head = takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in head)


def test_all_presets_of_published_numbers_are_checked() -> None:
    named = {p.stem for p in EDITORS.glob("*.yaml") if "published numbers" in _words_above(p.stem)}
    assert named == set(PUBLISHED)


@pytest.mark.parametrize("editor", PUBLISHED)
def test_numbers_are_those_of_the_file_that_is_named(editor: str) -> None:
    published = PUBLISHED[editor]
    method, model = editor.split("-", 1)
    # Over a configuration that tries several lengths, too.
    config = configuration.load("qa/counterfact", [], [f"editors/{editor}"])
    locate, moments = config.editor.locate, config.editor.moments
    assert (config.editor.name, locate.solver) == ("locate", method)
    assert tuple(config.editor.steps) == (1.0,)
    first, last = published.layers
    assert config.site.select == "fixed"
    assert (config.site.layer, config.site.span) == (last, last - first + 1)
    assert locate.value_steps == published.steps - 1
    assert locate.value_rate == published.rate
    assert locate.decay == published.decay
    assert locate.clamp == published.clamp
    assert (locate.at, locate.kl) == ("subject", 0.0625)
    # Beginnings beside the bare prompt, and what sizes are of, are in the code of each.
    assert locate.contexts == (20 if method == "rome" else 5)
    assert locate.measure == ("output" if method == "rome" else "block")
    if method == "memit":
        assert locate.weight == published.weight
    if method == "emmet":
        assert locate.ridge == pytest.approx(0.1 * published.weight)
    if method == "alphaedit":
        assert (locate.threshold, locate.norm) == (2e-2, 10.0)
    assert moments.corpus.startswith("wikimedia/wikipedia")
    assert moments.window == POSITIONS[model]


@pytest.mark.parametrize("editor", PUBLISHED)
def test_the_file_is_named(editor: str) -> None:
    published = PUBLISHED[editor]
    for word in (published.repository, f"hparams/{published.file}", f"@{published.commit}"):
        assert word in _words_above(editor)
