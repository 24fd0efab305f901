// Sums of blocks of neighbours and their logarithms (core/log_sums.hpp), in a kernel of its own that reads every
// value once more: the map of the sketch turns groups by any number of places, so that in the first kernel the values
// of a block lie with threads of several warps. Tallies are integers, joined by atomic operations.
//
// A warp takes a piece: what a run of a view has of 4096 values from a multiple of 4096 on.
#pragma once

#include <type_traits>

#include "../core/log_sums.hpp"
#include "arguments.cuh"
#include "device.hpp"
#include "group.cuh"
#include "histogram.cuh"
#include "layout.hpp"

namespace gradtail::cuda {

constexpr int kLogThreads = 256;  // of a block of threads

class BlockLogs {
 public:
  struct Shared {
    LogTable table;
  };

  GRADTAIL_DEVICE BlockLogs(const PassArguments& of, unsigned char* memory)
      : of_(of), shared_(*reinterpret_cast<Shared*>(memory)), lane_(static_cast<int>(threadIdx.x) % 32) {}

  GRADTAIL_DEVICE void run() {
    if (left_out(of_)) return;
    if (threadIdx.x == 0) shared_.table = LogTable GRADTAIL_LOG_TABLE;
    __syncthreads();
    constexpr int kWarps = kLogThreads / 32;
    const std::int64_t pieces = of_.plan.first_block_piece[of_.plan.n_views];
    const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kWarps;
    int v = 0;
    for (std::int64_t p = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32; p < pieces; p += stride) {
      while (of_.plan.first_block_piece[v + 1] <= p) ++v;
      run_piece(of_.plan.views[v], p - of_.plan.first_block_piece[v]);
    }
  }

 private:
  // What a lane knows of the block that it is in: its sum so far, whether all of it is there, and all finite.
  struct Part {
    float sum;
    int whole, bad;
  };

  GRADTAIL_DEVICE void run_piece(const BufferView& view, std::int64_t piece) {
    const std::int64_t a_run = pieces_of_run(view.run), q = piece / a_run;
    const std::int64_t origin = view.start + q * view.stride, left = view.size - q * view.run;
    const std::int64_t from = (origin / kMostBlock + piece % a_run) * kMostBlock;  // index of the piece's place 0
    const std::int64_t end = origin + (left < view.run ? left : view.run);
    const Span span{origin > from ? origin - from : 0, end - from < kMostBlock ? end - from : kMostBlock};
    if (span.low >= span.high) return;
    const std::int64_t offset = q * view.run + from - origin;  // within the view, of place 0
    switch (view.dtype) {
      case kFloat64:
        return count<double>(view, offset, span);
      case kFloat32:
        return count<float>(view, offset, span);
      case kFloat16:
        return count<Half>(view, offset, span);
      default:
        return count<Bfloat>(view, offset, span);
    }
  }

  struct Span {
    std::int64_t low, high;  // places that are there
  };

  template <typename Raw>
  GRADTAIL_DEVICE void count(const BufferView& view, std::int64_t offset, const Span& span) {
    const std::uint64_t base = view.data + static_cast<std::uint64_t>(offset) * sizeof(Raw);
    LogTally tally[kBlockSizes] = {};
    Part mine{0, 0, 0};  // of 256 values, of which lane i keeps the i-th
    for (int i = 0; i < kMostBlock / 256; ++i) {
      const int first = i * 256;
      if (first + 256 <= span.low || first >= span.high) continue;
      Part part = group<Raw>(base, first + lane_ * kGroup, span);
      for (int lanes = 1; lanes < 8; lanes *= 2) join(part, lanes);
      if (lane_ % 8 == 0) add(tally[0], part);
      for (int lanes = 8; lanes < 32; lanes *= 2) join(part, lanes);
      if (lane_ == 0) add(tally[1], part);
      if (lane_ == i) mine = part;
    }
    for (int lanes = 1; lanes < 4; lanes *= 2) join(mine, lanes);
    if (lane_ < 16 && lane_ % 4 == 0) add(tally[2], mine);
    for (int lanes = 4; lanes < 16; lanes *= 2) join(mine, lanes);
    if (lane_ == 0) add(tally[3], mine);
    LogTally* const to = of_.state.newest_logs[parity_of(of_)] + view.row * kBlockSizes;
    for (int k = 0; k < kBlockSizes; ++k) move(tally[k], to[k]);
  }

  // Eight values from place `at` on.
  template <typename Raw>
  GRADTAIL_DEVICE static Part group(std::uint64_t base, int at, const Span& span) {
    const auto* const raw = reinterpret_cast<const Raw*>(base + static_cast<std::uint64_t>(at) * sizeof(Raw));
    const bool whole = at >= span.low && at + kGroup <= span.high;
    float x[kGroup];
    bool loaded = false;
    if constexpr (!std::is_same_v<Raw, double>) {
      if (whole && reinterpret_cast<std::uint64_t>(raw) % 16 == 0) {
        Group<Raw> values;
        values.load(raw);
        GRADTAIL_UNROLL
        for (int l = 0; l < kGroup; ++l) x[l] = values.value(l);
        loaded = true;
      }
    }
    if (!loaded) {
      GRADTAIL_UNROLL
      for (int l = 0; l < kGroup; ++l) {
        const bool is = at + l >= span.low && at + l < span.high;
        x[l] = is ? static_cast<float>(value_of(raw[l])) : 0.0f;
      }
    }
    int bad = 0;
    GRADTAIL_UNROLL
    for (int l = 0; l < kGroup; ++l) bad |= is_finite(x[l]) ? 0 : 1;
    return {((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])), whole ? 1 : 0, bad};
  }

  // With the neighbour that is so many lanes away: sums do not care who is left and who is right.
  GRADTAIL_DEVICE static void join(Part& part, int lanes) {
    part.sum += __shfl_xor_sync(kAllLanes, part.sum, lanes);
    const int both = __shfl_xor_sync(kAllLanes, part.whole | part.bad << 1, lanes);
    part.whole &= both & 1;
    part.bad |= both >> 1;
  }

  GRADTAIL_DEVICE void add(LogTally& tally, const Part& part) const {
    if (part.whole != 0) add_block(tally, part.sum, part.bad != 0, shared_.table);
  }

  // What all lanes have to memory.
  GRADTAIL_DEVICE void move(const LogTally& tally, LogTally& to) const {
    const std::int64_t own[6] = {tally.blocks,     tally.zeros, tally.nonfinite,
                                 tally.overflowed, tally.sum,   tally.squares};
    std::int64_t* const fields[6] = {&to.blocks, &to.zeros, &to.nonfinite, &to.overflowed, &to.sum, &to.squares};
    GRADTAIL_UNROLL
    for (int f = 0; f < 6; ++f) {
      auto total = static_cast<unsigned long long>(own[f]);  // modulo 2^64
      for (int lanes = 16; lanes > 0; lanes /= 2) total += __shfl_xor_sync(kAllLanes, total, lanes);
      if (lane_ == 0 && total != 0) atomicAdd(reinterpret_cast<unsigned long long*>(fields[f]), total);
    }
  }

  const PassArguments& of_;
  Shared& shared_;
  int lane_;
};

GRADTAIL_KERNEL void GRADTAIL_BOUNDS(kLogThreads, 2) block_logs_kernel(GRADTAIL_CONSTANT PassArguments of) {
  GRADTAIL_DYNAMIC_SHARED(memory);
  BlockLogs(of, memory).run();
}

}  // namespace gradtail::cuda
