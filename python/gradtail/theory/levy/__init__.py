"""Stable noise: samples, paths that it drives, and the times in which it leaves a well."""

from gradtail.theory.levy.exit_times import brownian_exit_time, exit_time
from gradtail.theory.levy.exits import ExitTimes, simulate_exit
from gradtail.theory.levy.paths import Paths, simulate_paths
from gradtail.theory.levy.stable import levy_constant, sample
from gradtail.theory.levy.wells import Metastability, Transition, TwoWells, compare_wells

__all__ = [
    "ExitTimes",
    "Metastability",
    "Paths",
    "Transition",
    "TwoWells",
    "brownian_exit_time",
    "compare_wells",
    "exit_time",
    "levy_constant",
    "sample",
    "simulate_exit",
    "simulate_paths",
]
