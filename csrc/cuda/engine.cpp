#include "engine.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>

#include "../core/element.hpp"
#include "../core/moments.hpp"

namespace gradtail::cuda {
namespace {

constexpr int kUploads = 16;  // tables on their way at a time
constexpr int kTimings = 64;

// Gives out parts of one allocation; without one it only adds up.
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  template <typename T>
  T* take(std::int64_t n) {
    const std::size_t at = used_;
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 255) / 256 * 256;
    return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + at);
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* memory_;
  std::size_t used_ = 0;
};

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
  }
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

ZeroedMemory::ZeroedMemory(int device, std::size_t bytes) : device_(device), memory_(device, bytes) {
  const runtime::DeviceGuard guard(device);
  const OwnStream stream(device);
  check("fill", runtime::fill(memory_.get(), 0, bytes, stream.get()));
  check("wait", runtime::synchronize(stream.get()));
}

void ZeroedMemory::write(const void* from, std::size_t bytes) {
  const runtime::DeviceGuard guard(device_);
  const OwnStream stream(device_);
  const PinnedMemory staging(bytes);
  std::memcpy(staging.host(), from, bytes);
  check("copy", runtime::copy_to_device(memory_.get(), staging.host(), bytes, stream.get()));
  check("wait", runtime::synchronize(stream.get()));
}

void ZeroedMemory::read(void* to, std::size_t bytes) {
  const runtime::DeviceGuard guard(device_);
  const OwnStream stream(device_);
  const PinnedMemory staging(bytes);
  check("copy", runtime::copy_to_host(staging.host(), memory_.get(), bytes, stream.get()));
  check("wait", runtime::synchronize(stream.get()));
  std::memcpy(to, staging.host(), bytes);
}

// A set of views, made ready.
struct Engine::Prepared {
  std::vector<BufferView> views;  // as the device has them
  std::vector<TrackPlan> tracks;
  std::vector<DevicePiece> pieces;
  Plan plan;
  Shape shape;
  DeviceMemory memory;
  PlanMemory on_device{};
  std::size_t partials = 0;  // bytes of scratch memory
  std::array<PinnedMemory, kUploads> slots;
  std::array<OwnEvent, kUploads> uploaded;
  int next = 0;

  void take(Arena& arena) {
    PlanMemory& d = on_device;
    d.views = arena.take<BufferView>(static_cast<std::int64_t>(views.size()));
    d.items = arena.take<Item>(static_cast<std::int64_t>(plan.items.size()));
    d.chain_first = arena.take<std::int32_t>(static_cast<std::int64_t>(plan.chain_first.size()));
    d.rows = arena.take<RowPlan>(static_cast<std::int64_t>(plan.rows.size()));
    d.tracks = arena.take<TrackPlan>(static_cast<std::int64_t>(tracks.size()));
    d.pieces = arena.take<DevicePiece>(static_cast<std::int64_t>(pieces.size()));
    d.view_integers = arena.take<ViewIntegers>(static_cast<std::int64_t>(views.size()));
  }
  // Partials lie in memory that all plans share: an update is done with them when it ends.
  void take_partials(Arena& arena, PlanMemory& into) const {
    const std::int64_t items = static_cast<std::int64_t>(plan.items.size()), size = plan.wide ? 2 : 1;
    into.item_sums = arena.take<ItemSums>(items);
    into.item_folds = arena.take<float>(items * kFold * size);
    into.chain_sketch = arena.take<float>(plan.chains() * size * plan.stripe * plan.stripes);
  }
};

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
  runtime::wait(last_.get());
}

void Engine::allocate() {
  StateMemory& s = state_;
  s.result_slots = std::max(settings_.log_slots, 64);
  s.rows = settings_.rows;
  s.bits = settings_.bits;
  s.wide_counts = settings_.wide_counts;
  s.log_slots = settings_.log_slots;
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
  }
  check("fill", runtime::fill(&s.control->fresh, 0, sizeof s.control->fresh, stream));
  check("fill", runtime::fill(s.open_counts, 0, rows * bins * sizeof(std::uint64_t), stream));
  check("copy", runtime::copy_to_device(s.open_records, records, rows * sizeof(Record), stream));
  if (stream == copies_.get()) return;
  check("record", runtime::record(last_.get(), stream));  // an update on another stream comes after it
  last_stream_ = stream;
}

void Engine::stage_open(runtime::Stream stream) {
  const runtime::DeviceGuard guard(settings_.device);
  const Array records = array("open_records"), counts = array("open_counts");
  if (open_block_.bytes() == 0) {
    open_block_ = PinnedMemory(records.bytes + counts.bytes + sizeof(std::int32_t));
    const std::int32_t yes = 1;
    std::memcpy(static_cast<unsigned char*>(open_block_.host()) + records.bytes + counts.bytes, &yes, sizeof yes);
    staged_ = OwnEvent(settings_.device, false);
  }
  auto* const to = static_cast<unsigned char*>(open_block_.host());
  check("copy", runtime::copy_to_host(to, records.memory, records.bytes, stream));
  check("copy", runtime::copy_to_host(to + records.bytes, counts.memory, counts.bytes, stream));
  check("copy", runtime::copy_to_device(&state_.control->fresh, to + records.bytes + counts.bytes, 4, stream));
  check("record", runtime::record(staged_.get(), stream));
  check("record", runtime::record(last_.get(), stream));  // as in empty()
  last_stream_ = stream;
}

void Engine::staged(void* records, void* counts) {
  const runtime::DeviceGuard guard(settings_.device);
  if (!runtime::is_done(staged_.get())) check("wait", runtime::wait(staged_.get()));
  const Array first = array("open_records"), second = array("open_counts");
  const auto* const from = static_cast<const unsigned char*>(open_block_.host());
  std::memcpy(records, from, first.bytes);
  std::memcpy(counts, from + first.bytes, second.bytes);
}

void Engine::set_every(int every, runtime::Stream stream) {
  const runtime::DeviceGuard guard(settings_.device);
  reserve(sizeof every);
  std::memcpy(staging_.host(), &every, sizeof every);
  check("copy", runtime::copy_to_device(&state_.control->every, staging_.host(), sizeof every, stream));
  check("wait", runtime::synchronize(stream));
}

// ---- plans

std::unique_ptr<Engine::Prepared> Engine::make(const std::vector<BufferView>& views, const TrackPlan* tracks,
                                               const DevicePiece* pieces) {
  auto made = std::make_unique<Prepared>();
  made->views = views;
  const auto n = static_cast<std::int64_t>(views.size());
  made->plan = plan_of(views.data(), n, settings_.rows, state_.buckets, settings_.lanes);
  made->shape = shape_of(properties_, settings_.bits, made->plan.wide, settings_.lanes, settings_.blocks);
  made->tracks.assign(tracks, tracks + settings_.tracks);
  made->on_device.cells = 0;
  if (pieces != nullptr) {
    made->pieces.assign(pieces, pieces + n);
    for (std::int64_t v = 0; v < n; ++v) {
      DevicePiece& piece = made->pieces[static_cast<std::size_t>(v)];
      piece.first_cell = made->on_device.cells;
      if (piece.state == nullptr || views[v].size == 0) continue;
      made->on_device.cells += (views[v].size + views[v].run - 1) / views[v].run * piece.cells_per_run;
    }
  }
  PlanMemory& d = made->on_device;
  d.n_views = static_cast<std::int32_t>(n);
  d.n_items = static_cast<std::int32_t>(made->plan.items.size());
  d.chains = made->plan.chains();
  d.stripe = made->plan.stripe;
  d.stripes = made->plan.stripes;
  Arena size(nullptr), partials(nullptr);
  made->take(size);
  made->take_partials(partials, made->on_device);
  made->partials = partials.used();
  made->memory = DeviceMemory(settings_.device, std::max<std::size_t>(size.used(), 256));
  for (int i = 0; i < kUploads; ++i) {
    made->slots[i] = PinnedMemory(std::max<std::size_t>(n * sizeof(BufferView), 256));
    made->uploaded[i] = OwnEvent(settings_.device, false);
  }
  Arena arena(made->memory.get());
  made->take(arena);
  // Last of what may fail: it stays.
  if (scratch_.empty() || scratch_.back().bytes() < made->partials)
    scratch_.emplace_back(settings_.device, std::max<std::size_t>(made->partials, 256));

  reserve(made->memory.bytes());
  auto* const host = static_cast<unsigned char*>(staging_.host());
  std::memset(host, 0, made->memory.bytes());
  const auto put = [&](const void* at, const void* from, std::size_t bytes) {
    if (bytes > 0)
      std::memcpy(host + (static_cast<const unsigned char*>(at) - static_cast<unsigned char*>(made->memory.get())),
                  from, bytes);
  };
  put(d.views, made->views.data(), made->views.size() * sizeof(BufferView));
  put(d.items, made->plan.items.data(), made->plan.items.size() * sizeof(Item));
  put(d.chain_first, made->plan.chain_first.data(), made->plan.chain_first.size() * sizeof(std::int32_t));
  put(d.rows, made->plan.rows.data(), made->plan.rows.size() * sizeof(RowPlan));
  put(d.tracks, made->tracks.data(), made->tracks.size() * sizeof(TrackPlan));
  put(d.pieces, made->pieces.data(), made->pieces.size() * sizeof(DevicePiece));
  const std::vector<ViewIntegers> integers(views.size(), ViewIntegers{kNoIndex, 0});
  put(d.view_integers, integers.data(), integers.size() * sizeof(ViewIntegers));
  check("copy", runtime::copy_to_device(made->memory.get(), host, made->memory.bytes(), copies_.get()));
  check("wait", runtime::synchronize(copies_.get()));
  return made;
}

int Engine::prepare(const BufferView* views, std::int64_t n, const TrackPlan* tracks, const DevicePiece* pieces) {
  const runtime::DeviceGuard guard(settings_.device);
  auto made = make({views, views + n}, tracks, pieces);
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    if (plans_[i] != nullptr) continue;
    plans_[i] = std::move(made);
    return static_cast<int>(i);
  }
  plans_.push_back(std::move(made));
  return static_cast<int>(plans_.size()) - 1;
}

void Engine::forget(int plan) {
  const runtime::DeviceGuard guard(settings_.device);
  wait();
  plans_.at(static_cast<std::size_t>(plan)).reset();
}

PlanMemory Engine::memory_of(const Prepared& plan) const {
  PlanMemory memory = plan.on_device;
  Arena arena(scratch_.back().get());
  plan.take_partials(arena, memory);
  return memory;
}

// Tell the device where values lie now, through memory that the copy reads after this returns.
void Engine::upload(Prepared& plan, const BufferView* views, runtime::Stream stream) {
  const std::size_t bytes = plan.views.size() * sizeof(BufferView);
  OwnEvent& event = plan.uploaded[plan.next];
  if (!runtime::is_done(event.get())) check("wait", runtime::wait(event.get()));
  void* const slot = plan.slots[plan.next].host();
  std::memcpy(slot, views, bytes);
  check("copy", runtime::copy_to_device(const_cast<BufferView*>(plan.on_device.views), slot, bytes, stream));
  check("record", runtime::record(event.get(), stream));
  plan.next = (plan.next + 1) % kUploads;
  std::memcpy(plan.views.data(), views, bytes);
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
  // Before anything is enqueued: updates that have not run still need the tables as they are.
  if (!captured && stream != last_stream_) check("wait", runtime::stream_waits(stream, last_.get()));
  if (captured) {
    const runtime::RelaxedCapture relaxed;  // memory of its own, which nothing rewrites while graphs may be replayed
    auto made = make({views, views + n}, slot->tracks.data(), slot->pieces.empty() ? nullptr : slot->pieces.data());
    frozen_.push_back(std::move(made));
    plan = frozen_.back().get();
  } else if (!same_dtypes) {
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
  launches_ += plan->plan.chains() > 0 ? 2 : 1;
  if (timed != nullptr) check("record", runtime::record(timed->end.get(), stream));
  if (captured) return;
  check("record", runtime::record(last_.get(), stream));
  last_stream_ = stream;
}

bool Engine::is_done() const { return runtime::is_done(last_.get()); }

void Engine::wait() const { check("wait", runtime::wait(last_.get())); }

void Engine::wait(runtime::Stream stream) const {
  const runtime::DeviceGuard guard(settings_.device);
  wait();
  if (is_captured()) check("wait", runtime::synchronize(stream));
}

double Engine::elapsed_seconds() {
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

// ---- results

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
    if (name == "present" + end) return {s.present[parity], rows * sizeof(std::int32_t)};
  }
  if (name == "control") return {s.control, sizeof(Control)};
  if (name == "open_counts") return {s.open_counts, rows * bins * sizeof(std::uint64_t)};
  if (name == "open_records") return {s.open_records, rows * sizeof(Record)};
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
  check("copy", runtime::copy_to_device(state_.control, staging_.host(), sizeof control, copies_.get()));
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
