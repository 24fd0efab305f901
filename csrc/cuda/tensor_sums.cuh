// Sums of bfloat16 values on tensor cores: the first power sum, and why not the others. Off on every architecture.
//
// mma.sync multiplies bfloat16 fragments exactly and adds in float32. A fragment holds two values of a lane in each
// register, so that the words of a group are matrix A as they were loaded. With ones for B every column of D has the
// sums of the rows: what lane 4g + t has in its accumulators 0 and 2 are those of rows g and g + 8.
//
// What the sums may cost. The bound is 2^-20 of the sum of |x|^p, 9.5e-7, which the ordinary sums use up by 16
// roundings of 2^-24. Tensor cores do not round. A block of 8 or 16 products and the accumulator are aligned to the
// largest of them, cut off `extra` bits below float32, added, and the result is cut off to float32: against the
// largest each addend but one loses up to 2^-(23 + extra), and the result 2^-23 - 2^-(23 + extra). It is no use that
// products are exact: a value that lies far below the largest of its block is lost however it came about. So, if the
// accumulator starts at 0 and D is added to float32 after each mma, and that to double after 8 groups (7 roundings):
//
//   addends of a block, extra bits       mma      loss of one mma               with 7 roundings
//   8, 1 (sm_80 to sm_89)                k8        8 x 2^-24                    15 x 2^-24 = 8.9e-7
//   8, 1                                 k16      17 x 2^-24 (two blocks)       24 x 2^-24 = 1.4e-6: too much
//   16, 2 (from sm_90 on)                k16      18 x 2^-25                    32 x 2^-25 = 9.5e-7
//   16, 2                                k16, 2 to an accumulator: 37 x 2^-25   and 3: 43 x 2^-25 = 1.3e-6: too much
//
// A drain after 64 mma, at 64 x 2^-23 and more, is far beyond it, and so is one after 2. With a drain after each:
//
// - S1: one mma, one selection and one addition for 8 values, in place of 8 additions. As compiled (SASS.md) that is
//   0.2 to 1.1 instructions a value less of 16 and more from sm_90 on; with blocks of 8 it takes twice as many, and
//   registers for fewer loads ahead, so that in all nothing is gained from it but with a window of bins on sm_80.
// - S2 lies on the diagonal of D, in the one or the other of two accumulators: 2 mma, 4 moves (B wants words 0 and 2
//   side by side) and 4 additions for 8 values, in place of 8 additions. Nothing is gained.
// - S3 and S4 of x * x rounded to bfloat16 err by up to 2^-8 a term, which no drain mends; with the rest
//   x * x - bfloat16(x * x), exact as well, they need 4.6 instructions a value for all four sums, in place of 5.
//
// So S1 is summed here, at scale 1, and S2 to S4 by ordinary instructions.
#pragma once

#include "device.hpp"
#include "group.cuh"
#include "histogram.cuh"

namespace gradtail::cuda {

// Whether an architecture, as __CUDA_ARCH__ names it, sums S1 so. None does until a run on such a GPU has shown that
//   1. tests/test_gpu_*.py hold with the switch below: sums within their bound, bit for bit the same in every run;
//   2. blocks and extra bits are those of the table above, which are taken from the literature (arXiv 2403.00232,
//      arXiv 2512.07004), not measured: tests/test_tensor_sums.py has the adverse values to be tried on the device;
//   3. the pass is faster for it, which a count of instructions alone does not tell.
constexpr bool tensor_sums(int architecture) {
#if defined(GRADTAIL_TENSOR_SUMS) && GRADTAIL_TENSOR_SUMS  // to count the instructions, and to run what is asked above
  return architecture >= 800;
#else
  static_cast<void>(architecture);
  return false;
#endif
}

// Terms of one mma: one block of what the hardware adds at a time.
constexpr int tensor_terms(int architecture) { return architecture >= 900 ? 16 : 8; }

#if defined(__CUDA_ARCH__)
constexpr bool kTensorSums = tensor_sums(__CUDA_ARCH__);
constexpr int kTensorTerms = tensor_terms(__CUDA_ARCH__);
#else
constexpr bool kTensorSums = false;
constexpr int kTensorTerms = 16;
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
constexpr std::uint32_t kTensorOnes = 0x3f803f80u;  // two of them in bfloat16

// Sums of rows g and g + 8 of a 16 x 16 matrix, or of a 16 x 8 one. All lanes of the warp come here together.
GRADTAIL_DEVICE void row_sums(std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3, float& upper,
                              float& lower) {
  [[maybe_unused]] float same[2];
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%8}, {%9,%9,%9,%9};"
      : "=f"(upper), "=f"(same[0]), "=f"(lower), "=f"(same[1])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(kTensorOnes), "f"(0.0f));
}
GRADTAIL_DEVICE void row_sums(std::uint32_t a0, std::uint32_t a1, float& upper, float& lower) {
  [[maybe_unused]] float same[2];
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
               : "=f"(upper), "=f"(same[0]), "=f"(lower), "=f"(same[1])
               : "r"(a0), "r"(a1), "r"(kTensorOnes), "f"(0.0f));
}
#endif

// Whether it is so for all lanes of the warp, all of which ask.
GRADTAIL_DEVICE bool of_all_lanes(bool is) {
#if defined(__CUDA_ARCH__)
  return __all_sync(kAllLanes, is) != 0;
#else
  return is;  // nobody asks: kTensorSums is false
#endif
}

// S1 of the groups of an octet that the lanes of a warp take together.
struct TensorSums {
  float sum = 0;

  // The words of a group, of all lanes. Of the rows whose sums lanes 4g to 4g + 3 all have, lane 4g + r keeps row r;
  // it costs what adding all of them would, and fewer registers.
  GRADTAIL_DEVICE void add(const uint4& w) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const int lane = static_cast<int>(threadIdx.x);
    float upper, lower;
    if constexpr (kTensorTerms == 16) {
      row_sums(w.x, w.y, w.z, w.w, upper, lower);
    } else {
      float others[2];
      row_sums(w.x, w.y, upper, lower);
      row_sums(w.z, w.w, others[0], others[1]);
      upper = (lane & 2) != 0 ? others[0] : upper;
      lower = (lane & 2) != 0 ? others[1] : lower;
    }
    sum += (lane & 1) != 0 ? lower : upper;
#else
    static_cast<void>(w);
#endif
  }

  // What this lane hands on; of 16 terms there are two rows only, for four lanes. Begins anew.
  GRADTAIL_DEVICE float taken() {
    const float mine = kTensorTerms == 16 && (asked_lane() & 2) != 0 ? 0.0f : sum;
    sum = 0;
    return mine;
  }
};

}  // namespace gradtail::cuda
