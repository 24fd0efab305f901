// Every kernel that is shipped, and which of them a device gets.

#include <algorithm>

#include "block_logs.cuh"
#include "finish.cuh"
#include "kernels.hpp"
#include "pass.cuh"

namespace gradtail::cuda {
namespace {

constexpr std::size_t kReservedBytes = 1024;  // of shared memory, which the driver takes for every block

template <int kLanes, BinMode kMode, bool kWide>
void launch_pass(const PassArguments& of, const Shape& shape, runtime::Stream stream) {
  GRADTAIL_LAUNCH((pass_kernel<kLanes, kMode, kWide>), dim3(static_cast<unsigned>(shape.pass_blocks)), dim3(kLanes),
                  shape.shared_bytes, stream, of);
}

template <int kLanes, bool kWide>
void launch_pass(const PassArguments& of, const Shape& shape, runtime::Stream stream) {
  switch (shape.bins) {
    case BinMode::kAll:
      return launch_pass<kLanes, BinMode::kAll, kWide>(of, shape, stream);
    case BinMode::kWindow:
      return launch_pass<kLanes, BinMode::kWindow, kWide>(of, shape, stream);
    default:
      return launch_pass<kLanes, BinMode::kNone, kWide>(of, shape, stream);
  }
}

template <bool kWide>
void launch(const PassArguments& of, const Shape& shape, runtime::Stream stream) {
  if (of.plan.chains > 0) {
#if defined(GRADTAIL_SIMULATED)  // small teams, for quick tests
    if (shape.lanes == 128)
      launch_pass<128, kWide>(of, shape, stream);
    else
#endif
      launch_pass<512, kWide>(of, shape, stream);
  }
  if (of.state.stable != 0 && of.plan.n_views > 0)
    GRADTAIL_LAUNCH((block_logs_kernel), dim3(static_cast<unsigned>(shape.finish_blocks)), dim3(kLogThreads),
                    sizeof(BlockLogs::Shared), stream, of);
  GRADTAIL_LAUNCH((finish_kernel<kWide>), dim3(static_cast<unsigned>(shape.finish_blocks)), dim3(kFinishThreads),
                  Finish<kWide>::kSharedBytes, stream, of);
}

template <int kLanes, bool kWide>
std::size_t shared_bytes(BinMode mode, int bits) {
  if (mode == BinMode::kAll) return Pass<kLanes, BinMode::kAll, kWide>::shared_bytes(bits);
  if (mode == BinMode::kWindow) return Pass<kLanes, BinMode::kWindow, kWide>::shared_bytes(bits);
  return Pass<kLanes, BinMode::kNone, kWide>::shared_bytes(bits);
}

std::size_t shared_bytes(int lanes, bool wide, BinMode mode, int bits) {
#if defined(GRADTAIL_SIMULATED)
  if (lanes == 128) return wide ? shared_bytes<128, true>(mode, bits) : shared_bytes<128, false>(mode, bits);
#else
  static_cast<void>(lanes);
#endif
  return wide ? shared_bytes<512, true>(mode, bits) : shared_bytes<512, false>(mode, bits);
}

}  // namespace

namespace {

// All bins where two teams still fit on a multiprocessor, else the window if that does; else what one team can have.
BinMode mode_of(const runtime::Properties& device, int lanes, bool wide, int bits) {
  const auto bytes = [&](BinMode mode) { return shared_bytes(lanes, wide, mode, bits); };
  for (const BinMode mode : {BinMode::kAll, BinMode::kWindow})
    if (2 * (bytes(mode) + kReservedBytes) <= device.shared_per_multiprocessor) return mode;
  for (const BinMode mode : {BinMode::kAll, BinMode::kWindow})
    if (bytes(mode) <= device.shared_per_block) return mode;
  return BinMode::kNone;
}

}  // namespace

Shape shape_of(const runtime::Properties& device, int bits, bool wide, int lanes, int blocks) {
  Shape shape{};
  shape.lanes = lanes;
  shape.wide = wide;
  shape.bins = mode_of(device, lanes, wide, bits);
  shape.shared_bytes = shared_bytes(lanes, wide, shape.bins, bits);
  const int by_threads = device.threads_per_multiprocessor / lanes;
  const int by_memory = static_cast<int>(device.shared_per_multiprocessor / (shape.shared_bytes + kReservedBytes));
  const int by_registers = wide ? 1 : 1024 / lanes;  // as the bounds of the kernels have it
  const int resident = std::max(1, std::min({by_threads, by_memory, by_registers}));
  shape.pass_blocks = blocks > 0 ? blocks : device.multiprocessors * resident;
  shape.finish_blocks = blocks > 0 ? blocks : 2 * device.multiprocessors;
  return shape;
}

runtime::Status launch_update(const PassArguments& of, const Shape& shape, runtime::Stream stream) {
  if (shape.wide)
    launch<true>(of, shape, stream);
  else
    launch<false>(of, shape, stream);
  return runtime::launched();
}

}  // namespace gradtail::cuda
