// Compiles everything in core/ for the device, so that host-only code cannot creep in there.

#include "../core/element.hpp"
#include "../core/moments.hpp"

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

}  // namespace

// Referenced by nothing: keeps the kernel in the object file.
extern const void* const core_on_device_kernel = reinterpret_cast<const void*>(&core_on_device);

}  // namespace gradtail
