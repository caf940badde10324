// SPDX-License-Identifier: BSD-3-Clause
#include "python/tensor.h"

#include <sstream>

namespace twostream::python {
namespace {

const DLPackExchangeAPI* exchange_api(PyTypeObject* type) {
  // The last type asked for is kept: all tensors of a call are of one type nearly always. The GIL guards it.
  static PyTypeObject* known_type = nullptr;
  static const DLPackExchangeAPI* known_api = nullptr;
  if (type == known_type) {
    return known_api;
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
  Py_INCREF(type);  // so that its address is not given to another type
  Py_XDECREF(known_type);
  known_type = type;
  known_api = api;
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

}  // namespace

std::string Argument::text() const {
  std::string words = std::string(op) + ": " + name;
  if (index >= 0) {
    words += "[" + std::to_string(index) + "]";
  }
  return words;
}

Tensor view_tensor(py::handle object, const Argument& argument) {
  const DLPackExchangeAPI* api = require_api(object, argument);
  Tensor tensor{};
  if (api->dltensor_from_py_object_no_sync(object.ptr(), &tensor.view) != 0) {
    throw py::error_already_set();
  }
  return tensor;
}

std::vector<Tensor> view_tensors(const py::sequence& objects, const Argument& argument) {
  std::vector<Tensor> tensors;
  tensors.reserve(objects.size());
  for (py::handle object : objects) {
    tensors.push_back(view_tensor(object, {argument.op, argument.name, static_cast<int64_t>(tensors.size())}));
  }
  return tensors;
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
    text << "device type " << tensor.view.device.device_type;
  }
  return text.str();
}

}  // namespace twostream::python
