"""The last layer of a language model while it is trained: its Hessian against the held-out loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor, nn

from gradtail.experiments.gpt import GPT, GPTConfig
from gradtail.experiments.hessian_case import Weights, curvature
from gradtail.experiments.hessian_rows import Checkpoint, Settings, checkpoints
from gradtail.experiments.text import Text
from gradtail.experiments.training import Recipe, as_tensor, heldout_loss, train, windows
from gradtail.torch import Monitor
from gradtail.torch.countdown import Countdown
from gradtail.torch.interrupts import Interrupts

TOLERANCE = 1e-2
"""Of residuals. The Hessian of a last layer has bands of as many nearly equal eigenvalues as there are bytes,
which take many times the products to be told apart further; the law of their ranks does not change by it."""

_BYTES_A_SAMPLE = 8
_HELD_OUT = 256


class Language:
    """A small GPT on a text, trained once for all of its checkpoints.

    Parameters
    ----------
    text : Text
    config : GPTConfig
    settings : Settings
    weights : Weights
        Where the parameters at each checkpoint are kept.
    """

    def __init__(self, text: Text, config: GPTConfig, settings: Settings, weights: Weights) -> None:
        self.text, self.config, self._settings, self._weights = text, config, settings, weights

    def model(self, seed: int) -> GPT:
        """Make the model as it is before training."""
        torch.manual_seed(seed)
        return GPT(self.config)

    def recipe(self, seed: int) -> Recipe:
        """Return how it is trained."""
        return Recipe(self._settings.text_steps, seed=seed)

    def examine(self, at: Checkpoint, interrupts: Interrupts, progress: bool | None) -> dict[str, Any] | None:
        """Take the Hessian of the last layer at a checkpoint; None after Ctrl-C."""
        began = time.perf_counter()
        model = self.model(at.seed)
        if not self._weights.load(at.key, model):
            self._train(at.seed, interrupts, progress)
            if not self._weights.load(at.key, model):
                return None
        trained = time.perf_counter()
        layer, data = self.last_layer(model)
        found = curvature(
            layer, data, self._settings, self._settings.eigenvalues or 1000, at.seed,
            search=self._weights.search(at.key), tol=TOLERANCE, batch_size=len(data[0]),
            interrupts=interrupts, progress=progress,
        )  # fmt: skip
        if found is None:
            return None
        with torch.no_grad():
            fitted = float(nn.functional.cross_entropy(layer(data[0]), data[1]))
        return {
            "training": {
                "steps": at.of, "batch": self.recipe(0).batch, "rate": self.recipe(0).learning_rate,
                "optimizer": "AdamW, warmup and cosine", "source": self.text.source,
                "bytes": len(self.text.train), "parameters": model.parameter_count(),
            },
            "test_loss": heldout_loss(model, as_tensor(self.text.heldout), most=_HELD_OUT),
            "test_accuracy": None, "loss_of_samples": fitted,
            "seconds": {"training": trained - began, "all": time.perf_counter() - began}, **found,
        }  # fmt: skip

    @torch.no_grad()
    def last_layer(self, model: GPT) -> tuple[nn.Linear, tuple[Tensor, Tensor]]:
        """Return the last layer alone, and what it is given and is to say.

        Its matrix serves as the embedding of the input too; here it is the one that makes logits, and the
        input is held fixed, so that the Hessian is that of a linear classifier and not negative.
        """
        text = as_tensor(self.text.train)
        length = self.config.context + 1
        count = max(1, _BYTES_A_SAMPLE * self._settings.samples // self.config.context)
        starts = torch.linspace(0, len(text) - length, count).long()
        cut = windows(text, starts, length, model.tokens.weight.device)
        layer = nn.Linear(self.config.width, self.config.vocabulary, bias=False)
        layer.weight.copy_(model.head.weight)
        seen: list[Tensor] = []
        hook = model.norm.register_forward_hook(lambda module, given, made: seen.append(made.flatten(0, 1)))
        try:
            model(cut[:, :-1])
        finally:
            hook.remove()
        return layer, (seen[0], cut[:, 1:].flatten())

    def _train(self, seed: int, interrupts: Interrupts, progress: bool | None) -> None:
        wanted = checkpoints(self._settings.text_steps)
        model = self.model(seed)
        self._weights.save(Checkpoint(0, self._settings.text_steps, seed).key, model)
        with Countdown("training", self._settings.text_steps, progress) as countdown:
            data = as_tensor(self.text.train)
            for step in train(model, data, self.recipe(seed), Monitor(model)):
                countdown.advance()
                if step.number + 1 in wanted:
                    key = Checkpoint(step.number + 1, self._settings.text_steps, seed).key
                    self._weights.save(key, model)
                if interrupts.stopped:
                    return


def correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, Any] | None:
    """Return Pearson's correlation with its 95 % interval by Fisher's z; None for fewer than four pairs.

    Fisher (1915, Biometrika 10, 507): atanh r is normal with a standard error of 1 / sqrt(n - 3) for
    independent pairs of a normal law. Checkpoints of one training are neither, so that it is a guide.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.size < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    r = float(stats.pearsonr(a, b).statistic)
    reach = float(special.ndtri(0.975)) / np.sqrt(a.size - 3)
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return {"pearson": r, "ci95": [float(np.tanh(z - reach)), float(np.tanh(z + reach))], "pairs": a.size}
