// SPDX-License-Identifier: BSD-3-Clause
#include "python/check.h"

#include <stdexcept>

namespace twostream::python {
namespace {

std::string describe_shape(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t dimension = 0; dimension < shape.size(); ++dimension) {
    text += dimension > 0 ? ", " : "";
    text += shape[dimension] < 0 ? "*" : std::to_string(shape[dimension]);
  }
  return text + "]";
}

std::string describe_size(int64_t height, int64_t width) {
  return std::to_string(height) + "x" + std::to_string(width);
}

int32_t to_extent(int64_t value, const Argument& argument, const Tensor& tensor) {
  if (value < 1 || value > INT32_MAX) {
    refuse_value(argument, "every dimension from 1 to 2147483647", describe(tensor));
  }
  return static_cast<int32_t>(value);
}

// `dimension` is that of the rows; the field dimension, if there is one, comes before it.
twostream_sample sample_at(const Tensor& tensor, const char* data, int dimension, const SampleRules& rules,
                           const Argument& argument) {
  return {data,
          to_extent(tensor.shape(dimension), argument, tensor),
          to_extent(tensor.shape(dimension + 1), argument, tensor),
          rules.has_fields ? tensor.stride(dimension - 1) : 0,
          tensor.stride(dimension),
          tensor.stride(dimension + 1),
          tensor.stride(dimension + 2)};
}

void check_output_strides(const Tensor& tensor, const Argument& argument) {
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    if (tensor.stride(dimension) == 0 && tensor.shape(dimension) > 1) {
      refuse_value(argument, "no dimension that is expanded (stride 0)", describe(tensor));
    }
  }
}

void check_positions(const char* op, const CropTarget& target, const Samples& samples) {
  for (size_t index = 0; index < samples.samples.size(); ++index) {
    const twostream_sample& sample = samples.samples[index];
    for (int32_t place = 0; place < target.windows_per_sample; ++place) {
      const int32_t* window = target.windows + (index * target.windows_per_sample + place) * 3;
      if (window[0] < 0 || window[0] > sample.height - target.stack.height || window[1] < 0 ||
          window[1] > sample.width - target.stack.width) {
        refuse_value({op, "windows", static_cast<int64_t>(index)},
                     "a " + describe_size(target.stack.height, target.stack.width) + " window inside its " +
                         describe_size(sample.height, sample.width) + " sample",
                     "top " + std::to_string(window[0]) + ", left " + std::to_string(window[1]));
      }
    }
  }
}

}  // namespace

bool is_type(const Tensor& tensor, DLDataTypeCode code, int bits) {
  const DLDataType& type = tensor.view.dtype;
  return type.code == code && type.bits == bits && type.lanes == 1;
}

void refuse_value(const Argument& argument, const std::string& wanted, const std::string& got) {
  throw py::value_error(argument.text() + " must be " + wanted + ", got " + got);
}

void refuse_type(const Argument& argument, const std::string& wanted, const std::string& got) {
  throw py::type_error(argument.text() + " must be " + wanted + ", got " + got);
}

twostream_dtype dtype_of(const Tensor& tensor, const Argument& argument, bool allow_uint8, bool allow_float) {
  if (allow_uint8 && is_type(tensor, kDLUInt, 8)) {
    return TWOSTREAM_UINT8;
  }
  if (allow_float && is_type(tensor, kDLFloat, 32)) {
    return TWOSTREAM_FLOAT32;
  }
  if (allow_float && is_type(tensor, kDLFloat, 16)) {
    return TWOSTREAM_FLOAT16;
  }
  if (allow_float && is_type(tensor, kDLBfloat, 16)) {
    return TWOSTREAM_BFLOAT16;
  }
  const char* wanted = !allow_float   ? "uint8"
                       : !allow_uint8 ? "float32, float16 or bfloat16"
                                      : "uint8, float32, float16 or bfloat16";
  refuse_type(argument, wanted, describe(tensor.view.dtype));
}

void check_shape(const Tensor& tensor, const Argument& argument, const std::vector<int64_t>& wanted) {
  bool same = tensor.ndim() == static_cast<int>(wanted.size());
  for (size_t dimension = 0; same && dimension < wanted.size(); ++dimension) {
    same = wanted[dimension] < 0 || wanted[dimension] == tensor.shape(static_cast<int>(dimension));
  }
  if (!same) {
    refuse_value(argument, "of shape " + describe_shape(wanted), describe(tensor));
  }
}

void check_contiguous(const Tensor& tensor, const Argument& argument) {
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    if (tensor.shape(dimension) == 0) {
      return;  // torch gives empty tensors any strides
    }
  }
  int64_t expected = 1;
  for (int dimension = tensor.ndim() - 1; dimension >= 0; --dimension) {
    if (tensor.shape(dimension) != 1 && tensor.stride(dimension) != expected) {
      refuse_value(argument, "contiguous", describe(tensor) + " with other strides");
    }
    expected *= tensor.shape(dimension);
  }
}

void check_same_device(const Tensor& tensor, const Argument& argument, const Tensor& reference) {
  const DLDevice& device = tensor.view.device;
  if (device.device_type != reference.view.device.device_type || device.device_id != reference.view.device.device_id) {
    refuse_value(argument, "on the device of the first argument, " + describe(reference), describe(tensor));
  }
}

Samples collect_samples(const py::sequence& objects, const Argument& argument, const SampleRules& rules) {
  const std::vector<Tensor> tensors = view_tensors(objects, argument);
  if (tensors.empty()) {
    refuse_value(argument, "a tensor or a list of at least one tensor", "an empty list");
  }
  const int sample_dimensions = rules.has_fields ? 4 : 3;
  const bool uniform = tensors.size() == 1 && tensors[0].ndim() == sample_dimensions + 1;

  Samples samples;
  samples.first = tensors[0];
  samples.object = objects[0];
  samples.length = rules.has_fields ? to_extent(tensors[0].shape(uniform ? 1 : 0), argument, tensors[0]) : 1;
  if (samples.length > INT32_MAX / 2) {
    refuse_value(argument, "of at most 1073741823 fields", std::to_string(samples.length));
  }
  samples.dtype = dtype_of(tensors[0], argument, rules.allow_uint8, rules.allow_float);

  std::vector<int64_t> wanted = rules.has_fields ? std::vector<int64_t>{samples.length, -1, -1, rules.components}
                                                 : std::vector<int64_t>{-1, -1, rules.components};
  if (uniform) {
    const Tensor& tensor = tensors[0];
    const Argument whole{argument.op, argument.name};
    wanted.insert(wanted.begin(), -1);
    check_shape(tensor, whole, wanted);
    const int64_t sample_bytes = tensor.stride(0) * (tensor.view.dtype.bits / 8);
    samples.samples.reserve(static_cast<size_t>(tensor.shape(0)));
    for (int64_t index = 0; index < tensor.shape(0); ++index) {
      samples.samples.push_back(
          sample_at(tensor, tensor.data<char>() + index * sample_bytes, rules.has_fields ? 2 : 1, rules, whole));
    }
    return samples;
  }
  samples.samples.reserve(tensors.size());
  for (size_t index = 0; index < tensors.size(); ++index) {
    const Tensor& tensor = tensors[index];
    const Argument each{argument.op, argument.name, static_cast<int64_t>(index)};
    check_shape(tensor, each, wanted);
    check_same_device(tensor, each, samples.first);
    if (dtype_of(tensor, each, rules.allow_uint8, rules.allow_float) != samples.dtype) {
      refuse_type(each, "of the dtype of the first, " + describe(samples.first.view.dtype),
                  describe(tensor.view.dtype));
    }
    samples.samples.push_back(sample_at(tensor, tensor.data<char>(), rules.has_fields ? 1 : 0, rules, each));
  }
  return samples;
}

void check_writable(const Samples& samples, const Argument& argument) {
  const void* last = nullptr;
  for (const twostream_sample& sample : samples.samples) {
    const bool expanded = sample.data == last || (sample.field_stride == 0 && samples.length > 1) ||
                          (sample.row_stride == 0 && sample.height > 1) ||
                          (sample.column_stride == 0 && sample.width > 1) || sample.component_stride == 0;
    if (expanded) {
      refuse_value(argument, "no dimension that is expanded (stride 0)", describe(samples.first));
    }
    last = sample.data;
  }
}

void check_same_sizes(const Samples& samples, const Argument& argument, const Samples& reference) {
  check_same_device(samples.first, argument, reference.first);
  bool same = samples.samples.size() == reference.samples.size() && samples.length == reference.length;
  for (size_t index = 0; same && index < samples.samples.size(); ++index) {
    same = samples.samples[index].height == reference.samples[index].height &&
           samples.samples[index].width == reference.samples[index].width;
  }
  if (!same) {
    refuse_value(argument, "of the sizes of the first argument, " + describe(reference.first), describe(samples.first));
  }
}

float* optional_per_field(const py::object& object, const Argument& argument, const Samples& samples) {
  return object.is_none() ? nullptr : required_per_field(object, argument, samples);
}

float* required_per_field(const py::object& object, const Argument& argument, const Samples& samples) {
  const Tensor tensor = view_tensor(object, argument);
  if (!is_type(tensor, kDLFloat, 32)) {
    refuse_type(argument, "float32", describe(tensor.view.dtype));
  }
  check_shape(tensor, argument, {static_cast<int64_t>(samples.samples.size()), samples.length, 2});
  check_contiguous(tensor, argument);
  check_same_device(tensor, argument, samples.first);
  return tensor.data<float>();
}

Coding check_coding(const char* op, const py::object& lo, const py::object& step, const Samples& samples) {
  const bool coded = samples.dtype == TWOSTREAM_UINT8;
  for (const auto& [name, object] : {std::pair{"lo", &lo}, std::pair{"step", &step}}) {
    if (object->is_none() == coded) {
      refuse_value({op, name}, coded ? "given with uint8 fields" : "left out with float fields",
                   coded ? "None" : "a tensor");
    }
  }
  return {optional_per_field(lo, {op, "lo"}, samples), optional_per_field(step, {op, "step"}, samples)};
}

namespace {

CropTarget check_stack(const char* op, const py::object& windows, const py::object& stack, const char* stack_name,
                       const Samples& samples, int64_t channels) {
  const auto count = static_cast<int64_t>(samples.samples.size());
  const Tensor window_tensor = view_tensor(windows, {op, "windows"});
  if (!is_type(window_tensor, kDLInt, 32)) {
    refuse_type({op, "windows"}, "int32", describe(window_tensor.view.dtype));
  }
  const bool several = window_tensor.ndim() == 3;
  if (several) {
    check_shape(window_tensor, {op, "windows"}, {count, -1, 3});
  } else {
    check_shape(window_tensor, {op, "windows"}, {count, 3});
  }
  check_contiguous(window_tensor, {op, "windows"});
  check_same_device(window_tensor, {op, "windows"}, samples.first);

  const Argument argument{op, stack_name};
  const Tensor tensor = view_tensor(stack, argument);
  const twostream_dtype dtype = dtype_of(tensor, argument, false, true);
  const int64_t windows_per_sample = several ? window_tensor.shape(1) : 1;
  if (several) {
    check_shape(tensor, argument, {count, windows_per_sample, channels, -1, -1});
  } else {
    check_shape(tensor, argument, {count, channels, -1, -1});
  }
  check_same_device(tensor, argument, samples.first);
  const int channel_dimension = several ? 2 : 1;

  CropTarget target{};
  target.windows = window_tensor.data<int32_t>();
  if (windows_per_sample > INT32_MAX) {
    refuse_value({op, "windows"}, "at most 2147483647 a sample", std::to_string(windows_per_sample));
  }
  target.windows_per_sample = static_cast<int32_t>(windows_per_sample);
  target.stack = {tensor.data(),
                  dtype,
                  to_extent(tensor.shape(channel_dimension + 1), {op, "size"}, tensor),
                  to_extent(tensor.shape(channel_dimension + 2), {op, "size"}, tensor),
                  tensor.stride(0),
                  several ? tensor.stride(1) : 0,
                  tensor.stride(channel_dimension),
                  tensor.stride(channel_dimension + 1),
                  tensor.stride(channel_dimension + 2)};
  for (size_t index = 0; index < samples.samples.size(); ++index) {
    const twostream_sample& sample = samples.samples[index];
    if (sample.height < target.stack.height || sample.width < target.stack.width) {
      refuse_value(
          {op, "size"},
          "at most the size of sample " + std::to_string(index) + ", " + describe_size(sample.height, sample.width),
          describe_size(target.stack.height, target.stack.width));
    }
  }
  if (!window_tensor.for_cuda_kernels()) {
    check_positions(op, target, samples);
  }
  return target;
}

}  // namespace

CropTarget check_crop(const char* op, const py::object& windows, const py::object& out, const Samples& samples,
                      int64_t channels) {
  const CropTarget target = check_stack(op, windows, out, "out", samples, channels);
  check_output_strides(view_tensor(out, {op, "out"}), {op, "out"});
  return target;
}

CropTarget check_crop_gradient(const char* op, const py::object& windows, const py::object& gradient,
                               const Samples& samples, int64_t channels) {
  return check_stack(op, windows, gradient, "gradient", samples, channels);
}

void check_halves(const Argument& argument, const Samples& samples, bool bidirectional) {
  if (bidirectional && samples.length % 2 != 0) {
    refuse_value(argument, "of an even number of fields when bidirectional, half forward and half backward",
                 std::to_string(samples.length) + " fields");
  }
}

WindowsTarget check_windows_target(const char* op, const py::object& sizes, int64_t height, int64_t width,
                                   const py::object& out, const std::vector<int64_t>& wanted) {
  const Argument argument{op, "sizes"};
  const Tensor tensor = view_tensor(sizes, argument);
  if (!is_type(tensor, kDLInt, 64)) {
    refuse_type(argument, "int64", describe(tensor.view.dtype));
  }
  check_shape(tensor, argument, {-1, 2});
  check_contiguous(tensor, argument);
  if (height < 1 || height > INT32_MAX || width < 1 || width > INT32_MAX) {
    refuse_value({op, "size"}, "two positive numbers", describe_size(height, width));
  }
  if (!tensor.for_cuda_kernels()) {
    for (int64_t index = 0; index < tensor.shape(0); ++index) {
      const int64_t* each = tensor.data<int64_t>() + index * 2;
      if (each[0] < height || each[1] < width || each[0] > INT32_MAX || each[1] > INT32_MAX) {
        refuse_value({op, "sizes", index}, "at least the window's size, " + describe_size(height, width),
                     describe_size(each[0], each[1]));
      }
    }
  }
  const Tensor windows = view_tensor(out, {op, "out"});
  if (!is_type(windows, kDLInt, 32)) {
    refuse_type({op, "out"}, "int32", describe(windows.view.dtype));
  }
  check_shape(windows, {op, "out"}, wanted);
  check_contiguous(windows, {op, "out"});
  check_same_device(windows, {op, "out"}, tensor);
  if (windows.shape(0) != tensor.shape(0)) {
    refuse_value({op, "out"}, "as long as sizes, " + describe(tensor), describe(windows));
  }
  return {tensor, windows.data<int32_t>()};
}

void raise_status(const char* op, int status) {
  if (status != TWOSTREAM_SUCCESS) {
    throw std::runtime_error(std::string(op) + ": " + twostream_status_string(status));
  }
}

}  // namespace twostream::python
