// The moments of single coordinates, eight threads for a group. core/coordinates.hpp has the arithmetic.
#pragma once

#include "../core/coordinates.hpp"
#include "../core/moments.hpp"
#include "device.hpp"
#include "group.cuh"
#include "histogram.cuh"
#include "layout.hpp"

namespace gradtail::cuda {

constexpr int kCellsATask = 1024;

// Exponents of a piece in an update: that of the values, and that of the state afterwards.
struct PieceScale {
  int now, after;
};

// The scale of the values just seen is taken where there is none yet, or one that has become too small.
GRADTAIL_DEVICE PieceScale scale_of(const DevicePiece& piece, const ViewIntegers& view) {
  double largest;
  memcpy(&largest, &view.max_abs, sizeof largest);
  const int had = *piece.exponent, seen = exponent_of(largest);
  if (had == kUnscaled) return largest > 0 ? PieceScale{seen, seen} : PieceScale{0, kUnscaled};
  return {had, largest > 0 && seen > had + kGrowth ? seen : had};
}

// Whether all eight threads of a group say yes.
GRADTAIL_DEVICE bool all_of_group(bool yes) {
  const unsigned votes = __ballot_sync(kAllLanes, yes);
  return (votes >> (threadIdx.x % 32 / kGroup * kGroup) & 0xffu) == 0xffu;
}

// Take one more value of the coordinates in cells [first, first + kCellsATask) of all pieces. All threads.
template <int kThreads>
GRADTAIL_DEVICE void update_coordinates(const PlanMemory& plan, std::int64_t first) {
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  int v = 0;
  for (int low = 0, high = plan.n_views; low < high;) {  // the last piece that begins at `first` or before
    const int middle = (low + high) / 2;
    if (plan.pieces[middle].first_cell <= first)
      v = middle, low = middle + 1;
    else
      high = middle;
  }
  for (int k = static_cast<int>(threadIdx.x) / kGroup; k < kCellsATask; k += kThreads / kGroup) {
    const std::int64_t cell = first + k;
    bool there = cell < plan.cells;
    while (there && v + 1 < plan.n_views && plan.pieces[v + 1].first_cell <= cell) ++v;
    const DevicePiece& piece = plan.pieces[v];
    const BufferView& view = plan.views[v];
    const PieceScale scale = scale_of(piece, plan.view_integers[v]);
    float x = 0;
    bool inside = false;
    std::int64_t row = 0;
    if (there) {
      row = cell - piece.first_cell;
      const std::int64_t q = row / piece.cells_per_run, start = view.start + q * view.stride;
      const std::int64_t left = view.size - q * view.run, last = start + (left < view.run ? left : view.run) - 1;
      const std::int64_t width = std::int64_t{kGroup} * piece.cell, id = start / width + row % piece.cells_per_run;
      there = id <= last / width;
      if (there) {
        const std::int64_t index = chosen_group(view.key, id, piece.cell, piece.elements) * kGroup;
        there = index + kGroup > start && index <= last;
        inside = there && index + lane >= start && index + lane <= last;
        if (inside) {
          const double value = value_at(view, q * view.run + index + lane - start);
          x = static_cast<float>(ldexp(value, -scale.now));
        }
      }
    }
    const bool usable = all_of_group(x < kMostScaled && x > -kMostScaled) && there;
    const bool turned = there && scale.after != scale.now && scale.after != kUnscaled;
    const std::uint32_t count = usable ? piece.count[row] + 1 : 0;
    __syncwarp();
    if (usable && lane == 0) piece.count[row] = count;
    if ((!usable && !turned) || !inside) continue;
    float* const state = piece.state + row * (4 * kGroup) + lane;
    float mean = state[0], m2 = state[kGroup], m3 = state[2 * kGroup], m4 = state[3 * kGroup];
    if (usable) add_value(x, count_factors(count), mean, m2, m3, m4);
    if (turned) {
      const int shift = scale.now - scale.after;
      mean = ldexpf(mean, shift), m2 = ldexpf(m2, 2 * shift), m3 = ldexpf(m3, 3 * shift), m4 = ldexpf(m4, 4 * shift);
    }
    state[0] = mean, state[kGroup] = m2, state[2 * kGroup] = m3, state[3 * kGroup] = m4;
  }
}

// By the last block, once all cells have been updated: the exponents that they were left with.
template <int kThreads>
GRADTAIL_DEVICE void end_pieces(const PlanMemory& plan) {
  for (int v = static_cast<int>(threadIdx.x); v < plan.n_views; v += kThreads) {
    if (plan.cells > 0 && plan.pieces[v].state != nullptr)
      *plan.pieces[v].exponent = scale_of(plan.pieces[v], plan.view_integers[v]).after;
    plan.view_integers[v].max_abs = 0;
  }
}

}  // namespace gradtail::cuda
