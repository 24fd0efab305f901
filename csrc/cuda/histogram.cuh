// Counters of one row in shared memory: all bins where they fit, else those of a window of binades; what lies
// outside the window is counted in global memory at once.
#pragma once

#include "../core/element.hpp"
#include "device.hpp"
#include "group.cuh"
#include "layout.hpp"

namespace gradtail::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;  // of a warp

GRADTAIL_DEVICE double warp_sum(double x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kAllLanes, x, lanes);
  return x;
}

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

// word & mask, and the compiler leaves it at that.
GRADTAIL_DEVICE std::uint32_t only(std::uint32_t word, std::uint32_t mask) {
#if defined(__CUDA_ARCH__)
  std::uint32_t bits;
  asm("and.b32 %0, %1, %2;" : "=r"(bits) : "r"(word), "r"(mask));
  return bits;
#else
  return word & mask;
#endif
}

GRADTAIL_DEVICE void increment(std::uint32_t* bins, std::uint32_t bytes) {
  atomicAdd(reinterpret_cast<unsigned*>(reinterpret_cast<unsigned char*>(bins) + bytes), 1u);
}

template <BinMode kMode>
class Histogram {
  // Counters of one sign. A window has one more, the first, for bin 0: zeros are common and lie outside.
  GRADTAIL_HD static int width(int bits) { return (binades_of(kMode) << bits) + (kMode == BinMode::kWindow ? 1 : 0); }

 public:
  // What a team of threads keeps of its row besides the counters, in shared memory.
  struct Row {
    void* counts;
    RowIntegers* integers;
    int low;  // bin before the window: -1 for one that begins with the first bin
  };

  static std::size_t bytes(int bits) {
    return kMode == BinMode::kNone ? 0 : sizeof(std::uint32_t) * 2 * static_cast<std::size_t>(width(bits));
  }

  GRADTAIL_DEVICE Histogram(std::uint32_t* bins, Row& row, const StateMemory& state)
      : bins_(bins), row_(row), state_(state) {}

  // All threads, before the first count and a barrier.
  GRADTAIL_DEVICE void clear() {
    GRADTAIL_ROLLED
    for (int i = asked_lane(); i < counters(); i += static_cast<int>(blockDim.x)) bins_[i] = 0;
  }

  // One thread, with a barrier before the next count: counters are of a row, whose counts lie at `counts`, and the
  // window ends 16 binades above the exponent field given.
  GRADTAIL_DEVICE void begin_row(void* counts, RowIntegers* integers, int exponent_field) {
    row_.counts = counts, row_.integers = integers;
    const int top = exponent_field + 16 > 255 ? 255 : exponent_field + 16, low = top - kWindowBinades;
    row_.low = kMode == BinMode::kWindow ? ((low > 0 ? low : 0) << state_.bits) - 1 : 0;
  }

  // Any value.
  GRADTAIL_DEVICE void count(std::uint32_t pattern) {
    if (kMode != BinMode::kNone && holds(pattern & kMagnitudeMask, pattern & kMagnitudeMask))
      Counter<-1>(*this).count(pattern);
    else
      count_outside(bin_of(pattern, state_.bits), static_cast<int>(bin_of(pattern & kMagnitudeMask, state_.bits)));
  }

  // Whether shared memory has counters of every magnitude from the one to the other.
  GRADTAIL_DEVICE bool holds(std::uint32_t smallest, std::uint32_t largest) const {
    if (kMode != BinMode::kWindow) return kMode == BinMode::kAll;
    const int first = static_cast<int>(bin_of(smallest, state_.bits));
    const int last = static_cast<int>(bin_of(largest, state_.bits));
    return (first == 0 || first > row_.low) && last - row_.low < width(state_.bits);
  }

  // Counts values that shared memory has counters of, by the fewest instructions. kBits: mantissa bits where the
  // compiler knows them, else -1.
  template <int kBits>
  class Counter {
   public:
    GRADTAIL_DEVICE explicit Counter(Histogram& of) : bins_(of.bins_), bits_(kBits < 0 ? of.state_.bits : kBits) {
      if (kMode == BinMode::kWindow) low_ = of.row_.low, width_ = width(bits_);
    }

    GRADTAIL_DEVICE void count(std::uint32_t pattern) {
      if (kMode == BinMode::kAll) {
        increment_at<21>(pattern, ~0u);
      } else {
        const int magnitude = static_cast<int>(pattern << 1 >> (24 - bits_));
        const int at = (magnitude > low_ ? magnitude : low_) - low_;
        increment(bins_, static_cast<std::uint32_t>(at + static_cast<int>(pattern >> 31) * width_) * 4);
      }
    }

    // Two bfloat16.
    GRADTAIL_DEVICE void count_both(std::uint32_t word) {
      if (kMode == BinMode::kAll && kBits >= 0 && kBits <= 5) {
        increment_at<5>(word, 0xffffu);
        increment_at<21>(word, ~0u);
      } else {
        count(word << 16);
        count(word & 0xffff0000u);
      }
    }

   private:
    // The counter whose offset is word >> (kFrom - bits), but for the last two bits, of those that `mask` leaves.
    // Shifted after they are taken out the bits are added to an address by one instruction.
    template <int kFrom>
    GRADTAIL_DEVICE void increment_at(std::uint32_t word, std::uint32_t mask) {
      const int shift = kFrom - bits_;
      increment(bins_, only(word, mask & ~0u << (shift + 2)) >> shift);
    }

    std::uint32_t* bins_;
    int bits_, low_ = 0, width_ = 0;
  };

  // All threads, after a barrier: move the counters to the row. Bin 0 of either sign also holds the zeros, and is
  // left to the second kernel.
  GRADTAIL_DEVICE void flush() {
    int lowest = INT32_MAX, highest = -1;
    const int width = this->width(state_.bits);
    GRADTAIL_ROLLED
    for (int i = asked_lane(); i < counters(); i += static_cast<int>(blockDim.x)) {
      const std::uint32_t n = bins_[i];
      if (n == 0) continue;
      bins_[i] = 0;
      const int at = i < width ? i : i - width, magnitude = kMode == BinMode::kAll || at == 0 ? at : at + row_.low;
      add_count(row_.counts, state_.wide_counts != 0, i < width ? magnitude : magnitude + (256 << state_.bits), n);
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
      atomicMin(&row_.integers->low_bin, lowest);
      atomicMax(&row_.integers->high_bin, highest);
    }
  }

 private:
  GRADTAIL_DEVICE int counters() const { return kMode == BinMode::kNone ? 0 : 2 * width(state_.bits); }

  GRADTAIL_DEVICE void count_outside(std::uint32_t bin, int magnitude) {
    add_count(row_.counts, state_.wide_counts != 0, bin, 1);
    if (magnitude == 0) return;
    atomicMin(&row_.integers->low_bin, magnitude);
    atomicMax(&row_.integers->high_bin, magnitude);
  }

  std::uint32_t* bins_;
  Row& row_;
  const StateMemory& state_;
};

}  // namespace gradtail::cuda
