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
  check_same_device(tensor, argument, x, "x");
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

twostream_response_constants check_constants(Call& call, int64_t size, float alpha, float beta, float k) {
  if (size < 1) {
    refuse_value({call, "size"}, "a positive number of channels", std::to_string(size));
  }
  return {size, alpha, beta, k};
}

void local_response_norm(const py::object& x, int64_t size, float alpha, float beta, float k, const py::object& out) {
  Call call{op};
  const Tensor input = call.take(x, {call, "x"}, Access::reads);
  const Tensor output = call.take(out, {call, "out"}, Access::writes);
  const twostream_response_constants constants = check_constants(call, size, alpha, beta, k);
  check_x(input, {call, "x"});
  check_like(output, {call, "out"}, input);
  const twostream_response_shape shape = shape_of(input, {call, "x"}, {output});
  const twostream_local_response_norm_args args{shape, constants, input.data(), output.data()};
  run(call, twostream_local_response_norm_cpu, twostream_local_response_norm_cuda, args, x, input);
}

void local_response_norm_backward(const py::object& grad, const py::object& x, int64_t size, float alpha, float beta,
                                  float k, const py::object& out) {
  Call call{backward_op};
  const Tensor gradient = call.take(grad, {call, "grad"}, Access::reads);
  const Tensor input = call.take(x, {call, "x"}, Access::reads);
  const Tensor output = call.take(out, {call, "out"}, Access::writes);
  const twostream_response_constants constants = check_constants(call, size, alpha, beta, k);
  check_x(input, {call, "x"});
  check_like(gradient, {call, "grad"}, input);
  check_like(output, {call, "out"}, input);
  const twostream_response_shape shape = shape_of(input, {call, "x"}, {gradient, output});
  const twostream_local_response_norm_backward_args args{shape, constants, gradient.data(), input.data(),
                                                         output.data()};
  run(call, twostream_local_response_norm_backward_cpu, twostream_local_response_norm_backward_cuda, args, x, input);
}

}  // namespace

void bind_local_response_norm(py::module_& module) {
  module.def(op, &local_response_norm);
  module.def(backward_op, &local_response_norm_backward);
}

}  // namespace twostream::python
