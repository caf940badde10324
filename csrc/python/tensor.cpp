// SPDX-License-Identifier: BSD-3-Clause
#include "python/tensor.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <sstream>
#include <utility>

#include "python/operators.h"

namespace twostream::python {
namespace {

// The first types that were asked for are kept, as asking takes longer than the rest of a call. An entry is written
// once, its type last, so that threads of a Python without the GIL read it without a lock.
class KnownTypes {
 public:
  const DLPackExchangeAPI* find(const PyTypeObject* type) const {
    for (const Known& known : known_) {
      const PyTypeObject* other = known.type.load(std::memory_order_acquire);
      if (other == type) {
        return known.api;
      }
      if (other == nullptr) {
        return nullptr;
      }
    }
    return nullptr;
  }

  void keep(PyTypeObject* type, const DLPackExchangeAPI* api) {
    const std::lock_guard<std::mutex> lock(writing_);
    for (Known& known : known_) {
      const PyTypeObject* other = known.type.load(std::memory_order_relaxed);
      if (other == type) {
        return;
      }
      if (other == nullptr) {
        Py_INCREF(type);  // for good: its address must not be given to another type
        known.api = api;
        known.type.store(type, std::memory_order_release);
        return;
      }
    }
  }

 private:
  struct Known {
    std::atomic<PyTypeObject*> type{nullptr};
    const DLPackExchangeAPI* api = nullptr;
  };

  std::array<Known, 8> known_;
  std::mutex writing_;
};

const DLPackExchangeAPI* exchange_api(PyTypeObject* type) {
  static KnownTypes known_types;
  if (const DLPackExchangeAPI* known = known_types.find(type)) {
    return known;
  }
  py::object capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
  if (capsule.is_none()) {
    return nullptr;
  }
  const auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) {
    throw py::error_already_set();
  }
  if (api->header.version.major != DLPACK_MAJOR_VERSION || api->dltensor_from_py_object_no_sync == nullptr) {
    return nullptr;
  }
  known_types.keep(type, api);
  return api;
}

const DLPackExchangeAPI* require_api(py::handle object, const Argument& argument) {
  const DLPackExchangeAPI* api = exchange_api(Py_TYPE(object.ptr()));
  if (api == nullptr) {
    throw py::type_error(argument.text() + " must be a torch.Tensor (torch 2.10 or newer), got " +
                         Py_TYPE(object.ptr())->tp_name);
  }
  return api;
}

std::string name_of(const char* name, int64_t index) {
  return index < 0 ? name : std::string(name) + "[" + std::to_string(index) + "]";
}

// The bytes from the first to the last that the tensor's elements lie in; none for a tensor without elements.
std::pair<const char*, const char*> extent_of(const Tensor& tensor) {
  const int64_t item = (tensor.view.dtype.bits * tensor.view.dtype.lanes + 7) / 8;
  const char* begin = tensor.data<char>();
  const char* end = begin + item;
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    if (tensor.shape(dimension) == 0) {
      return {nullptr, nullptr};
    }
    const int64_t reach = (tensor.shape(dimension) - 1) * tensor.stride(dimension) * item;
    (reach < 0 ? begin : end) += reach;
  }
  return {begin, end};
}

}  // namespace

std::string Argument::text() const { return std::string(call.op()) + ": " + name_of(name, index); }

Tensor Call::take(py::handle object, const Argument& argument, Access access) {
  const DLPackExchangeAPI* api = require_api(object, argument);
  Tensor tensor{};
  if (api->dltensor_from_py_object_no_sync(object.ptr(), &tensor.view) != 0) {
    const py::error_already_set error;  // torch's own text has many lines and names no argument
    throw py::value_error(argument.text() + " must be dense, on the CPU or on a CUDA device, got one on " +
                          std::string(py::str(py::getattr(object, "device", py::str("another")))));
  }
  const DLDeviceType device = tensor.view.device.device_type;
  if (device != kDLCPU && device != kDLCUDA) {
    throw py::value_error(argument.text() + " must be on the CPU or on a CUDA device, got " + describe(tensor));
  }
  const auto [begin, end] = extent_of(tensor);
  taken_.push_back({begin, end, access, argument.name, argument.index});
  return tensor;
}

std::vector<Tensor> Call::take_all(const py::sequence& objects, const Argument& argument, Access access) {
  std::vector<Tensor> tensors;
  tensors.reserve(objects.size());
  const bool is_list = objects.size() > 1;  // a batch of one tensor is a list of one here
  for (py::handle object : objects) {
    const auto index = static_cast<int64_t>(tensors.size());
    tensors.push_back(take(object, {*this, argument.name, is_list ? index : -1}, access));
  }
  return tensors;
}

void Call::check_apart() {
  // From left to right, the furthest end so far of what is read and of what is written tells every overlap.
  std::sort(taken_.begin(), taken_.end(),
            [](const Memory& one, const Memory& other) { return one.begin < other.begin; });
  const Memory* read = nullptr;
  const Memory* written = nullptr;
  for (const Memory& memory : taken_) {
    if (memory.begin == memory.end) {
      continue;
    }
    const bool writes = memory.access == Access::writes;
    const Memory* other = written != nullptr && memory.begin < written->end ? written : nullptr;
    if (writes && other == nullptr && read != nullptr && memory.begin < read->end) {
      other = read;
    }
    if (other != nullptr) {
      const Memory& output = writes ? memory : *other;
      const Memory& input = writes ? *other : memory;
      throw py::value_error(Argument{*this, output.name, output.index}.text() +
                            " must be in memory of its own, got one that overlaps " + name_of(input.name, input.index));
    }
    const Memory*& furthest = writes ? written : read;
    if (furthest == nullptr || memory.end > furthest->end) {
      furthest = &memory;
    }
  }
}

namespace {

// Of a DLPack capsule that nobody has consumed yet: whether its memory may only be read, and whether a stride is
// negative. torch does not look at the first and ends the process at the second.
std::pair<bool, bool> inspect_capsule(const py::capsule& capsule) {
  const DLTensor* tensor = nullptr;
  bool read_only = false;
  if (std::strcmp(capsule.name(), "dltensor_versioned") == 0) {
    const auto* managed = capsule.get_pointer<DLManagedTensorVersioned>();
    tensor = &managed->dl_tensor;
    read_only = (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
  } else {
    tensor = &capsule.get_pointer<DLManagedTensor>()->dl_tensor;
  }
  bool reversed = false;
  for (int dimension = 0; tensor->strides != nullptr && dimension < tensor->ndim; ++dimension) {
    reversed = reversed || tensor->strides[dimension] < 0;
  }
  return {read_only, reversed};
}

// For what Python reads and writes by itself, around a kernel.
void check_apart(const std::string& op, const py::object& input, const char* input_name, const py::object& output) {
  Call call{op.c_str()};
  call.take(input, {call, input_name}, Access::reads);
  call.take(output, {call, "out"}, Access::writes);
  call.check_apart();
}

}  // namespace

void bind_door(py::module_& module) {
  module.def("inspect_capsule", &inspect_capsule);
  module.def("check_apart", &check_apart);
}

void* current_stream(py::handle object, const Tensor& tensor) {
  void* stream = nullptr;
  const DLPackExchangeAPI* api = exchange_api(Py_TYPE(object.ptr()));
  if (tensor.on_cuda() && api->current_work_stream(kDLCUDA, tensor.view.device.device_id, &stream) != 0) {
    throw py::error_already_set();
  }
  return stream;
}

std::string describe(const DLDataType& type) {
  const std::string bits = std::to_string(type.bits);
  switch (type.code) {
    case kDLInt:
      return "int" + bits;
    case kDLUInt:
      return "uint" + bits;
    case kDLFloat:
      return "float" + bits;
    case kDLBfloat:
      return "bfloat" + bits;
    case kDLBool:
      return "bool";
    default:
      return "dtype code " + std::to_string(type.code) + " of " + bits + " bits";
  }
}

std::string describe(const Tensor& tensor) {
  std::ostringstream text;
  text << "[";
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    text << (dimension > 0 ? ", " : "") << tensor.shape(dimension);
  }
  text << "] " << describe(tensor.view.dtype) << " on ";
  if (tensor.on_cuda()) {
    text << "cuda:" << tensor.view.device.device_id;
  } else if (tensor.view.device.device_type == kDLCPU) {
    text << "cpu";
  } else {
    text << "DLPack's device type " << tensor.view.device.device_type;
  }
  return text.str();
}

}  // namespace twostream::python
