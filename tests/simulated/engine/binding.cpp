// The engine of the library, with its kernels on the simulated device; and its plans by themselves.
#include <cstring>

#include "cuda/engine_binding.hpp"
#include "cuda/plan.hpp"

namespace {

namespace cuda = gradtail::cuda;
namespace py = pybind11;

template <typename T>
py::array_t<std::uint8_t> bytes_of(const std::vector<T>& values) {
  py::array_t<std::uint8_t> out(static_cast<py::ssize_t>(values.size() * sizeof(T)));
  if (!values.empty()) std::memcpy(out.mutable_data(), values.data(), values.size() * sizeof(T));
  return out;
}

py::dict plan_of(const py::array& views, std::int64_t rows, int buckets, int lanes) {
  const auto* const first = static_cast<const gradtail::BufferView*>(views.data());
  const cuda::Plan plan = cuda::plan_of(first, views.size(), rows, buckets, lanes);
  py::dict out;
  out["items"] = bytes_of(plan.items);
  out["chain_first"] = bytes_of(plan.chain_first);
  out["rows"] = bytes_of(plan.rows);
  out["stripe"] = plan.stripe;
  out["stripes"] = plan.stripes;
  out["wide"] = plan.wide;
  return out;
}

}  // namespace

void bind_more(py::module_& m) {
  cuda::bind_engine(m);
  m.def("plan_of", &plan_of, py::arg("views"), py::arg("rows"), py::arg("buckets"), py::arg("lanes"));
}
