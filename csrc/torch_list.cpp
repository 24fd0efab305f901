#include "torch_list.hpp"

#include "core/element.hpp"
#include "dlpack.hpp"

namespace gradtail {
namespace {

int dtype_of(const dlpack::Tensor& t) {
  if (t.lanes != 1) return -1;
  if (t.code == dlpack::kBfloat) return t.bits == 16 ? kBfloat16 : -1;
  if (t.code != dlpack::kFloat) return -1;
  return t.bits == 64 ? kFloat64 : t.bits == 32 ? kFloat32 : t.bits == 16 ? kFloat16 : -1;
}

// A hash of how an array lies in memory. python/gradtail/buffers.py has the same lines.
class Signature {
 public:
  void add(std::int64_t value) {
    h_ = (h_ ^ static_cast<std::uint64_t>(value)) * 0x9e3779b97f4a7c15u;
    h_ ^= h_ >> 32;
  }
  std::uint64_t value() const { return h_; }

 private:
  std::uint64_t h_ = 0x243f6a8885a308d3u;
};

constexpr int kMostAxes = 64;

// The axis, not yet used, that is longer than 1 and has this stride; -1 if there is none.
int axis_of_stride(const dlpack::Tensor& t, std::uint64_t used, std::int64_t stride) {
  for (int axis = 0; axis < t.ndim; ++axis)
    if (!(used >> axis & 1) && t.shape[axis] != 1 && t.strides[axis] == stride) return axis;
  return -1;
}

// Whether the elements fill one block of memory, in whatever order of axes; and the signature of it.
bool is_dense(const dlpack::Tensor& t, std::uint64_t& layout) {
  if (t.ndim > kMostAxes) return false;
  Signature signature;
  signature.add(t.ndim);
  bool empty = false;
  for (int axis = 0; axis < t.ndim; ++axis) {
    signature.add(t.shape[axis]);
    empty = empty || t.shape[axis] == 0;
  }
  std::int64_t expected = 1;
  bool row_major = true;
  for (int axis = t.ndim - 1; axis >= 0 && row_major && !empty && t.strides != nullptr; --axis) {
    row_major = t.shape[axis] == 1 || t.strides[axis] == expected;
    expected *= t.shape[axis];
  }
  if (row_major) {
    for (int axis = 0; axis < t.ndim; ++axis)
      if (t.shape[axis] > 1) signature.add(axis);
  } else {
    // Axes in any order: find, again and again, the one whose stride is the size of the block so far.
    int order[kMostAxes], placed = 0, longer = 0;
    for (int axis = 0; axis < t.ndim; ++axis) longer += t.shape[axis] != 1;
    std::uint64_t used = 0;
    for (expected = 1; placed < longer; ++placed) {
      const int next = axis_of_stride(t, used, expected);
      if (next < 0) return false;
      used |= std::uint64_t{1} << next;
      expected *= t.shape[next];
      order[placed] = next;
    }
    while (placed > 0) signature.add(order[--placed]);
  }
  layout = signature.value();
  return true;
}

bool is_one_of(PyObject* object, PyObject* types) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(types); ++i)
    if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == PyTuple_GET_ITEM(types, i)) return true;
  return false;
}

// A tensor can stand for the negative of what lies in its memory (z.conj().imag); DLPack has no word for
// that. Such a view has stride 2, so only those of one element get past is_dense, and only they are asked:
// the question costs more than all the rest.
bool is_negated(PyObject* tensor) {
  static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* const answer = PyObject_CallMethodNoArgs(tensor, is_neg);
  if (answer == nullptr) PyErr_Clear();
  Py_XDECREF(answer);
  return answer != Py_False;
}

}  // namespace

bool describe(PyObject* list, PyObject* types, PyObject* exchange, BufferView* views) {
  auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(exchange, dlpack::kExchangeName));
  if (api == nullptr || api->major != dlpack::kMajor || api->tensor_from_py_object_no_sync == nullptr) {
    PyErr_Clear();
    return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    PyObject* const item = PyList_GET_ITEM(list, i);
    if (!is_one_of(item, types)) return false;
    dlpack::Tensor t;
    if (api->tensor_from_py_object_no_sync(item, &t) != 0) {
      PyErr_Clear();
      return false;
    }
    const int dtype = dtype_of(t);
    BufferView& view = views[i];
    if (dtype < 0 || (t.device_type != dlpack::kCpu && t.device_type != dlpack::kCuda)) return false;
    if (i > 0 && (t.device_type != views[0].device || t.device_id != views[0].device_id)) return false;
    if (!is_dense(t, view.layout)) return false;
    view.data = reinterpret_cast<std::uintptr_t>(t.data) + t.byte_offset;
    view.size = 1;
    for (int axis = 0; axis < t.ndim; ++axis) view.size *= t.shape[axis];
    if (view.size == 1 && is_negated(item)) return false;
    if (view.size > 0 && (view.data == 0 || view.data % itemsize_of(dtype) != 0)) return false;
    view.run = view.size > 0 ? view.size : 1;
    view.dtype = dtype;
    view.device = t.device_type;
    view.device_id = t.device_id;
  }
  return true;
}

}  // namespace gradtail
