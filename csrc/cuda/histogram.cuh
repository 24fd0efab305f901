// Counters of one row in shared memory: all bins where they fit, else those of a window of binades; what lies
// outside the window is counted in global memory at once.
#pragma once

#include "../core/element.hpp"
#include "device.hpp"
#include "layout.hpp"

namespace gradtail::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;  // of a warp

// Binades of which shared memory has counters, for each sign.
GRADTAIL_HD constexpr int binades_of(BinMode mode) {
  return mode == BinMode::kAll ? 256 : mode == BinMode::kWindow ? kWindowBinades : 0;
}

GRADTAIL_DEVICE void add_count(void* counts, bool wide, std::int64_t bin, std::uint32_t n) {
  if (wide)
    atomicAdd(static_cast<unsigned long long*>(counts) + bin, static_cast<unsigned long long>(n));
  else
    atomicAdd(static_cast<unsigned int*>(counts) + bin, n);
}

template <BinMode kMode>
class Histogram {
 public:
  static std::size_t bytes(int bits) { return sizeof(std::uint32_t) * 2 * (std::size_t{binades_of(kMode)} << bits); }

  GRADTAIL_DEVICE Histogram(std::uint32_t* bins, const StateMemory& state)
      : bins_(bins), bits_(state.bits), half_(binades_of(kMode) << state.bits), wide_(state.wide_counts != 0) {}

  // All threads, before the first count and a barrier.
  GRADTAIL_DEVICE void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < 2 * half_; i += static_cast<int>(blockDim.x)) bins_[i] = 0;
  }

  // All threads, with a barrier before the next count: counters are of a row, whose counts lie at `row`, and the
  // window ends 16 binades above the exponent field given.
  GRADTAIL_DEVICE void begin_row(void* row, RowIntegers* integers, int exponent_field) {
    row_ = row, integers_ = integers;
    if (kMode == BinMode::kWindow) {
      const int top = exponent_field + 16 > 255 ? 255 : exponent_field + 16, low = top - kWindowBinades;
      low_ = (low > 0 ? low : 0) << bits_;
    }
  }
  GRADTAIL_DEVICE void* row() const { return row_; }

  GRADTAIL_DEVICE void count(std::uint32_t pattern) {
    const std::uint32_t bin = bin_of(pattern, bits_);
    if (kMode == BinMode::kAll) {
      atomicAdd(bins_ + bin, 1u);
    } else {
      const std::uint32_t sign_half = 256u << bits_;
      const std::uint32_t magnitude = bin & (sign_half - 1), at = magnitude - static_cast<std::uint32_t>(low_);
      if (kMode == BinMode::kWindow && at < static_cast<std::uint32_t>(half_))
        atomicAdd(bins_ + at + (bin >= sign_half ? half_ : 0), 1u);
      else
        count_outside(bin, static_cast<int>(magnitude));
    }
  }

  // All threads, after a barrier: move the counters to the row. Bin 0 of either sign also holds the zeros, and is
  // left to the second kernel.
  GRADTAIL_DEVICE void flush() {
    int lowest = INT32_MAX, highest = -1;
    for (int i = static_cast<int>(threadIdx.x); i < 2 * half_; i += static_cast<int>(blockDim.x)) {
      const std::uint32_t n = bins_[i];
      if (n == 0) continue;
      bins_[i] = 0;
      const int magnitude = i < half_ ? i + low_ : i - half_ + low_;
      add_count(row_, wide_, i < half_ ? magnitude : magnitude + (256 << bits_), n);
      if (magnitude > 0) {
        lowest = magnitude < lowest ? magnitude : lowest;
        highest = magnitude > highest ? magnitude : highest;
      }
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const int low = __shfl_xor_sync(kAllLanes, lowest, lanes), high = __shfl_xor_sync(kAllLanes, highest, lanes);
      lowest = low < lowest ? low : lowest;
      highest = high > highest ? high : highest;
    }
    if (threadIdx.x % 32 == 0 && highest > 0) {
      atomicMin(&integers_->low_bin, lowest);
      atomicMax(&integers_->high_bin, highest);
    }
  }

 private:
  GRADTAIL_DEVICE void count_outside(std::uint32_t bin, int magnitude) {
    add_count(row_, wide_, bin, 1);
    if (magnitude == 0) return;
    atomicMin(&integers_->low_bin, magnitude);
    atomicMax(&integers_->high_bin, magnitude);
  }

  std::uint32_t* bins_;
  void* row_ = nullptr;
  RowIntegers* integers_ = nullptr;
  int bits_, half_, low_ = 0;
  bool wide_;
};

}  // namespace gradtail::cuda
