#include "machine.hpp"

#include <stdexcept>
#include <utility>

namespace gradtail::simulated {

Properties small_hopper() {
  return {9, 0, 4, std::size_t{227} * 1024, std::size_t{228} * 1024, 2048};  // few multiprocessors: tests are quick
}

Machine& machine() {
  static Machine& made = *[] {
    // Never destroyed: Python may still release memory when the process ends.
    auto* const m = new Machine;
    m->properties = small_hopper();
    return m;
  }();
  return made;
}
thread_local int current_device = 0;
thread_local bool relaxed_capture = false;

Status error(int code, const std::string& text) { return {code, machine().texts.insert(text).first->c_str()}; }
Status failed() { return machine().failure.empty() ? Status{} : error(kLaunchFailure, machine().failure); }
bool is_device(int device) { return device >= 0 && device < kDevices; }
Status no_device() { return error(kInvalidDevice, "invalid device ordinal"); }
Status no_handle() { return error(kInvalidHandle, "invalid resource handle"); }

StreamState* find(Stream stream) {
  if (stream == nullptr) return &machine().defaults[current_device];
  for (const auto& s : machine().streams)
    if (s.get() == stream && !s->destroyed) return s.get();
  return nullptr;
}

void drop_everything() {
  for_every_stream([](StreamState& s) {
    for (const Operation& o : s.queue)
      if (o.marks) o.marks->done = true;
    s.queue.clear();
  });
}

void execute_front(StreamState& s) {
  const Operation operation = std::move(s.queue.front());
  s.queue.pop_front();
  try {
    if (operation.body) {
      operation.body();
      const std::string damage = machine().memory.damage();
      if (!damage.empty()) throw std::runtime_error(damage);
    }
  } catch (const std::exception& e) {
    if (machine().failure.empty()) machine().failure = e.what();
    drop_everything();
  }
  if (operation.marks) operation.marks->done = true, operation.marks->when = std::chrono::steady_clock::now();
}

void execute(StreamState& s, const Mark* until) {
  while (!s.queue.empty() && !(until && until->done)) {
    const std::shared_ptr<Mark> other = s.queue.front().waits_for;
    if (other && !other->done) execute(*other->stream, other.get());
    if (!s.queue.empty()) execute_front(s);  // empty: something failed
  }
}

void append(StreamState& s, Operation operation) {
  if (s.capture)
    s.capture->operations.push_back(std::move(operation));
  else if (machine().failure.empty())
    s.queue.push_back(std::move(operation));
}

bool spoils_capture() {
  if (relaxed_capture) return false;
  bool capturing = false;
  for_every_stream([&](StreamState& s) {
    if (s.capture) s.capture->invalid = capturing = true;
  });
  return capturing;
}
Status spoiled() { return error(kCaptureUnsupported, "operation not permitted when stream is capturing"); }

}  // namespace gradtail::simulated
