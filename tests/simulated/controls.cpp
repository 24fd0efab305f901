#include "controls.hpp"

#include <stdexcept>

#include "fibers.hpp"
#include "machine.hpp"

namespace gradtail::simulated {

void enqueue_launch(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
                    std::function<void()> body) {
  Machine& m = machine();
  const Lock lock(m.mutex);
  StreamState* const s = find(stream);
  const auto refuse = [&m](Status status) {
    if (m.last_launch.ok()) m.last_launch = status;
  };
  if (!s || s->device != current_device) return refuse(no_handle());
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (threads < 1 || threads > 1024 || blocks < 1)
    return refuse(error(kInvalidConfiguration, "invalid configuration argument"));
  if (shared_bytes > m.properties.shared_per_block) return refuse(error(kInvalidValue, "invalid argument"));
  if (!m.failure.empty()) return refuse(failed());
  const std::string name = kernel;
  append(*s, {[=] {
                ++machine().launches;
                run(name, grid, block, shared_bytes, body);
                const std::string damage = machine().memory.damage();
                if (!damage.empty()) throw std::runtime_error("kernel " + name + ": " + damage);
              },
              nullptr, nullptr});
}

Counters counters() {
  Machine& m = machine();
  const Lock lock(m.mutex);
  return {m.synchronizations,       m.launches, m.memory.made(), m.memory.live(), m.memory.live_bytes(false),
          m.memory.live_bytes(true)};
}

void reset() {
  Machine& m = machine();
  const Lock lock(m.mutex);
  drop_everything();
  for_every_stream([](StreamState& s) { s.capture = nullptr; });
  m.captures.clear();
  m.graphs.clear();
  m.failure.clear();
  m.last_launch = {};
  m.synchronizations = m.launches = 0;
  m.properties = small_hopper();
  m.memory.forget();
  set_settings({});
}

void set_memory_limit(std::size_t bytes) { machine().memory.set_limit(bytes); }
void set_properties(const Properties& properties) { machine().properties = properties; }
std::string failure() { return machine().failure; }
std::string damage() {
  const Lock lock(machine().mutex);
  return machine().memory.damage();
}

std::size_t advance(Stream stream, std::size_t n) {
  const Lock lock(machine().mutex);
  StreamState* const s = find(stream);
  std::size_t done = 0;
  for (; s && done < n && !s->queue.empty(); ++done) {
    const std::shared_ptr<Mark> other = s->queue.front().waits_for;
    if (other && !other->done) break;
    execute_front(*s);
  }
  return done;
}

std::size_t pending(Stream stream) {
  const Lock lock(machine().mutex);
  const StreamState* const s = find(stream);
  return s ? s->queue.size() : 0;
}

Status begin_capture(Stream stream) {
  Machine& m = machine();
  const Lock lock(m.mutex);
  StreamState* const s = find(stream);
  if (!s) return no_handle();
  if (s->capture || stream == nullptr) return spoiled();
  m.captures.push_back(std::unique_ptr<Capture>(new Capture{s, {}}));
  s->capture = m.captures.back().get();
  return {};
}

Status end_capture(Stream stream, int* graph) {
  Machine& m = machine();
  const Lock lock(m.mutex);
  const StreamState* const s = find(stream);
  if (!s) return no_handle();
  Capture* const capture = s->capture;
  if (!capture || capture->origin != s) return error(kInvalidValue, "the stream is not capturing");
  for_every_stream([capture](StreamState& other) {
    if (other.capture == capture) other.capture = nullptr;
  });
  if (capture->invalid) return error(kCaptureInvalidated, "operation failed due to a previous error during capture");
  m.graphs.push_back(capture->operations);
  *graph = static_cast<int>(m.graphs.size()) - 1;
  return {};
}

Status replay(int graph, Stream stream) {
  Machine& m = machine();
  const Lock lock(m.mutex);
  StreamState* const s = find(stream);
  if (!s || graph < 0 || graph >= static_cast<int>(m.graphs.size())) return no_handle();
  for (const Operation& operation : m.graphs[static_cast<std::size_t>(graph)]) append(*s, operation);
  return failed();
}

}  // namespace gradtail::simulated
