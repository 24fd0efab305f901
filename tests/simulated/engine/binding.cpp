// The engine of the library, with its kernels on the simulated device.
#include "cuda/engine_binding.hpp"

void bind_more(pybind11::module_& m) { gradtail::cuda::bind_engine(m); }
