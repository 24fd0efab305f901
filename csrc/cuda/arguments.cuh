// What kernels make of their arguments.
#pragma once

#include "device.hpp"
#include "layout.hpp"

namespace gradtail::cuda {

// Whether the cadence leaves this update out. Both kernels ask before the last block of the second changes Control.
GRADTAIL_DEVICE bool left_out(const PassArguments& of) {
  const Control& c = *of.state.control;
  return of.step.cadence != 0 && c.every > 1 && (c.calls + of.step.begin - 1) % c.every != 0;  // of a step, all or none
}

GRADTAIL_DEVICE int parity_of(const PassArguments& of) { return of.state.control->parity ^ of.step.begin; }

// Partials of updates with float64 are double, and their sketches unscaled.
template <typename Acc>
GRADTAIL_DEVICE Acc* sketch_of(const PlanMemory& plan) {
  return reinterpret_cast<Acc*>(plan.chain_sketch);
}
template <typename Acc>
GRADTAIL_DEVICE Acc* folds_of(const PlanMemory& plan) {
  return reinterpret_cast<Acc*>(plan.item_folds);
}

}  // namespace gradtail::cuda
