// What is read of the engine.

#include <atomic>
#include <cstring>

#include "engine_parts.hpp"

namespace gradtail::cuda {

StepResult Engine::result(std::int64_t sequence) const {
  const auto* const from = static_cast<const StepResult*>(results_.host()) + (sequence - 1) % state_.result_slots;
  const volatile std::int64_t* const mark = &from->sequence;
  StepResult out{};
  if (sequence < 1 || *mark != sequence) return out;
  std::atomic_thread_fence(std::memory_order_acquire);
  std::memcpy(&out, from, sizeof out);
  std::atomic_thread_fence(std::memory_order_acquire);
  if (*mark != sequence) out.sequence = 0;  // it is being overwritten
  return out;
}

StepResult Engine::latest() const {
  StepResult newest{};
  for (int slot = 0; slot < state_.result_slots; ++slot) {
    const volatile std::int64_t* const mark = &(static_cast<const StepResult*>(results_.host()) + slot)->sequence;
    const std::int64_t sequence = *mark;
    if (sequence <= newest.sequence) continue;
    const StepResult one = result(sequence);
    if (one.sequence > newest.sequence) newest = one;
  }
  return newest;
}

Array Engine::array(const std::string& name) const {
  const StateMemory& s = state_;
  const std::size_t rows = static_cast<std::size_t>(s.rows), bins = std::size_t{2} << (8 + s.bits);
  const std::size_t buckets = s.sketched != 0 ? static_cast<std::size_t>(s.buckets) : 0;
  const std::size_t fold = static_cast<std::size_t>(s.fold), tracks = static_cast<std::size_t>(s.tracks);
  const std::size_t window = static_cast<std::size_t>(s.window), row_window = static_cast<std::size_t>(s.row_window);
  const std::size_t track_window = static_cast<std::size_t>(s.track_window);
  for (int parity = 0; parity < 2; ++parity) {
    const std::string end = parity == 0 ? "0" : "1";
    if (name == "newest_counts" + end) return {s.newest_counts[parity], rows * bins * (s.wide_counts != 0 ? 8 : 4)};
    if (name == "newest_records" + end) return {s.newest_records[parity], rows * sizeof(Record)};
    if (name == "newest_logs" + end) return {s.newest_logs[parity], s.stable != 0 ? logs_bytes() : 0};
    if (name == "present" + end) return {s.present[parity], rows * sizeof(std::int32_t)};
  }
  if (name == "control") return {s.control, sizeof(Control)};
  if (name == "open_counts") return {s.open_counts, rows * bins * sizeof(std::uint64_t)};
  if (name == "open_records") return {s.open_records, rows * sizeof(Record)};
  if (name == "open_logs") return {s.open_logs, s.stable != 0 ? logs_bytes() : 0};
  if (name == "row_norms") return {s.row_norms, static_cast<std::size_t>(s.log_slots) * rows * sizeof(double)};
  if (name == "sketch") return {s.sketch, buckets * sizeof(double)};
  if (name == "row_sketches") return {s.row_sketches, rows * fold * sizeof(double)};
  if (name == "ring") return {s.ring, window * buckets * sizeof(float)};
  if (name == "ring_exponents") return {s.ring_exponents, window * sizeof(std::int32_t)};
  if (name == "row_ring") return {s.row_ring, row_window * rows * fold * sizeof(float)};
  if (name == "row_ring_exponents") return {s.row_ring_exponents, row_window * rows * sizeof(std::int32_t)};
  if (name == "track_values") return {s.track_values, track_window * tracks * sizeof(float)};
  if (name == "track_observed") return {s.track_observed, track_window * tracks};
  throw std::out_of_range("name: expected that of an array of the state, got " + name);
}

void Engine::read(const Array& array, void* to) {
  const runtime::DeviceGuard guard(settings_.device);
  wait();
  reserve(array.bytes);
  if (array.bytes == 0) return;
  check("copy", runtime::copy_to_host(staging_.host(), array.memory, array.bytes, copies_.get()));
  check("wait", runtime::synchronize(copies_.get()));
  std::memcpy(to, staging_.host(), array.bytes);
}

void Engine::peek(const Array& array, void* to) {
  const runtime::DeviceGuard guard(settings_.device);
  const runtime::RelaxedCapture relaxed;
  reserve(array.bytes);
  if (array.bytes == 0) return;
  check("copy", runtime::copy_to_host(staging_.host(), array.memory, array.bytes, copies_.get()));
  check("wait", runtime::synchronize(copies_.get()));
  std::memcpy(to, staging_.host(), array.bytes);
}

void Engine::go_on(std::int64_t step, std::int64_t calls, int every) {
  const runtime::DeviceGuard guard(settings_.device);
  const runtime::RelaxedCapture relaxed;
  wait();
  Control control;
  peek({state_.control, sizeof control}, &control);
  if (step >= -1) control.step = step;
  if (calls >= 0) control.calls = calls;
  if (every >= 0) control.every = every;
  std::memcpy(staging_.host(), &control, sizeof control);
  // Only what is set here: the rest is the kernels'.
  const auto* const from = static_cast<const unsigned char*>(staging_.host());
  const auto put = [&](void* to, std::size_t bytes) {
    const std::size_t at = static_cast<unsigned char*>(to) - reinterpret_cast<unsigned char*>(state_.control);
    check("copy", runtime::copy_to_device(to, from + at, bytes, copies_.get()));
  };
  if (step >= -1) put(&state_.control->step, sizeof control.step);
  if (calls >= 0) put(&state_.control->calls, sizeof control.calls);
  if (every >= 0) put(&state_.control->every, sizeof control.every);
  check("wait", runtime::synchronize(copies_.get()));
}

void Engine::reserve(std::size_t bytes) {
  if (staging_.bytes() >= bytes) return;
  staging_ = PinnedMemory(bytes);
}

std::size_t Engine::nbytes() const {
  std::size_t total = memory_.bytes();
  for (const auto& scratch : scratch_) total += scratch.bytes();
  for (const auto& plan : plans_) total += plan == nullptr ? 0 : plan->memory.bytes();
  for (const auto& plan : frozen_) total += plan->memory.bytes();
  return total;
}

}  // namespace gradtail::cuda
