// SPDX-License-Identifier: BSD-3-Clause
#include "twostream/local_response_norm.h"

#include "python/check.h"
#include "python/operators.h"

namespace twostream::python {
namespace {

constexpr const char* op = "local_response_norm";
constexpr const char* backward_op = "local_response_norm_backward";

int64_t product(const Tensor& tensor, int first, int last) {
  int64_t values = 1;
  for (int dimension = first; dimension < last; ++dimension) {
    values *= tensor.shape(dimension);
  }
  return values;
}

// The stride of each dimension is what those to its right make it, where `channels_last` puts C to the right of all.
bool is_dense(const Tensor& tensor, bool channels_last) {
  int64_t expected = channels_last ? tensor.shape(1) : 1;
  bool dense = !channels_last || tensor.shape(1) == 1 || tensor.stride(1) == 1;
  for (int dimension = tensor.ndim() - 1; dimension >= 0; --dimension) {
    if (channels_last && dimension == 1) {
      continue;
    }
    dense = dense && (tensor.shape(dimension) == 1 || tensor.stride(dimension) == expected);
    expected *= tensor.shape(dimension);
  }
  return dense;
}

// Of the shape, dtype and device of `x`.
void check_like(const Tensor& tensor, const Argument& argument, const Tensor& x) {
  check_shape(tensor, argument, std::vector<int64_t>(x.view.shape, x.view.shape + x.ndim()));
  if (dtype_of(tensor, argument, false, true) != dtype_of(x, argument, false, true)) {
    refuse_type(argument, "of the dtype of x, " + describe(x.view.dtype), describe(tensor.view.dtype));
  }
  check_same_device(tensor, argument, x);
}

// What is written may not be read.
void check_apart(const Tensor& out, const Tensor& other, const Argument& argument) {
  const int64_t bytes = product(out, 0, out.ndim()) * (out.view.dtype.bits / 8);
  const char* first = out.data<char>();
  const char* second = other.data<char>();
  if (first < second + bytes && second < first + bytes) {
    refuse_value(argument, "in memory of its own", "one that overlaps an input");
  }
}

// What is asked of x alone; the others are then compared with it.
void check_x(const Tensor& x, const Argument& argument) {
  dtype_of(x, argument, false, true);
  if (x.ndim() < 3) {
    refuse_value(argument, "of at least 3 dimensions, [N, C, ...]", describe(x));
  }
}

twostream_response_shape shape_of(const Tensor& x, const Argument& argument, const std::vector<Tensor>& others) {
  bool planar = is_dense(x, false);
  bool channels_last = is_dense(x, true);
  for (const Tensor& tensor : others) {
    planar = planar && is_dense(tensor, false);
    channels_last = channels_last && is_dense(tensor, true);
  }
  const int64_t pixels = product(x, 2, x.ndim());
  if (!planar && !channels_last && product(x, 0, 2) * pixels > 0) {
    refuse_value(argument, "contiguous or channels-last, and the other tensors alike", describe(x));
  }
  const bool longer_along_channels = channels_last && pixels == 1;  // where the two are the same
  return {x.shape(0), x.shape(1), pixels, planar && !longer_along_channels ? 0 : 1, dtype_of(x, argument, false, true)};
}

twostream_response_constants check_constants(const char* name, int64_t size, float alpha, float beta, float k) {
  if (size < 1) {
    refuse_value({name, "size"}, "a positive number of channels", std::to_string(size));
  }
  return {size, alpha, beta, k};
}

void local_response_norm(const py::object& x, int64_t size, float alpha, float beta, float k, const py::object& out) {
  const Tensor input = view_tensor(x, {op, "x"});
  const Tensor output = view_tensor(out, {op, "out"});
  const twostream_response_constants constants = check_constants(op, size, alpha, beta, k);
  check_x(input, {op, "x"});
  check_like(output, {op, "out"}, input);
  const twostream_response_shape shape = shape_of(input, {op, "x"}, {output});
  check_apart(output, input, {op, "out"});
  const twostream_local_response_norm_args args{shape, constants, input.data(), output.data()};
  run(op, twostream_local_response_norm_cpu, twostream_local_response_norm_cuda, args, x, input);
}

void local_response_norm_backward(const py::object& grad, const py::object& x, int64_t size, float alpha, float beta,
                                  float k, const py::object& out) {
  const Tensor gradient = view_tensor(grad, {backward_op, "grad"});
  const Tensor input = view_tensor(x, {backward_op, "x"});
  const Tensor output = view_tensor(out, {backward_op, "out"});
  const twostream_response_constants constants = check_constants(backward_op, size, alpha, beta, k);
  check_x(input, {backward_op, "x"});
  check_like(gradient, {backward_op, "grad"}, input);
  check_like(output, {backward_op, "out"}, input);
  const twostream_response_shape shape = shape_of(input, {backward_op, "x"}, {gradient, output});
  check_apart(output, input, {backward_op, "out"});
  check_apart(output, gradient, {backward_op, "out"});
  const twostream_local_response_norm_backward_args args{shape, constants, gradient.data(), input.data(),
                                                         output.data()};
  run(backward_op, twostream_local_response_norm_backward_cpu, twostream_local_response_norm_backward_cuda, args, x,
      input);
}

}  // namespace

void bind_local_response_norm(py::module_& module) {
  module.def(op, &local_response_norm, py::arg("x"), py::arg("size"), py::arg("alpha"), py::arg("beta"), py::arg("k"),
             py::arg("out"));
  module.def(backward_op, &local_response_norm_backward, py::arg("grad"), py::arg("x"), py::arg("size"),
             py::arg("alpha"), py::arg("beta"), py::arg("k"), py::arg("out"));
}

}  // namespace twostream::python
