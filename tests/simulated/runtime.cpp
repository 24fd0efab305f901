// csrc/cuda/runtime.hpp on host memory.
#include "cuda/runtime.hpp"

#include <chrono>
#include <cstring>

#include "machine.hpp"

namespace gradtail::cuda::runtime {

using namespace simulated;

namespace {

Status enqueue_copy(void* to, const void* from, std::size_t bytes, const void* pinned, Stream stream) {
  const Lock lock(machine().mutex);
  StreamState* const s = find(stream);
  if (!s) return no_handle();
  const Memory& memory = machine().memory;
  if (!memory.is_range(to, bytes) || !memory.is_range(from, bytes))
    return error(kInvalidValue, "copy of " + std::to_string(bytes) + " bytes past the end of an allocation");
  if (bytes > 0 && !memory.is_pinned(pinned, bytes)) return error(kInvalidValue, "copy of memory that is not pinned");
  append(*s, {[=] { std::memcpy(to, from, bytes); }, nullptr, nullptr});
  return failed();
}

Status release_after_waiting(int device, void* memory) {
  const Lock lock(machine().mutex);
  if (memory == nullptr) return {};
  if (spoils_capture()) return spoiled();
  ++machine().synchronizations;
  for_every_stream([&](StreamState& s) {
    if (device == kPinned || s.device == device) execute(s, nullptr);
  });
  if (!machine().memory.release(device, memory)) return error(kInvalidValue, "release of what was not allocated");
  const std::string damage = machine().memory.damage();
  return damage.empty() ? failed() : error(kInvalidValue, damage);
}

EventState* find_event(Event event) {
  const auto found = machine().events.find(event);
  return found == machine().events.end() ? nullptr : &found->second;
}

}  // namespace

Properties properties(int device) { return is_device(device) ? machine().properties : Properties{}; }

DeviceGuard::DeviceGuard(int device) {
  if (!is_device(device) || device == current_device) return;
  before_ = current_device;
  current_device = device;
}
DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) current_device = before_;
}

RelaxedCapture::RelaxedCapture() : before_(relaxed_capture) { relaxed_capture = true; }
RelaxedCapture::~RelaxedCapture() { relaxed_capture = before_ != 0; }

Status allocate(int device, std::size_t bytes, void** memory) {
  const Lock lock(machine().mutex);
  *memory = nullptr;
  if (!is_device(device)) return no_device();
  if (spoils_capture()) return spoiled();
  *memory = machine().memory.allocate(device, bytes);
  return *memory ? failed() : error(kOutOfMemory, "out of memory");
}
Status release(int device, void* memory) { return release_after_waiting(device, memory); }

Status allocate_pinned(std::size_t bytes, void** host, void** on_device) {
  const Lock lock(machine().mutex);
  *host = *on_device = nullptr;
  if (spoils_capture()) return spoiled();
  *host = *on_device = machine().memory.allocate(kPinned, bytes);
  return failed();
}
Status release_pinned(void* host) { return release_after_waiting(kPinned, host); }

Status copy_to_device(void* to, const void* from_pinned, std::size_t bytes, Stream stream) {
  return enqueue_copy(to, from_pinned, bytes, from_pinned, stream);
}
Status copy_to_host(void* to_pinned, const void* from, std::size_t bytes, Stream stream) {
  return enqueue_copy(to_pinned, from, bytes, to_pinned, stream);
}
Status fill(void* memory, int byte, std::size_t bytes, Stream stream) {
  const Lock lock(machine().mutex);
  StreamState* const s = find(stream);
  if (!s) return no_handle();
  if (!machine().memory.is_range(memory, bytes))
    return error(kInvalidValue, "fill of " + std::to_string(bytes) + " bytes past the end of an allocation");
  append(*s, {[=] { std::memset(memory, byte, bytes); }, nullptr, nullptr});
  return failed();
}

Status launched() {
  const Lock lock(machine().mutex);
  const Status status = machine().last_launch;
  machine().last_launch = {};
  return status;
}

Status create_stream(int device, Stream* stream) {
  const Lock lock(machine().mutex);
  *stream = nullptr;
  if (!is_device(device)) return no_device();
  machine().streams.push_back(std::unique_ptr<StreamState>(new StreamState{device, {}}));
  *stream = machine().streams.back().get();
  return failed();
}
Status destroy_stream(Stream stream) {  // what is enqueued is still done
  const Lock lock(machine().mutex);
  StreamState* const s = stream ? find(stream) : nullptr;
  if (!s) return no_handle();
  s->destroyed = true;
  return failed();
}
Status synchronize(Stream stream) {
  const Lock lock(machine().mutex);
  StreamState* const s = find(stream);
  if (!s) return no_handle();
  if (s->capture) s->capture->invalid = true;
  if (spoils_capture() || s->capture) return spoiled();
  ++machine().synchronizations;
  execute(*s, nullptr);
  return failed();
}
bool is_capturing(Stream stream) {
  const Lock lock(machine().mutex);
  const StreamState* const s = find(stream);
  return s && s->capture;
}

Status create_event(int device, Event* event, bool timing) {
  const Lock lock(machine().mutex);
  *event = nullptr;
  if (!is_device(device)) return no_device();
  *event = reinterpret_cast<void*>(++machine().events_made);
  machine().events[*event] = {device, timing, nullptr};
  return failed();
}
Status destroy_event(Event event) {
  const Lock lock(machine().mutex);
  return machine().events.erase(event) == 1 ? failed() : no_handle();
}
Status record(Event event, Stream stream) {
  const Lock lock(machine().mutex);
  StreamState* const s = find(stream);
  EventState* const e = find_event(event);
  if (!s || !e || e->device != s->device) return no_handle();
  e->mark = std::make_shared<Mark>();
  e->mark->stream = s;
  e->mark->capture = s->capture;
  e->mark->done = !machine().failure.empty();  // nothing more is executed
  if (!s->capture) append(*s, {nullptr, nullptr, e->mark});
  return failed();
}
bool is_done(Event event) {
  const Lock lock(machine().mutex);
  const EventState* const e = find_event(event);
  if (!e || spoils_capture()) return false;
  return !e->mark || e->mark->done;
}
Status wait(Event event) {
  const Lock lock(machine().mutex);
  const EventState* const e = find_event(event);
  if (!e) return no_handle();
  if (spoils_capture() || (e->mark && e->mark->capture)) return spoiled();
  ++machine().synchronizations;
  const std::shared_ptr<Mark> mark = e->mark;
  if (mark && !mark->done) execute(*mark->stream, mark.get());
  return failed();
}
Status stream_waits(Stream stream, Event event) {
  const Lock lock(machine().mutex);
  StreamState* const s = find(stream);
  const EventState* const e = find_event(event);
  if (!s || !e) return no_handle();
  if (!e->mark) return failed();
  // A stream that waits for a captured event joins the capture; order within one is that of the calls.
  if (e->mark->capture && !s->capture) s->capture = e->mark->stream->capture;
  if (s->capture) {
    if (e->mark->capture == s->capture) return failed();
    s->capture->invalid = true;
    return error(kCaptureIsolation, "dependency created on uncaptured work in another stream");
  }
  if (e->mark->capture) return spoiled();
  append(*s, {nullptr, e->mark, nullptr});
  return failed();
}
Status elapsed(Event from, Event to, float* milliseconds) {
  const Lock lock(machine().mutex);
  const EventState *const first = find_event(from), *const last = find_event(to);
  if (!first || !last || !first->timing || !last->timing || !first->mark || !last->mark) return no_handle();
  if (!first->mark->done || !last->mark->done) return error(kNotReady, "device not ready");
  *milliseconds = std::chrono::duration<float, std::milli>(last->mark->when - first->mark->when).count();
  return failed();
}

}  // namespace gradtail::cuda::runtime
