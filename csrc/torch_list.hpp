// Reads a Python list of torch tensors without one Python call a tensor.
#pragma once

#include <Python.h>

#include "ops.hpp"

namespace gradtail {

// Fill views[i] from list[i]. True if every item is exactly of one of `types` and is dense CPU memory of
// a dtype that we take; false, with no Python error set, if any is not: then the caller looks again,
// slowly, and explains. `exchange` is the capsule torch.Tensor.__dlpack_c_exchange_api__.
bool describe(PyObject* list, PyObject* types, PyObject* exchange, BufferView* views);

}  // namespace gradtail
