// Compiles everything in core/ for the device, so that host-only code cannot creep in there.

#include "../core/coordinates.hpp"
#include "../core/element.hpp"
#include "../core/hash.hpp"
#include "../core/moments.hpp"
#include "../core/projection.hpp"
#include "../core/view.hpp"

namespace gradtail {
namespace {

__global__ void core_on_device(const std::uint16_t* raw, double* sums, Record* record) {
  const float x = widen_bfloat16(raw[0]) + widen_float16(raw[1]);
  if (!is_finite(x)) return;
  shift_to_origin(sums, bin_of(bits_of(x), 4), x);
  Record other = empty_record();
  other.mantissa = mantissa_of(itemsize_of(kFloat16));
  add_power_sums(other, sums, 0, x);
  merge(*record, other);
}

__global__ void sketch_and_coordinates(const BufferView* view, const Piece* piece, const float* x, float* out) {
  const int r = 4096, p = 5;
  const SketchBlock block = sketch_block(view->key, view->start / r, r);
  const std::uint32_t word = sign_word(block, p / kSignsAWord);
  out[bucket_of(block, p, r)] += with_sign(x[0], word, p) + static_cast<float>(with_sign(1.0, word, p));
  float* const state = out + chosen_group(view->key, view->start, piece->cell, piece->elements) * kGroup;
  add_value(x[0], count_factors(2), state[0], state[1], state[2], state[3]);
}

}  // namespace

// Referenced by nothing: keeps the kernels in the object file.
extern const void* const core_on_device_kernels[] = {reinterpret_cast<const void*>(&core_on_device),
                                                     reinterpret_cast<const void*>(&sketch_and_coordinates)};

}  // namespace gradtail
