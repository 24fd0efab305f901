// The engine for Python. It names arguments and releases the GIL; it decides nothing. For the module of the library and
// for that of the simulated device.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "engine.hpp"

namespace gradtail::cuda {

namespace py = pybind11;

inline runtime::Stream stream_of(std::uintptr_t handle) {
  return reinterpret_cast<runtime::Stream>(handle);  // NOLINT: what frameworks call a raw stream
}

inline py::dict as_dict(const StepResult& r) {
  using namespace pybind11::literals;
  return py::dict("sequence"_a = r.sequence, "step"_a = r.step, "steps"_a = r.steps, "norm"_a = r.norm,
                  "finite_norm"_a = r.finite_norm, "nonfinite"_a = r.nonfinite, "first_view"_a = r.first_view,
                  "first_nonfinite"_a = r.first_nonfinite);
}

inline void bind_engine(py::module_& m) {
  using namespace pybind11::literals;
  py::register_local_exception<Failure>(m, "CudaError", PyExc_RuntimeError);
  m.attr("track_size") = sizeof(TrackPlan);
  m.attr("device_piece_size") = sizeof(DevicePiece);
  m.attr("control_size") = sizeof(Control);

  // How the first kernel would be launched on a device with so much of each.
  m.def(
      "launch_shape",
      [](int multiprocessors, std::size_t shared_per_block, std::size_t shared_per_multiprocessor, int threads,
         int bits, bool wide) {
        const Shape s =
            shape_of({9, 0, multiprocessors, shared_per_block, shared_per_multiprocessor, threads}, bits, wide);
        const char* const bins = s.bins == BinMode::kAll ? "kAll" : s.bins == BinMode::kWindow ? "kWindow" : "kNone";
        return py::dict("bins"_a = bins, "shared_bytes"_a = s.shared_bytes, "teams"_a = s.pass_blocks / multiprocessors,
                        "lanes"_a = s.lanes);
      },
      "multiprocessors"_a, "shared_per_block"_a, "shared_per_multiprocessor"_a, "threads"_a, "bits"_a, "wide"_a);

  // Memory of CoordinateMoments.
  py::class_<ZeroedMemory>(m, "Memory", py::module_local())
      .def(py::init<int, std::size_t>(), "device"_a, "bytes"_a)
      .def_property_readonly("address",
                             [](const ZeroedMemory& self) { return reinterpret_cast<std::uintptr_t>(self.get()); })
      .def_property_readonly("nbytes", &ZeroedMemory::bytes)
      .def(
          "write", [](ZeroedMemory& self, const py::array& from) { self.write(from.data(), from.nbytes()); }, "from"_a)
      .def("read", [](ZeroedMemory& self, py::array& to) { self.read(to.mutable_data(), to.nbytes()); }, "to"_a);

  py::class_<Engine>(m, "Engine", py::module_local())
      .def(py::init([](int device, int rows, int bits, int buckets, int window, int row_window, int log_slots,
                       int tracks, int track_window, bool wide_counts, int lanes, int blocks, bool stable) {
             Settings s;
             s.device = device, s.rows = rows, s.bits = bits, s.buckets = buckets;
             s.window = window, s.row_window = row_window, s.log_slots = log_slots;
             s.tracks = tracks, s.track_window = track_window;
             s.wide_counts = wide_counts, s.lanes = lanes, s.blocks = blocks, s.stable = stable;
             return std::make_unique<Engine>(s);
           }),
           "device"_a, "rows"_a, "bits"_a, "buckets"_a = 0, "window"_a = 0, "row_window"_a = 0, "log_slots"_a = 1,
           "tracks"_a = 0, "track_window"_a = 0, "wide_counts"_a = false, "lanes"_a = 512, "blocks"_a = 0,
           "stable"_a = false)
      .def(
          "prepare",
          [](Engine& self, const py::array& views, const py::array& tracks, const py::object& pieces) {
            const void* const p = pieces.is_none() ? nullptr : pieces.cast<py::array>().data();
            const auto* const first = static_cast<const BufferView*>(views.data());
            const auto* const followed = static_cast<const TrackPlan*>(tracks.data());
            const std::int64_t n = views.size();
            py::gil_scoped_release nogil;
            return self.prepare(first, n, followed, static_cast<const DevicePiece*>(p));
          },
          "views"_a, "tracks"_a, "pieces"_a)
      .def("forget", &Engine::forget, "plan"_a, py::call_guard<py::gil_scoped_release>())
      .def(
          "update",
          [](Engine& self, int plan, const py::array& views, std::int64_t step, bool begin, bool fresh, bool cadence,
             std::uintptr_t stream) {
            const auto* const first = static_cast<const BufferView*>(views.data());
            py::gil_scoped_release nogil;
            self.update(plan, first, {step, begin, fresh, cadence, 0}, stream_of(stream));
          },
          "plan"_a, "views"_a, "step"_a, "begin"_a, "fresh"_a, "cadence"_a, "stream"_a)
      .def("latest", [](const Engine& self) { return as_dict(self.latest()); })
      .def(
          "result", [](const Engine& self, std::int64_t sequence) { return as_dict(self.result(sequence)); },
          "sequence"_a)
      .def_static(
          "is_capturing", [](std::uintptr_t stream) { return runtime::is_capturing(stream_of(stream)); }, "stream"_a)
      .def("is_done", &Engine::is_done)
      .def(
          "wait",
          [](Engine& self, std::uintptr_t stream) {
            py::gil_scoped_release nogil;
            self.wait(stream_of(stream));
          },
          "stream"_a)
      .def(
          "read",
          [](Engine& self, const std::string& name) {
            const Array array = self.array(name);
            py::array_t<std::uint8_t> out(static_cast<py::ssize_t>(array.bytes));
            void* const to = out.mutable_data();
            {
              py::gil_scoped_release nogil;
              self.read(array, to);
            }
            return out;
          },
          "name"_a)
      .def(
          "peek",
          [](Engine& self, const std::string& name) {
            const Array array = self.array(name);
            py::array_t<std::uint8_t> out(static_cast<py::ssize_t>(array.bytes));
            void* const to = out.mutable_data();
            {
              py::gil_scoped_release nogil;
              self.peek(array, to);
            }
            return out;
          },
          "name"_a)
      .def(
          "go_on",
          [](Engine& self, std::int64_t step, std::int64_t calls, int every) {
            py::gil_scoped_release nogil;
            self.go_on(step, calls, every);
          },
          "step"_a = -2, "calls"_a = -1, "every"_a = -1)
      .def(
          "stage_open", [](Engine& self, std::uintptr_t stream) { self.stage_open(stream_of(stream)); }, "stream"_a)
      .def("staged",
           [](Engine& self) {
             py::array_t<std::uint8_t> records(static_cast<py::ssize_t>(self.array("open_records").bytes));
             py::array_t<std::uint8_t> counts(static_cast<py::ssize_t>(self.array("open_counts").bytes));
             py::array_t<std::uint8_t> logs(static_cast<py::ssize_t>(self.array("open_logs").bytes));
             void *const first = records.mutable_data(), *const second = counts.mutable_data();
             void* const third = logs.mutable_data();
             {
               py::gil_scoped_release nogil;
               self.staged(first, second, third);
             }
             return py::make_tuple(records, counts, logs);
           })
      .def("empty_now", &Engine::empty_now, py::call_guard<py::gil_scoped_release>())
      .def(
          "empty", [](Engine& self, std::uintptr_t stream) { self.empty(stream_of(stream)); }, "stream"_a)
      .def(
          "set_every", [](Engine& self, int every, std::uintptr_t stream) { self.set_every(every, stream_of(stream)); },
          "every"_a, "stream"_a)
      .def_property_readonly("norm_address",
                             [](const Engine& self) { return reinterpret_cast<std::uintptr_t>(self.norm()); })
      .def_property_readonly("nbytes", &Engine::nbytes)
      .def_property_readonly("launches", &Engine::launches)
      .def_property_readonly("captured", &Engine::is_captured)
      .def("elapsed_seconds", &Engine::elapsed_seconds);
}

}  // namespace gradtail::cuda
