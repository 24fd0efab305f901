// The simulated devices themselves. A stream is a list of what is still to be done, and nothing of it is done before
// somebody waits for it or a test says so.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "controls.hpp"
#include "memory.hpp"

namespace gradtail::simulated {

enum Code {  // of CUDA
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidConfiguration = 9,
  kInvalidDevice = 101,
  kInvalidHandle = 400,
  kNotReady = 600,
  kLaunchFailure = 719,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCaptureIsolation = 905,
};

struct StreamState;
struct Capture;

struct Mark {  // one record of an event
  bool done = false;
  StreamState* stream = nullptr;
  const Capture* capture = nullptr;
  std::chrono::steady_clock::time_point when;
};

struct Operation {
  std::function<void()> body;
  std::shared_ptr<Mark> waits_for;  // null: for nothing
  std::shared_ptr<Mark> marks;
};

struct Capture {
  StreamState* origin;
  std::vector<Operation> operations;
  bool invalid = false;
};

struct StreamState {
  int device;
  std::deque<Operation> queue;
  Capture* capture = nullptr;
  bool destroyed = false;
};

struct EventState {
  int device;
  bool timing;
  std::shared_ptr<Mark> mark;
};

struct Machine {
  std::recursive_mutex mutex;
  Memory memory;
  std::vector<std::unique_ptr<StreamState>> streams;
  std::map<void*, EventState> events;
  StreamState defaults[kDevices] = {{0, {}}, {1, {}}};
  std::vector<std::unique_ptr<Capture>> captures;
  std::vector<std::vector<Operation>> graphs;
  std::set<std::string> texts;  // of Status, which owns none
  std::string failure;
  Status last_launch;
  Properties properties;
  std::uint64_t synchronizations = 0, launches = 0;
  std::size_t events_made = 0;
};

Machine& machine();
extern thread_local int current_device;
extern thread_local bool relaxed_capture;

using Lock = std::lock_guard<std::recursive_mutex>;

Properties small_hopper();

Status error(int code, const std::string& text);
Status failed();  // success, unless something has failed
Status no_device();
Status no_handle();
bool is_device(int device);

StreamState* find(Stream stream);  // null: no such stream
template <typename Function>
void for_every_stream(Function function) {
  for (StreamState& s : machine().defaults) function(s);
  for (const auto& s : machine().streams) function(*s);
}

void append(StreamState& s, Operation operation);
void drop_everything();
void execute_front(StreamState& s);
// Executes a stream up to a mark, or all of it; and of other streams what it waits for.
void execute(StreamState& s, const Mark* until);

// In calls that CUDA forbids while a stream is captured, unless relaxed: whether one is. The capture is then spoiled.
bool spoils_capture();
Status spoiled();

}  // namespace gradtail::simulated
