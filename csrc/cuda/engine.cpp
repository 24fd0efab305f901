// The engine: its memory, and its updates.

#include "engine.hpp"

#include <algorithm>
#include <cstring>
#include <deque>

#include "../core/moments.hpp"
#include "engine_parts.hpp"

namespace gradtail::cuda {
namespace {

constexpr int kTimings = 64;

int log2_of(int x) {
  int e = 0;
  while (1 << e < x) ++e;
  return e;
}

void take_state(Arena& arena, StateMemory& s) {
  const std::int64_t rows = s.rows, bins = std::int64_t{2} << (8 + s.bits);
  s.control = arena.take<Control>(1);
  for (int parity = 0; parity < 2; ++parity) {
    s.newest_records[parity] = arena.take<Record>(rows);
    s.present[parity] = arena.take<std::int32_t>(rows);
    s.newest_logs[parity] = arena.take<LogTally>(s.stable != 0 ? rows * kBlockSizes : 0);
  }
  s.open_logs = arena.take<LogTally>(s.stable != 0 ? rows * kBlockSizes : 0);
  s.open_records = arena.take<Record>(rows);
  s.row_integers = arena.take<RowIntegers>(rows);
  s.row_norms = arena.take<double>(s.log_slots * rows);
  for (int parity = 0; parity < 2; ++parity)
    s.newest_counts[parity] = arena.take<unsigned char>(rows * bins * (s.wide_counts != 0 ? 8 : 4));
  s.open_counts = arena.take<std::uint64_t>(rows * bins);
  const std::int64_t buckets = s.sketched != 0 ? s.buckets : 0, fold = s.fold;
  s.sketch = arena.take<double>(buckets);
  s.row_sketches = arena.take<double>(rows * fold);
  s.ring = arena.take<float>(s.window * buckets);
  s.ring_exponents = arena.take<std::int32_t>(s.window);
  s.row_ring = arena.take<float>(s.row_window * rows * fold);
  s.row_ring_exponents = arena.take<std::int32_t>(s.row_window * rows);
  s.track_values = arena.take<float>(std::int64_t{s.track_window} * s.tracks);
  s.track_observed = arena.take<std::uint8_t>(std::int64_t{s.track_window} * s.tracks);
}

RowIntegers empty_integers() {
  RowIntegers none{};
  none.first_nonfinite = kNoIndex;
  none.low_bin = INT32_MAX;
  none.high_bin = -1;
  return none;
}

}  // namespace

// When updates began and ended.
struct Engine::Timing {
  struct Pair {
    OwnEvent begin, end;
  };
  explicit Timing(int device) {
    for (int i = 0; i < kTimings; ++i) free.push_back({OwnEvent(device, true), OwnEvent(device, true)});
  }
  std::deque<Pair> free, waiting;
};

Engine::Engine(const Settings& settings) : settings_(settings), properties_(runtime::properties(settings.device)) {
  const runtime::DeviceGuard guard(settings.device);
  copies_ = OwnStream(settings.device);
  last_ = OwnEvent(settings.device, false);
  timing_ = std::make_unique<Timing>(settings.device);
  allocate();
}

Engine::~Engine() {
  const runtime::DeviceGuard guard(settings_.device);
  const runtime::RelaxedCapture relaxed;
  runtime::wait(last_.get());
  if (!frozen_.empty()) {  // graphs may be replayed as long as the process lives: what they write to is never freed
    struct Kept {
      DeviceMemory memory;
      std::vector<DeviceMemory> scratch;
      PinnedMemory results;
      std::vector<std::unique_ptr<Prepared>> frozen;
    };
    new Kept{std::move(memory_), std::move(scratch_), std::move(results_), std::move(frozen_)};
  }
  // Here and not after the guard: freeing makes the device of the memory a current one.
  plans_.clear();
  frozen_.clear();
  scratch_.clear();
  memory_ = DeviceMemory();
  timing_.reset();
  last_ = OwnEvent();
  staged_ = OwnEvent();
  copies_ = OwnStream();
}

void Engine::allocate() {
  StateMemory& s = state_;
  s.result_slots = std::max(settings_.log_slots, 64);
  s.rows = settings_.rows;
  s.bits = settings_.bits;
  s.wide_counts = settings_.wide_counts;
  s.log_slots = settings_.log_slots;
  s.stable = settings_.stable;
  s.sketched = settings_.buckets > 0;
  s.buckets = settings_.buckets > 0 ? settings_.buckets : settings_.lanes * kLaneGroups;
  s.log2_buckets = log2_of(s.buckets);
  s.fold = settings_.buckets > 0 ? kFold : 0;
  s.window = settings_.window;
  s.row_window = settings_.row_window;
  s.tracks = settings_.tracks;
  s.track_window = settings_.track_window;
  Arena size(nullptr);
  take_state(size, s);
  memory_ = DeviceMemory(settings_.device, size.used());
  Arena arena(memory_.get());
  take_state(arena, s);
  results_ = PinnedMemory(static_cast<std::size_t>(s.result_slots) * sizeof(StepResult));
  std::memset(results_.host(), 0, results_.bytes());
  s.results = static_cast<StepResult*>(results_.on_device());
  make_initial();
  check("fill", runtime::fill(memory_.get(), 0, memory_.bytes(), copies_.get()));
  const auto* const initial = static_cast<const unsigned char*>(initial_.host());
  const std::size_t records = static_cast<std::size_t>(s.rows) * sizeof(Record);
  const std::size_t integers = static_cast<std::size_t>(s.rows) * sizeof(RowIntegers);
  check("copy", runtime::copy_to_device(s.control, initial, sizeof(Control), copies_.get()));
  check("copy", runtime::copy_to_device(s.row_integers, initial + sizeof(Control) + records, integers, copies_.get()));
  empty(copies_.get());
  check("wait", runtime::synchronize(copies_.get()));
}

// What memory begins with where that is not zero: Control, records, integers of rows.
void Engine::make_initial() {
  const std::size_t rows = static_cast<std::size_t>(state_.rows);
  initial_ = PinnedMemory(sizeof(Control) + rows * (sizeof(Record) + sizeof(RowIntegers)));
  auto* at = static_cast<unsigned char*>(initial_.host());
  Control control{};
  control.step = -1;
  control.every = 1;
  std::memcpy(at, &control, sizeof control);
  at += sizeof control;
  const Record record = empty_record();
  for (std::size_t row = 0; row < rows; ++row, at += sizeof record) std::memcpy(at, &record, sizeof record);
  const RowIntegers integers = empty_integers();
  for (std::size_t row = 0; row < rows; ++row, at += sizeof integers) std::memcpy(at, &integers, sizeof integers);
}

void Engine::empty(runtime::Stream stream) {
  const runtime::DeviceGuard guard(settings_.device);
  const StateMemory& s = state_;
  const std::size_t rows = static_cast<std::size_t>(s.rows), bins = std::size_t{2} << (8 + s.bits);
  const auto* const records = static_cast<const unsigned char*>(initial_.host()) + sizeof(Control);
  for (int parity = 0; parity < 2; ++parity) {
    check("fill", runtime::fill(s.newest_counts[parity], 0, rows * bins * (s.wide_counts != 0 ? 8 : 4), stream));
    check("fill", runtime::fill(s.present[parity], 0, rows * sizeof(std::int32_t), stream));
    check("copy", runtime::copy_to_device(s.newest_records[parity], records, rows * sizeof(Record), stream));
    if (s.stable != 0) check("fill", runtime::fill(s.newest_logs[parity], 0, logs_bytes(), stream));
  }
  if (s.stable != 0) check("fill", runtime::fill(s.open_logs, 0, logs_bytes(), stream));
  check("fill", runtime::fill(&s.control->fresh, 0, sizeof s.control->fresh, stream));
  check("fill", runtime::fill(s.open_counts, 0, rows * bins * sizeof(std::uint64_t), stream));
  check("copy", runtime::copy_to_device(s.open_records, records, rows * sizeof(Record), stream));
  if (stream == copies_.get()) return;
  check("record", runtime::record(last_.get(), stream));  // an update on another stream comes after it
}

void Engine::empty_now() {
  wait();
  const runtime::RelaxedCapture relaxed;
  empty(copies_.get());
  check("wait", runtime::synchronize(copies_.get()));
}

void Engine::stage_open(runtime::Stream stream) {
  const runtime::DeviceGuard guard(settings_.device);
  const Array records = array("open_records"), counts = array("open_counts"), logs = array("open_logs");
  const std::size_t bytes = records.bytes + counts.bytes + logs.bytes;
  if (open_block_.bytes() == 0) {
    open_block_ = PinnedMemory(bytes + sizeof(std::int32_t));
    const std::int32_t yes = 1;
    std::memcpy(static_cast<unsigned char*>(open_block_.host()) + bytes, &yes, sizeof yes);
    staged_ = OwnEvent(settings_.device, false);
  }
  auto* const to = static_cast<unsigned char*>(open_block_.host());
  check("copy", runtime::copy_to_host(to, records.memory, records.bytes, stream));
  check("copy", runtime::copy_to_host(to + records.bytes, counts.memory, counts.bytes, stream));
  if (logs.bytes > 0)
    check("copy", runtime::copy_to_host(to + records.bytes + counts.bytes, logs.memory, logs.bytes, stream));
  check("copy", runtime::copy_to_device(&state_.control->fresh, to + bytes, 4, stream));
  check("record", runtime::record(staged_.get(), stream));
  check("record", runtime::record(last_.get(), stream));  // as in empty()
}

void Engine::staged(void* records, void* counts, void* logs) {
  const runtime::DeviceGuard guard(settings_.device);
  if (!runtime::is_done(staged_.get())) check("wait", runtime::wait(staged_.get()));
  const Array first = array("open_records"), second = array("open_counts"), third = array("open_logs");
  const auto* const from = static_cast<const unsigned char*>(open_block_.host());
  std::memcpy(records, from, first.bytes);
  std::memcpy(counts, from + first.bytes, second.bytes);
  if (third.bytes > 0) std::memcpy(logs, from + first.bytes + second.bytes, third.bytes);
}

void Engine::set_every(int every, runtime::Stream stream) {
  const runtime::DeviceGuard guard(settings_.device);
  reserve(sizeof every);
  std::memcpy(staging_.host(), &every, sizeof every);
  check("copy", runtime::copy_to_device(&state_.control->every, staging_.host(), sizeof every, stream));
  check("wait", runtime::synchronize(stream));
}

// ---- updates

void Engine::update(int number, const BufferView* views, const StepArguments& step, runtime::Stream stream) {
  const runtime::DeviceGuard guard(settings_.device);
  std::unique_ptr<Prepared>& slot = plans_.at(static_cast<std::size_t>(number));
  if (slot == nullptr) throw std::out_of_range("plan: expected one that was prepared, got one that was forgotten");
  const std::size_t n = slot->views.size();
  const bool captured = runtime::is_capturing(stream);
  bool same_dtypes = true;
  for (std::size_t v = 0; v < n && same_dtypes; ++v) same_dtypes = views[v].dtype == slot->views[v].dtype;
  Prepared* plan = slot.get();
  // Before anything is enqueued: updates that have not run still need the tables as they are. Whatever the stream: it
  // may be another one with the handle of one that is gone.
  if (!captured) check("wait", runtime::stream_waits(stream, last_.get()));
  if (captured) {
    const runtime::RelaxedCapture relaxed;  // memory of its own, which nothing rewrites while graphs may be replayed
    auto made = make({views, views + n}, slot->tracks.data(), slot->pieces.empty() ? nullptr : slot->pieces.data());
    frozen_.push_back(std::move(made));
    plan = frozen_.back().get();
  } else if (!same_dtypes) {
    wait();  // the tables that go may be in use
    slot = make({views, views + n}, slot->tracks.data(), slot->pieces.empty() ? nullptr : slot->pieces.data());
    plan = slot.get();
  } else if (n > 0 && std::memcmp(views, plan->views.data(), n * sizeof(BufferView)) != 0) {
    upload(*plan, views, stream);
  }
  Timing::Pair* timed = nullptr;
  if (!captured && !timing_->free.empty()) {
    timing_->waiting.push_back(std::move(timing_->free.front()));
    timing_->free.pop_front();
    timed = &timing_->waiting.back();
    check("record", runtime::record(timed->begin.get(), stream));
  }
  const PassArguments arguments{state_, memory_of(*plan), step};
  check("launch", launch_update(arguments, plan->shape, stream));
  launches_ += (plan->plan.chains() > 0 ? 2 : 1) + (state_.stable != 0 && n > 0 ? 1 : 0);
  if (timed != nullptr) check("record", runtime::record(timed->end.get(), stream));
  if (captured) return;
  check("record", runtime::record(last_.get(), stream));
}

bool Engine::is_done() const {
  const runtime::RelaxedCapture relaxed;  // another thread may be capturing
  return runtime::is_done(last_.get());
}

void Engine::wait() const {
  const runtime::RelaxedCapture relaxed;
  check("wait", runtime::wait(last_.get()));
}

void Engine::wait(runtime::Stream stream) const {
  const runtime::DeviceGuard guard(settings_.device);
  wait();
  if (is_captured()) check("wait", runtime::synchronize(stream));
}

double Engine::elapsed_seconds() {
  const runtime::RelaxedCapture relaxed;
  double total = 0;
  while (!timing_->waiting.empty() && runtime::is_done(timing_->waiting.front().end.get())) {
    Timing::Pair& pair = timing_->waiting.front();
    float milliseconds = 0;
    if (runtime::elapsed(pair.begin.get(), pair.end.get(), &milliseconds).ok()) total += 1e-3 * milliseconds;
    timing_->free.push_back(std::move(pair));
    timing_->waiting.pop_front();
  }
  return total;
}

}  // namespace gradtail::cuda
