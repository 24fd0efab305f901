"""The published rows of the study of Hessian spectra, and an audit of whether they agree with themselves.

Tang, Gu, Cai, Sun, Li, Zhou, Xie, "Investigating the Overlooked Hessian Structure: From CNNs to LLMs" (ICML
2025, PMLR 267), the later form of "On the Power-Law Hessian Spectrums in Deep Learning" (arXiv:2201.13011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SOURCE = "Tang et al. (ICML 2025), arXiv:2201.13011"

LANGUAGE_CORRELATIONS = (0.923, 0.980)
"""Of the test loss with the distance: GPT2-nano in training, GPT2-small in fine-tuning."""

_ROUNDED = 1.5  # units of the last digit: rows whose numbers are rounded from one fit differ by 1.3 at most


@dataclass(frozen=True)
class Published:
    """A row in print.

    Attributes
    ----------
    table, setting : str
    ks : float or None
        Distance.
    accepted : bool or None
        Whether the power law is not rejected, by 1.36 / sqrt(K).
    exponent, stderr, slope : float or None
        The exponent of the density with its error, and the slope of the rank; none where rejected.
    top : int
        K.
    note : str
        What is not as it stands in print.
    """

    table: str
    setting: str
    ks: float | None
    accepted: bool | None
    exponent: float | None = None
    stderr: float | None = None
    slope: float | None = None
    top: int = 1000
    note: str = ""

    def flags(self) -> tuple[str, ...]:
        """Say what contradicts s = 1 / (beta - 1) and sigma = (beta - 1) / sqrt(K), beyond rounding."""
        if self.exponent is None:
            return ()
        said = []
        for name, printed, own in (
            ("slope", self.slope, 1 / (self.exponent - 1)),
            ("error", self.stderr, (self.exponent - 1) / math.sqrt(self.top)),
        ):
            if printed is not None and abs(printed - own) > _ROUNDED * 1e-3:
                said.append(f"{name} {printed:.3f} where the exponent gives {own:.3f}")
        return tuple(said)


def _rows(table: str, top: int, lines: str) -> list[Published]:
    """Read lines of: setting | distance | exponent, error, slope, each with - for none."""
    found = []
    for line in lines.strip().splitlines():
        setting, ks, exponent, stderr, slope, *note = (part.strip() for part in line.split("|"))
        fitted = [None if part == "-" else float(part) for part in (exponent, stderr, slope)]
        accepted = fitted[2] is not None or "accepted" in note
        said = " ".join(part for part in note if part != "accepted")
        found.append(
            Published(table, setting, float(ks), accepted, fitted[0], fitted[1], fitted[2], top, said)
        )
    return found


ROWS = (
    *_rows("LeNet, MNIST", 1000, """
        random | 0.0796 | - | - | -
        trained | 0.00900 | 1.991 | 0.031 | 1.009
    """),
    *_rows("LeNet, Fashion-MNIST", 1000, """
        random | 0.0971 | - | - | -
        trained | 0.0132 | 1.939 | 0.030 | 1.065
    """),
    *_rows("LeNet, CIFAR-10", 1000, """
        random | 0.0663 | - | - | -
        trained | 0.0279 | 1.968 | 0.031 | 1.033
    """),
    *_rows("LeNet, CIFAR-100", 1000, """
        random | 0.0944 | - | - | -
        trained | 0.0315 | 1.908 | 0.029 | 1.101
        vanilla SGD | 0.0379 | 1.903 | 0.029 | 1.108
        trained, Hessian on CIFAR-10 | 0.0306 | 1.913 | 0.029 | 1.095
    """),
    *_rows("optimizers, LeNet, MNIST", 1000, """
        SGD with momentum | 0.00900 | 1.991 | - | 1.009
        vanilla SGD | 0.0103 | 1.914 | - | 1.094
        Adam | 0.00962 | 1.873 | - | 1.145
        AMSGrad | 0.00987 | 1.845 | - | 1.184
        AdaBound | 0.00889 | 1.904 | - | 1.106
        Yogi | 0.00966 | 1.834 | - | 1.198
        RAdam | 0.0164 | 1.889 | - | 1.125
        Adai | 0.0101 | 1.892 | - | 1.122
        PNM | 0.0127 | 1.846 | - | 1.181
        Lookahead | 0.0101 | 1.982 | - | 1.018
        DiffGrad | 0.0105 | 1.834 | - | 1.198
    """),
    *_rows("optimizers, LeNet, CIFAR-10", 1000, """
        SGD with momentum | 0.0279 | 1.968 | - | 1.033
        vanilla SGD | 0.0276 | 1.935 | - | 1.069
        Adam | 0.0269 | 1.806 | - | 1.241
        AMSGrad | 0.0232 | 1.786 | - | 1.271
        AdaBound | 0.0297 | 1.901 | - | 1.110
        Yogi | 0.0184 | 1.806 | - | 1.241
        RAdam | 0.0163 | 1.733 | - | 1.363
        Adai | 0.0310 | 1.918 | - | 1.090
        PNM | 0.0347 | 1.911 | - | 1.098
        Lookahead | 0.0358 | 1.964 | - | 1.037
        DiffGrad | 0.0303 | 1.803 | - | 1.236
    """),
    *_rows("optimizers, ResNet18, CIFAR-10", 50, """
        SGD with momentum | 0.0803 | 2.146 | 0.162 | 0.873
        vanilla SGD | 0.0891 | 2.193 | 0.169 | 0.838
        Adam | 0.0478 | 2.062 | 0.149 | 0.950
        AMSGrad | 0.0542 | 2.041 | 0.147 | 0.961
        AdaBound | 0.0588 | 2.029 | 0.146 | 0.971
        Yogi | 0.116 | 1.915 | 0.129 | 1.092
        RAdam | 0.168 | 1.794 | 0.111 | 1.259
        Adai | 0.103 | 2.183 | 0.167 | 0.845
        PNM | 0.138 | 2.132 | 0.160 | 0.884
        Lookahead | 0.110 | 2.098 | 0.155 | 0.911
        DiffGrad | 0.068 | 2.055 | 0.149 | 0.948
        random | 0.334 | - | - | -
    """),
    *_rows("ResNet18, CIFAR-100", 50, """
        random | 0.373 | - | - | -
        trained | 0.108 | 2.299 | 0.184 | 0.770
    """),
    *_rows("batch size, LeNet, MNIST", 1000, """
        128 | 0.00900 | - | - | 1.009
        512 | 0.00787 | - | - | 1.119
        640 | 0.0125 | - | - | 1.194
        768 | 0.278 | - | - | -
        1024 | 0.129 | - | - | -
        8192 | 0.240 | - | - | -
        16384 | 0.249 | - | - | -
        32768 | 0.201 | - | - | -
        50000 | 0.139 | - | - | -
        60000 | 0.0936 | - | - | -
    """),
    *_rows("batch size, ResNet18, CIFAR-10", 50, """
        512 | 0.0561 | 2.146 | 0.151 | 0.936 | error and slope from the exponent of 2.068 that they imply
        1024 | 0.0647 | - | - | 0.929
        1152 | 0.0598 | - | - | 0.944
        1280 | 0.331 | - | - | -
        2048 | 0.334 | - | - | -
        4096 | 0.334 | - | - | -
        16384 | 0.343 | - | - | -
    """),
    *_rows("batch size at equal steps, LeNet, MNIST", 1000, """
        128 | 0.0527 | - | - | -
        512 | 0.0934 | - | - | -
        640 | 0.1138 | - | - | -
        768 | 0.1242 | - | - | -
        1024 | 0.0999 | - | - | -
        16384 | 0.0271 | - | - | - | accepted
    """),
    *_rows("training set, LeNet, MNIST", 1000, """
        600 | 0.205 | - | - | -
        800 | 0.0399 | 1.995 | 0.031 | 1.004
        1000 | 0.0198 | 2.128 | 0.036 | 0.886
        3000 | 0.0159 | 2.091 | 0.034 | 0.917
        6000 | 0.0151 | 2.001 | 0.032 | 0.999
    """),
    *_rows("labels, LeNet, MNIST", 1000, """
        40% flipped | 0.180 | - | - | -
        80% flipped | 0.157 | - | - | -
        random labels | 0.0482 | - | - | -
    """),
    *_rows("epochs, LeNet, MNIST", 1000, """
        1 | 0.0321 | 1.908 | - | 1.102
        2 | 0.0298 | 1.920 | - | 1.087
        3 | 0.0354 | 1.916 | 0.031 | 1.092 | of the error only is known that it is off by 0.002
        10 | 0.0291 | 2.029 | - | 0.972
        20 | 0.0268 | 2.081 | - | 0.925
        30 | 0.0068 | 2.074 | - | 0.930
    """),
    *_rows("eigengaps, LeNet", 1000, """
        MNIST | 0.0153 | 1.550 | 0.017 | 1.817
        Fashion-MNIST | 0.0240 | 1.520 | 0.017 | 1.922
    """),
    *_rows("fully connected, MNIST", 1000, """
        1, random | 0.185 | - | - | -
        1, trained | 0.241 | - | - | -
        2, random | 0.129 | - | - | -
        2, trained | 0.0112 | 2.209 | 0.038 | 0.827
        4, random | 0.0628 | - | - | -
        4, trained | 0.0141 | 2.201 | 0.038 | 0.833
    """),
    *_rows("width, MNIST", 1000, """
        10 | 0.149 | - | - | -
        20 | 0.185 | - | - | -
        30 | 0.0656 | - | - | -
        50 | 0.0187 | 2.138 | 0.028 | 0.879
        70 | 0.0376 | 2.271 | 0.030 | 0.787
        100 | 0.0112 | 2.209 | 0.038 | 0.827
    """),
    *_rows("fully connected, Avila", 50, "2, trained | 0.0683 | 1.604 | 0.085 | 1.656"),
    *_rows("language models, before", 1000, """
        OpenWebText, GPT2-small | 0.1168 | - | - | -
        Shakespeare, GPT2-nano | 0.0969 | - | - | -
        Shakespeare, GPT2-small, pretrained | 0.1058 | - | - | -
        Shakespeare, GPT2-medium, pretrained | 0.0787 | - | - | -
        Shakespeare, GPT2-large, pretrained | 0.0496 | - | - | -
        MathQA, TinyLlama with LoRA | 0.0552 | - | - | -
    """),
    *_rows("language models, after", 1000, """
        OpenWebText, GPT2-small | 0.0418 | - | - | - | accepted
        Shakespeare, GPT2-nano | 0.0353 | - | - | - | accepted
        Shakespeare, GPT2-small, fine-tuned | 0.0259 | - | - | - | accepted
        Shakespeare, GPT2-medium, fine-tuned | 0.0184 | - | - | - | accepted
        Shakespeare, GPT2-large, fine-tuned | 0.0160 | - | - | - | accepted
        MathQA, TinyLlama with LoRA | 0.0249 | - | - | - | accepted
    """),
)  # fmt: skip

_BY_NAME = {(row.table, row.setting): row for row in ROWS}
GAPS = _BY_NAME["eigengaps, LeNet", "MNIST"]
"""Of the trained LeNet."""

_TABLES = {
    "optimizer": "optimizers, LeNet, MNIST", "batch-size": "batch size, LeNet, MNIST",
    "train-size": "training set, LeNet, MNIST", "label-noise": "labels, LeNet, MNIST",
    "width": "width, MNIST", "depth": "fully connected, MNIST", "epochs": "epochs, LeNet, MNIST",
}  # fmt: skip
_NETWORKS = {
    "LeNet, random": ("LeNet, MNIST", "random"), "LeNet, trained": ("LeNet, MNIST", "trained"),
    "two-layer, random": ("fully connected, MNIST", "2, random"),
    "two-layer, trained": ("fully connected, MNIST", "2, trained"),
    "one-layer, trained": ("fully connected, MNIST", "1, trained"),
}  # fmt: skip


def published(sweep: str, setting: str) -> Published | None:
    """Return the row in print that a row of ours compares with, if there is one.

    Of language models that is one of the same kind, before or after training.
    """
    if sweep == "networks":
        return _BY_NAME.get(_NETWORKS.get(setting, ("", "")))
    if sweep == "language":
        return _BY_NAME.get((f"language models, {setting}", "Shakespeare, GPT2-nano"))
    if sweep == "label-noise" and setting == "none":
        return _BY_NAME["LeNet, MNIST", "trained"]
    return _BY_NAME.get((_TABLES.get(sweep, ""), setting))


def audit() -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the rows in print that contradict themselves, by table and setting, and why."""
    return {(row.table, row.setting): flags for row in ROWS if (flags := row.flags())}
