"""How alike two texts are, by an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saledit.errors import ModelError


class EmbeddingSimilarity:
    """Cosine similarity of mean-pooled sentence embeddings from a local BERT-like model.

    Args:
        folder: A folder with the tokenizer and the model, as sentence-transformers saves them.
        batch_size: How many texts go through the model at once.
        device: Where the model runs.
        max_length: How many tokens of a text count.

    Raises:
        ModelError: If the folder does not exist, or holds no such model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int = 128,
        device: Any = "cpu",
        max_length: int = 256,
    ) -> None:
        # Imported here so that the rules work, and load fast, without torch.
        from transformers import AutoModel

        from saledit.models.pretrained import explained, read_model, read_tokenizer

        if not Path(folder).is_dir():
            raise ModelError(f"{folder}: no such folder with a sentence embedding model")
        path = str(folder)
        with explained(path):
            self._tokenizer: Any = read_tokenizer(path)
            model, _ = read_model(AutoModel, path, local_files_only=True)
        self._model = model.to(device).eval()
        self._device = device
        self._batch_size = batch_size
        self._max_length = max_length

    def __call__(self, first: Sequence[str], second: Sequence[str]) -> list[float]:
        """Scores pairs of texts.

        Args:
            first: One text of each pair.
            second: The other text of each pair.

        Returns:
            The cosine of each pair, in order.

        Raises:
            ValueError: If the two sequences differ in length.
        """
        if len(first) != len(second):
            raise ValueError(f"{len(first)} texts cannot be paired with {len(second)}")
        if not first:
            return []
        unique = list(dict.fromkeys((*first, *second)))
        vectors = self._embed(unique)
        row = {text: index for index, text in enumerate(unique)}
        left = vectors[[row[text] for text in first]]
        right = vectors[[row[text] for text in second]]
        return [float(score) for score in (left * right).sum(dim=1)]

    def _embed(self, texts: Sequence[str]) -> Any:
        """Unit vectors of the texts, one row each."""
        import torch

        # Texts of one length share a batch, so that little is spent on padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows: list[Any] = [None] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                chosen = order[start : start + self._batch_size]
                encoded = self._tokenizer(
                    [texts[index] for index in chosen],
                    padding=True,
                    truncation=True,
                    max_length=self._max_length,
                    return_tensors="pt",
                ).to(self._device)
                hidden = self._model(**encoded).last_hidden_state
                mask = encoded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
                unit = torch.nn.functional.normalize(pooled.float(), dim=1).cpu()
                for index, vector in zip(chosen, unit, strict=True):
                    rows[index] = vector
        return torch.stack(rows)
