// With cuda/engine_binding.hpp the only file that knows pybind11. It names arguments and releases the GIL; it decides
// nothing.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "ops.hpp"
#include "torch_list.hpp"
#if defined(GRADTAIL_CUDA)
#include "cuda/engine_binding.hpp"
#endif

namespace py = pybind11;
using namespace pybind11::literals;

namespace gradtail {
namespace {

// Records, counts and block sums of a table, which Python owns for the length of the call.
TableView table_of(const py::array& records, const py::array& counts, int bits,
                   const std::optional<py::array>& logs = std::nullopt) {
  return {static_cast<Record*>(const_cast<void*>(records.data())),
          static_cast<std::uint64_t*>(const_cast<void*>(counts.data())), records.size(), bits,
          logs ? static_cast<LogSums*>(const_cast<void*>(logs->data())) : nullptr};
}

const BufferView* views_of(const py::array& views) { return static_cast<const BufferView*>(views.data()); }

py::dict probe_dict() {
  const cuda::Probe p = cuda::probe();
  py::list devices;
  for (int i = 0; i < p.count; ++i) {
    const auto& d = p.devices[i];
    devices.append(
        py::dict("name"_a = d.name, "compute_capability"_a = py::make_tuple(d.major, d.minor), "memory"_a = d.memory));
  }
  return py::dict("built"_a = cuda::built(), "architectures"_a = cuda::architectures(), "runtime"_a = p.runtime,
                  "driver"_a = p.driver, "status"_a = p.status, "message"_a = p.message, "devices"_a = devices);
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled part of gradtail. Private: see gradtail.backends.native.";
  m.attr("record_size") = sizeof(Record);
  m.attr("view_size") = sizeof(BufferView);
  m.attr("piece_size") = sizeof(Piece);
  m.attr("log_sums_size") = sizeof(LogSums);

  m.def(
      "describe",
      [](const py::list& items, const py::tuple& types, const py::capsule& exchange, py::array& views) {
        return describe(items.ptr(), types.ptr(), exchange.ptr(), static_cast<BufferView*>(views.mutable_data()));
      },
      "items"_a, "types"_a, "exchange"_a, "views"_a);
  m.def(
      "summarize",
      [](const py::array& views, py::array& records, py::array& counts, int bits, std::optional<py::array> logs) {
        const TableView table = table_of(records, counts, bits, logs);
        const BufferView* const first = views_of(views);
        const std::int64_t n = views.size();
        py::gil_scoped_release nogil;
        cpu::observe(first, n, table, {});
      },
      "views"_a, "records"_a, "counts"_a, "bits"_a, "logs"_a = py::none());
  m.def(
      "observe",
      [](const py::array& views, py::array& records, py::array& counts, int bits, py::array& view_records,
         std::optional<py::array> sketch, std::optional<py::array> row_sketches, std::optional<py::tuple> tracks,
         std::optional<py::array> pieces, std::optional<py::array> logs) {
        const TableView table = table_of(records, counts, bits, logs);
        const BufferView* const first = views_of(views);
        const std::int64_t n = views.size();
        Outputs out;
        out.records = static_cast<Record*>(view_records.mutable_data());
        if (sketch) {
          out.sketch = static_cast<double*>(sketch->mutable_data());
          out.buckets = static_cast<int>(sketch->size());
        }
        if (row_sketches) {
          out.row_sketches = static_cast<double*>(row_sketches->mutable_data());
          out.fold = static_cast<int>(row_sketches->shape(1));
        }
        if (tracks) {
          out.track_first = static_cast<const std::int64_t*>((*tracks)[0].cast<py::array>().data());
          out.track_offset = static_cast<const std::int64_t*>((*tracks)[1].cast<py::array>().data());
          out.track_value = static_cast<float*>((*tracks)[2].cast<py::array>().mutable_data());
        }
        if (pieces) out.pieces = static_cast<const Piece*>(pieces->data());
        py::gil_scoped_release nogil;
        cpu::observe(first, n, table, out);
      },
      "views"_a, "records"_a, "counts"_a, "bits"_a, "view_records"_a, "sketch"_a, "row_sketches"_a, "tracks"_a,
      "pieces"_a, "logs"_a = py::none());
  m.def(
      "sketch",
      [](const py::array& views, py::array& out) {
        const BufferView* const first = views_of(views);
        const std::int64_t n = views.size();
        auto* const to = static_cast<double*>(out.mutable_data());
        const int buckets = static_cast<int>(out.size());
        py::gil_scoped_release nogil;
        cpu::sketch(first, n, to, buckets);
      },
      "views"_a, "out"_a);
  m.def(
      "update_coordinates",
      [](const py::array& views, const py::array& pieces) {
        const BufferView* const first = views_of(views);
        const std::int64_t n = views.size();
        const auto* const of = static_cast<const Piece*>(pieces.data());
        py::gil_scoped_release nogil;
        cpu::update_coordinates(first, n, of);
      },
      "views"_a, "pieces"_a);
  m.def(
      "fold",
      [](py::array& into_records, py::array& into_counts, const py::array& records, const py::array& counts, int bits,
         std::optional<py::array> into_logs, std::optional<py::array> logs) {
        const TableView into = table_of(into_records, into_counts, bits, into_logs),
                        from = table_of(records, counts, bits, logs);
        py::gil_scoped_release nogil;
        cpu::fold(into, from);
      },
      "into_records"_a, "into_counts"_a, "records"_a, "counts"_a, "bits"_a, "into_logs"_a = py::none(),
      "logs"_a = py::none());
  m.def(
      "clear",
      [](py::array& records, py::array& counts, int bits, std::optional<py::array> logs) {
        const TableView table = table_of(records, counts, bits, logs);
        py::gil_scoped_release nogil;
        cpu::clear(table);
      },
      "records"_a, "counts"_a, "bits"_a, "logs"_a = py::none());

  m.def("num_threads", &cpu::num_threads);
  m.def("set_num_threads", &cpu::set_num_threads, "n"_a);
  m.def("simd_levels", &cpu::simd_levels);
  m.def("simd", &cpu::simd);
  m.def("set_simd", &cpu::set_simd, "level"_a);
  m.def("probe", &probe_dict);
#if defined(GRADTAIL_CUDA)
  cuda::bind_engine(m);
#endif
}

}  // namespace gradtail
