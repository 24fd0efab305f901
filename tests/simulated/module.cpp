// The simulated devices for Python: addresses, streams and events are integers.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "controls.hpp"
#include "cuda/runtime.hpp"
#include "fibers.hpp"
#include "toys.hpp"

namespace py = pybind11;
namespace runtime = gradtail::cuda::runtime;
namespace simulated = gradtail::simulated;

// Binds what is compiled in besides, if anything is.
__attribute__((weak)) void bind_more(py::module_& m);

namespace {

using Address = std::uintptr_t;

template <typename T = void>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}
Address address_of(const void* p) { return reinterpret_cast<Address>(p); }

void check(runtime::Status status) {
  if (!status.ok()) throw std::runtime_error(status.text);
}

simulated::Order order_of(const std::string& name) {
  if (name == "ascending") return simulated::Order::kAscending;
  if (name == "descending") return simulated::Order::kDescending;
  if (name == "shuffled") return simulated::Order::kShuffled;
  throw std::invalid_argument("kind: expected 'ascending', 'descending' or 'shuffled', got '" + name + "'");
}

void set_order(const std::string& threads, std::uint64_t seed, const std::string& blocks) {
  simulated::Settings settings = simulated::settings();
  settings.threads = order_of(threads);
  settings.blocks = order_of(blocks.empty() ? threads : blocks);
  settings.seed = seed;
  simulated::set_settings(settings);
}

py::dict counters() {
  const simulated::Counters c = simulated::counters();
  py::dict d;
  d["synchronizations"] = c.synchronizations;
  d["launches"] = c.launches;
  d["allocations"] = c.allocations;
  d["live_allocations"] = c.live_allocations;
  d["live_bytes"] = c.live_bytes;
  d["live_pinned_bytes"] = c.live_pinned_bytes;
  d["switches"] = simulated::switches();
  return d;
}

void bind_controls(py::module_& m) {
  m.def("reset", &simulated::reset);
  m.def("set_order", &set_order, py::arg("kind"), py::arg("seed") = 0, py::arg("blocks") = "");
  m.def("set_poison", [](bool on) {
    simulated::Settings settings = simulated::settings();
    settings.poison = on;
    simulated::set_settings(settings);
  });
  m.def("set_strict", [](bool on) {
    simulated::Settings settings = simulated::settings();
    settings.strict = on;
    simulated::set_settings(settings);
  });
  m.def("set_memory_limit", &simulated::set_memory_limit);
  m.def(
      "set_properties",
      [](int multiprocessors, std::size_t shared_per_block, std::size_t shared_per_multiprocessor, int threads) {
        simulated::set_properties({9, 0, multiprocessors, shared_per_block, shared_per_multiprocessor, threads});
      },
      py::kw_only(), py::arg("multiprocessors"), py::arg("shared_per_block") = 227 * 1024,
      py::arg("shared_per_multiprocessor") = 228 * 1024, py::arg("threads_per_multiprocessor") = 2048);
  m.def("counters", &counters);
  m.def("check_redzones", [] {
    const std::string damage = simulated::damage();
    if (!damage.empty()) throw std::runtime_error(damage);
  });
  m.def("failure", &simulated::failure);
  m.def(
      "advance",
      [](Address stream, std::size_t n) {
        const std::size_t done = simulated::advance(at(stream), n);
        const std::string failure = simulated::failure();
        if (!failure.empty()) throw std::runtime_error(failure);
        return done;
      },
      py::arg("stream"), py::arg("n") = static_cast<std::size_t>(-1));
  m.def("pending", [](Address stream) { return simulated::pending(at(stream)); });
  m.def("begin_capture", [](Address stream) { check(simulated::begin_capture(at(stream))); });
  m.def("end_capture", [](Address stream) {
    int graph = -1;
    check(simulated::end_capture(at(stream), &graph));
    return graph;
  });
  m.def("replay", [](int graph, Address stream) { check(simulated::replay(graph, at(stream))); });
}

void bind_memory(py::module_& m) {
  m.def(
      "allocate",
      [](std::size_t bytes, int device) {
        void* memory = nullptr;
        check(runtime::allocate(device, bytes, &memory));
        return address_of(memory);
      },
      py::arg("bytes"), py::arg("device") = 0);
  m.def(
      "release", [](Address memory, int device) { check(runtime::release(device, at(memory))); }, py::arg("memory"),
      py::arg("device") = 0);
  m.def("allocate_relaxed", [](std::size_t bytes) {
    const runtime::RelaxedCapture relaxed;
    void* memory = nullptr;
    check(runtime::allocate(0, bytes, &memory));
    return address_of(memory);
  });
  m.def("synchronize_relaxed", [](Address stream) {
    const runtime::RelaxedCapture relaxed;
    check(runtime::synchronize(at(stream)));
  });
  m.def("allocate_pinned", [](std::size_t bytes) {
    void *host = nullptr, *on_device = nullptr;
    check(runtime::allocate_pinned(bytes, &host, &on_device));
    return py::make_tuple(address_of(host), address_of(on_device));
  });
  m.def("release_pinned", [](Address host) { check(runtime::release_pinned(at(host))); });
  m.def("copy_to_device", [](Address to, Address from, std::size_t bytes, Address stream) {
    check(runtime::copy_to_device(at(to), at(from), bytes, at(stream)));
  });
  m.def("copy_to_host", [](Address to, Address from, std::size_t bytes, Address stream) {
    check(runtime::copy_to_host(at(to), at(from), bytes, at(stream)));
  });
  m.def("fill", [](Address memory, int byte, std::size_t bytes, Address stream) {
    check(runtime::fill(at(memory), byte, bytes, at(stream)));
  });
}

void bind_streams(py::module_& m) {
  m.def(
      "create_stream",
      [](int device) {
        runtime::Stream stream = nullptr;
        check(runtime::create_stream(device, &stream));
        return address_of(stream);
      },
      py::arg("device") = 0);
  m.def("destroy_stream", [](Address stream) { check(runtime::destroy_stream(at(stream))); });
  m.def("synchronize", [](Address stream) { check(runtime::synchronize(at(stream))); });
  m.def("is_capturing", [](Address stream) { return runtime::is_capturing(at(stream)); });
  m.def(
      "create_event",
      [](int device, bool timing) {
        runtime::Event event = nullptr;
        check(runtime::create_event(device, &event, timing));
        return address_of(event);
      },
      py::arg("device") = 0, py::arg("timing") = false);
  m.def("destroy_event", [](Address event) { check(runtime::destroy_event(at(event))); });
  m.def("record", [](Address event, Address stream) { check(runtime::record(at(event), at(stream))); });
  m.def("is_done", [](Address event) { return runtime::is_done(at(event)); });
  m.def("wait", [](Address event) { check(runtime::wait(at(event))); });
  m.def("stream_waits", [](Address stream, Address event) { check(runtime::stream_waits(at(stream), at(event))); });
  m.def("elapsed", [](Address from, Address to) {
    float milliseconds = 0;
    check(runtime::elapsed(at(from), at(to), &milliseconds));
    return milliseconds;
  });
}

void toy(const std::string& name, unsigned grid, unsigned block, Address in, Address out, int n, std::size_t shared,
         Address stream, int device) {
  const runtime::DeviceGuard guard(device);
  if (!simulated::launch_toy(name, grid, block, shared, at(stream), at<const unsigned>(in), at<unsigned>(out), n))
    throw std::invalid_argument("name: expected that of a toy, got '" + name + "'");
  check(runtime::launched());
}

}  // namespace

PYBIND11_MODULE(_simulated, m) {
  bind_controls(m);
  bind_memory(m);
  bind_streams(m);
  m.def("toy", &toy, py::arg("name"), py::arg("grid"), py::arg("block"), py::arg("input") = 0, py::arg("output") = 0,
        py::arg("n") = 0, py::kw_only(), py::arg("shared") = 0, py::arg("stream") = 0, py::arg("device") = 0);
  if (bind_more != nullptr) bind_more(m);
}
