// The memory of a stream on one device, and its updates, which are enqueued and never waited for.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"
#include "plan.hpp"

namespace gradtail::cuda {

struct Settings {
  int device = 0;
  int rows = 0, bits = 4;
  int buckets = 0;  // 0: no sketches
  int window = 0, row_window = 0, log_slots = 1;
  int tracks = 0, track_window = 0;
  bool wide_counts = false;
  int lanes = 512, blocks = 0;  // 0: what suits the device
  bool stable = false;          // whether block sums are taken
};

// A place of an array of the state, to be read.
struct Array {
  const void* memory;
  std::size_t bytes;
};

class Engine {
 public:
  explicit Engine(const Settings& settings);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Prepare for a set of views, whose rows do not decrease; returns its number. May wait.
  int prepare(const BufferView* views, std::int64_t n, const TrackPlan* tracks, const DevicePiece* pieces);
  void forget(int plan);

  // Enqueue an update with views that differ from those prepared in address and dtype at most.
  void update(int plan, const BufferView* views, const StepArguments& step, runtime::Stream stream);

  // The newest update that has ended; a sequence of 0: none has. Does not wait.
  StepResult latest() const;
  StepResult result(std::int64_t sequence) const;  // its sequence tells whether it is there
  bool is_done() const;                            // whether all that was enqueued has ended
  void wait() const;                               // until then
  void wait(runtime::Stream stream) const;  // likewise, and for captured updates that were replayed on that stream
  bool is_captured() const { return !frozen_.empty(); }
  const double* norm() const { return &state_.control->norm; }  // on the device, of the newest update enqueued

  // Waits, then copies: newest_counts, newest_records, newest_logs, open_counts, open_records, open_logs, present,
  // row_norms, sketch, row_sketches, ring, ring_exponents, row_ring, row_ring_exponents, track_values, track_observed,
  // control.
  Array array(const std::string& name) const;
  void read(const Array& array, void* to);
  void peek(const Array& array, void* to);  // likewise, of what no update that is still to end writes: does not wait
  // Enqueue that counts and records start anew; steps go on being numbered.
  void empty(runtime::Stream stream);
  void empty_now();  // waits
  // Enqueue a copy of counts and records of the open block, which then begins anew with the newest step, and wait for
  // the copy when it is asked for.
  void stage_open(runtime::Stream stream);
  void staged(void* records, void* counts, void* logs);
  void set_every(int every, runtime::Stream stream);
  // Say how captured updates go on: number of the newest step (-2: as it is), calls so far and cadence (-1: as they
  // are). Waits for updates that were enqueued, and may be called while a stream is captured, of which it becomes no
  // part.
  void go_on(std::int64_t step, std::int64_t calls, int every);

  std::size_t nbytes() const;  // on the device
  const Settings& settings() const { return settings_; }
  double elapsed_seconds();  // of the updates that have ended since the last question
  std::int64_t launches() const { return launches_; }

 private:
  struct Prepared;
  struct Timing;

  void allocate();
  std::size_t logs_bytes() const { return static_cast<std::size_t>(state_.rows) * kBlockSizes * sizeof(LogTally); }
  void make_initial();
  void reserve(std::size_t bytes);
  void upload(Prepared& plan, const BufferView* views, runtime::Stream stream);
  std::unique_ptr<Prepared> make(const std::vector<BufferView>& views, const TrackPlan* tracks,
                                 const DevicePiece* pieces);
  PlanMemory memory_of(const Prepared& plan) const;

  Settings settings_;
  runtime::Properties properties_;
  StateMemory state_{};
  DeviceMemory memory_;
  std::vector<DeviceMemory> scratch_;  // of partials; a smaller one before it may be part of a captured graph
  PinnedMemory results_, initial_, staging_, open_block_;
  OwnEvent staged_;
  std::vector<std::unique_ptr<Prepared>> plans_;
  std::vector<std::unique_ptr<Prepared>> frozen_;  // of captured updates, whose graphs may be replayed at any time
  std::unique_ptr<Timing> timing_;
  OwnStream copies_;
  OwnEvent last_;  // behind the newest update
  std::int64_t launches_ = 0;
};

}  // namespace gradtail::cuda
